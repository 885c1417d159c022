"""The one table of all parts, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from bench.case import Row

HEAD = ["part", "what", "client", "unit", "median (lowest to highest)", "a core's second", "times comfyload's"]


def markdown(rows: Iterable[Row]) -> str:
    lines = [HEAD, ["---"] * 4 + ["---:"] * 3, *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> list[str]:
    per_second = f"{1e6 / median(row.values):,.0f}" if row.unit.startswith("CPU µs") and median(row.values) > 0 else ""
    times = spread(row.times_ours) if row.times_ours else ""
    return [row.part, row.what, row.client, row.unit, spread(row.values), per_second, times]


def spread(values: Sequence[float]) -> str:
    """The median, and the range where there is one."""
    low, high = min(values), max(values)
    middle = number(median(values))
    return middle if len(values) == 1 else f"{middle} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Three digits, or all of a whole number's."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
