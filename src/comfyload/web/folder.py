"""Which runs there are below a folder."""

import os
import re
from pathlib import Path

from msgspec import Struct, structs

from comfyload.errors import RunFilesError
from comfyload.record.journal import RECORDS, journal_of
from comfyload.record.model import Manifest
from comfyload.record.run import EVENTS, LOG, MANIFEST, SAMPLES, RunReader
from comfyload.visible import visible
from comfyload.web.follow import is_held

MOST_LEVELS = 3
"""How deep below the folder a run may lie."""
MOST_FOLDERS = 20_000
"""Looked into by one scan; what lies beyond is not found."""

_ADDRESSABLE = re.compile("[^\x00-\x1f\x7f\ud800-\udfff]*")
"""Names that are no text, or that break a line, stand in no address, and one of them would keep all from the page."""
_LONGEST = 300
"""Letters of a folder's name, and of why it is left out."""
_FILES = (MANIFEST, RECORDS, SAMPLES, EVENTS, LOG)
_Known = tuple[tuple[int, int, int], Manifest | str]
"""What a manifest's file was when it was read, and what it says or why it cannot be read."""

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


class UnreadFolder(Struct, frozen=True, kw_only=True):
    """A folder that is left out: its path below the folder of runs, and why. Both are made printable."""

    folder: str
    why: str


class RunFolder:
    """The runs below `root`. Baselines of an `archive` below it are no runs of the list. `unread`: what the last scan
    left out.
    """

    def __init__(self, root: Path, archive: Path | None = None) -> None:
        self.root = root
        self._real = _real(root)
        self._archive = None if archive is None else _real(archive)
        self._known: dict[str, _Known] = {}
        self._found: dict[str, RunEntry] = {}
        self.unread: list[UnreadFolder] = []

    def scan(self) -> list[RunEntry]:
        """All that can be read, the newest first. A manifest is read again only if it was replaced."""
        self._real = _real(self.root)
        looked, known = 0, dict[str, _Known]()
        level, entries, unread = [os.fspath(self.root)], list[RunEntry](), list[UnreadFolder]()
        for _ in range(MOST_LEVELS + 1):
            inner = list[str]()
            for folder in level[: MOST_FOLDERS - looked]:
                try:
                    files = _listed(folder)
                    if MANIFEST not in files:
                        inner += [each.path for each in files.values() if self._is_ours(each)]
                    else:
                        entries.append(self._entry(folder, files, known))
                except (FileNotFoundError, NotADirectoryError):
                    pass  # it was removed meanwhile, or there are no runs yet
                except (OSError, ValueError, RunFilesError) as error:
                    unread.append(self._unread(folder, error))
            looked += len(level)
            level = inner if looked < MOST_FOLDERS else []
        self._known, self.unread = known, sorted(unread, key=lambda each: each.folder)
        entries.sort(key=lambda entry: (entry.manifest.started_utc, entry.id), reverse=True)
        self._found = {entry.id: entry for entry in entries}
        return entries

    def find(self, run_id: str) -> RunEntry | None:
        """The run of that id that the last scan found."""
        return self._found.get(run_id)

    def _entry(self, folder: str, files: _Files, known: dict[str, _Known]) -> RunEntry:
        """The run that lies there.

        Raises:
            OSError, RunFilesError: its manifest cannot be read, a file of it lies elsewhere, or no address can hold its
            name.
        """
        if not _ADDRESSABLE.fullmatch(os.path.relpath(folder, self.root)):
            raise RunFilesError("no address can hold its name")
        ours = {name: file for name, file in files.items() if journal_of(name) in _FILES}
        if elsewhere := [name for name, file in ours.items() if self._leads_out(file)]:
            raise RunFilesError(f"its {elsewhere[0]} is a link to another place")
        path, before, found = Path(folder), self._known.get(folder), files[MANIFEST].stat()
        at = found.st_ino, found.st_mtime_ns, found.st_size
        manifest = before[1] if before is not None and before[0] == at else _without_graphs(path)
        known[folder] = at, manifest
        if isinstance(manifest, str):
            raise RunFilesError(manifest)
        journal = [file for name, file in files.items() if journal_of(name) == RECORDS]
        return RunEntry(
            id=path.relative_to(self.root).as_posix(),
            path=path,
            manifest=manifest,
            running=manifest.end is None and is_held(path, manifest),
            modified=max(found.st_mtime, *map(_changed_at, journal), 0.0),
        )

    def _unread(self, folder: str, error: Exception) -> UnreadFolder:
        why = str(error.strerror) if isinstance(error, OSError) else str(error)
        return UnreadFolder(
            folder=visible(Path(os.path.relpath(folder, self.root)).as_posix())[:_LONGEST],
            why=visible(why.removeprefix(folder + os.sep))[:_LONGEST],
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


def _without_graphs(path: Path) -> Manifest | str:
    """The manifest of a run, without what is large in some: there may be thousands of runs. Or why it cannot be read.

    Raises:
        FileNotFoundError: it is not there any more.
    """
    try:
        manifest = RunReader(path).manifest
    except RunFilesError as error:
        if not os.path.lexists(path / MANIFEST):
            raise FileNotFoundError from None
        return error.message
    manifest.workflows = [structs.replace(facts, graph=None) for facts in manifest.workflows]
    return manifest


def _listed(folder: str) -> _Files:
    with os.scandir(folder) as found:
        return {each.name: each for each in found}


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
