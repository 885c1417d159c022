"""Knows how to put a file in place as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from comfyload.errors import UsageError

__all__ = ["written_aside"]


@contextmanager
def written_aside(path: Path, hint: str = "name a file in a folder you can write") -> Iterator[Path]:
    """A name beside `path` to write to; it takes the place of `path` when the block ends well, else it is removed.

    Raises:
        UsageError: it cannot be written there.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}", hint) from None
    finally:
        with suppress(OSError):  # it is gone if all went well, and never was if the folder is missing
            aside.unlink()
