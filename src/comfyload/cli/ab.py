"""`comfyload ab`: its flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comfyload.cli.flags import (
    LOAD,
    SERVER,
    Accept,
    AllRows,
    CaFile,
    Expect,
    FailIfs,
    Gate,
    GatesFile,
    GithubSummary,
    Header,
    Independent,
    Insecure,
    Json,
    Junit,
    MaxJobs,
    MaxTime,
    NoTelemetry,
    Quiet,
    Set,
    Strict,
    server_url,
)
from comfyload.cli.gating import GateOptions, Outlet, show_comparison
from comfyload.errors import UsageError

__all__ = ["ab"]


def ab(
    workflow: Annotated[list[str], typer.Option(metavar="FILE", help="A workflow in API format. Several make a mix.")],
    a: Annotated[str | None, typer.Option("--a", metavar="URL", help="The server that is compared with.")] = None,
    b: Annotated[str | None, typer.Option("--b", metavar="URL", help="The server that is compared.")] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The one server, with --switch.", envvar="COMFYLOAD_SERVER"),
    ] = None,
    switch: Annotated[
        str | None,
        typer.Option(
            metavar="CMD", help="Run before each run with 'a' or 'b' behind it; puts the one server in that state."
        ),
    ] = None,
    pairs: Annotated[int, typer.Option(min=2, metavar="K", help="Pairs of runs, in the order ABBA.")] = 5,
    jobs: Annotated[int, typer.Option("--jobs", "-n", min=1, metavar="N", help="Counted jobs of each run.")] = 12,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, metavar="C", help="Jobs in flight.", rich_help_panel=LOAD)
    ] = 1,
    warmup: Annotated[
        int, typer.Option(min=0, metavar="N", help="Jobs after each switch that are not counted.", rich_help_panel=LOAD)
    ] = 1,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.001, help="Give a job up after this long.")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0.001, max=1, metavar="SHARE", help="A difference below this is of no practical use.")
    ] = 0.05,
    accept: Accept = None,
    set_: Set = None,
    header: Header = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    allow_shared: Annotated[
        bool, typer.Option("--allow-shared", help="Run although others use the server.", rich_help_panel=SERVER)
    ] = False,
    max_jobs: MaxJobs = None,
    max_time: MaxTime = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", metavar="DIR", help="The folder of the runs. \\[default: runs/<utc>-ab]")
    ] = None,
    no_telemetry: NoTelemetry = False,
    fail_if: FailIfs = None,
    gate: Gate = None,
    gates: GatesFile = None,
    expect: Expect = None,
    independent_failures: Independent = False,
    strict: Strict = False,
    junit: Junit = None,
    github_summary: GithubSummary = False,
    quiet: Quiet = False,
    all_: AllRows = False,
    json_: Json = False,
) -> None:
    """Compare two servers, or one before and after a switch, by pairs of runs made by turns (ABBA).

    What drifts (heat, clocks, neighbours) meets both sides alike, so that a difference of 10 % is found with 5 pairs of
    12 jobs where single runs raise false alarms. The runs are kept; comfyload compare DIR/a DIR/b --paired repeats the
    judgement.

    With --fail-if the comparison is a gate, with the exit codes of check. Gates (--gate) are on B's runs, and
    '* baseline' in them is A.

    [bold]Examples[/bold]

    comfyload ab --a http://gpu1:8188 --b http://gpu2:8188 --workflow book.json

    comfyload ab --server :8188 --switch ./switch-driver.sh --workflow book.json --pairs 10

    comfyload ab --server :8188 --switch ./use.sh --workflow tiny.json --fail-if slower --junit verdicts.xml
    """
    if switch is None and (a is None or b is None):
        raise UsageError("two sides are needed", "give --a URL --b URL, or --server URL --switch CMD")
    if switch is not None and (a is not None or b is not None):
        raise UsageError("--switch is for one server", "give --server URL --switch CMD, or --a URL --b URL")
    if switch is not None and server is None:
        raise UsageError("no server is given", "give --server http://127.0.0.1:8188")
    from msgspec import structs

    from comfyload import clock
    from comfyload.app.ab import Alternation, alternate
    from comfyload.app.run.options import RunOptions, WorkflowChoice
    from comfyload.cli.options import parse_cap
    from comfyload.cli.progress import viewer_for
    from comfyload.record.plan import Closed, Plan

    gating = GateOptions.of(fail_if, gate, gates, expect, independent=independent_failures)
    outlet = Outlet(junit, github_summary, strict)
    outlet.check(json_=json_)
    gating.check(outlet)
    options = RunOptions(
        server=server_url(server or a or ""),
        workflows=[WorkflowChoice(file=file) for file in workflow],
        plan=Plan(load=Closed(concurrency=concurrency), jobs=jobs, warmup=warmup, timeout_s=timeout),
        settings=set_ or [],
        headers=header or [],
        ca_file=str(ca_file) if ca_file else None,
        insecure=insecure,
        allow_shared=allow_shared,
        telemetry=not no_telemetry,
        max_jobs=max_jobs,
        max_time_s=parse_cap(max_time),
    )
    other = options if switch is not None else structs.replace(options, server=server_url(b or ""))
    asked = Alternation(a=options, b=other, pairs=pairs, switch=switch, accept=accept or [])
    made = clock.run(alternate(asked, lambda: viewer_for(quiet=quiet or json_), run_dir))

    from comfyload.app.compare import compare_targets
    from comfyload.report.console import Screen

    compared = compare_targets(made.a, made.b, made.folder, paired=True, margin=margin, accept=accept or [])
    compared = structs.replace(compared, names=asked.names)
    if made.cut:
        found = compared.comparison
        caveats = [f"{made.cut}.", *found.caveats]
        compared = structs.replace(compared, comparison=structs.replace(found, caveats=caveats))
    code = show_comparison(compared, gating, outlet, all_=all_, json_=json_, quiet=quiet)
    if not json_ and not quiet:
        Screen().print(f"Runs: {made.folder}", style="dim", soft_wrap=True, markup=False)
    raise typer.Exit(code)
