"""comfyload probe: records what a ComfyUI server does, for comfyload and whoever reads the log. It adds no nodes."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]

NODE_CLASS_MAPPINGS: dict[str, Any] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
WEB_DIRECTORY = "./web"

_log = logging.getLogger("comfyload_probe")


def _start() -> Any:
    """Start the probe of the ComfyUI that imports this; None where there is none, or it must not or cannot run."""
    try:
        server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
        if server is None:
            return None
        from .probe import Probe
        from .settings import Settings

        paths = sys.modules.get("folder_paths")
        user_dir = paths.get_user_directory() if paths is not None else None
        settings = Settings.from_environ(os.environ, user_dir)
        if settings.off:
            _log.info("comfyload probe: off, as COMFYLOAD_PROBE_OFF says")
            return None
        probe = Probe(settings, server)
        if not probe.start():
            return None
        _add_routes(probe, server)
        _log.info("comfyload probe: writes to %s", settings.log or "memory alone")
        return probe
    except Exception:  # noqa: BLE001 - ComfyUI starts whatever is wrong in here
        _log.exception("the comfyload probe could not start; ComfyUI goes on without it")
        return None


def _add_routes(probe: Any, server: Any) -> None:
    try:
        from .routes import register

        register(probe, server.routes)
    except Exception:  # noqa: BLE001
        _log.exception("the comfyload probe has no routes; it writes its log all the same")


_start()
