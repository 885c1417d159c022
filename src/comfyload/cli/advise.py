"""`comfyload saturate`, `capacity` and `policy`: where it saturates, what it can carry, how to retry."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfyload.cli.flags import (
    DEFAULT_ARCHIVE,
    SERVER,
    Archive,
    CaFile,
    Header,
    Insecure,
    Json,
    MaxJobs,
    MaxTime,
    NoTelemetry,
    Quiet,
    ServerUrl,
    Set,
    check_writable,
    echo,
    for_people,
    server_url,
)
from comfyload.errors import UsageError

if TYPE_CHECKING:
    from comfyload.report.charts.chart import Chart

__all__ = ["capacity", "policy", "saturate"]

Target = Annotated[
    str, typer.Argument(metavar="RUN_OR_BASELINE", help="Measured runs: a directory, or a baseline by name or path.")
]
P95 = Annotated[str, typer.Option("--p95", metavar="DURATION", help="What 95 % of the latencies must keep.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result as JSON.")]
ChartFile = Annotated[Path | None, typer.Option("--chart", metavar="FILE", help="Write the picture as PNG.")]
Share = Annotated[
    list[str] | None,
    typer.Option(
        "--share",
        metavar="NAME=WEIGHT",
        help="How often a workflow will be asked for. Repeatable. \\[default: as it was measured]",
    ),
]


def saturate(
    server: ServerUrl,
    workflow: Annotated[
        list[str], typer.Option(metavar="FILE[=WEIGHT]", help="A workflow in API format. Several make a mix.")
    ],
    p95: P95 = "45s",
    jobs: Annotated[int, typer.Option("--jobs", "-n", min=10, metavar="N", help="Jobs with one in flight.")] = 40,
    confirm_jobs: Annotated[
        int, typer.Option("--confirm-jobs", min=0, metavar="N", help="Jobs of the run that confirms it; 0 for none.")
    ] = 24,
    slow: Annotated[
        bool, typer.Option("--slow", help="The classical ladder: --jobs each at 1, 2, 4 and 8 in flight.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="Give a job up after this long.")
    ] = 420.0,
    set_: Set = None,
    header: Header = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    allow_shared: Annotated[
        bool, typer.Option("--allow-shared", help="Run although others use the server.", rich_help_panel=SERVER)
    ] = False,
    max_jobs: MaxJobs = None,
    max_time: MaxTime = None,
    no_telemetry: NoTelemetry = False,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the runs. \\[default: runs/<utc>-saturate]")
    ] = None,
    output: Output = None,
    chart: ChartFile = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Find where a server saturates, its capacity, and the rate at which it keeps the SLA, with some 80 jobs.

    One ComfyUI runs one prompt at a time. So jobs are measured one by one, then with one waiting; what a rate does to
    latency is simulated from their times, and confirmed by a run at nine tenths of the rate to deploy.

    [bold]Example[/bold]: comfyload saturate --server :8188 --workflow book_medium.json --p95 45s --output knee.json
    """
    from comfyload import clock
    from comfyload.app.campaign import about
    from comfyload.app.run.options import RunOptions
    from comfyload.app.saturate import CampaignOptions, expected_jobs
    from comfyload.app.saturate import saturate as search
    from comfyload.cli.options import parse_cap, parse_workflows
    from comfyload.cli.progress import NoProgress, viewer_for
    from comfyload.load.grammar import parse_duration
    from comfyload.record.plan import Closed, Plan

    for flag, file in (("--output", output), ("--chart", chart)):
        if file is not None:
            check_writable(flag, file, json_=json_)
    options = RunOptions(
        server=server_url(server),
        workflows=parse_workflows(workflow),
        plan=Plan(load=Closed(), timeout_s=timeout),
        settings=set_ or [],
        headers=header or [],
        ca_file=str(ca_file) if ca_file else None,
        insecure=insecure,
        allow_shared=allow_shared,
        telemetry=not no_telemetry,
        max_jobs=max_jobs,
        max_time_s=parse_cap(max_time),
    )
    asked = CampaignOptions(
        options=options, jobs=jobs, confirm_jobs=confirm_jobs, limit_s=parse_duration(p95), slow=slow
    )
    silent = quiet or json_
    if not silent:
        echo(
            f"About {expected_jobs(asked)} jobs will be sent: more if they are short, fewer if it stops early"
            + (f", and no more than {max_jobs}." if max_jobs else "."),
            err=True,
        )

    def viewer(words: str) -> NoProgress:
        if not silent:
            echo(f"\n{words}", err=True)
        return viewer_for(quiet=silent)

    def more(jobs: int, seconds: float) -> bool:
        """On a terminal, who started it is asked."""
        if silent or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        takes = "" if math.isnan(seconds) else f", {about(seconds)}"
        return typer.confirm(
            f"{jobs} more jobs{takes}, would bring the rate to deploy nearer to the highest. Send them?",
            default=False,
            err=True,
        )

    found = clock.run(search(asked, viewer, run_dir, more))

    from comfyload.judge.summary import jsonable
    from comfyload.report.charts.advice import saturation_chart
    from comfyload.report.console import Screen
    from comfyload.report.saturation import render_saturation

    document = jsonable(found)
    _write(output, document)
    _draw(chart, saturation_chart(found))
    if json_:
        Screen(soft_wrap=True, highlight=False).print_json(json.dumps(document))
    elif not quiet:
        render_saturation(found, for_people(output, chart))


def capacity(
    target: Target,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="What will be asked for: 20/min, 3/s. \\[default: several]")
    ] = None,
    p95: P95 = "45s",
    servers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="So many alike. \\[default: as many as --rate needs]")
    ] = None,
    dispatch: Annotated[
        str,
        typer.Option(
            metavar="WAY", help="Of several servers: affinity (our client), shortest_queue (fewest jobs), round_robin."
        ),
    ] = "affinity",
    share: Share = None,
    validate: Annotated[
        str | None, typer.Option(metavar="RUN", help="Hold the forecast against a run, or several.")
    ] = None,
    archive: Archive = DEFAULT_ARCHIVE,
    output: Output = None,
    chart: ChartFile = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Predict latency at other rates and numbers of servers, from the service times of measured runs.

    Every number has an interval; beyond the capacity there is no latency, and none is given.

    [bold]Examples[/bold]

    comfyload capacity rtx5060ti --rate 20/min --p95 45s

    comfyload capacity runs/mine --servers 2

    comfyload capacity rtx5060ti --validate runs/20261123T120000Z-book
    """
    from comfyload.app.advice import DISPATCHES, ahead, basis, validated
    from comfyload.load.grammar import parse_duration, parse_rate

    way = next((one for one in DISPATCHES if one == dispatch), None)
    if way is None:
        raise UsageError(f"--dispatch {dispatch!r} is none", f"choose one of {', '.join(DISPATCHES)}")
    for flag, file in (("--output", output), ("--chart", chart)):
        if file is not None:
            check_writable(flag, file, json_=json_)
    on, limit_s = basis(target, archive, share or []), parse_duration(p95)
    checks = validated(on, validate, archive) if validate is not None else []
    found = ahead(
        on,
        rate_per_s=None if rate is None else parse_rate(rate),
        limit_s=limit_s,
        servers=servers,
        dispatch=way,
    )

    from comfyload.judge.summary import jsonable
    from comfyload.report.advice import render_ahead
    from comfyload.report.charts.advice import forecast_chart
    from comfyload.report.console import Screen

    document = jsonable(
        {
            **{key: getattr(found, key) for key in found.__struct_fields__},
            "jobs": on.pools.n,
            "limit_s": limit_s,
            "validation": dict(checks),
        }
    )
    _write(output, document)
    _draw(chart, forecast_chart(found.rows, limit_s))
    if json_:
        Screen(soft_wrap=True, highlight=False).print_json(json.dumps(document))
    elif not quiet:
        words = f"{on.pools.n} jobs of {', '.join(on.pools.workflows)}"
        render_ahead(
            words,
            60 * found.capacity_per_s,
            found.rows,
            found.dispatches,
            found.sizing,
            checks,
            limit_s=limit_s,
            doubts=found.doubts,
            console=for_people(output, chart),
        )


def policy(
    target: Target,
    deadline: Annotated[
        str, typer.Option(metavar="DURATION", help="How long a user waits for a job, all attempts together.")
    ],
    goal: Annotated[
        float, typer.Option("--target", metavar="PERCENT", help="Share of jobs done by then, in per cent.")
    ] = 98.0,
    rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="What will be asked for: 4/min. \\[default: 0.6 of the capacity]"),
    ] = None,
    servers: Annotated[int, typer.Option(min=1, metavar="N", help="Servers alike.")] = 1,
    outages: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Past outages, a duration a line: 60s, 5m.")
    ] = None,
    share: Share = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="The servers' queues cannot be seen: a gateway is in front of them.")
    ] = False,
    archive: Archive = DEFAULT_ARCHIVE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the policy: retry.json.")
    ] = None,
    export: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="Print it for tenacity, stamina, envoy, nginx or env instead.")
    ] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Make a retry policy from measured runs: deadline, admission, attempts, backoff, budget, breaker, classes.

    Each number says from which inputs it follows, and is tried against the usual naive policies in simulated troubles.
    Where one of those does better, that is said.

    [bold]Examples[/bold]

    comfyload policy rtx5060ti --deadline 90s --output retry.json

    comfyload policy rtx5060ti --deadline 90s --export env
    """
    from comfyload.app.advice import basis
    from comfyload.app.advice import policy as made_of
    from comfyload.cli.progress import working
    from comfyload.load.grammar import parse_duration, parse_rate
    from comfyload.report.advice import render_policy
    from comfyload.report.retry_export import formats, retry_export
    from comfyload.retry.policy import encode
    from comfyload.text_files import read_text

    way = next((one for one in formats() if one == export), None)
    if export is not None and way is None:
        raise UsageError(f"--export {export!r} is none", f"choose one of {', '.join(formats())}")
    if not 0 < goal < 100:
        raise UsageError(f"--target {goal:g} is no share", "give per cent between 0 and 100, such as 98")
    if output is not None:
        check_writable("--output", output, json_=json_ or export is not None)
    lines = read_text(str(outages)).split("\n") if outages is not None else []
    on = basis(target, archive, share or [])
    with working("Trying policies in seven troubles", quiet=quiet or json_) as progress:
        made = made_of(
            on,
            deadline_s=parse_duration(deadline),
            target=goal / 100,
            rate_per_s=None if rate is None else parse_rate(rate),
            servers=servers,
            outages_s=[parse_duration(line) for line in lines if line.strip()],
            depth_known=not blind,
            progress=progress,
        )
    if output is not None:
        _put(output, encode(made))
    if way is not None:
        echo(retry_export(made, way), nl=False)
    elif json_:
        echo(encode(made).decode(), nl=False)
    elif not quiet:
        console = for_people(output)
        render_policy(made, console)
        for doubt in on.doubts:
            console.print(f"note: {doubt}", style="yellow", highlight=False, markup=False)


def _write(file: Path | None, document: object) -> None:
    if file is not None:
        _put(file, json.dumps(document, indent=2).encode() + b"\n")


def _draw(file: Path | None, picture: Chart) -> None:
    if file is not None:
        from comfyload.report.charts import png

        _put(file, png(picture))


def _put(file: Path, content: bytes) -> None:
    from comfyload.record.atomic import write_whole

    write_whole(file, content)
