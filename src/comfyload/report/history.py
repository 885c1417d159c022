"""How a trend is read: one table a metric, a row a baseline, and a mark where the level changed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfyload.judge.columns.ledger import clean
from comfyload.judge.comparison.history import LevelShift, Point, TrendSeries
from comfyload.judge.summary import jsonable
from comfyload.report.comparison import change_words, metric_words, value_words
from comfyload.report.console import draw, escaped
from comfyload.report.text import count, decimals, fixed, percent, scale, span

__all__ = ["history_json", "history_markdown", "render_history"]

_COLOURS = {"slower": "bold red", "lower": "bold red", "faster": "bold green", "higher": "bold green"}
_NAME = 40
"""Characters of a baseline's name that are shown."""


def render_history(series: Sequence[TrendSeries], console: Console) -> None:
    """Print every series, oldest first. Looks the same without colour; at 80 columns nothing is cut."""
    load = None
    for one in series:
        if one.load != load:
            load = one.load
            draw(Text(clean(load, 300), style="bold"), console)
            console.print()
        draw(_table(one), console)
        console.print()
    draw(Text(_conclusion(series)), console)


def history_json(series: Sequence[TrendSeries]) -> str:
    """All of it as JSON, without a token that JSON lacks."""
    return json.dumps(jsonable(list(series)))


def history_markdown(series: Sequence[TrendSeries], title: str = "Trend") -> str:
    """The same in GitHub's Markdown, with all that it would take for markup escaped."""
    parts, load = [f"## {escaped(title)}\n", f"{escaped(_conclusion(series))}\n"], None
    for one in series:
        if one.load != load:
            load = one.load
            parts.append(f"### {escaped(load)}\n")
        marks = _marks(one)
        lines = [f"| {escaped(metric_words(one.metric, one.unit))} | date | value | interval | n | |"]
        lines.append("| --- | --- | ---: | ---: | ---: | --- |")
        for place, point in enumerate(one.points):
            cells = (clean(point.name, _NAME), *_cells(one, point), marks.get(place, ("", ""))[0])
            lines.append(f"| {' | '.join(escaped(cell) for cell in cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _table(series: TrendSeries) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(metric_words(series.metric, series.unit))
    table.add_column("date", no_wrap=True)
    for name in ("value", "interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    marks = _marks(series)
    for place, point in enumerate(series.points):
        mark, style = marks.get(place, ("", ""))
        table.add_row(Text(clean(point.name, _NAME)), *_cells(series, point), Text(mark, style=style))
    return table


def _cells(series: TrendSeries, point: Point) -> tuple[str, str, str, str]:
    return clean(point.utc[:10], 10), value_words(point.value, series.unit), _interval(series, point), str(point.n)


def _interval(series: TrendSeries, point: Point) -> str:
    if point.low is None:
        return ""

    def write(value: float) -> str:
        if series.unit == "1":
            return percent(value).removesuffix(" %")
        factor = scale([point.value])[0] if series.unit == "s" else 1.0
        return fixed(value * factor, decimals(point.value * factor))

    return (
        f"\N{GREATER-THAN OR EQUAL TO}{write(point.low)}"
        if point.high is None
        else span(*map(write, (point.low, point.high)))
    )


def _marks(series: TrendSeries) -> dict[int, tuple[str, str]]:
    """By the index of its point: a step in words, and its style."""
    marks = {step.at: (f"step: {_step(step)}", _COLOURS[step.verdict]) for step in series.steps}
    if series.possible is not None:
        marks[series.possible.at] = f"a step? {_step(series.possible)}", "yellow"
    return marks


def _step(step: LevelShift) -> str:
    change = "from 0" if step.ratio is None else f"{change_words(step.ratio)} %"
    return f"{change}, {step.verdict}"


def _conclusion(series: Sequence[TrendSeries]) -> str:
    found = sum(len(one.steps) for one in series)
    longest = max((len(one.points) for one in series), default=0)
    if longest < 2:
        return "A trend needs two baselines of the same workflows and load."
    said = f"{count(found, 'step')} in {count(len(series), 'series', 'series')}. Intervals are of 95 %."
    if any(one.possible is not None for one in series):
        said += " A step? is one if the next baseline confirms it."
    return said
