"""A person's label of a run: `label.txt` in its directory, the one file there that may be written anew."""

import os
import stat
from pathlib import Path

from comfyload.errors import UsageError, file_errors
from comfyload.judge.columns.ledger import clean
from comfyload.record.atomic import replace_file
from comfyload.record.codec import printable

LABEL = "label.txt"
LONGEST = 100
"""Characters of a label."""


def label_of(run: Path) -> str:
    """The label of the run, "" if it has none. A link is none: it could lead to any file."""
    try:
        descriptor = os.open(run / LABEL, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(4 * LONGEST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return ""
    return clean(content.decode("utf-8", "replace"), LONGEST)


def write_label(run: Path, text: str) -> str:
    """Give the run this label, in place of the one that it has; "" takes it away. Returns it as it is read.

    Raises:
        UsageError: it is too long, or cannot be written.
    """
    if len(text) > LONGEST:
        raise UsageError(f"a label has at most {LONGEST} characters, and this one {len(text)}")
    label = clean(printable(text), LONGEST)
    with file_errors(f"cannot write {run / LABEL}"):
        if label:
            replace_file(run / LABEL, f"{label}\n".encode())
        else:
            (run / LABEL).unlink(missing_ok=True)
    return label
