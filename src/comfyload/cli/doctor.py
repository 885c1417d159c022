"""`comfyload doctor`: its flags, and how its findings are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from comfyload.cli.flags import CaFile, Header, Insecure, Json, ServerUrl, Set, server_url
from comfyload.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

    from comfyload.app.doctor import DoctorCheck

__all__ = ["doctor", "show_checks"]

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "cyan"}


def doctor(
    server: ServerUrl,
    workflow: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A workflow in API format; - reads standard input. Repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-n", min=1, help="Jobs that the run will have.")] = 12,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="Jobs in flight that it will have.")
    ] = 1,
    set_: Set = None,
    drop_broken_outputs: Annotated[
        bool,
        typer.Option("--drop-broken-outputs", help="Leave out the outputs that the server would drop."),
    ] = False,
    header: Header = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
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
    from comfyload.app.run.options import RunOptions, WorkflowChoice
    from comfyload.record.plan import Closed, Plan

    options = RunOptions(
        server=server_url(server),
        workflows=[WorkflowChoice(file=file) for file in workflow or []],
        plan=Plan(load=Closed(concurrency=concurrency), jobs=jobs),
        settings=set_ or [],
        drop_broken_outputs=drop_broken_outputs,
        headers=header or [],
        ca_file=str(ca_file) if ca_file else None,
        insecure=insecure,
    )
    checks = clock.run(examine(options))
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
