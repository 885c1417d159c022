"""Text kept in files: compared, or written anew where COMFYLOAD_UPDATE_GOLDEN is 1."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["UPDATE", "same_as_kept"]

UPDATE = "COMFYLOAD_UPDATE_GOLDEN"
_FILES = Path(__file__).parent / "files"


def same_as_kept(name: str, text: str) -> None:
    """Fail unless the file holds the text."""
    path = _FILES / name
    if os.environ.get(UPDATE) == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text == kept, f"{name} has changed; if it should have: {UPDATE}=1 python -m pytest tests/golden"
