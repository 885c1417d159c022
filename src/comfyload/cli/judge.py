"""`comfyload check`, `compare` and `trend`: results against gates, against each other, and through time."""

from typing import Annotated

import typer

from comfyload.app.gate_flags import GateFlags
from comfyload.cli.flags import DEFAULT_ARCHIVE, Accept, AllRows, Archive, Json, Margin, MetricsLog, Target
from comfyload.cli.gating import ComparisonFlags, VerdictFlags, show_comparison
from comfyload.cli.output import echo, for_people, show_page
from comfyload.cli.signature import with_flags
from comfyload.record.archive import list_by_hand
from comfyload.record.flag import Flag
from comfyload.report.console import print_json


@with_flags
def check(
    target: Target,
    gating: GateFlags,
    outlet: VerdictFlags,
    baseline: Annotated[
        str | None, Flag("--baseline", "NAME", "What '* baseline' in a gate means.", default="the promoted one")
    ] = None,
    metrics_log: MetricsLog = None,
    archive: Archive = DEFAULT_ARCHIVE,
    json_: Json = False,
) -> None:
    """Test runs against limits. PASS: proven at 95 %, PASS*: inside the limit but not proven, FAIL: disproven.

    Without --gate: success_rate >= 98 %, p95_latency_s <= 45, unexpected_errors == 0.

    Exit code 0: PASS or PASS*, 1: FAIL, 3: INCONCLUSIVE (with --strict PASS* too), 5: the run is not valid.

    [bold]Examples[/bold]

    comfyload check runs/20261123T120000Z-book

    comfyload check rtx5060ti --gate 'p95_latency_s <= 30' --gate 'images_per_minute >= 0.95 * baseline'
    """
    from comfyload.app.check import baseline_of
    from comfyload.app.check import check as judge_all
    from comfyload.app.compare import suites
    from comfyload.app.locate import default_log, find
    from comfyload.judge.gates.gate import exit_code

    outlet.check(json_=json_)
    gates, found = gating.read(), find(target, archive)
    base = baseline_of(gates, baseline, archive)
    checked = judge_all(found, gates, log=default_log(metrics_log), baseline=base)
    code = exit_code(checked.verdicts, checked.valid, strict=outlet.strict)

    from comfyload.report.verdicts import as_json, render

    outlet.write(checked.verdicts, suites(found.results))
    if json_:
        print_json(as_json(checked.verdicts))
    else:
        render(checked.verdicts, for_people(outlet.junit))
    raise typer.Exit(code)


@with_flags
def compare(
    gating: ComparisonFlags,
    outlet: VerdictFlags,
    a: Annotated[str, typer.Argument(metavar="A", help="The reference: a run, a baseline, or runs as RUN,RUN.")],
    b: Annotated[
        str | None,
        typer.Argument(metavar="B", help="The side to judge. Without B, A is compared with the promoted baseline."),
    ] = None,
    paired: Annotated[bool, Flag("--paired", "", "A and B are alternating pairs of runs, as ab makes them.")] = False,
    margin: Margin = 0.05,
    accept: Accept = None,
    archive: Archive = DEFAULT_ARCHIVE,
    all_: AllRows = False,
    json_: Json = False,
) -> None:
    """Compare B with A: per metric and node a ratio, its interval and a verdict.

    Refused if the sides differ in a way that makes a comparison meaningless. Two single runs cannot separate a small
    difference from the noise between runs; comfyload ab can.

    With --fail-if the comparison is a gate, with the exit codes of check. Gates (--gate) test B's runs;
    '* baseline' in a gate means A.

    [bold]Examples[/bold]

    comfyload compare rtx5060ti runs/20261123T120000Z-book

    comfyload compare runs/20261123T120000Z-book

    comfyload compare runs/ab/a runs/ab/b --paired --fail-if slower
    """
    from comfyload.app.compare import compare_targets

    gating.check(outlet, json_=json_)
    sides = ("promoted", a) if b is None else (a, b)
    compared = compare_targets(*sides, archive, paired=paired, margin=margin, accept=accept or [])
    raise typer.Exit(show_comparison(compared, gating, outlet, all_=all_, json_=json_))


@with_flags
def trend(
    runs: Annotated[
        str | None,
        typer.Argument(metavar="[RUNS]", help="A folder of runs, as a gateway's ledger; without it, the baselines."),
    ] = None,
    metric: Annotated[
        list[str] | None, Flag("--metric", "KEY", "A key of the summary. Repeatable.", default="the usual ones")
    ] = None,
    archive: Archive = DEFAULT_ARCHIVE,
    all_: AllRows = False,
    json_: Json = False,
) -> None:
    """Show each metric through the baselines of an archive, or through the days of a gateway's ledger, and mark where
    its level changed.

    [bold]Examples[/bold]

    comfyload trend --metric p95_latency_s

    comfyload trend ledger
    """
    from comfyload.app.compare import trend as through_time
    from comfyload.judge.summary import jsonable
    from comfyload.report.history import history_page

    series = through_time(archive, metric or [], runs)
    for left in list_by_hand(archive) if runs is None else ():
        echo(f"{left.path.name} was made by hand and has no records: it is left out", err=True)
    show_page(
        history_page(series, "baseline" if runs is None else "run"),
        for_people(),
        jsonable(series) if json_ else None,
        all_=all_ or bool(metric),
    )
