"""`probe`: put the node pack into a ComfyUI, see how it stands there, take it away again. No server is restarted.

It is copied aside and renamed, with a file that says what was installed, so that half a pack never exists and nothing
is removed that did not come from here. Names aside end in `.disabled`: ComfyUI loads folders that begin with a dot.
"""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import psutil
from msgspec import Struct

from comfyload.comfy.http import Http, parse_headers, parse_server
from comfyload.comfy.identify import identify
from comfyload.comfy.wire import Request, TransportError, decode_json
from comfyload.errors import UsageError
from comfyload.judge.ledger import clean, join
from comfyload.record.checkout import declared_version
from comfyload.record.evidence import sha256, sync_folder, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Changes", "Installed", "Pack", "ProbeStatus", "Removed", "Running", "ask", "install", "remove", "status"]

NAME = "comfyload_probe"
MARK = ".comfyload_probe.json"
FORMAT = 1

State = Literal["absent", "installed", "link", "foreign"]


class Mark(Struct, frozen=True, kw_only=True):
    """What was installed: `files` are the sha256 of each by its path in the folder."""

    format: int
    version: str
    files: dict[str, str]


class Changes(Struct, frozen=True, kw_only=True):
    """How a pack differs from what was installed: other contents, files gone, files that came from elsewhere."""

    changed: list[str] = []
    missing: list[str] = []
    added: list[str] = []


class Pack(Struct, frozen=True, kw_only=True):
    """What lies where the pack belongs. `version` and `changes` are of one that comfyload installed."""

    path: Path
    state: State
    version: str | None = None
    changes: Changes = Changes()
    link_to: str | None = None


class Installed(Struct, frozen=True, kw_only=True):
    """What an installation did, or with `dry_run` would do.

    `replaced` is the version that was there, None if there was none. `overwritten` were changed since they were
    installed; `kept` came from elsewhere and were taken over. `unlinked`: where a link that was taken away led to.
    """

    path: Path
    version: str
    files: int
    dry_run: bool
    replaced: str | None = None
    overwritten: list[str] = []
    kept: list[str] = []
    unlinked: str | None = None


class Removed(Struct, frozen=True, kw_only=True):
    """What was taken away: `files` of ours. `left` came from elsewhere, and keeps the folder there."""

    path: Path
    version: str | None
    files: int
    left: list[str] = []
    unlinked: str | None = None


class Running(Struct, frozen=True, kw_only=True):
    """What the running server says of its probe; `why`: why it has none, "" if it has one."""

    url: str
    why: str = ""
    active: bool | None = None
    version: str | None = None
    missing: list[str] = []
    dropped: int | None = None
    errors: int | None = None


class ProbeStatus(Struct, frozen=True, kw_only=True):
    """How the pack stands in a ComfyUI. `available` is the version that this comfyload would install.

    `update`: what lies there was installed by comfyload and is not what would be installed now.
    """

    pack: Pack
    available: str
    update: bool
    left_over: list[str] = []
    server: Running | None = None

    @property
    def good(self) -> bool:
        """Whether it is there, unchanged, and, if a server was asked, at work in it."""
        changes = self.pack.changes
        there = self.pack.state == "installed" and not (changes.changed or changes.missing)
        return there and (self.server is None or bool(self.server.active))


def install(comfyui: Path, *, force: bool = False, dry_run: bool = False) -> Installed:
    """Put the pack into the custom nodes of `comfyui`, a ComfyUI folder or a --base-directory.

    Raises:
        UsageError: it is neither, something else has the name, a file was changed (without `force`), or it cannot be
            written; then all is as it was.
    """
    folder = _custom_nodes(comfyui)
    source, pack = _source(), look(folder)
    version, files = _version(source), _files(source)
    lost = pack.changes.changed + [name for name in pack.changes.added if name in files]
    kept = [name for name in pack.changes.added if name not in files]
    _check_ours(pack)
    if lost and not force:
        raise UsageError(
            f"{pack.path}: changed since it was installed: {join(lost)}",
            "keep what you need of it; --force overwrites it",
        )
    if pack.state == "link" and not force:
        raise UsageError(
            f"{pack.path} is a link to {pack.link_to}", "--force puts the pack in its place; what it leads to stays"
        )
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} cannot be written", "run this as the user that ComfyUI runs as")
    if not dry_run:
        _clear(folder)
        try:
            _put(source, files, pack, kept, version)
        except OSError as error:
            raise _failed(f"cannot install into {folder}", error) from None
    return Installed(
        path=pack.path,
        version=version,
        files=len(files),
        dry_run=dry_run,
        replaced=pack.version,
        overwritten=lost,
        kept=kept,
        unlinked=pack.link_to,
    )


def status(comfyui: Path) -> ProbeStatus:
    """How the pack stands in `comfyui`.

    Raises:
        UsageError: it is neither a ComfyUI folder nor a --base-directory.
    """
    folder = _custom_nodes(comfyui)
    source, pack = _source(), look(folder)
    version, update = _version(source), False
    if pack.state == "installed":
        with suppress(OSError):
            update = _mark(pack.path) != _mark_of(source, _files(source), version)
    return ProbeStatus(pack=pack, available=version, update=update, left_over=_left_over(folder))


def remove(comfyui: Path, *, force: bool = False) -> Removed:
    """Take away what `install` put there, and nothing else: neither the log nor files that came from elsewhere.

    Raises:
        UsageError: it is not there, was not installed by comfyload, or a file was changed (without `force`).
    """
    folder = _custom_nodes(comfyui)
    pack = look(folder)
    _check_ours(pack)
    if pack.state == "absent":
        raise UsageError(f"{folder} has no {NAME}", "is this the folder that the server uses?")
    if pack.state == "link" and not force:
        raise UsageError(
            f"{pack.path} is a link to {pack.link_to}", "--force takes the link away; what it leads to stays"
        )
    if pack.changes.changed and not force:
        raise UsageError(
            f"{pack.path}: changed since it was installed: {join(pack.changes.changed)}",
            "keep what you need of it; --force removes it all the same",
        )
    _clear(folder)
    try:
        if pack.state == "link":
            pack.path.unlink()
            return Removed(path=pack.path, version=None, files=0, unlinked=pack.link_to)
        return _take_away(pack)
    except OSError as error:
        raise _failed(f"cannot remove {pack.path}", error) from None


async def ask(server: str, headers: Sequence[str], *, ca_file: str | None = None, insecure: bool = False) -> Running:
    """What the server at this address says of its probe.

    Raises:
        ServerUnreachable: no ComfyUI answers there.
        UsageError: the address or a header is not written as it must be.
    """
    parsed = parse_headers(list(headers))
    async with Http.connect(parse_server(server), parsed, ca_file=ca_file, insecure=insecure) as transport:
        await identify(transport, transport.name, sorted(parsed))
        try:
            request = Request(method="GET", path="comfyload/v1/environment", timeout_s=30)
            reply = await transport.call(request)
        except TransportError as error:
            return Running(url=transport.name, why=f"its probe does not answer: {error}")
    if reply.status in (401, 403):
        why = f"its probe refuses us with HTTP {reply.status}: --header X-Comfyload-Token=env:COMFYLOAD_PROBE_TOKEN"
        return Running(url=transport.name, why=why)
    if reply.status == 404:
        return Running(url=transport.name, why="it has not loaded the probe: was it restarted, and from this folder?")
    if reply.status != 200:
        return Running(url=transport.name, why=f"its probe answers with HTTP {reply.status}")
    try:
        told = decode_json(reply.body, _Told)
    except msgspec.MsgspecError as error:
        return Running(url=transport.name, why=f"its probe gives an answer that is none: {error}")
    return Running(
        url=transport.name,
        active=told.probe.active,
        version=told.probe.version and clean(told.probe.version, 50),
        missing=[clean(str(sentence), 300) for sentence in told.missing],
        dropped=told.probe.dropped,
        errors=told.probe.errors,
    )


def look(folder: Path) -> Pack:
    """What lies at the pack's place in the folder of custom nodes."""
    path = folder / NAME
    if path.is_symlink():
        return Pack(path=path, state="link", link_to=str(path.readlink()))
    if not path.exists():
        return Pack(path=path, state="absent")
    mark = _mark(path)
    if mark is None:
        return Pack(path=path, state="foreign")
    try:
        changes = _changes(path, mark)
    except OSError as error:
        raise _failed(f"cannot read {path}", error) from None
    return Pack(path=path, state="installed", version=mark.version, changes=changes)


class _ToldProbe(Struct):
    active: bool = False
    version: str | None = None
    dropped: int | None = None
    errors: int | None = None


class _Told(Struct):
    probe: _ToldProbe
    missing: list[Any] = []


def _custom_nodes(comfyui: Path) -> Path:
    """The folder of custom nodes, resolved; ComfyUI's own, or that of a --base-directory."""
    folder = comfyui / "custom_nodes"
    if folder.is_dir():
        return folder.resolve()
    if not comfyui.is_dir():
        raise UsageError(f"{comfyui} is no folder", "give ComfyUI's folder, or its --base-directory")
    if comfyui.resolve().name == "custom_nodes":
        raise UsageError(f"{comfyui} is the folder of custom nodes itself", f"give {comfyui.resolve().parent}")
    hint = "give ComfyUI's folder, or its --base-directory: the one that holds custom_nodes"
    raise UsageError(f"{comfyui} is neither a ComfyUI nor a base directory", hint)


def _check_ours(pack: Pack) -> None:
    if pack.state == "foreign":
        raise UsageError(
            f"{pack.path} was not installed by comfyload, and is left alone", "move it away first if you want this one"
        )


def _source() -> Path:
    """The pack as this comfyload brings it: inside the package, or beside `src` in a checkout."""
    package = Path(str(importlib.resources.files("comfyload")))
    for place in (package / "pack" / NAME, package.parents[1] / "pack" / NAME):
        if (place / "__init__.py").is_file():
            return place
    raise UsageError("this comfyload was installed without the probe", "install it again: pip install comfyload")


def _version(source: Path) -> str:
    declared = declared_version(source)
    return declared[0] if declared else "unknown"


def _files(folder: Path) -> list[str]:
    """What belongs to a pack: no bytecode, nothing hidden, no links."""
    plain, _ = walk(folder)
    hidden = {name for name in plain if any(part.startswith(".") for part in name.split("/"))}
    return sorted(name for name in plain - hidden if not _is_bytecode(name))


def _is_bytecode(name: str) -> bool:
    return name.endswith(".pyc") or name.split("/")[-1] == "__pycache__"


def _mark(path: Path) -> Mark | None:
    try:
        mark = msgspec.json.decode((path / MARK).read_bytes(), type=Mark)
    except (OSError, msgspec.DecodeError):
        return None
    # The names come from a file that anyone may have written, and are removed by it.
    inside = all(re.fullmatch(r"[^\\/:]+(/[^\\/:]+)*", name) and ".." not in name.split("/") for name in mark.files)
    return mark if inside else None


def _mark_of(folder: Path, files: Sequence[str], version: str) -> Mark:
    return Mark(format=FORMAT, version=version, files={name: sha256(folder / name) for name in files})


def _changes(path: Path, mark: Mark) -> Changes:
    plain, other = walk(path)
    there = {name for name in plain if not _is_bytecode(name)} - {MARK} | set(other)
    known = set(mark.files)
    changed = [name for name in sorted(known & there) if name in other or sha256(path / name) != mark.files[name]]
    return Changes(changed=changed, missing=sorted(known - there), added=sorted(there - known))


def _put(source: Path, files: Sequence[str], pack: Pack, kept: Sequence[str], version: str) -> None:
    """Copy aside, then rename; what goes wrong leaves what was there."""
    folder = pack.path.parent
    new, old = _aside(folder, "new"), _aside(folder, "old")
    try:
        for name in files:
            _copy(source / name, new / name)
        for name in kept:
            _copy(pack.path / name, new / name)
        (new / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(_mark_of(new, files, version)), indent=2))
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


def _take_away(pack: Pack) -> Removed:
    """Our files, and what Python left beside them; folders as far as they are empty then."""
    mark = _mark(pack.path)
    known = set() if mark is None else set(mark.files)
    ours, left = sorted(known - set(pack.changes.missing)), pack.changes.added
    if not left:
        gone = _aside(pack.path.parent, "old")
        pack.path.rename(gone)  # at once: half a pack would be loaded, and fail
        _discard(gone)
        return Removed(path=pack.path, version=pack.version, files=len(ours))
    for name in [*ours, MARK]:
        (pack.path / name).unlink(missing_ok=True)
    for place, _, _ in os.walk(pack.path, topdown=False):
        if Path(place).name == "__pycache__":
            shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # it is not empty
            Path(place).rmdir()
    return Removed(path=pack.path, version=pack.version, files=len(ours), left=left)


def _aside(folder: Path, what: str) -> Path:
    return folder / f".{NAME}.{os.getpid()}.{what}.disabled"


def _left_over(folder: Path) -> list[str]:
    """Folders aside of installations that were cut short."""
    found = []
    for path in folder.glob(f".{NAME}.*.disabled"):
        pid = re.fullmatch(rf"\.{NAME}\.(\d{{1,9}})\.(new|old)\.disabled", path.name)
        if pid and (int(pid[1]) == os.getpid() or not psutil.pid_exists(int(pid[1]))):
            found.append(path.name)
    return sorted(found)


def _clear(folder: Path) -> None:
    for name in _left_over(folder):
        _discard(folder / name)


def _discard(path: Path) -> None:
    """Whatever it is; a link is taken away, not what it leads to."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, ignore_errors=True)


def _failed(what: str, error: OSError) -> UsageError:
    return UsageError(f"{what}: {error.strerror or error}", "run this as the user that ComfyUI runs as")
