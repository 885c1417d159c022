"""What the server under test is: the facts that only its own process can tell, each with its source.

The keys are those that comfyload uses for what it finds out itself; so are the values, down to how they are written.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .checkout import Unknown, commit_of, pack_fact
from .enclosure import enclosure_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .gpus import Gpus

__all__ = ["facts", "without_secrets"]

Facts = dict[str, dict[str, object]]

FRONTEND = "comfyui-frontend-package"
HERE = "probe"


def facts(gpus: Gpus) -> Facts:
    """All of them; takes up to seconds, runs git, and never raises: what fails is unknown, with the reason."""
    parts: dict[str, Callable[[], Facts]] = {
        "gpu": gpus.facts,
        "enclosure": enclosure_facts,
        "host": _host,
        "comfyui": _comfyui,
        "custom_nodes": _packs,
    }
    found: Facts = {}
    for name, part in parts.items():
        try:
            found |= part()
        except Exception as error:  # noqa: BLE001 - one part that cannot be told does not take the others with it
            found[name] = _unknown(f"probe: {type(error).__name__}: {str(error)[:200]}")
    return found


def without_secrets(argv: Sequence[str]) -> list[str]:
    """A command line without what looks like a token or a password."""
    secret = re.compile(r"(key|token|secret|password|passwd|auth)", re.IGNORECASE)
    kept: list[str] = []
    for part in argv:
        flag, equals, _ = part.partition("=")
        before = kept[-1] if kept else ""
        if before.startswith("-") and "=" not in before and secret.search(before) and not part.startswith("-"):
            kept.append("***")
        elif equals and flag.startswith("-") and secret.search(flag):
            kept.append(f"{flag}=***")
        else:
            kept.append(re.sub(r"://[^/@\s]+:[^/@\s]+@", "://***@", part))
    return kept


def _host() -> Facts:
    known: dict[str, object] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "ram_bytes": _ram_bytes(),
        "os": _os_name(),
        "kernel": f"{platform.system()} {platform.release()}",
    }
    return {f"host.{key}": {"value": value, "source": HERE} for key, value in known.items()}


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        pass
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().total)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform(terse=True)


def _comfyui() -> Facts:
    version = getattr(sys.modules.get("comfyui_version"), "__version__", None)
    torch = getattr(getattr(sys.modules.get("torch"), "version", None), "__version__", None)
    told: Facts = {
        "comfyui.version": _known(version, "comfyui_version") if version else _unknown("ComfyUI does not tell it"),
        "comfyui.argv": _known(shlex.join(without_secrets(sys.argv)), HERE),
        "comfyui.python": _known(sys.version, HERE),
        "comfyui.torch": _known(str(torch), "torch") if torch else _unknown("torch is not loaded"),
        "comfyui.frontend": _frontend(),
    }
    return told | _commit()


def _frontend() -> dict[str, object]:
    try:
        return _known(metadata.version(FRONTEND), f"the installed {FRONTEND}")
    except metadata.PackageNotFoundError:
        return _unknown(f"{FRONTEND} is not installed")


def _commit() -> Facts:
    folder = _comfyui_folder()
    if folder is None:
        why = _unknown("the folder of ComfyUI is not known")
        return {"comfyui.commit": why, "comfyui.dirty": why}
    try:
        commit, dirty, source = commit_of(folder)
    except Unknown as unknown:
        why = _unknown(str(unknown))
        return {"comfyui.commit": why, "comfyui.dirty": why}
    return {"comfyui.commit": _known(commit, source), "comfyui.dirty": {"value": dirty, "source": source}}


def _comfyui_folder() -> Path | None:
    """Where ComfyUI's own files lie, which need not be where its models and custom nodes are."""
    for name in ("folder_paths", "comfyui_version"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file:
            return Path(file).resolve().parent
    return None


def _packs() -> Facts:
    """Every pack in every folder that ComfyUI looks into, also those of extra_model_paths.yaml."""
    folder_paths = sys.modules.get("folder_paths")
    if folder_paths is None:
        return {}
    found: Facts = {}
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        try:
            packs = sorted(path for path in Path(folder).iterdir() if _is_pack(path))
        except OSError:
            continue
        for path in packs:
            name = path.stem if path.is_file() else path.name
            key = f"custom_nodes.{name}"
            found[key if key not in found else f"{key} in {folder}"] = _guarded(path)
    return found


def _is_pack(path: Path) -> bool:
    """A folder or a Python file that is not disabled; what is hidden holds no pack."""
    hidden = path.name.startswith((".", "__")) or path.name.endswith(".disabled")
    return not hidden and (path.is_dir() or path.suffix == ".py")


def _guarded(path: Path) -> dict[str, object]:
    try:
        return pack_fact(path)
    except OSError as error:
        return _unknown(f"its folder cannot be read: {error.strerror or error}")


def _known(value: object, source: str) -> dict[str, object]:
    return {"value": value, "source": source}


def _unknown(why: str) -> dict[str, object]:
    return {"value": None, "source": why}
