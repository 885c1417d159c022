"""The node pack as a folder among custom nodes: what lies there, how it is put there and taken away.

It is copied aside and renamed, with a file that lists what was installed, so that half a pack never exists and nothing
is removed that did not come from here. Names aside end in `.disabled`: ComfyUI loads folders that begin with a dot.
"""

import importlib.resources
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import psutil
from msgspec import Struct

from comfyload.errors import UsageError, file_errors
from comfyload.record.copies import sha256, sync_folder, walk
from comfyload.record.environment.git import declared_version

NAME = "comfyload_probe"
MARK = ".comfyload_probe.json"
FORMAT = 1
SAME_USER = "run this as the user that ComfyUI runs as"

State = Literal["absent", "installed", "link", "foreign"]


class Mark(Struct, frozen=True, kw_only=True):
    """What was installed: `files` are the sha256 of each by its path in the folder."""

    format: int
    version: str
    files: dict[str, str]


class FileChanges(Struct, frozen=True, kw_only=True):
    """How a pack differs from what was installed: other contents, files gone, files that came from elsewhere."""

    changed: list[str] = []
    missing: list[str] = []
    added: list[str] = []


class Pack(Struct, frozen=True, kw_only=True):
    """What lies where the pack belongs. `version` and `changes` are of one that comfyload installed."""

    path: Path
    state: State
    version: str | None = None
    changes: FileChanges = FileChanges()
    link_to: str | None = None


def look(folder: Path) -> Pack:
    """What lies at the pack's place in the folder of custom nodes."""
    path = folder / NAME
    if path.is_symlink():
        return Pack(path=path, state="link", link_to=str(path.readlink()))
    if not path.exists():
        return Pack(path=path, state="absent")
    mark = mark_at(path)
    if mark is None:
        return Pack(path=path, state="foreign")
    with file_errors(f"cannot read {path}", SAME_USER, UsageError):
        return Pack(path=path, state="installed", version=mark.version, changes=_changes(path, mark))


def source_of_pack() -> Path:
    """The pack as this comfyload brings it: inside the package, or next to `src` in a checkout."""
    package = Path(str(importlib.resources.files("comfyload")))
    for place in (package / "pack" / NAME, package.parents[1] / "pack" / NAME):
        if (place / "__init__.py").is_file():
            return place
    raise UsageError("this comfyload was installed without the probe", "install it again: pip install comfyload")


def version_of(source: Path) -> str:
    declared = declared_version(source)
    return declared[0] if declared else "unknown"


def files_of(folder: Path) -> list[str]:
    """What belongs to a pack: no bytecode, nothing hidden, no links."""
    plain, _ = walk(folder)
    hidden = {name for name in plain if any(part.startswith(".") for part in name.split("/"))}
    return sorted(name for name in plain - hidden if not _is_bytecode(name))


def _is_bytecode(name: str) -> bool:
    return name.endswith(".pyc") or name.split("/")[-1] == "__pycache__"


def mark_at(path: Path) -> Mark | None:
    try:
        mark = msgspec.json.decode((path / MARK).read_bytes(), type=Mark)
    except (OSError, msgspec.DecodeError):
        return None
    # The names come from a file that anyone may have written, and are removed by it.
    inside = all(re.fullmatch(r"[^\\/:]+(/[^\\/:]+)*", name) and ".." not in name.split("/") for name in mark.files)
    return mark if inside else None


def mark_of(folder: Path, files: Sequence[str], version: str) -> Mark:
    return Mark(format=FORMAT, version=version, files={name: sha256(folder / name) for name in files})


def _changes(path: Path, mark: Mark) -> FileChanges:
    plain, other = walk(path)
    there = {name for name in plain if not _is_bytecode(name)} - {MARK} | set(other)
    known = set(mark.files)
    changed = [name for name in sorted(known & there) if name in other or sha256(path / name) != mark.files[name]]
    return FileChanges(changed=changed, missing=sorted(known - there), added=sorted(there - known))


def put(source: Path, files: Sequence[str], pack: Pack, kept: Sequence[str], version: str) -> None:
    """Copy aside, then rename; what goes wrong leaves what was there."""
    folder = pack.path.parent
    new, old = _aside(folder, "new"), _aside(folder, "old")
    try:
        for name in files:
            _copy(source / name, new / name)
        for name in kept:
            _copy(pack.path / name, new / name)
        (new / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(mark_of(new, files, version)), indent=2))
        if pack.state != "absent":
            pack.path.rename(old)
        try:
            new.rename(pack.path)
        except OSError:
            if pack.state != "absent":
                old.rename(pack.path)
            raise
        sync_folder(folder)
    finally:
        _discard(new)
        _discard(old)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)


def take_away(pack: Pack) -> int:
    """Remove our files, what Python compiled from them, and folders that are empty then; returns how many files."""
    mark = mark_at(pack.path)
    known = set() if mark is None else set(mark.files)
    ours, left = sorted(known - set(pack.changes.missing)), pack.changes.added
    if not left:
        gone = _aside(pack.path.parent, "old")
        pack.path.rename(gone)  # at once: half a pack would be loaded, and fail
        _discard(gone)
        return len(ours)
    for name in [*ours, MARK]:
        (pack.path / name).unlink(missing_ok=True)
    for place, _, _ in os.walk(pack.path, topdown=False):
        if Path(place).name == "__pycache__":
            shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # it is not empty
            Path(place).rmdir()
    return len(ours)


def _aside(folder: Path, what: str) -> Path:
    return folder / f".{NAME}.{os.getpid()}.{what}.disabled"


def left_over(folder: Path) -> list[str]:
    """Folders aside of installations that were cut short."""
    found = []
    for path in folder.glob(f".{NAME}.*.disabled"):
        pid = re.fullmatch(rf"\.{NAME}\.(\d{{1,9}})\.(new|old)\.disabled", path.name)
        if pid and (int(pid[1]) == os.getpid() or not psutil.pid_exists(int(pid[1]))):
            found.append(path.name)
    return sorted(found)


def clear(folder: Path) -> None:
    for name in left_over(folder):
        _discard(folder / name)


def _discard(path: Path) -> None:
    """Whatever it is; a link is taken away, not what it leads to."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, ignore_errors=True)
