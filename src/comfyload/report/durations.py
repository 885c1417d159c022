"""The table of durations: a row per metric, its interval beneath, and a footnote for each number withheld."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from comfyload.judge.statistics.means import INDEPENDENT
from comfyload.judge.statistics.stats import CONFIDENCE, Statistic, upper_bound_needs
from comfyload.judge.summary import Summary
from comfyload.report.text import DASH, decimals, fixed, scale, superscript

__all__ = ["Notes", "durations"]

_SHOWN = ("avg", "p50", "p90", "p95", "p99", "max")
_ROWS = (  # label, key
    ("from due", "latency"),
    ("from sent", "latency_sent"),
    ("failures as ∞", "latency_with_failures"),
    ("book, from due", "book_latency"),
    ("queue wait", "queue_wait"),
    ("execution", "execution"),
    ("acknowledge", "acknowledge"),
)

_GREW = "overload: grew through the run, so it depends on how long that lasted"


class Notes:
    """Footnotes, numbered as they come up; one reason has one number however often it is given."""

    def __init__(self) -> None:
        self._notes: dict[str, int] = {}
        self.open_ended: set[str] = set()
        self.rates_open = False

    def mark(self, reason: str) -> str:
        """The number of the footnote that says why something is withheld."""
        return self.remark(f"withheld: {reason}")

    def remark(self, text: str) -> str:
        """The number of a footnote to something that is given."""
        return superscript(self._notes.setdefault(text, len(self._notes) + 1))

    def text(self) -> Text:
        lines = [f"{superscript(number)} {text}" for text, number in self._notes.items()]
        if self.open_ended:
            first, *rest = sorted(self.open_ended)
            needs = f"{_name(first)} needs {_needs(first)} independent jobs for one"
            lines.append(f"≥ no upper bound: {', '.join([needs, *(f'{_name(one)} {_needs(one)}' for one in rest)])}")
        if self.rates_open:
            lines.append(f"up to: no lower bound, a rate needs {INDEPENDENT} independent jobs for one")
        return Text("\n".join([*lines, f"Ranges are {CONFIDENCE:.0%} intervals.".replace("%", " %")]), style="dim")


def durations(summary: Summary, notes: Notes) -> Table | None:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("Durations")
    for name in ("mean", *_SHOWN[1:]):
        table.add_column(name, justify="right", min_width=6)
    growing = _growing(summary)
    for label, key in _ROWS:
        cells = [_cell(summary, f"{shown}_{key}_s") for shown in _SHOWN]
        if key == "latency_with_failures" and summary.summary["completed"] == summary.summary["total_jobs"]:
            continue
        if all(cell.n == 0 for cell in cells if cell is not None):
            continue
        known = [cell.value for cell in cells if cell is not None and cell.value is not None]
        factor, unit = scale(known, below=1.0)
        # Two places keep six intervals within 80 columns. The server tells whole milliseconds.
        most = 2 if unit == "s" else 0 if key in ("queue_wait", "execution") else 1
        mark = notes.remark(_GREW) if key in growing else ""
        table.add_row(f"{label}, {unit}{mark}", *(_value(cell, factor, most, notes) for cell in cells))
        pairs = zip(cells, _SHOWN, strict=True)
        intervals = [_interval(cell, shown, factor, most, notes) for cell, shown in pairs]
        if any(intervals):
            table.add_row("", *(Text(interval, style="dim") for interval in intervals))
    return table if table.row_count else None


def _growing(summary: Summary) -> set[str]:
    """The rows that an overload made grow; times from sent did not if arrivals waited for a place instead."""
    if not any(finding.code == "overload" and finding.evidence["grew"] for finding in summary.findings):
        return set()
    offered, sent = summary.summary["offered_per_minute"], summary.summary["sent_per_minute"]
    kept_up = isinstance(offered, float) and isinstance(sent, float) and sent > 0.9 * offered
    return {"latency", "latency_with_failures", "book_latency", *(("latency_sent", "queue_wait") if kept_up else ())}


def _cell(summary: Summary, name: str) -> Statistic | None:
    """A statistic by name; a maximum has none, and stands without an interval."""
    if name in summary.statistics:
        return summary.statistics[name]
    value = summary.summary.get(name)
    return Statistic(value=value, n=1, unit="s", method="max") if isinstance(value, float) else None


def _value(cell: Statistic | None, factor: float, most: int, notes: Notes) -> str:
    if cell is None:
        return ""
    if cell.value is None:
        return f"{DASH}{notes.mark(cell.reason)}"
    return fixed(cell.value * factor, _places(cell.value * factor, most))


def _interval(cell: Statistic | None, shown: str, factor: float, most: int, notes: Notes) -> str:
    if cell is None or cell.value is None or cell.low is None or math.isinf(cell.low):
        return ""
    low = cell.low * factor
    places = _places(cell.value * factor if math.isfinite(cell.value) else low, most)
    if cell.high is None:
        notes.open_ended.add(shown)
        return f"≥{fixed(low, places)}"
    return f"{fixed(low, places)}{DASH}{fixed(cell.high * factor, places)}"


def _name(shown: str) -> str:
    return "a mean" if shown == "avg" else f"a {shown}"


def _needs(name: str) -> int:
    if name == "avg":
        return INDEPENDENT
    return upper_bound_needs(float(name[1:]) / 100)


def _places(value: float, most: int) -> int:
    # A cached job's 4 ms in a row of seconds must not read as zero.
    return decimals(value, most + (most == 2 and value < 0.1))
