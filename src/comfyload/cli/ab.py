"""`comfyload ab`: its flags."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct, structs

from comfyload import clock
from comfyload.app.run.servers import server_url
from comfyload.cli.flags import Accept, AllRows, Json, Margin, Quiet
from comfyload.cli.gating import ComparisonFlags, VerdictFlags, show_comparison
from comfyload.cli.progress import viewer_for
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.errors import UsageError
from comfyload.record.flag import Flag
from comfyload.record.options import RunOptions
from comfyload.record.plan import Plan
from comfyload.report.console import Screen

TAKES = Takes(
    names=(
        "workflow", "server", "jobs", "concurrency", "warmup", "timeout", "set", "header", "ca_file", "insecure",
        "allow_shared", "max_jobs", "max_time", "no_telemetry",
    ),
    base=RunOptions(plan=Plan(jobs=12, warmup=1)),
    required=("workflow",),
    help={
        "server": "The one server, with --switch.",
        "jobs": "Counted jobs of each run.",
        "warmup": "Jobs after each switch that are not counted.",
    },
)  # fmt: skip


class SideFlags(Struct, frozen=True, kw_only=True):
    """What is compared: two servers, or one that a command switches."""

    a: Annotated[str | None, Flag("--a", "URL", "Server A, the reference.")] = None
    b: Annotated[str | None, Flag("--b", "URL", "Server B, compared with A.")] = None
    switch: Annotated[
        str | None,
        Flag("--switch", "CMD", "Command that puts --server into state 'a' or 'b', its argument, before each run."),
    ] = None


@with_flags
def ab(
    given: Annotated[Given, TAKES],
    gating: ComparisonFlags,
    outlet: VerdictFlags,
    sides: SideFlags,
    pairs: Annotated[int, Flag("--pairs", "K", "Pairs of runs, in the order ABBA.", least=2)] = 5,
    margin: Margin = 0.05,
    accept: Accept = None,
    run_dir: Annotated[
        Path | None, Flag("--run-dir", "DIR", "The folder of the runs.", default="runs/<utc>-ab")
    ] = None,
    quiet: Quiet = False,
    all_: AllRows = False,
    json_: Json = False,
) -> None:
    """Compare two servers, or one server in two states, with alternating pairs of runs (ABBA).

    Heat, clocks and neighbours drift, and alternation makes them affect both sides alike: 5 pairs of 12 jobs find a
    difference of 10 %, where single runs raise false alarms. The runs are kept; comfyload compare DIR/a DIR/b --paired
    repeats the judgement.

    With --fail-if the comparison is a gate, with the exit codes of check. Gates (--gate) test B's runs;
    '* baseline' in a gate means A.

    [bold]Examples[/bold]

    comfyload ab --a http://gpu1:8188 --b http://gpu2:8188 --workflow book.json

    comfyload ab --server :8188 --switch ./switch-driver.sh --workflow book.json --pairs 10

    comfyload ab --server :8188 --switch ./use.sh --workflow tiny.json --fail-if slower --junit verdicts.xml
    """
    from comfyload.app.ab import Alternation, alternate

    gating.check(outlet, json_=json_)
    one, other = _sides(given.options(), sides)
    wanted = Alternation(a=one, b=other, pairs=pairs, switch=sides.switch, accept=accept or [])
    made = clock.run(alternate(wanted, lambda: viewer_for(quiet=quiet or json_), run_dir))

    from comfyload.app.compare import compare_targets

    compared = compare_targets(made.a, made.b, made.folder, paired=True, margin=margin, accept=accept or [])
    compared = structs.replace(compared, names=wanted.names)
    if made.cut:
        found = compared.comparison
        caveats = [f"{made.cut}.", *found.caveats]
        compared = structs.replace(compared, comparison=structs.replace(found, caveats=caveats))
    code = show_comparison(compared, gating, outlet, all_=all_, json_=json_, quiet=quiet)
    if not json_ and not quiet:
        Screen().print(f"Runs: {made.folder}", style="dim", soft_wrap=True, markup=False)
    raise typer.Exit(code)


def _sides(options: RunOptions, sides: SideFlags) -> tuple[RunOptions, RunOptions]:
    """The options of A and of B.

    Raises:
        UsageError: a side has no server.
    """
    a, b, switch = sides.a, sides.b, sides.switch
    if switch is None:
        if a is None or b is None:
            raise UsageError("two sides are needed", "give --a URL --b URL, or --server URL --switch CMD")
        one, other = (structs.replace(options, server=server_url(url)) for url in (a, b))
        return one, other
    if a is not None or b is not None:
        raise UsageError("--switch is for one server", "give --server URL --switch CMD, or --a URL --b URL")
    if not options.server:
        raise UsageError("no server is given", "give --server http://127.0.0.1:8188")
    return options, options
