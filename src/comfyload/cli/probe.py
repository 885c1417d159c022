"""`comfyload probe`: its commands and their flags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct, structs, to_builtins
from rich.text import Text

from comfyload import clock
from comfyload.cli.flags import Json
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.errors import ServerUnreachable
from comfyload.judge.columns.ledger import clean
from comfyload.record.flag import Flag
from comfyload.record.metrics.files import VARIABLE, project_log
from comfyload.report.console import Screen, draw, print_json
from comfyload.words import count

if TYPE_CHECKING:
    from comfyload.app.probe import Installed, ProbeStatus, Removed, Running

probe = typer.Typer(
    name="probe",
    no_args_is_help=True,
    help="The node pack that records what a ComfyUI does: nodes, models, GPU, its own log.",
    rich_markup_mode="rich",
)

Folder = Annotated[Path, typer.Argument(metavar="PATH", help="ComfyUI's folder, or its base directory.")]

RESTART = "Restart ComfyUI to"


@probe.command(no_args_is_help=True)
@with_flags
def install(
    comfyui: Folder,
    force: Annotated[bool, Flag("--force", "", "Overwrite changed files of the pack, or a link.")] = False,
    dry_run: Annotated[bool, Flag("--dry-run", "", "Only print what would be done.")] = False,
    json_: Json = False,
) -> None:
    """Install the probe in ComfyUI's custom nodes, or update it. ComfyUI is not restarted.

    A pack of that name from elsewhere is never touched.

    [bold]Example[/bold]: comfyload probe install ~/ComfyUI
    """
    from comfyload.app.probe import install as put

    done = put(comfyui, force=force, dry_run=dry_run)
    _print(done, _installed(done), as_json=json_)


@probe.command(no_args_is_help=True)
@with_flags
def status(
    comfyui: Folder,
    given: Annotated[
        Given,
        Takes(
            names=("server", "header", "ca_file", "insecure"),
            env=False,
            help={"server": "Check that this server has loaded the probe."},
        ),
    ],
    json_: Json = False,
) -> None:
    """Check whether the probe is installed, unchanged, and active.

    Exit code 0: yes, 1: no, 4: the server is unreachable.

    [bold]Example[/bold]: comfyload probe status ~/ComfyUI --server http://127.0.0.1:8188
    """
    from comfyload.app.probe import ask
    from comfyload.app.probe import status as look

    found, options = look(comfyui), given.options()
    try:
        server = clock.run(ask(options)) if options.server else None
    except ServerUnreachable:
        _print(found, _status(found), as_json=json_)
        raise
    found = structs.replace(found, server=server)
    _print(found, _status(found), as_json=json_)
    raise typer.Exit(0 if found.good else 1)


@probe.command(no_args_is_help=True)
@with_flags
def remove(
    comfyui: Folder,
    force: Annotated[bool, Flag("--force", "", "Remove also changed files, or a link.")] = False,
    json_: Json = False,
) -> None:
    """Remove the installed probe. The log and all files from elsewhere stay.

    [bold]Example[/bold]: comfyload probe remove ~/ComfyUI
    """
    from comfyload.app.probe import remove as take_away

    done = take_away(comfyui, force=force)
    _print(done, _removed(done), as_json=json_)


def _print(result: Struct, lines: Iterator[str], *, as_json: bool) -> None:
    if as_json:
        print_json(to_builtins(result, enc_hook=str))
        return
    console = Screen(highlight=False, soft_wrap=True)
    for line in lines:
        draw(Text(clean(line, 2000)), console)


def _installed(done: Installed) -> Iterator[str]:
    verb = "would be installed" if done.dry_run else "is installed"
    before = f", in place of {done.replaced}" if done.replaced else ""
    yield f"The probe {done.version} {verb} in {done.path}{before}: {count(done.files, 'file')}."
    if done.unlinked:
        verb = "would be" if done.dry_run else "is"
        yield f"The link to {done.unlinked} {verb} removed; the folder it leads to stays."
    if done.overwritten:
        yield f"Overwritten although changed: {', '.join(done.overwritten)}."
    if done.kept:
        yield f"Kept, as they came from elsewhere: {', '.join(done.kept)}."
    yield "Nothing was written." if done.dry_run else f"{RESTART} load it."
    yield from _log_lines(done.log)


def _log_lines(log: Path) -> Iterator[str]:
    """Where the log will be, and how to have it where a project and the checklist look for it."""
    yield f"Its log will be {log} (comfyload logs --server URL shows it)."
    usual = project_log()
    if usual is None:
        yield f"{VARIABLE}=FILE in ComfyUI's environment moves it."
    else:
        yield "To have it in this project, where comfyload and the checklist look for it, start ComfyUI with"
        yield f"{VARIABLE}={usual.absolute()}"


def _status(found: ProbeStatus) -> Iterator[str]:
    pack, changes = found.pack, found.pack.changes
    if pack.state == "absent":
        yield f"The probe is not in {pack.path.parent}; comfyload probe install puts {found.available} there."
    elif pack.state == "foreign":
        yield f"{pack.path} was not installed by comfyload."
    elif pack.state == "link":
        yield f"{pack.path} is a link to {pack.link_to}."
    else:
        yield f"The probe {pack.version} is in {pack.path}."
        same = pack.version == found.available
        if found.update:
            yield f"This comfyload would install {'another ' if same else ''}{found.available}: comfyload probe install"
    parts = (("changed", changes.changed), ("missing", changes.missing), ("came from elsewhere", changes.added))
    for what, names in parts:
        if names:
            yield f"{what}: {', '.join(names)}"
    if found.left_over:
        yield f"left by an interrupted installation: {', '.join(found.left_over)}"
    if found.server is not None:
        yield from _running(found.server, pack.version)


def _running(server: Running, installed: str | None) -> Iterator[str]:
    if server.why:
        yield f"{server.url}: {server.why}"
        return
    state = "is active" if server.active else "has switched itself off"
    yield f"{server.url}: the probe {server.version or 'of an unknown version'} {state}."
    if installed and server.version and server.version != installed:
        yield f"{RESTART} load {installed}."
    if server.log:
        yield f"its log: {server.log}"
    yield from (f"missing: {sentence}" for sentence in server.missing)
    if server.dropped:
        yield f"rows dropped: {server.dropped}"
    if server.errors:
        yield f"errors inside the probe: {server.errors}"


def _removed(done: Removed) -> Iterator[str]:
    if done.unlinked:
        yield f"The link {done.path} to {done.unlinked} is removed; the folder it leads to stays."
    else:
        yield f"The probe {done.version} is removed from {done.path}: {count(done.files, 'file')}. The log stays."
    if done.left:
        yield f"Left, as they came from elsewhere: {', '.join(done.left)}. ComfyUI will try to load them as a pack."
    yield f"{RESTART} unload it."
