"""The state of files by their sizes and times, and whether a process writes them: equal states, equal answers."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from comfyload.record.archive import PROMOTED
from comfyload.record.journal import RECORDS, parts
from comfyload.record.lock import is_taken
from comfyload.record.run import LOG, MANIFEST, SAMPLES

FileState = tuple[Any, ...]
Side = tuple[tuple[str, str], ...]
"""Runs and baselines, such as those of one side of a comparison: `("run", path)` or `("baseline", folder)`."""


def run_state(path: Path) -> FileState:
    """The state of a run's files, of which none is read, and whether a process holds the run or the folder around it,
    as a gateway does.
    """
    path = path.absolute()
    files = [_of(file) for name in (MANIFEST, RECORDS, SAMPLES, LOG) for file in parts(path / name)]
    return is_taken(path), is_taken(path.parent), *files


def archive_state(folder: Path) -> FileState:
    """The state of what lies in an archive, but for the runs of its baselines."""
    found: list[FileState] = [_of(folder / PROMOTED)]
    folders = [entry for entry in _entries(folder) if entry.is_dir()]
    found += [(entry.name, *((file.name, *_of(file)) for file in _entries(entry))) for entry in folders]
    return tuple(found)


def baseline_state(folder: Path, name: str) -> FileState:
    """The state of all that lies in a baseline; of one that is not there, ()."""
    if name == PROMOTED:
        return archive_state(folder)
    if name not in {entry.name for entry in _entries(folder)}:
        return ()
    found = []
    for place, _, files in os.walk(folder / name):
        found += [(place, file, *_of(Path(place, file))) for file in files]
    return tuple(sorted(found))


def _entries(folder: str | Path | os.DirEntry[str]) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _of(file: Path | os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns
