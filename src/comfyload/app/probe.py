"""`probe`: install the node pack into a ComfyUI, check it, remove it. No server is restarted."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from comfyload.app import pack_files
from comfyload.app.pack_files import NAME, SAME_USER, Pack
from comfyload.app.run.launch import connect
from comfyload.comfy.identify import identify
from comfyload.comfy.wire.calls import Request, TransportError
from comfyload.comfy.wire.lenient import decode_json
from comfyload.errors import UsageError, file_errors
from comfyload.judge.columns.ledger import clean, join
from comfyload.record.metrics.files import DEFAULT_LOG
from comfyload.record.options import RunOptions


class Installed(Struct, frozen=True, kw_only=True):
    """What an installation did, or with `dry_run` would do.

    `replaced`: the version that was there, None if there was none. `overwritten`: files that were changed since they
    were installed; `kept`: files that came from elsewhere. `unlinked`: where a link that was removed led to. `log`:
    where ComfyUI will write unless $COMFYUI_METRICS_LOG or --user-directory names another place.
    """

    path: Path
    version: str
    files: int
    dry_run: bool
    log: Path
    replaced: str | None = None
    overwritten: list[str] = []
    kept: list[str] = []
    unlinked: str | None = None


class Removed(Struct, frozen=True, kw_only=True):
    """What was removed: `files` of ours. `left`: files that came from elsewhere, because of which the folder stays."""

    path: Path
    version: str | None
    files: int
    left: list[str] = []
    unlinked: str | None = None


class Running(Struct, frozen=True, kw_only=True):
    """What the running server reports of its probe. `why`: why it has none, "" if it has one. `log`: its path there."""

    url: str
    why: str = ""
    active: bool | None = None
    version: str | None = None
    missing: list[str] = []
    dropped: int | None = None
    errors: int | None = None
    log: str | None = None


class ProbeStatus(Struct, frozen=True, kw_only=True):
    """The state of the pack in a ComfyUI. `available`: the version that this comfyload would install.

    `update`: comfyload installed what is there, and would install something else now.
    """

    pack: Pack
    available: str
    update: bool
    left_over: list[str] = []
    server: Running | None = None

    @property
    def good(self) -> bool:
        """Whether it is there, unchanged, and, if a server was given, active in it."""
        changes = self.pack.changes
        there = self.pack.state == "installed" and not (changes.changed or changes.missing)
        return there and (self.server is None or bool(self.server.active))


def install(comfyui: Path, *, force: bool = False, dry_run: bool = False) -> Installed:
    """Put the pack into the custom nodes of `comfyui`, a ComfyUI folder or a --base-directory.

    Raises:
        UsageError: it is neither, another pack has the name, a file was changed (without `force`), or it cannot be
            written; then nothing has changed.
    """
    folder = _custom_nodes(comfyui)
    source, pack = pack_files.source_of_pack(), pack_files.look(folder)
    version, files = pack_files.version_of(source), pack_files.files_of(source)
    lost = pack.changes.changed + [name for name in pack.changes.added if name in files]
    kept = [name for name in pack.changes.added if name not in files]
    _check_ours(pack, lost, force=force, does="replaces")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} cannot be written", SAME_USER)
    if not dry_run:
        pack_files.clear(folder)
        with file_errors(f"cannot install into {folder}", SAME_USER, UsageError):
            pack_files.put(source, files, pack, kept, version)
    return Installed(
        path=pack.path,
        version=version,
        files=len(files),
        dry_run=dry_run,
        log=folder.parent / "user" / DEFAULT_LOG.name,
        replaced=pack.version,
        overwritten=lost,
        kept=kept,
        unlinked=pack.link_to,
    )


def status(comfyui: Path) -> ProbeStatus:
    """The state of the pack in `comfyui`.

    Raises:
        UsageError: it is neither a ComfyUI folder nor a --base-directory.
    """
    folder = _custom_nodes(comfyui)
    source, pack = pack_files.source_of_pack(), pack_files.look(folder)
    version, update = pack_files.version_of(source), False
    if pack.state == "installed":
        with suppress(OSError):
            update = pack_files.mark_at(pack.path) != pack_files.mark_of(source, pack_files.files_of(source), version)
    return ProbeStatus(pack=pack, available=version, update=update, left_over=pack_files.left_over(folder))


def remove(comfyui: Path, *, force: bool = False) -> Removed:
    """Remove what `install` put there, and nothing else: neither the log nor files that came from elsewhere.

    Raises:
        UsageError: the pack is not there, was not installed by comfyload, or was changed (without `force`).
    """
    folder = _custom_nodes(comfyui)
    pack = pack_files.look(folder)
    _check_ours(pack, pack.changes.changed, force=force, does="removes")
    if pack.state == "absent":
        raise UsageError(f"{folder} has no {NAME}", "is this the folder that the server uses?")
    pack_files.clear(folder)
    with file_errors(f"cannot remove {pack.path}", SAME_USER, UsageError):
        if pack.state == "link":
            pack.path.unlink()
            return Removed(path=pack.path, version=None, files=0, unlinked=pack.link_to)
        files = pack_files.take_away(pack)
        return Removed(path=pack.path, version=pack.version, files=files, left=pack.changes.added)


async def ask(options: RunOptions) -> Running:
    """What the server that the options name reports of its probe.

    Raises:
        ServerUnreachable: no ComfyUI answers there.
        UsageError: the address or a header is invalid.
    """
    async with connect(options) as transport:
        await identify(transport, transport.name, [])
        try:
            request = Request(method="GET", path="comfyload/v1/environment", timeout_s=30)
            reply = await transport.call(request)
        except TransportError as error:
            return Running(url=transport.name, why=f"the probe does not answer: {error}")
    if reply.status != 200:
        refused = f"the probe refuses us with HTTP {reply.status}: --header X-Comfyload-Token=env:COMFYLOAD_PROBE_TOKEN"
        absent = "the probe is not loaded: was this ComfyUI restarted, and is it the one of this folder?"
        why = {404: absent, 401: refused, 403: refused}.get(reply.status, f"the probe answers with HTTP {reply.status}")
        return Running(url=transport.name, why=why)
    try:
        reported = decode_json(reply.body, _ProbeStatus)
    except msgspec.MsgspecError as error:
        return Running(url=transport.name, why=f"the probe answers with something else: {error}")
    return Running(
        url=transport.name,
        active=reported.probe.active,
        version=reported.probe.version and clean(reported.probe.version, 50),
        missing=[clean(str(sentence), 300) for sentence in reported.missing],
        dropped=reported.probe.dropped,
        errors=reported.probe.errors,
        log=reported.probe.log and clean(reported.probe.log, 4096),
    )


class _ProbeFacts(Struct):
    active: bool = False
    version: str | None = None
    dropped: int | None = None
    errors: int | None = None
    log: str | None = None


class _ProbeStatus(Struct):
    probe: _ProbeFacts
    missing: list[Any] = []


def _custom_nodes(comfyui: Path) -> Path:
    """The folder of custom nodes, resolved; ComfyUI's own, or that of a --base-directory."""
    folder = comfyui / "custom_nodes"
    if folder.is_dir():
        return folder.resolve()
    if not comfyui.is_dir():
        raise UsageError(f"{comfyui} is not a folder", "give ComfyUI's folder, or its --base-directory")
    if comfyui.resolve().name == "custom_nodes":
        raise UsageError(f"{comfyui} is the folder of custom nodes itself", f"give {comfyui.resolve().parent}")
    hint = "give ComfyUI's folder, or its --base-directory: the one that holds custom_nodes"
    raise UsageError(f"{comfyui} is neither a ComfyUI nor a base directory", hint)


def _check_ours(pack: Pack, lost: list[str], *, force: bool, does: str) -> None:
    """Refuse a pack that comfyload did not install and, without `force`, a link and changes that would be `lost`."""
    if pack.state == "foreign":
        raise UsageError(f"{pack.path} was not installed by comfyload", "to replace it, move it away first")
    if pack.state == "link" and not force:
        hint = f"--force {does} the link; the folder it leads to stays"
        raise UsageError(f"{pack.path} is a link to {pack.link_to}", hint)
    if lost and not force:
        hint = f"keep what you need of it; --force {does} it"
        raise UsageError(f"{pack.path}: changed since it was installed: {join(lost)}", hint)
