"""Which runs there are below a folder."""

import os
import re
from pathlib import Path

from msgspec import Struct, structs

from comfyload.errors import RunFilesError
from comfyload.record.journal import RECORDS, journal_of
from comfyload.record.model import Manifest
from comfyload.record.run import EVENTS, MANIFEST, SAMPLES, RunReader
from comfyload.web.follow import is_held

MOST_LEVELS = 3
"""How deep below the folder a run may lie."""
MOST_FOLDERS = 20_000
"""Looked into by one scan; what lies beyond is not found."""

_ADDRESSABLE = re.compile("[^\x00-\x1f\x7f\ud800-\udfff]*")
"""Names that are no text, or that break a line, stand in no address, and one of them would keep all from the page."""
_FILES = (MANIFEST, RECORDS, SAMPLES, EVENTS)
_Known = tuple[tuple[int, int, int], Manifest]
_Files = dict[str, os.DirEntry[str]]


class RunEntry(Struct, frozen=True, kw_only=True):
    """A run. `id`: its path below the folder, with '/'. `manifest`: without the workflows' graphs. `modified`: when its
    journal was written last, Unix seconds.
    """

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
        self._known: dict[str, _Known] = {}
        self._found: dict[str, RunEntry] = {}

    def scan(self) -> list[RunEntry]:
        """All that can be read, the newest first. A manifest is read again only if it was replaced."""
        self._real = _real(self.root)
        looked, known = 0, dict[str, _Known]()
        level, entries = [os.fspath(self.root)], list[RunEntry]()
        for _ in range(MOST_LEVELS + 1):
            inner = list[str]()
            for folder in level[: MOST_FOLDERS - looked]:
                files = _listed(folder)
                if MANIFEST not in files:
                    inner += [each.path for each in files.values() if self._is_ours(each)]
                elif (entry := self._entry(folder, files, known)) is not None:
                    entries.append(entry)
            looked += len(level)
            level = inner if looked < MOST_FOLDERS else []
        self._known = known
        entries.sort(key=lambda entry: (entry.manifest.started_utc, entry.id), reverse=True)
        self._found = {entry.id: entry for entry in entries}
        return entries

    def find(self, run_id: str) -> RunEntry | None:
        """The run of that id that the last scan found."""
        return self._found.get(run_id)

    def _entry(self, folder: str, files: _Files, known: dict[str, _Known]) -> RunEntry | None:
        """None: its manifest cannot be read, a file of it lies elsewhere, or no address can hold its name."""
        if not _ADDRESSABLE.fullmatch(os.path.relpath(folder, self.root)):
            return None
        if any(journal_of(name) in _FILES and self._leads_out(file) for name, file in files.items()):
            return None
        path, before = Path(folder), self._known.get(folder)
        try:
            found = files[MANIFEST].stat()
            at = found.st_ino, found.st_mtime_ns, found.st_size
            manifest = before[1] if before is not None and before[0] == at else _without_graphs(path)
        except (OSError, ValueError, RunFilesError):
            return None
        known[folder] = at, manifest
        journal = [file for name, file in files.items() if journal_of(name) == RECORDS]
        return RunEntry(
            id=path.relative_to(self.root).as_posix(),
            path=path,
            manifest=manifest,
            running=manifest.end is None and is_held(path, manifest),
            modified=max(found.st_mtime, *map(_changed_at, journal), 0.0),
        )

    def _is_ours(self, found: os.DirEntry[str]) -> bool:
        """Whether it is a folder that is looked into: not the archive, and no link. What lies in the folder is found
        without one, and would be listed twice, or for ever.
        """
        if found.name.startswith(".") or found.is_symlink() or not _is_folder(found):
            return False
        return self._archive is None or not _real(found.path).is_relative_to(self._archive)

    def _leads_out(self, found: os.DirEntry[str]) -> bool:
        return found.is_symlink() and not _real(found.path).is_relative_to(self._real)


def _without_graphs(path: Path) -> Manifest:
    """The manifest of a run, without what is large in some: there may be thousands of runs."""
    manifest = RunReader(path).manifest
    manifest.workflows = [structs.replace(facts, graph=None) for facts in manifest.workflows]
    return manifest


def _listed(folder: str) -> _Files:
    try:
        with os.scandir(folder) as found:
            return {each.name: each for each in found}
    except OSError:
        return {}


def _is_folder(found: os.DirEntry[str]) -> bool:
    try:
        return found.is_dir()
    except OSError:
        return False


def _changed_at(found: os.DirEntry[str] | None) -> float:
    try:
        return 0.0 if found is None else found.stat().st_mtime
    except OSError:
        return 0.0


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(path))
