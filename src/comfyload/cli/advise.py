"""`comfyload saturate`, `capacity` and `policy`: where it saturates, what it can carry, how to retry."""

import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct, structs

from comfyload import clock
from comfyload.cli.flags import DEFAULT_ARCHIVE, Archive, Json, Quiet
from comfyload.cli.output import check_writable, echo, for_people, show_page, write_chart, write_json
from comfyload.cli.progress import Part, viewer_for, working
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.errors import UsageError
from comfyload.load.grammar import duration_text, parse_duration, parse_rate
from comfyload.record.atomic import write_whole
from comfyload.record.flag import Flag
from comfyload.record.options import RunOptions
from comfyload.record.plan import Plan
from comfyload.retry.policy import encode
from comfyload.text_files import read_text

Target = Annotated[
    str, typer.Argument(metavar="RUN_OR_BASELINE", help="Measured runs: a directory, or a baseline by name or path.")
]
P95 = Annotated[float, Flag("--p95", "TIME", "Latency limit that 95 % of jobs must meet.")]
Output = Annotated[Path | None, Flag("--output", "FILE", "Write the result as JSON.", short="-o")]
ChartFile = Annotated[Path | None, Flag("--chart", "FILE", "Write the chart as PNG.")]
All = Annotated[bool, Flag("--all", "", "Show every number and check, with its reason.")]
Share = Annotated[
    list[str] | None,
    Flag(
        "--share",
        "NAME=WEIGHT",
        "How often a workflow will be requested. Repeatable.",
        default="as in the measured runs",
    ),
]


TAKES = Takes(
    names=(
        "server", "workflow", "timeout", "set", "header", "ca_file", "insecure", "allow_shared", "max_jobs", "max_time",
        "no_telemetry",
    ),
    base=RunOptions(plan=Plan(timeout_s=420.0)),
    required=("server", "workflow"),
)  # fmt: skip


@with_flags
def saturate(
    given: Annotated[Given, TAKES],
    p95: P95 = 45.0,
    jobs: Annotated[int, Flag("--jobs", "N", "Jobs to run one at a time.", short="-n", least=10)] = 40,
    confirm_jobs: Annotated[
        int, Flag("--confirm-jobs", "N", "Jobs of the run that confirms the rate; 0 skips it.", least=0)
    ] = 24,
    slow: Annotated[bool, Flag("--slow", "", "Measure --jobs jobs at each of 1, 2, 4 and 8 in flight.")] = False,
    run_dir: Annotated[
        Path | None, Flag("--run-dir", "DIR", "The folder of the runs.", default="runs/<utc>-saturate")
    ] = None,
    output: Output = None,
    chart: ChartFile = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Find where a server saturates, its capacity, and the rate at which it keeps the SLA, with some 80 jobs.

    One ComfyUI runs one prompt at a time, so jobs are measured one by one, then
    with one waiting. Latency at other rates is simulated from these times, and
    confirmed by a run at nine tenths of the rate to deploy.

    [bold]Example[/bold]: comfyload saturate --server :8188 --workflow book_medium.json --p95 45s --output knee.json
    """
    from comfyload.app.campaign import CampaignOptions, Cut, about
    from comfyload.app.saturate import expected_jobs
    from comfyload.app.saturate import saturate as search
    from comfyload.report.saturation import saturation_json, saturation_page

    check_writable("--output", output, json_=json_)
    check_writable("--chart", chart, json_=json_)
    wanted = CampaignOptions(run=given.options(), jobs=jobs, confirm_jobs=confirm_jobs, limit_s=p95, slow=slow)
    silent = quiet or json_
    if not silent:
        most = wanted.run.max_jobs
        echo(
            f"About {expected_jobs(wanted)} jobs will be sent: more if they are short, fewer if it stops early"
            + (f", and no more than {most}." if most else "."),
            err=True,
        )

    def more(jobs: int, seconds: float) -> bool:
        """Ask on a terminal."""
        if silent or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        takes = "" if math.isnan(seconds) else f", {about(seconds)}"
        return typer.confirm(
            f"{jobs} more jobs{takes}, would bring the rate to deploy nearer to the highest. Send them?",
            default=False,
            err=True,
        )

    try:
        found = clock.run(search(wanted, lambda words: viewer_for(quiet=silent, part=Part(name=words)), run_dir, more))
    except Cut as cut:
        if cut.found is not None:
            write_json(output, saturation_json(cut.found))
        raise

    from comfyload.report.charts.advice import saturation_chart

    document = saturation_json(found)
    write_json(output, document)
    write_chart(chart, saturation_chart(found))
    page = saturation_page(found, [policy_from(str(Path(found.paths[0]).parent))])
    show_page(page, for_people(output, chart), document if json_ else None, quiet=quiet, all_=all_)


@with_flags
def capacity(
    target: Target,
    rate: Annotated[
        str | None, Flag("--rate", "RATE", "Rate of jobs to expect: 20/min, 3/s.", default="several")
    ] = None,
    p95: P95 = 45.0,
    servers: Annotated[
        int | None, Flag("--servers", "N", "Number of identical servers.", least=1, default="as many as --rate needs")
    ] = None,
    dispatch: Annotated[
        str,
        Flag(
            "--dispatch",
            "WAY",
            "How jobs go to several servers: affinity (as our client does), shortest-queue or round-robin.",
        ),
    ] = "affinity",
    share: Share = None,
    validate: Annotated[str | None, Flag("--validate", "RUN", "Compare the forecast with a run, or several.")] = None,
    archive: Archive = DEFAULT_ARCHIVE,
    output: Output = None,
    chart: ChartFile = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Predict latency at other rates and numbers of servers, from the service times of measured runs.

    Every latency has an interval. Beyond the capacity the queue grows without
    end: such a load is called unstable.

    [bold]Examples[/bold]

    comfyload capacity rtx5060ti --rate 20/min --p95 45s

    comfyload capacity runs/mine --servers 2

    comfyload capacity rtx5060ti --validate runs/20261123T120000Z-book
    """
    from comfyload.app.advice import DISPATCHES, ahead, basis, validated

    way = next((one for one in DISPATCHES if one == dispatch.replace("-", "_")), None)
    if way is None:
        raise UsageError(f"unknown --dispatch {dispatch!r}", "choose affinity, shortest-queue or round-robin")
    check_writable("--output", output, json_=json_)
    check_writable("--chart", chart, json_=json_)
    on = basis(target, archive, share or [])
    checks = validated(on, validate, archive) if validate is not None else {}
    rate_per_s = None if rate is None else parse_rate(rate)
    found = ahead(on, rate_per_s=rate_per_s, limit_s=p95, servers=servers, dispatch=way)
    found = structs.replace(found, validation=checks)

    from comfyload.judge.summary import jsonable
    from comfyload.report.advice import capacity_page
    from comfyload.report.charts.advice import forecast_chart

    document = jsonable(found)
    write_json(output, document)
    write_chart(chart, forecast_chart(found.rows, p95))
    page = capacity_page(found, on.pools.workflows, [policy_from(target)])
    show_page(page, for_people(output, chart), document if json_ else None, quiet=quiet)


class CopesWith(Struct, frozen=True, kw_only=True):
    """What a policy is made for."""

    rate: Annotated[
        str | None, Flag("--rate", "RATE", "Rate of jobs to expect: 4/min.", default="0.6 of the capacity")
    ] = None
    servers: Annotated[int, Flag("--servers", "N", "Number of identical servers.", least=1)] = 1
    outages: Annotated[Path | None, Flag("--outages", "FILE", "Durations of past outages, one a line: 60s, 5m.")] = None
    share: Share = None
    blind: Annotated[
        bool, Flag("--blind", "", "The client cannot read the servers' queues: a gateway is in front of them.")
    ] = False


@with_flags
def policy(
    target: Target,
    expected: CopesWith,
    deadline: Annotated[
        float, Flag("--deadline", "TIME", "How long a user waits for a job, all attempts together: 90s.")
    ],
    goal: Annotated[float, Flag("--target", "PERCENT", "Share of jobs that must be done by then.")] = 98.0,
    archive: Archive = DEFAULT_ARCHIVE,
    output: Annotated[Path | None, Flag("--output", "FILE", "Write the policy: retry.json.", short="-o")] = None,
    export: Annotated[
        str | None, Flag("--export", "FORMAT", "Print the policy for tenacity, stamina, envoy, nginx or env.")
    ] = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Make a retry policy from measured runs: deadline, admission, attempts, backoff, budget, breaker, classes.

    It is compared with the usual naive retries in seven simulated troubles.
    With --all each number is shown with its reason.

    [bold]Examples[/bold]

    comfyload policy rtx5060ti --deadline 90s --output retry.json

    comfyload policy rtx5060ti --deadline 90s --export env
    """
    import numpy as np

    from comfyload.advise.choose_policy import synthesise
    from comfyload.app.advice import SEED, basis
    from comfyload.report.advice import policy_page
    from comfyload.report.retry_export import FORMATS, retry_export

    if export is not None and export not in FORMATS:
        raise UsageError(f"unknown --export {export!r}", f"choose one of {', '.join(FORMATS)}")
    if not 0 < goal < 100:
        raise UsageError(f"invalid --target {goal:g}", "give a percentage between 0 and 100, such as 98")
    check_writable("--output", output, json_=json_ or export is not None)
    lines = read_text(str(expected.outages)).split("\n") if expected.outages is not None else []
    on = basis(target, archive, expected.share or [])
    with working("Trying policies in seven troubles", quiet=quiet or json_) as progress:
        made = synthesise(
            on.pools,
            on.workload,
            deadline_s=deadline,
            target=goal / 100,
            rate_per_s=parse_rate(expected.rate) if expected.rate else 0.6 * expected.servers * on.jobs_per_s,
            servers=expected.servers,
            transient=on.transient,
            outages=[parse_duration(line) for line in lines if line.strip()],
            depth_known=not expected.blind,
            rng=np.random.default_rng(SEED),
            progress=progress,
        )
    if output is not None:
        write_whole(output, encode(made))
    if export is not None:
        echo(retry_export(made, export), nl=False)
        return
    if json_:
        echo(encode(made).decode(), nl=False)
        return
    next_ = policy_from(target, duration_text(deadline))
    if output is not None:
        next_ = shlex.join(["comfyload", "faults", "--scenario", "all", "--policy", str(output)])
    page = policy_page(made, "" if output is None else str(output), on.doubts, [next_])
    show_page(page, for_people(output), quiet=quiet, all_=all_)


def policy_from(target: str, deadline: str = "90s") -> str:
    """The command that makes a policy from measured runs."""
    return shlex.join(["comfyload", "policy", target, "--deadline", deadline, "--output", "retry.json"])
