"""Copies, hashes and syncs files of a baseline. Nothing is held in memory."""

import hashlib
import os
import shutil
from pathlib import Path

from comfyload.errors import RunFilesError, file_errors
from comfyload.record.lock import LOCK


def copy_run(run: Path, folder: Path) -> str:
    """Copy a run directory whole into `folder/runs/`; returns where, relative to `folder`.

    Raises:
        RunFilesError: it cannot be read, or holds a link or something else that is not a plain file.
    """
    run = run.resolve()
    parent = folder / "runs"
    name, number = run.name, 1
    while (parent / name).exists():
        number += 1
        name = f"{run.name}-{number}"
    with file_errors(f"cannot copy {run}"):
        plain, other = walk(run)
        if other:
            raise RunFilesError(
                f"{run / other[0]} is not a plain file", "a baseline holds plain files; remove it first"
            )
        (parent / name).mkdir(parents=True)
        for relative in plain:
            if relative.rpartition("/")[2] == LOCK:  # of a process that died
                continue
            copy = parent / name / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / relative, copy)
    return f"runs/{name}"


def walk(folder: Path) -> tuple[set[str], list[str]]:
    """All plain files below, and other entries; relative paths with `/`. Links are not followed."""
    plain: set[str] = set()
    other: list[str] = []

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        for name in [*folders, *files]:
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                other.append(relative)
            elif path.is_file():
                plain.add(relative)
    return plain, sorted(other)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, *, but: str) -> dict[str, str]:
    """Sync every file but one to the disk; returns their sha256.

    Raises:
        RunFilesError: an entry is not a plain file, or has a name that cannot be written as text.
    """
    plain, other = walk(folder)
    strange = other + sorted(name for name in plain if not name.isprintable())
    if strange:
        raise RunFilesError(f"{strange[0]!r} is not a plain file with a plain name", "a baseline cannot hold it")
    hashes: dict[str, str] = {}
    for relative in sorted(plain - {but}):
        with (folder / relative).open("r+b") as file:
            hashes[relative] = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
    return hashes


def sync_folder(folder: Path) -> None:
    """Sync a folder, that is the names of its files, to the disk; Windows has no call for that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
