"""`comfyload doctor`: its flags, and how its checks are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from comfyload import clock
from comfyload.cli.flags import Json
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.record.flag import Flag
from comfyload.record.options import RunOptions
from comfyload.record.plan import Plan
from comfyload.report.console import Screen, draw, print_json
from comfyload.visible import visible

if TYPE_CHECKING:
    from comfyload.app.doctor import DoctorCheck

_MARKS = {"problem": ("✗", "bold red"), "warning": ("!", "yellow"), "unknown": ("?", "cyan"), "ok": ("✓", "green")}
"""Sign and style of a check, the most urgent first."""


TAKES = Takes(
    names=(
        "server", "servers", "resolve_all", "workflow", "jobs", "concurrency", "set", "drop_broken_outputs", "header",
        "ca_file", "insecure",
    ),
    base=RunOptions(plan=Plan(jobs=12)),
    help={"jobs": "Number of jobs of the planned run.", "concurrency": "Jobs in flight of the planned run."},
)  # fmt: skip


@with_flags
def doctor(
    given: Annotated[Given, TAKES],
    all_: Annotated[bool, Flag("--all", "", "Also show the checks that passed, with their numbers.")] = False,
    json_: Json = False,
) -> None:
    """Check a server and a workflow before a run: what is missing, what would disturb the numbers. Submits nothing.

    Exit code 0: go on (there may be warnings), 2: the server would not run the workflow, or not all of it, 3: the
    server is busy or its worker makes no progress, 4: unreachable.

    [bold]Example[/bold]: comfyload doctor --server http://127.0.0.1:8188 --workflow book_medium.json
    """
    from comfyload.app.doctor import doctor as examine
    from comfyload.app.doctor import exit_code

    checks = clock.run(examine(given.options()))
    if json_:
        print_json(checks)
    else:
        show_checks(checks, all_=all_, alone=True)
    raise typer.Exit(exit_code(checks))


def show_checks(checks: list[DoctorCheck], *, all_: bool = False, alone: bool = False) -> None:
    """Print the checks. `alone`: no run follows, so what is not known and what was not done is of interest."""
    console = Screen(highlight=False)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    draw(_answer(checks), console)
    for mark, style, text in _lines(checks, all_=all_, alone=alone):
        grid.add_row(Text(mark, style), Text(text, "" if mark else "dim"))
    draw(grid, console)
    if alone:
        draw(Text("\nNothing was submitted.", style="dim"), console)


def _answer(checks: list[DoctorCheck]) -> Text:
    """Whether to go on, and with which server."""
    from comfyload.app.doctor import answer

    ready, sentence = answer(checks)
    style = "bold green" if ready else "bold red"
    return Text.assemble(("READY" if ready else "NOT READY", style), f": {sentence}")


def _lines(checks: list[DoctorCheck], *, all_: bool, alone: bool) -> Iterator[tuple[str, str, str]]:
    """Mark, style and text: problems, then warnings, then what is not known; each with what to do under it."""
    shown = [check for check in checks if all_ or _matters(check, alone)]
    for status, (mark, style) in _MARKS.items():
        for check in (check for check in shown if check.status == status):
            # Only these two have lines of ours; what comes from outside in them is made visible already.
            found = check.found if check.name in ("preflight", "version") else visible(check.found)
            clear = status in ("problem", "warning") or found.lower().startswith(check.name.lower())
            yield mark, style, found if clear else f"{check.name}: {found}"
            if check.advice:
                yield "", "", f"  {check.advice}"
    fine = [c.name for c in checks if c.status == "ok" and c not in shown and c.name != "server"]
    if fine:
        number = f"{len(fine)} more {'is' if len(fine) == 1 else 'are'}"
        how = "--all" if alone else "comfyload doctor --all"
        yield "✓", "green", f"{number} fine: {', '.join(dict.fromkeys(fine))} ({how})"


def _matters(check: DoctorCheck, alone: bool) -> bool:
    """Whether a check is shown without --all. How long the run will take is what one came for."""
    if check.status in ("problem", "warning"):
        return True
    return alone and (check.name == "cost" or (check.status == "unknown" and bool(check.advice)))
