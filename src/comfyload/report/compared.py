"""A comparison on the page of what is compared: its sentence among the answers, its ratios as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from comfyload.judge.columns.ledger import clean
from comfyload.report.comparison import change_words, metric_words, value_words
from comfyload.report.page import Look, Page, Remark, State, Value
from comfyload.report.sections import table
from comfyload.words import DASH, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comfyload.judge.comparison.compare import Comparison, Ratio

__all__ = ["with_comparison"]

_NODES = 8
_BETTER, _WORSE = ("faster", "fewer failures"), ("slower", "more failures")
_DESIGNS = {"paired": "interleaved pairs", "runs": "several runs a side"}


def with_comparison(page: Page, comparison: Comparison) -> Page:
    """The page, with B (what it shows) against A."""
    columns = ["what", ">A", ">B", ">n", ">B against A", "verdict"]
    ratios = table(
        "comparison", "B against A", columns, [_row(one, comparison.design) for one in _shown(comparison.rows)]
    )
    rows = [(d.key, d.a, d.b, "accepted" if d.refuses else d.why) for d in comparison.differences]
    differences = [table("differences", "What differs", ["what", "A", "B", ""], rows)] if rows else []
    sides = [Remark(level="info", text=f"{side}: {', '.join(runs)}")
             for side, runs in (("A", comparison.runs_a), ("B", comparison.runs_b))]  # fmt: skip
    caveats = [Remark(level="warning", text=text) for text in comparison.caveats]
    return structs.replace(
        page,
        states=[_state(comparison), *page.states],
        tables=[ratios, *differences, *page.tables],
        remarks=[*caveats, *page.remarks, *sides],
    )


def _state(comparison: Comparison) -> State:
    row, design = comparison.overall, _DESIGNS.get(comparison.design, "single runs")
    if row is None or row.ratio is None:
        return State(word="NOT KNOWN", look="doubt", sentence="No duration is known of both sides.")
    against = f"{value_words(row.b, row.unit)} against {value_words(row.a, row.unit)}"
    names = row.note.partition(", ")[0].partition(";")[0].split(" or ")  # the overall ratio says what it is of
    of = " or ".join(metric_words(name) for name in names if name) or metric_words(row.name)
    sentence = f"{of} {_change(row)}, {against}; {design}. {comparison.why}".rstrip()
    return State(word=row.verdict.upper(), look=_look(row), sentence=sentence)


def _shown(rows: Sequence[Ratio]) -> list[Ratio]:
    """All but nodes without a verdict that are not among the first few, the slowest."""
    nodes = [row for row in rows if row.kind == "node"]
    kept = [row for place, row in enumerate(nodes) if place < _NODES or _look(row) != "doubt"]
    return [row for row in rows if row.kind != "node"] + kept


def _row(row: Ratio, design: str) -> list[str | Value]:
    name = metric_words(row.name, row.unit) if row.kind == "metric" else row.name
    unit = "pairs" if design == "paired" else "runs a side"
    needs = f" (about {row.runs_needed} {unit} would settle it)" if row.runs_needed else ""
    verdict = row.verdict if row.ratio is not None or row.kind == "failures" else "withheld"
    return [
        clean(": ".join([*(part for part in (row.load, row.workflow) if part), name]), 160),
        value_words(row.a, row.unit),
        value_words(row.b, row.unit),
        f"{row.n_a}" if row.n_a == row.n_b else f"{row.n_a}/{row.n_b}",
        _change(row),
        Value(words=verdict + needs, note=row.note, look=_look(row)),
    ]


def _look(row: Ratio) -> Look:
    return "good" if row.verdict in _BETTER else "bad" if row.verdict in _WORSE else "doubt"


def _change(row: Ratio) -> str:
    if row.ratio is None:
        return DASH
    change, low, high = f"{change_words(row.ratio)} %", row.low, row.high
    if low is None and high is None:
        return change
    if low is not None and high is not None:
        return f"{change} ({span(change_words(low), change_words(high))} %)"
    bound = f"> {change_words(low)}" if low is not None else f"< {change_words(high or row.ratio)}"
    return f"{change} ({bound} %)"
