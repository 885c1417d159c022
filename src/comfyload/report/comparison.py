"""How a comparison is read: the verdict first, then every ratio with its interval, then what to know of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfyload.judge.columns.ledger import clean
from comfyload.judge.comparison.comparable import Difference
from comfyload.judge.comparison.compare import Comparison, Ratio
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.summary import jsonable
from comfyload.report.console import draw, escaped
from comfyload.report.render.notes import Notes
from comfyload.report.text import DASH, count, decimals, duration, fixed, percent, span
from comfyload.report.verdicts import as_json

__all__ = [
    "change_words",
    "comparison_json",
    "comparison_markdown",
    "metric_words",
    "render_comparison",
    "value_words",
]

_COLOURS = {"slower": "bold red", "more failures": "bold red", "faster": "bold green", "fewer failures": "bold green"}
_DESIGNS = {
    "paired": "interleaved pairs",
    "runs": "several runs a side",
    "single": "single runs",
}
_NODES = 8
"""Nodes shown beside those with a verdict, the costliest first."""

_TEXT = 300
"""Characters of a value that differs that are shown."""


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Print the comparison. Looks the same without colour; at 80 columns nothing is cut."""
    notes = Notes()
    parts: list[Text | Table | None] = [_head(comparison), _conclusion(comparison)]
    for load in dict.fromkeys(row.load for row in comparison.rows):
        rows = [row for row in comparison.rows if row.load == load]
        parts += [Text(clean(load, _TEXT), style="bold") if load else None, *_tables(rows, notes)]
    parts += [notes.text(), _differences(comparison), _caveats(comparison)]
    for number, part in enumerate(part for part in parts if part is not None):
        if number:
            console.print()
        draw(part, console)


def comparison_json(comparison: Comparison, verdicts: Sequence[GateVerdict] | None = None) -> str:
    """All of it as JSON, without a token that JSON lacks; `gates` where it was held against something."""
    judged = {} if verdicts is None else {"gates": as_json(verdicts)}
    return json.dumps({**jsonable(comparison), **judged})


def comparison_markdown(comparison: Comparison, title: str = "Comparison") -> str:
    """The same in GitHub's Markdown, with all that it would take for markup escaped."""
    parts = [f"## {escaped(title)}\n", f"**{escaped(_sentence(comparison))}**\n"]
    sides = (("A", comparison.runs_a), ("B", comparison.runs_b))
    parts.append("\n".join(f"- {side}: {escaped(_listed(runs))}" for side, runs in sides) + "\n")
    for load in dict.fromkeys(row.load for row in comparison.rows):
        rows = [row for row in comparison.rows if row.load == load]
        parts += [f"### {escaped(load)}\n"] if load else []
        parts += [_markdown_table(part) for part in _parted(rows) if part]
    if comparison.differences:
        lines = ["| differs | A | B | |", "| --- | --- | --- | --- |"]
        lines += [_line((d.key, d.a, d.b, _standing(d))) for d in comparison.differences]
        parts.append("\n".join(lines) + "\n")
    parts += ["\n".join(f"- {escaped(caveat)}" for caveat in comparison.caveats) + "\n"] if comparison.caveats else []
    return "\n".join(parts)


def _head(comparison: Comparison) -> Text:
    text = Text("B against A", style="bold")
    text.append(f", {_DESIGNS[comparison.design]}", style="not bold")
    for side, runs in (("A", comparison.runs_a), ("B", comparison.runs_b)):
        text.append(f"\n{side}  ", style="bold")
        text.append(_listed(runs), style="not bold dim")
    return text


def _listed(runs: Sequence[str]) -> str:
    first = clean(runs[0], _TEXT)
    return first if len(runs) == 1 else f"{count(len(runs), 'run')}, {first} to {clean(runs[-1], _TEXT)}"


def _conclusion(comparison: Comparison) -> Text:
    said = "" if comparison.overall is None else comparison.overall.verdict
    word, _, rest = _sentence(comparison).partition(".")
    return Text.assemble((word, _COLOURS.get(said, "bold yellow" if said == "inconclusive" else "bold")), f".{rest}")


def _sentence(comparison: Comparison) -> str:
    """The overall verdict, then what it rests on."""
    row = comparison.overall
    if row is None or row.ratio is None:
        return "NOT KNOWN. No duration is known of both sides."
    metric, _, mean = row.note.partition(", ")
    names = " or ".join(metric_words(name) for name in metric.partition(";")[0].split(" or ")) + (
        f" ({mean})" if mean else ""
    )
    needs = f" About {_needed(row, comparison.design)} would settle it." if row.runs_needed else ""
    against = f", {value_words(row.b, row.unit)} against {value_words(row.a, row.unit)}"
    why = f" {comparison.why}" if comparison.why else ""
    return f"{row.verdict.upper()}. {names} {_change(row)}{against}.{why}{needs}"


def _tables(rows: Sequence[Ratio], notes: Notes) -> list[Table | None]:
    metrics, nodes = _parted(rows)
    mixed = len({row.workflow for row in metrics if row.kind == "metric"}) > 1
    several = len({row.workflow for row in nodes}) > 1
    return [
        _table("Metric", metrics, notes, prefixed=mixed),
        _table("Node", nodes, notes, prefixed=several, left_out=len(rows) - len(metrics) - len(nodes)),
    ]


def _parted(rows: Iterable[Ratio]) -> tuple[list[Ratio], list[Ratio]]:
    """Metrics and failures, then the nodes that are shown: those with a verdict, and the costliest."""
    rows = list(rows)
    nodes = [row for row in rows if row.kind == "node"]
    shown = [row for place, row in enumerate(nodes) if place < _NODES or row.verdict in _COLOURS]
    return [row for row in rows if row.kind != "node"], shown


def _table(title: str, rows: Sequence[Ratio], notes: Notes, *, prefixed: bool, left_out: int = 0) -> Table | None:
    if not rows:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(title)
    for name in ("A", "B", "n", "B against A"):
        table.add_column(name, justify="right", no_wrap=name != "n")
    table.add_column("verdict")
    for row in rows:
        mark = notes.remark(clean(row.note, _TEXT)) if row.note and row.ratio is not None else ""
        if row.ratio is None and row.note:
            mark = notes.remark(row.note) if row.kind == "failures" else notes.mark(clean(row.note, _TEXT))
        change = f"{_change(row)}{mark}" if row.ratio is not None else f"{DASH}{mark}"
        n = f"{row.n_a}" if row.n_a == row.n_b else f"{row.n_a}/{row.n_b}"
        cells = (value_words(row.a, row.unit), value_words(row.b, row.unit), n, change)
        table.add_row(Text(_label(row, prefixed)), *cells, _verdict(row))
    if left_out:
        table.add_row(Text(f"and {left_out} more", style="dim"))
    return table


def _verdict(row: Ratio) -> Text:
    text = Text(row.verdict if row.ratio is not None or row.kind == "failures" else "withheld")
    text.stylize(_COLOURS.get(row.verdict, "dim"))
    if row.runs_needed:
        text.append(f"\n~{_needed(row)}", style="dim")
    return text


def _needed(row: Ratio, design: str = "") -> str:
    if design == "paired" or " pairs" in row.method:
        return count(row.runs_needed or 0, "pair")
    return f"{count(row.runs_needed or 0, 'run')} a side"


def _label(row: Ratio, prefixed: bool) -> str:
    name = metric_words(row.name, row.unit) if row.kind == "metric" else clean(row.name, 60)
    return f"{clean(row.workflow, 40)}: {name}" if prefixed and row.workflow else name


def metric_words(name: str, unit: str = "") -> str:
    """p50_latency_s is p50 latency; images_per_minute is images/min, or what its unit says that it is of."""
    if unit == "previews/min":
        return unit
    words = name.removesuffix("_s").replace("avg_", "mean ").replace("_per_minute", "/min")
    return words.replace("_", " ")


def _change(row: Ratio) -> str:
    """The change in percent, with its interval."""
    ratio, low, high = row.ratio, row.low, row.high
    if ratio is None:
        return DASH
    if low is None and high is None:
        return f"{change_words(ratio)} %"
    if low is None or high is None:
        bound = f"> {change_words(low)}" if low is not None else f"< {change_words(high or ratio)}"
        return f"{change_words(ratio)} %  ({bound} %)"
    return f"{change_words(ratio)} %  ({span(change_words(low), change_words(high))} %)"


def change_words(ratio: float) -> str:
    """+12.3: what a factor changes, in percent, with its sign."""
    change = 100 * (ratio - 1)
    return f"{change:+.{1 if abs(change) < 99.95 else 0}f}"


def value_words(value: float | None, unit: str) -> str:
    """A number with its unit; a rate without, and a share of jobs in percent."""
    if value is None:
        return DASH
    if unit == "s":
        return duration(value)
    return percent(value) if unit == "1" else fixed(value, decimals(value))


def _differences(comparison: Comparison) -> Table | None:
    if not comparison.differences:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Differs", no_wrap=True)
    for name in ("A", "B"):
        table.add_column(name, overflow="fold")
    table.add_column("")
    for difference in comparison.differences:
        standing = _standing(difference)
        cells = (clean(text, _TEXT) for text in (difference.key, difference.a, difference.b))
        table.add_row(*(Text(cell) for cell in cells), Text(standing, style="yellow" if difference.refuses else "dim"))
    return table


def _standing(difference: Difference) -> str:
    return "accepted" if difference.refuses else difference.why


def _caveats(comparison: Comparison) -> Text | None:
    return Text("\n".join(clean(caveat, 2 * _TEXT) for caveat in comparison.caveats)) if comparison.caveats else None


def _markdown_table(rows: Sequence[Ratio]) -> str:
    mixed = len({row.workflow for row in rows if row.kind != "failures"}) > 1
    lines = ["| | A | B | n | B against A | verdict | |", "| --- | ---: | ---: | ---: | ---: | --- | --- |"]
    for row in rows:
        verdict = row.verdict if row.ratio is not None or row.kind == "failures" else "withheld"
        said = f"{verdict} (~{_needed(row)})" if row.runs_needed else verdict
        n = f"{row.n_a}/{row.n_b}"
        values = (value_words(row.a, row.unit), value_words(row.b, row.unit))
        lines.append(_line((_label(row, mixed), *values, n, _change(row), said, row.note)))
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"
