"""`comfyload baseline`: its commands and their flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfyload.cli.flags import DEFAULT_ARCHIVE, Archive, Expect, Gate, GatesFile, Json, MetricsLog, Note, echo

if TYPE_CHECKING:
    from comfyload.app.results import Found
    from comfyload.judge.gates.grammar import GateSet
    from comfyload.record.archive import Damaged, Kept

__all__ = ["baseline"]

baseline = typer.Typer(
    name="baseline",
    no_args_is_help=True,
    help="Keep runs under a name: immutable, hashed, with README, pictures and page.",
    rich_markup_mode="rich",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A baseline's name, folder or path.")]


@baseline.command(no_args_is_help=True)
def save(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run directories; small, medium and large belong together.")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it. \\[default: the date alone]")
    ] = None,
    archive: Archive = DEFAULT_ARCHIVE,
    metrics_log: MetricsLog = None,
    note: Note = None,
    gate: Gate = None,
    gates: GatesFile = None,
    expect: Expect = None,
) -> None:
    """Keep runs as a baseline: the runs, their JSON, the log's rows of that time, hashes, README and page.

    It is written aside and renamed: half a baseline never exists, and one that exists is never overwritten.

    [bold]Example[/bold]

    comfyload baseline save runs/20261123T120000Z-book --name rtx5060ti --note 'enclosure=Razer Core X'
    """
    from comfyload.app.check import gate_set
    from comfyload.app.options import parse_notes
    from comfyload.app.results import default_log, find

    asked, notes = gate_set(gate or [], gates, expect or []), parse_notes(note or [])
    keep(archive, name, find(",".join(runs), archive), asked, default_log(metrics_log), notes)


def keep(
    archive: Path,
    name: str | None,
    found: Found,
    gates: GateSet,
    log: Path | None,
    notes: dict[str, str] | None = None,
    *,
    quiet: bool = False,
    strict: bool = False,
) -> int:
    """Keep what was found, show the verdicts and where it lies; returns the exit code of the verdicts."""
    from comfyload.app.baseline import Keeping, save_baseline
    from comfyload.judge.gates.gate import exit_code
    from comfyload.report.medium import Screen
    from comfyload.report.verdicts import render

    kept, verdicts = save_baseline(archive, name, found, Keeping(gates=gates, log=log, notes=notes or {}))
    if not quiet:
        console = Screen()
        render(verdicts, console)
        console.print(f"Baseline: {kept.path}", style="dim", soft_wrap=True, markup=False)
    return exit_code(verdicts, all(run.summary.valid for run in found.runs), strict=strict)


@baseline.command("list")
def list_(archive: Archive = DEFAULT_ARCHIVE, json_: Json = False) -> None:
    """List the baselines, oldest first; the promoted one is marked.

    [bold]Example[/bold]: comfyload baseline list
    """
    from comfyload.record.archive import list_all, list_damaged, promoted

    kept, damaged = list_all(archive), list_damaged(archive)
    best = promoted(archive)
    _list(kept, damaged, None if best is None else best.folder, as_json=json_)


def _list(kept: list[Kept], damaged: list[Damaged], best: str | None, *, as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from comfyload.report.medium import Screen

    console = Screen(highlight=False)
    if as_json:
        import json

        rows = [
            {"folder": one.folder, "saved_utc": one.manifest.saved_utc, "runs": len(one.manifest.runs),
             "promoted": one.folder == best, "path": str(one.path)}
            for one in kept
        ]  # fmt: skip
        broken = [{"folder": one.path.name, "problem": one.problem} for one in damaged]
        console.print_json(json.dumps(rows + broken))
        return
    if not kept and not damaged:
        console.print("No baselines yet. Save one with: comfyload baseline save RUN --name NAME")
        return
    table = Table("baseline", "saved (UTC)", "runs", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for one in kept:
        loads = ", ".join(dict.fromkeys(run.name for run in one.manifest.runs))
        mark = "promoted" if one.folder == best else ""
        when = one.manifest.saved_utc[:16].replace("T", " ")
        table.add_row(Text(one.folder), when, Text(f"{len(one.manifest.runs)} of {loads}"), mark)
    for broken_one in damaged:
        table.add_row(Text(broken_one.path.name), "", Text(f"damaged: {broken_one.problem}"), "")
    console.print(table)


@baseline.command(no_args_is_help=True)
def show(name: Name, archive: Archive = DEFAULT_ARCHIVE, json_: Json = False) -> None:
    """Print a baseline's README, or with --json its manifest.

    [bold]Example[/bold]: comfyload baseline show rtx5060ti
    """
    from rich.markdown import Markdown

    from comfyload.record.archive import find
    from comfyload.report.medium import Screen

    kept = find(archive, name)
    console = Screen()
    if json_:
        console.print_json((kept.path / "manifest.json").read_text(encoding="utf-8"))
    elif console.is_terminal:
        console.print(Markdown((kept.path / "README.md").read_text(encoding="utf-8"), hyperlinks=False))
    else:
        echo((kept.path / "README.md").read_text(encoding="utf-8"), nl=False)


@baseline.command(no_args_is_help=True)
def verify(name: Name, archive: Archive = DEFAULT_ARCHIVE) -> None:
    """Compute every hash again, and every summary from its records. Exit code 1 names what is not as it was.

    [bold]Example[/bold]: comfyload baseline verify rtx5060ti
    """
    from comfyload.app.baseline import verify as check_all
    from comfyload.record.archive import find

    kept = find(archive, name)
    problems = check_all(kept)
    for problem in problems:
        echo(f"{kept.folder}: {problem}")
    if problems:
        raise typer.Exit(1)
    from comfyload.report.text import count

    runs = count(len(kept.manifest.runs), "summary comes", "summaries come")
    echo(f"{kept.folder}: {len(kept.manifest.files)} files are as they were saved; {runs} out again.")


@baseline.command(no_args_is_help=True)
def promote(name: Name, archive: Archive = DEFAULT_ARCHIVE) -> None:
    """Make a baseline the one to compare with where none is named.

    [bold]Example[/bold]: comfyload baseline promote rtx5060ti
    """
    from comfyload.record.archive import promote as make_default

    echo(f"{make_default(archive, name).folder} is what runs are compared with now.")
