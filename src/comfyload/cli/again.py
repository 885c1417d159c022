"""`comfyload resume`, `cleanup` and `show`: what is done with a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comfyload.cli.flags import MaxJobs, MaxTime, check_writable, echo

__all__ = ["cleanup", "resume", "show"]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
ServerUrl = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="The server, if its address has changed.")
]
Headers = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Headers, which no run keeps. Repeatable.")
]
CaFile = Annotated[Path | None, typer.Option("--ca-file", metavar="PEM", help="Trust this certificate authority.")]


def resume(
    run: Run,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write summary, statistics and jobs as JSON.")
    ] = None,
    server: ServerUrl = None,
    workflow: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="The workflow, if its file has moved. As often as in the run."),
    ] = None,
    header: Headers = None,
    ca_file: CaFile = None,
    max_jobs: MaxJobs = None,
    max_time: MaxTime = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of the table.")] = False,
) -> None:
    """Finish a run whose process died: jobs still on the server are followed, none is sent twice.

    [bold]Example[/bold]: comfyload resume runs/20261123T120000Z-book -o load.json
    """
    from comfyload import clock
    from comfyload.app.run.resume import Again
    from comfyload.app.run.resume import resume as take_up
    from comfyload.cli.options import parse_cap
    from comfyload.cli.progress import viewer_for

    if output is not None:
        check_writable("--output", output, json_=json_)
    again = Again(
        server=server,
        headers=header or [],
        workflows=workflow or [],
        ca_file=str(ca_file) if ca_file else None,
        max_jobs=max_jobs,
        max_time_s=parse_cap(max_time),
    )
    if not clock.run(take_up(run, again, viewer_for(quiet=quiet or json_))) and not (quiet or json_):
        echo("The run is complete already; nothing was left to do.", err=True)

    from comfyload.app.summary import report_run

    raise typer.Exit(report_run(run, output=output, quiet=quiet, as_json=json_))


def cleanup(run: Run, server: ServerUrl = None, header: Headers = None, ca_file: CaFile = None) -> None:
    """Take off the server what a dead run left there. Only prompts of this run are touched, each by its id.

    [bold]Example[/bold]: comfyload cleanup runs/20261123T120000Z-book
    """
    from comfyload import clock
    from comfyload.app.run.resume import Again
    from comfyload.app.run.resume import cleanup as take_off

    again = Again(server=server, headers=header or [], ca_file=str(ca_file) if ca_file else None)
    found = clock.run(take_off(run, again))
    echo(
        f"{found.looked_up} jobs without an end looked up; {found.deleted} waiting deleted, "
        f"{found.stopped} running stopped; "
        f"{len(found.still_there)} still there."
    )
    for prompt_id in found.still_there:
        echo(f"still there: {prompt_id}")
    if found.damage is not None:
        lines = f"{found.damage.lines} lines, the first is line {found.damage.first}, " if found.damage.lines else ""
        echo(f"The journal cannot be read: {lines}{found.damage.why}. Jobs may be unknown.")
    raise typer.Exit(3 if found.still_there or found.damage is not None else 0)


def show(
    run: Run,
    job: Annotated[int | None, typer.Option(metavar="N", help="One job, by its index, with its nodes.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write summary, statistics and jobs as JSON.")
    ] = None,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Leave out lines that cannot be read, and say how many.")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Show every number; with --json the whole page in words.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary, or the job's record, as JSON.")] = False,
) -> None:
    """Print a run, or one job of it, from its files alone.

    A damaged line is an error that names it. With --salvage the rest is read; a run that has lost records is not valid.

    [bold]Example[/bold]: comfyload show runs/20261123T120000Z-book --job 3
    """
    from comfyload.app.summary import report_run

    if output is not None:
        check_writable("--output", output, json_=json_)
    if job is None:
        raise typer.Exit(report_run(run, output=output, quiet=False, as_json=json_, salvage=salvage, all=all_))
    from comfyload.app.show import show_job

    show_job(run, job, as_json=json_, salvage=salvage)
