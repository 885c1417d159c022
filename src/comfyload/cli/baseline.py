"""`comfyload baseline`: its commands and their flags."""

from pathlib import Path
from typing import Annotated, Any

import typer

from comfyload.app.gate_flags import GateFlags
from comfyload.cli.flags import DEFAULT_ARCHIVE, Archive, Json, MetricsLog, Note
from comfyload.cli.output import echo
from comfyload.cli.signature import with_flags
from comfyload.record.archive import PROMOTED, Kept, find, find_by_hand, list_all, list_by_hand, list_damaged, promoted
from comfyload.record.archive import promote as make_default
from comfyload.record.by_hand import ByHand
from comfyload.record.flag import Flag
from comfyload.report.console import Screen, print_json
from comfyload.report.page import Page, table
from comfyload.report.render.terminal import render
from comfyload.words import count

baseline = typer.Typer(
    name="baseline",
    no_args_is_help=True,
    help="Keep runs as named baselines: immutable, hashed, with README, charts and page.",
    rich_markup_mode="rich",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A baseline's name, folder or path.")]


@baseline.command(no_args_is_help=True)
@with_flags
def save(
    gating: GateFlags,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run directories; small, medium and large belong together.")
    ],
    name: Annotated[str | None, Flag("--name", "NAME", "Name of the baseline.", default="the date alone")] = None,
    archive: Archive = DEFAULT_ARCHIVE,
    metrics_log: MetricsLog = None,
    note: Note = None,
) -> None:
    """Save runs as a baseline: the runs, their JSON, the log's rows of that time, hashes, README and page.

    A baseline is complete or absent, never half-written, and never overwritten.

    [bold]Example[/bold]

    comfyload baseline save runs/20261123T120000Z-book --name rtx5060ti --note 'enclosure=Razer Core X'
    """
    from comfyload.app import locate
    from comfyload.app.baseline import save_baseline
    from comfyload.app.run.options import parse_notes
    from comfyload.report.verdicts import render as show_verdicts

    gates, notes = gating.read(), parse_notes(note or [])
    log, found = locate.default_log(metrics_log), locate.find(",".join(runs), archive)
    kept, verdicts = save_baseline(archive, name, found, gates, log, notes)
    console = Screen()
    show_verdicts(verdicts, console)
    console.print()
    show_kept(kept, archive, console)


def show_kept(kept: Kept, archive: Path, console: Screen) -> None:
    """Where the new baseline lies, and what one would type now."""
    places = [("Baseline", str(kept.path)), ("Page", str(kept.path / "report.html"))]
    verb = "compare" if (archive / PROMOTED).is_file() else "baseline promote"
    render(Page(title="", places=places, next=[f"comfyload {verb} {kept.path.name}"]), console)


@baseline.command("list")
@with_flags
def list_(archive: Archive = DEFAULT_ARCHIVE, json_: Json = False) -> None:
    """List the baselines, oldest first, and folders made by hand. The promoted baseline is marked.

    [bold]Example[/bold]: comfyload baseline list
    """
    from comfyload.report.kept import by_hand_words

    kept, damaged, by_hand, default = list_all(archive), list_damaged(archive), list_by_hand(archive), promoted(archive)
    best = None if default is None else default.folder
    if json_:
        rows: list[dict[str, Any]] = [
            {"folder": one.folder, "saved_utc": one.manifest.saved_utc, "runs": len(one.manifest.runs),
             "promoted": one.folder == best, "path": str(one.path)}
            for one in kept
        ]  # fmt: skip
        rows += [{"folder": one.path.name, "problem": one.problem} for one in damaged]
        print_json(rows + [_by_hand(one) for one in by_hand])
        return
    other = {one.path.name: f"damaged: {one.problem}" for one in damaged}
    other |= {one.path.name: by_hand_words(one) for one in by_hand}
    if not kept and not other:
        echo("No baselines yet. Save one with: comfyload baseline save RUN --name NAME")
        return
    lines = []
    for one in kept:
        loads = ", ".join(dict.fromkeys(run.name for run in one.manifest.runs))
        mark = "promoted" if one.folder == best else ""
        when = one.manifest.saved_utc[:16].replace("T", " ")
        lines.append([one.folder, when, f"{len(one.manifest.runs)} of {loads}", mark])
    lines += [[folder, "", "", what] for folder, what in sorted(other.items())]
    columns = ("baseline", "saved (UTC)", "runs", "~")
    render(Page(title="", tables=[table("baselines", columns, lines)]), Screen())


def _by_hand(folder: ByHand) -> dict[str, Any]:
    from comfyload.judge.summary import jsonable

    summaries = jsonable(folder.stated)
    return {"folder": folder.path.name, "made_by_hand": True, "summaries": summaries, "path": str(folder.path)}


@baseline.command(no_args_is_help=True)
@with_flags
def show(name: Name, archive: Archive = DEFAULT_ARCHIVE, json_: Json = False) -> None:
    """Print a baseline's runs and the paths of its README and page, or with --json its manifest. For a folder made by
    hand, print its README and the numbers in its files.

    [bold]Example[/bold]: comfyload baseline show rtx5060ti
    """
    from comfyload.app.locate import measured
    from comfyload.report.kept import kept_page

    by_hand = find_by_hand(archive, name)
    if by_hand is not None:
        print_json([_by_hand(by_hand)]) if json_ else _show_by_hand(by_hand)
        return
    kept = find(archive, name)
    if json_:
        Screen().print_json((kept.path / "manifest.json").read_text(encoding="utf-8"))
    else:
        render(kept_page(kept, [measured(reader) for _, reader in kept.runs()]), Screen())


def _show_by_hand(folder: ByHand) -> None:
    """Its README, as Markdown on a terminal, and the numbers in its files."""
    from rich.markdown import Markdown

    from comfyload.report.kept import by_hand_words, stated_words

    if folder.readme is not None:
        console, text = Screen(), folder.readme.read_text(encoding="utf-8-sig", errors="replace")
        if console.is_terminal:
            console.print(Markdown(text, hyperlinks=False))
        else:
            echo(text, nl=not text.endswith("\n"))
    for file, summary in folder.stated.items():
        echo(stated_words(file, summary))
    echo(f"{by_hand_words(folder)}.")


@baseline.command(no_args_is_help=True)
@with_flags
def verify(name: Name, archive: Archive = DEFAULT_ARCHIVE) -> None:
    """Recompute every hash, and every summary from its records. Exit code 1: something differs; the output names it.

    [bold]Example[/bold]: comfyload baseline verify rtx5060ti
    """
    from comfyload.app.baseline import verify as check_all

    kept = find(archive, name)
    problems = check_all(kept)
    for problem in problems:
        echo(f"{kept.folder}: {problem}")
    if problems:
        raise typer.Exit(1)
    runs = count(len(kept.manifest.runs), "summary comes", "summaries come")
    echo(f"{kept.folder}: {len(kept.manifest.files)} files are unchanged; {runs} out the same.")


@baseline.command(no_args_is_help=True)
@with_flags
def promote(name: Name, archive: Archive = DEFAULT_ARCHIVE) -> None:
    """Make a baseline the default for comparisons.

    [bold]Example[/bold]: comfyload baseline promote rtx5060ti
    """
    echo(f"{make_default(archive, name).folder} is now the baseline that runs are compared with.")
