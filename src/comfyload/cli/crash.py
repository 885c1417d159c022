"""The file that a report of a mistake of ours needs: the traceback, and nothing secret."""

import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from comfyload.errors import OwnFault
from comfyload.hidden import without_hidden


def write_crash(fault: OwnFault) -> Path | None:
    """Write the traceback of its cause into its run directory, the working directory, or the one for temporary files.

    None: none of them can be written to. Only its user can read the file.
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
