"""The table of durations: a row per metric, its interval beneath, and a footnote for each number withheld."""

import math
from collections.abc import Iterable, Sequence

from comfyload.judge.metrics import METRICS
from comfyload.judge.statistics.means import INDEPENDENT
from comfyload.judge.statistics.stats import Statistic, upper_bound_needs
from comfyload.judge.summary import Summary
from comfyload.report.page import Table, Value, table
from comfyload.words import DASH, decimals, fixed, scale

_SHOWN = ("avg", "p50", "p90", "p95", "p99", "max")
_DERIVED = (("failures as ∞", "latency_with_failures"), ("book latency", "book_latency"))
"""Rows that are not the duration of a single job: label, and name in the keys."""

OWN_DELAY = 0.05
"""Of a latency, the share of time before a job was sent that is worth a line."""

_GREW = "overload: it grew through the run, so it depends on how long the run lasted"


def durations(summary: Summary) -> Table:
    """Mean, percentiles and the longest of each duration. It has no rows if nothing was measured."""
    growing, rows = _growing(summary), []
    for label, key in (*((metric.words, metric.name) for metric in METRICS.values()), *_DERIVED):
        cells = [_cell(summary, f"{shown}_{key}_s") for shown in _SHOWN]
        if key == "latency_with_failures" and summary.summary["completed"] == summary.summary["total_jobs"]:
            continue
        if all(cell.n == 0 for cell in cells if cell is not None) or (key == "latency_sent" and not own_delay(summary)):
            continue
        known = [cell.value for cell in cells if cell is not None and cell.value is not None]
        factor, unit = _scale(known)
        # Two places keep six intervals within 80 columns. The server's times are whole milliseconds.
        most = 2 if unit != "ms" else 0 if key in ("queue_wait", "execution") else 1
        name = Value(f"{label}, {unit}", note=_GREW if key in growing else "")
        rows.append([name, *(_value(cell, factor, most) for cell in cells)])
    columns = ("Durations", ">mean", *(f">{title}" for title in _SHOWN[1:]))
    return table("durations", columns, rows, detail=True)


def own_delay(summary: Summary) -> bool:
    """Whether jobs waited before they were sent for so long that latency without this is another number."""
    pairs = [[_cell(summary, f"{shown}_{key}_s") for key in ("latency", "latency_sent")] for shown in _SHOWN]
    known = [(due.value, sent.value) for due, sent in pairs if due is not None and sent is not None]
    return any(due is not None and sent is not None and sent < (1 - OWN_DELAY) * due for due, sent in known)


def open_ends(tables: Iterable[Table], summary: Summary) -> list[str]:
    """What an interval with one end means, where the tables or rates have one."""
    cells = [cell.interval for table in tables for row in table.rows for cell in row]
    rates = [summary.statistics[key] for key in ("images_per_minute", "jobs_per_minute")]
    if not any(interval.startswith("≥") for interval in cells) and all(rate.low is not None for rate in rates):
        return []
    needs = {f"p{100 * p:g}": upper_bound_needs(p) for p in (0.5, 0.9, 0.95, 0.99)}
    listed = ", ".join([f"mean or rate: {INDEPENDENT}", *(f"{name}: {jobs}" for name, jobs in needs.items())])
    return [f"≥ or up to: too few independent jobs to say where the other end is ({listed})."]


def _scale(seconds: Sequence[float]) -> tuple[float, str]:
    """Minutes where one is a thousand seconds: six intervals of thousands do not fit 80 columns."""
    if any(1000 <= value < math.inf for value in seconds):
        return 1 / 60, "min"
    return scale(seconds, below=1.0)


def _growing(summary: Summary) -> set[str]:
    """The rows that an overload made grow; times from sent did not if arrivals waited for a place instead."""
    if not any(finding.code == "overload" and finding.evidence["grew"] for finding in summary.findings):
        return set()
    offered, sent = summary.summary["offered_per_minute"], summary.summary["sent_per_minute"]
    kept_up = isinstance(offered, float) and isinstance(sent, float) and sent > 0.9 * offered
    return {"latency", "latency_with_failures", "book_latency", *(("latency_sent", "queue_wait") if kept_up else ())}


def _cell(summary: Summary, name: str) -> Statistic | None:
    """A statistic by name; a maximum is a fact, and stands without an interval."""
    if name in summary.statistics:
        return summary.statistics[name]
    value = summary.summary.get(name)
    return Statistic(value=value, n=1, unit="s", method="max") if isinstance(value, float) else None


def _value(cell: Statistic | None, factor: float, most: int) -> Value:
    if cell is None:
        return Value("")
    if cell.value is None:
        return Value(DASH, note=f"withheld: {cell.reason}")
    words = fixed(cell.value * factor, _places(cell.value * factor, most))
    return Value(words, interval=_interval(cell, factor, most))


def _interval(cell: Statistic, factor: float, most: int) -> str:
    if cell.value is None or cell.low is None or math.isinf(cell.low):
        return ""
    low = cell.low * factor
    places = _places(cell.value * factor if math.isfinite(cell.value) else low, most)
    if cell.high is None:
        return f"≥{fixed(low, places)}"
    return f"{fixed(low, places)}{DASH}{fixed(cell.high * factor, places)}"


def _places(value: float, most: int) -> int:
    # A cached job's 4 ms in a row of seconds must not read as zero.
    return decimals(value, most + (most == 2 and value < 0.1))
