"""A mistake of ours: what a report of it needs, in a file, and nothing secret."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from comfyload.hidden import without_hidden

if TYPE_CHECKING:
    from comfyload.errors import OwnFault

__all__ = ["write_crash"]


def write_crash(fault: OwnFault) -> Path | None:
    """Write the traceback of what caused it in its run directory, the working directory or that for temporary files.

    None: it can be written in none of them. The file is its user's alone.
    """
    head = f"comfyload {version('comfyload')}, Python {platform.python_version()} on {platform.platform()}"
    text = "".join([head, "\n", f"{sys.argv[1:2]}\n\n", *traceback.format_exception(fault.cause)])
    content = without_hidden(text).encode("utf-8", "backslashreplace")
    name = f"crash-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.txt"
    places = [fault.run / name] if fault.run else []
    for file in [*places, Path(f"comfyload-{name}"), Path(tempfile.gettempdir()) / f"comfyload-{name}"]:
        try:
            file.touch(mode=0o600)
            file.write_bytes(content)
        except OSError:
            continue
        return file
    return None
