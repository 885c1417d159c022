"""`comfyload doctor`: its flags, and how its findings are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from comfyload.cli.flags import Json
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.record.options import RunOptions
from comfyload.record.plan import Plan
from comfyload.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

    from comfyload.app.doctor import DoctorCheck

__all__ = ["doctor", "show_checks"]

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "cyan"}


TAKES = Takes(
    names=("server", "workflow", "jobs", "concurrency", "set", "drop_broken_outputs", "header", "ca_file", "insecure"),
    base=RunOptions(plan=Plan(jobs=12)),
    required=("server",),
    help={"jobs": "Jobs that the run will have.", "concurrency": "Jobs that it will have in flight."},
)


@with_flags
def doctor(
    given: Annotated[Given, TAKES],
    json_: Json = False,
) -> None:
    """Look at a server and a workflow before a run: what is missing, what would disturb the numbers. Submits nothing.

    Exit code 0: go on (there may be warnings), 2: the server would not run the workflow, or not all of it, 3: the
    server is busy or its worker does not move, 4: unreachable.

    [bold]Example[/bold]: comfyload doctor --server http://127.0.0.1:8188 --workflow book_medium.json
    """
    from comfyload import clock
    from comfyload.app.doctor import doctor as examine
    from comfyload.app.doctor import exit_code

    checks = clock.run(examine(given.options()))
    show_checks(checks, as_json=json_)
    raise typer.Exit(exit_code(checks))


def show_checks(checks: list[DoctorCheck], *, as_json: bool) -> None:
    from comfyload.report.console import Screen

    if as_json:
        from comfyload.record.codec import encode

        Screen(soft_wrap=True, highlight=False).print_json(encode(checks).decode())
    else:
        _table(checks, Screen(highlight=False))


def _table(checks: list[DoctorCheck], console: Console) -> None:
    """One row a check, what to do below it; the words alone tell how it stands."""
    from collections import Counter

    from rich.table import Table
    from rich.text import Text

    from comfyload.report.text import ascii_only, count

    plain = not console.encoding.lower().startswith("utf")

    def shown(text: str, style: str = "") -> Text:
        return Text(ascii_only(text).encode("ascii", "replace").decode() if plain else text, style=style)

    def told_of(check: DoctorCheck) -> str:
        # Only these two have lines of ours, and what is from outside in them is shown as such already.
        return check.found if check.name in ("preflight", "version") else visible(check.found)

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for check in checks:
        grid.add_row(shown(check.status, _STYLES[check.status]), shown(check.name), shown(told_of(check)))
        if check.advice:
            grid.add_row("", "", shown(f"-> {check.advice}", "dim"))
    console.print(grid)
    counts = Counter(check.status for check in checks)
    told = [f"{counts['ok']} ok", count(counts["warning"], "warning"), count(counts["problem"], "problem")]
    console.print(shown(f"\n{', '.join(told)}, {counts['unknown']} unknown. Nothing was submitted."))
