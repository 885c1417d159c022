"""The archive: a folder of baselines, each a folder of runs and reports with the sha256 of every file.

A baseline is written under a temporary name and renamed, so that half of one never exists, and an existing one is never
overwritten.
"""

import difflib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath

import msgspec
from msgspec import Struct, structs

from comfyload.errors import RunFilesError, UsageError, file_errors
from comfyload.record.atomic import replace_file
from comfyload.record.by_hand import ByHand, is_by_hand, no_baseline, read_by_hand
from comfyload.record.codec import encode_pretty
from comfyload.record.copies import hash_files, sha256, sync_folder, walk
from comfyload.record.model import Environment
from comfyload.record.run import RunReader, decode_versioned

FORMAT = 1
"""Version of a baseline's files; readers refuse a newer one."""

BASE = Path("infra/observability/baselines")
"""The default folder of baselines."""

MANIFEST = "manifest.json"
PROMOTED = "promoted"
DATED = re.compile(r"(\d{4}-\d{2}-\d{2})(?:-(.+))?")


class KeptRun(Struct, frozen=True, kw_only=True):
    """One run of a baseline: its folder and its output file, relative to the baseline, and what load it was."""

    folder: str
    output: str
    run_id: str
    name: str
    load: str


class Contents(Struct, frozen=True, kw_only=True):
    """The contents of a new baseline's folder. `log`: the slice of the instrumentation log, if there is one."""

    runs: list[KeptRun]
    environment: Environment = {}
    notes: dict[str, str] = {}
    command: list[str] = []
    log: str | None = None


class ArchiveManifest(Struct, frozen=True, kw_only=True):
    """`manifest.json` of a baseline. `name`: as it was given, "" for none. `files`: relative path to sha256, of all."""

    format: int
    name: str
    saved_utc: str
    tool: str
    runs: list[KeptRun]
    environment: Environment
    notes: dict[str, str]
    command: list[str]
    log: str | None
    files: dict[str, str]


class Kept(Struct, frozen=True, kw_only=True):
    """A baseline on disk."""

    path: Path
    manifest: ArchiveManifest

    @property
    def folder(self) -> str:
        """Its name in the archive: the date, and the baseline's name if it has one."""
        return self.path.name

    def runs(self) -> Iterator[tuple[KeptRun, RunReader]]:
        """Every run, with a reader of its files; RunFilesError where one cannot be read."""
        for run in self.manifest.runs:
            yield run, RunReader(self.path / run.folder)


class Damaged(Struct, frozen=True, kw_only=True):
    """A folder of the archive that cannot be read as a baseline, and why."""

    path: Path
    problem: str


def check_free(base: Path, name: str | None, now: datetime | None = None) -> Path:
    """The path of a new baseline of this name; call it before minutes of work.

    Raises:
        UsageError: the name cannot be that of a folder.
        RunFilesError: something is there.
    """
    if name is not None and (not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) or name == PROMOTED):
        raise UsageError(
            f"{name!r} cannot name a baseline", "use letters, digits, '_', '-' and '.', at most 100; not 'promoted'"
        )
    day = f"{now or datetime.now(UTC):%Y-%m-%d}"
    target = base / (day if name is None else f"{day}-{name}")
    if os.path.lexists(target):
        raise _taken(target)
    return target


def save(base: Path, name: str | None, fill: Callable[[Path], Contents], now: datetime | None = None) -> Kept:
    """Make a baseline: `fill` writes everything but the manifest into the folder that it is given.

    Whatever goes wrong, in `fill` too, the archive is as it was before. `now` is in UTC.

    Raises:
        UsageError: the name cannot be that of a folder.
        RunFilesError: a baseline of that name is there, or the files cannot be written.
    """
    now = now or datetime.now(UTC)
    target = check_free(base, name, now)
    aside = base / f".tmp-{target.name}-{secrets.token_hex(4)}"
    try:
        aside.mkdir(parents=True)
        contents = fill(aside)
        manifest = ArchiveManifest(
            format=FORMAT,
            name=name or "",
            saved_utc=now.isoformat(),
            tool=f"comfyload {version('comfyload')}",
            files=hash_files(aside, but=MANIFEST),
            **structs.asdict(contents),
        )
        _check_paths(manifest, aside)
        replace_file(aside / MANIFEST, encode_pretty(manifest) + b"\n")
        for folder, _, _ in os.walk(aside):
            sync_folder(Path(folder))
        aside.rename(target)  # refused by the system if a folder with contents has that name by now
        sync_folder(base)
    except OSError as error:
        if aside.exists() and os.path.lexists(target):
            raise _taken(target) from None
        raise RunFilesError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Kept(path=target, manifest=manifest)


def find(base: Path, name_or_path: str) -> Kept:
    """The baseline that a folder's name, a NAME (the newest of it), "promoted" or a path means.

    Raises:
        RunFilesError: there is none, or it is damaged; the hint has similar names.
    """
    if name_or_path == PROMOTED:
        kept = promoted(base)
        if kept is None:
            raise RunFilesError("no baseline is promoted yet", "comfyload baseline promote NAME")
        return kept
    folders = _folders(base)
    newest_first = (path for folder, path in reversed(folders.items()) if _name(folder) == name_or_path)
    found = folders.get(name_or_path) or next(newest_first, None)
    if found is None and ((Path(name_or_path) / MANIFEST).is_file() or find_by_hand(base, name_or_path)):
        found = Path(name_or_path)
    if found is None:
        raise RunFilesError(f"no baseline {name_or_path!r} in {base}", _near(name_or_path, list(folders)))
    return _read(found)


def find_by_hand(base: Path, name_or_path: str) -> ByHand | None:
    """The folder made by hand that a name or a path means; None: it means no such folder."""
    for path in (_folders(base).get(name_or_path), Path(name_or_path)):
        if path is not None and path.is_dir() and DATED.fullmatch(path.resolve().name) and is_by_hand(path):
            return read_by_hand(path)
    return None


def list_all(base: Path) -> list[Kept]:
    """Every baseline of the archive that can be read, by the time it was saved."""
    kept = [found for path in _folders(base).values() if isinstance(found := _look(path), Kept)]
    return sorted(kept, key=lambda one: (one.manifest.saved_utc, one.folder))


def list_damaged(base: Path) -> list[Damaged]:
    """Folders that cannot be read as baselines: one bad folder must not hide the others."""
    return [found for path in _folders(base).values() if isinstance(found := _look(path), Damaged)]


def list_by_hand(base: Path) -> list[ByHand]:
    """Folders made by hand, by name."""
    return [found for path in _folders(base).values() if isinstance(found := _look(path), ByHand)]


def verify_files(kept: Kept) -> list[str]:
    """The differences from what was saved, each with the file's name; empty if every byte is the same."""
    try:
        plain, other = walk(kept.path)
    except OSError as error:
        return [f"{kept.path} cannot be read: {error.strerror or error}"]
    listed = kept.manifest.files
    problems = [f"{relative} is a link or not a plain file" for relative in other]
    problems += [f"{relative} is missing" for relative in listed.keys() - plain]
    problems += [f"{relative} was not there when the baseline was saved" for relative in plain - {*listed, MANIFEST}]
    for relative in plain & listed.keys():
        try:
            if sha256(kept.path / relative) != listed[relative]:
                problems.append(f"{relative} has changed: its sha256 is not the one in {MANIFEST}")
        except OSError as error:
            problems.append(f"{relative} cannot be read: {error.strerror or error}")
    return sorted(problems)


def promote(base: Path, name: str) -> Kept:
    """Make a baseline of this archive the one to compare with.

    Raises:
        RunFilesError: there is none of that name, or it lies elsewhere.
    """
    kept = find(base, name)
    if kept.path.resolve().parent != base.resolve():
        raise RunFilesError(f"{kept.path} does not lie in {base}", "promote by the name that `baseline list` shows")
    with file_errors(f"cannot write {base / PROMOTED}"):
        replace_file(base / PROMOTED, f"{kept.path.resolve().name}\n".encode())
    return kept


def promoted(base: Path) -> Kept | None:
    """The baseline to compare with by default; None if none was chosen.

    Raises:
        RunFilesError: the one that was chosen is gone or damaged.
    """
    folder = None
    with file_errors(f"cannot read {base / PROMOTED}"), suppress(FileNotFoundError):
        folder = (base / PROMOTED).read_text(encoding="utf-8", errors="replace").strip()
    if folder is None:
        return None
    folders = _folders(base)
    if folder not in folders:
        raise RunFilesError(f"the promoted baseline {folder!r} is not in {base}", _near(folder, list(folders)))
    return _read(folders[folder])


def _look(path: Path) -> Kept | Damaged | ByHand:
    try:
        return read_by_hand(path) if is_by_hand(path) else _read(path)
    except RunFilesError as error:
        return Damaged(path=path, problem=str(error))


def _read(path: Path) -> Kept:
    file = path / MANIFEST
    if is_by_hand(path):
        raise no_baseline(path)
    with file_errors(f"{path} is not a baseline: {MANIFEST}"):
        content = file.read_bytes()
    try:
        manifest = decode_versioned(content, ArchiveManifest, FORMAT, file)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RunFilesError(f"{file} is not that of a baseline, or is damaged: {error}") from None
    _check_paths(manifest, path)
    return Kept(path=path, manifest=manifest)


def _check_paths(manifest: ArchiveManifest, folder: Path) -> None:
    """A manifest may come from anywhere: it must not make us read what lies outside its folder."""
    log = [] if manifest.log is None else [manifest.log]
    for relative in [*manifest.files, *(path for run in manifest.runs for path in (run.folder, run.output)), *log]:
        if not _stays_inside(relative):
            raise RunFilesError(f"{folder / MANIFEST} names {relative!r}, which is not inside the baseline")


def _stays_inside(relative: str) -> bool:
    posix, windows = PurePosixPath(relative), PureWindowsPath(relative)
    escapes = posix.is_absolute() or bool(windows.drive or windows.root) or ".." in (*posix.parts, *windows.parts)
    return bool(posix.parts) and not escapes and "\0" not in relative


def _taken(target: Path) -> RunFilesError:
    return RunFilesError(f"{target} is already there", "choose another name; a baseline is never overwritten")


def _folders(base: Path) -> dict[str, Path]:
    """By name, in order, every folder that is a baseline or ought to be one."""
    with file_errors(f"cannot read {base}"), suppress(FileNotFoundError):
        return {path.name: path for path in sorted(base.iterdir()) if DATED.fullmatch(path.name) and path.is_dir()}
    return {}


def _name(folder: str) -> str | None:
    dated = DATED.fullmatch(folder)
    return dated[2] if dated else None


def _near(wanted: str, folders: list[str]) -> str:
    names = folders + [name for folder in folders if (name := _name(folder))]
    near = difflib.get_close_matches(wanted, names, 3)
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(near))}?"
    return f"there are {', '.join(folders[-10:])}" if folders else "the archive is empty"
