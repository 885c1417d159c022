"""Which runs there are below a folder."""

import os
from pathlib import Path

from msgspec import Struct

from comfyload.errors import RunFilesError
from comfyload.record.journal import RECORDS
from comfyload.record.model import Manifest
from comfyload.record.run import EVENTS, MANIFEST, SAMPLES, RunReader
from comfyload.web.follow import is_held

MOST_LEVELS = 3
"""How deep below the folder a run may lie."""
MOST_FOLDERS = 20_000
"""Looked into by one scan; what lies beyond is not found."""

_Known = tuple[tuple[int, int, int], Manifest]


class RunEntry(Struct, frozen=True, kw_only=True):
    """A run. `id`: its path below the folder, with '/'. `modified`: when its journal was written last, Unix seconds."""

    id: str
    path: Path
    manifest: Manifest
    running: bool
    modified: float


class RunFolder:
    """The runs below `root`. Baselines of an `archive` below it are no runs of the list."""

    def __init__(self, root: Path, archive: Path | None = None) -> None:
        self.root = root
        self._real = _real(root)
        self._archive = None if archive is None else _real(archive)
        self._known: dict[Path, _Known] = {}
        self._found: dict[str, RunEntry] = {}

    def scan(self) -> list[RunEntry]:
        """All that can be read, the newest first. A manifest is read again only if it was replaced."""
        self._real = _real(self.root)
        looked, known = 0, dict[Path, _Known]()
        level = [self.root]
        entries = list[RunEntry]()
        for _ in range(MOST_LEVELS + 1):
            inner = list[Path]()
            for folder in level:
                looked += 1
                if looked > MOST_FOLDERS:
                    break
                entry = self._entry(folder, known)
                if entry is not None:
                    entries.append(entry)
                else:
                    inner += [path for path in _folders(folder) if self._is_ours(path)]
            level = inner
        self._known = known
        entries.sort(key=lambda entry: (entry.manifest.started_utc, entry.id), reverse=True)
        self._found = {entry.id: entry for entry in entries}
        return entries

    def find(self, run_id: str) -> RunEntry | None:
        """The run of that id that the last scan found."""
        return self._found.get(run_id)

    def _entry(self, folder: Path, known: dict[Path, _Known]) -> RunEntry | None:
        file = folder / MANIFEST
        try:
            found = file.stat()
            at = found.st_ino, found.st_mtime_ns, found.st_size
            if any(self._leads_out(folder / name) for name in (MANIFEST, RECORDS, SAMPLES, EVENTS)):
                return None
            before = self._known.get(folder)
            manifest = before[1] if before is not None and before[0] == at else RunReader(folder).manifest
        except (OSError, ValueError, RunFilesError):
            return None
        known[folder] = at, manifest
        return RunEntry(
            id=folder.relative_to(self.root).as_posix(),
            path=folder,
            manifest=manifest,
            running=manifest.end is None and is_held(folder, manifest),
            modified=_modified(folder, found.st_mtime),
        )

    def _is_ours(self, path: Path) -> bool:
        """Whether a folder is looked into: not the archive, and no link to another place."""
        if self._leads_out(path):
            return False
        return self._archive is None or not _real(path).is_relative_to(self._archive)

    def _leads_out(self, path: Path) -> bool:
        return path.is_symlink() and not _real(path).is_relative_to(self._real)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return [folder / each.name for each in found if not each.name.startswith(".") and each.is_dir()]
    except OSError:
        return []


def _modified(folder: Path, otherwise: float) -> float:
    try:
        return max(otherwise, (folder / RECORDS).stat().st_mtime)
    except OSError:
        return otherwise


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
