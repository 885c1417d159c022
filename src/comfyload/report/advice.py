"""The tables of advice: a retry policy with its reasons and scores, and what to expect at other loads."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfyload.advise.choose_policy import OURS, infeasible, where_naive_wins
from comfyload.advise.forecast import Estimate, Forecast, Sizing, Validation
from comfyload.report.console import draw
from comfyload.report.plan_text import seconds_words
from comfyload.report.text import DASH, count, decimals, duration, fixed, percent
from comfyload.retry.policy import Policy, Score

__all__ = [
    "forecast_table",
    "policy_tables",
    "render_ahead",
    "render_policy",
    "score_table",
    "sizing_words",
    "validation_table",
]

_TROUBLE = {
    "steady": "no trouble",
    "burst": "twice what they can do",
    "restart": "a restart",
    "failures": "5 % of executions fail",
    "stall": "a minute's stall",
    "poison": "and 3 % of jobs always fail",
    "sick": "60 % of executions fail",
}


def render_policy(policy: Policy, console: Console) -> None:
    """Print the numbers with their reasons, then how they did."""
    for number, part in enumerate(policy_tables(policy)):
        if number:
            console.print()
        draw(part, console)


def render_ahead(
    words: str,
    capacity_per_min: float,
    rows: Sequence[Forecast],
    dispatches: Sequence[Forecast],
    sizing: Sizing | None,
    checks: Sequence[tuple[str, Validation]],
    *,
    limit_s: float,
    doubts: Sequence[str],
    console: Console,
) -> None:
    """Print a forecast: what it rests on, the rows, the ways to share jobs out, and how it did against runs."""
    per_min = fixed(capacity_per_min, decimals(capacity_per_min))
    parts: list[Text | Table] = [Text(f"From {words}: one server completes {per_min} a minute at most.")]
    if sizing is not None:
        parts.append(Text(sizing_words(sizing), style="bold"))
    if rows:
        parts.append(forecast_table(rows, limit_s))
    if dispatches:
        parts.append(_dispatch_table(dispatches, limit_s))
    for path, validation in checks:
        head = "as predicted" if validation.passed else "not as predicted, or not to be told"
        parts += [Text(f"{path}: {head}.", style="bold"), validation_table(validation)]
        parts += [Text(reason, style="dim") for reason in validation.reasons]
    parts += [Text(f"note: {doubt}", style="yellow") for doubt in doubts]
    for number, part in enumerate(parts):
        if number:
            console.print()
        draw(part, console)


def _dispatch_table(rows: Sequence[Forecast], limit_s: float) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="not bold dim")
    table.add_column(f"{rows[0].servers} servers, by dispatch")
    for name in ("p50, s", "p95, s", f"over {limit_s:g} s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        name = row.dispatch.replace("_", " ")
        if row.stable:
            missed = DASH if row.missed is None else percent(row.missed.estimate)
            table.add_row(name, _seconds(row.p50_s), _seconds(row.p95_s), missed)
        else:
            table.add_row(name, Text("unstable", style="bold red"), "∞", "100 %")
    return table


def policy_tables(policy: Policy) -> list[Text | Table]:
    """First what cannot be had, then each number, then the scores, then where others did better."""
    parts: list[Text | Table] = [Text(f"Not possible: {text}.", style="bold red") for text in infeasible(policy)]
    parts.append(_numbers(policy))
    if policy.scores:
        parts.append(score_table(policy.scores))
        parts.append(_better(policy))
    return parts


def _numbers(policy: Policy) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    for path, why in policy.explanations.items():
        if not path.startswith("infeasible."):
            table.add_row(Text(path), Text(_value(policy, path)), Text(why, style="dim"))
    return table


def _value(policy: Policy, path: str) -> str:
    value: object = policy
    for name in path.split("."):
        value = getattr(value, name, None)
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def score_table(scores: Sequence[Score]) -> Table:
    """A row for each policy in each trouble: the share done within the deadline, and what it cost."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="not bold dim")
    for name, side in (("trouble, policy", "left"), ("in time", "right"), ("±", "right"), ("per min", "right")):
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=side == "right")
    for name in ("sent", "wasted", "recovers"):
        table.add_column(name, justify="right", no_wrap=True)
    last = ""
    for row in scores:
        if row.scenario != last:
            table.add_row(Text(_TROUBLE.get(row.scenario, row.scenario), style="bold"))
            last = row.scenario
        table.add_row(Text(f"  {row.policy}", style="bold" if row.policy == OURS else ""), *_cells(row))
    return table


def _cells(row: Score) -> list[str]:
    troubled = row.scenario in ("burst", "restart", "stall", "sick")
    never = "never" if troubled else ""
    return [
        percent(row.success),
        "" if row.success_half_width is None else f"{100 * row.success_half_width:.1f}",
        _or_dash(row.goodput_per_min),
        _or_dash(row.submits_per_job),
        DASH if row.wasted_share is None else percent(row.wasted_share),
        never if row.recovery_s is None else "at once" if row.recovery_s == 0 else seconds_words(row.recovery_s),
    ]


def _or_dash(value: float | None) -> str:
    return DASH if value is None else fixed(value, decimals(value, 2))


def _better(policy: Policy) -> Text:
    wins = where_naive_wins(policy)
    if not wins:
        return Text("No other policy succeeded more often in any of these.", style="dim")
    words = [
        f"{_TROUBLE.get(ours.scenario, ours.scenario)}: {other.policy} {percent(other.success)}, this "
        f"{percent(ours.success)}"
        for ours, other in wins
    ]
    return Text("Others did better in: " + "; ".join(words) + ".")


def forecast_table(rows: Sequence[Forecast], limit_s: float | None = None) -> Table:
    """A row for each number of servers at each rate; latencies with their 90 % intervals."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="not bold dim")
    for name in ("per min", "servers", "load", "p50, s", "p95, s", "p99, s"):
        table.add_column(name, justify="right", no_wrap=True)
    limited = any(row.missed is not None for row in rows)
    if limited:
        table.add_column("late" if limit_s is None else f">{limit_s:g} s", justify="right", no_wrap=True)
    for row in rows:
        per_min = 60 * row.rate_per_s
        cells = [fixed(per_min, decimals(per_min)), str(row.servers), f"{100 * row.load.estimate:.0f} %"]
        if not row.stable:
            table.add_row(*cells, Text("unstable", style="bold red"), "∞", "∞", *(["100 %"] if limited else []))
            continue
        cells += [_seconds(row.p50_s), _seconds(row.p95_s), _seconds(row.p99_s)]
        if row.missed is not None:
            cells.append(percent(row.missed.estimate))
        table.add_row(*cells)
    return table


def _seconds(value: Estimate) -> str:
    places = decimals(value.estimate, 2)
    ends = (fixed(end, places) for end in (value.low, value.high))
    return f"{fixed(value.estimate, places)} ({DASH.join(ends)})"


def sizing_words(sizing: Sizing) -> str:
    """How many servers, in a sentence."""
    limit = f"{sizing.limit_s:g} s"
    if not sizing.rows:
        return f"No number of servers keeps the p95 within {limit}: too many jobs take longer where none waits."
    if sizing.enough is None:
        return f"Not even {count(sizing.rows[-1].servers, 'server')} keep the p95 within {limit}."
    words = f"{count(sizing.enough, 'server')} {'keeps' if sizing.enough == 1 else 'keep'} the p95 within {limit}"
    if sizing.with_spare is None:
        return f"{words}; with a spare one, more are needed than were tried."
    if sizing.with_spare == sizing.enough:
        return f"{words}, and carry the load, if slower, when one of them is lost."
    return f"{words}; to carry the load when one is lost, {sizing.with_spare} are needed."


def validation_table(validation: Validation) -> Table:
    """Each check of the model against a run."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="not bold dim")
    table.add_column("check")
    for name in ("measured", "predicted", "error", "19 of 20 runs", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for check in validation.checks:
        known = check.low is not None and check.high is not None and math.isfinite(check.high)
        band = f"{duration(check.low or 0.0)} {DASH} {duration(check.high or 0.0)}" if known else ""
        off = "off" if check.inside is None else "longer" if check.error < 0 else "shorter"
        verdict = "" if check.passed is None else "ok" if check.passed else off
        table.add_row(
            f"{check.name}, {check.of}",
            duration(check.measured_s),
            duration(check.predicted_s),
            f"{100 * check.error:+.1f} %",
            band,
            verdict,
        )
    return table
