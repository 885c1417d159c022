"""How a comparison is read: the verdict first, then the ratios that it rests on, then the rest."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import structs

from comfyload.judge.columns.ledger import clean
from comfyload.judge.comparison.comparable import Difference
from comfyload.judge.comparison.compare import Comparison, Ratio
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.summary import jsonable
from comfyload.report.page import Look, Page, PageLine, Remark, State, Table, Value, table
from comfyload.report.values import in_words
from comfyload.report.verdicts import as_json
from comfyload.words import DASH, count, span

_LOOKS: dict[str, Look] = {"slower": "bad", "more failures": "bad", "faster": "good", "fewer failures": "good"}
_DESIGNS = {"paired": "interleaved pairs", "runs": "several runs on each side", "single": "one run on each side"}
_FIRST = ("p95_latency_s", "images_per_minute")
"""Metrics that are shown at once, with the headline and the failures."""

_NODES = 3
"""Nodes with a verdict that are shown at once, the costliest."""

_TEXT = 300
"""Characters of a value that differs that are shown."""

_BAR = 12
"""Cells of the longest bar."""


def comparison_page(comparison: Comparison, names: tuple[str, str] = ("", "")) -> Page:
    """The comparison; `names` are A and B as their user wrote them, "" for the ids of the runs."""
    loads = list(dict.fromkeys(row.load for row in comparison.rows))
    tables = [one for load in loads for one in _tables([row for row in comparison.rows if row.load == load], load)]
    sides = zip("AB", names, (comparison.runs_a, comparison.runs_b), strict=True)
    facts = [PageLine(side, Value(_side(name, runs))) for side, name, runs in sides]
    return Page(
        title="B against A",
        subtitle=[_DESIGNS[comparison.design]],
        states=[_state(comparison)],
        facts=facts,
        tables=[*tables, *_differences(comparison.differences)],
        remarks=[Remark("info", clean(caveat, 2 * _TEXT)) for caveat in comparison.caveats],
    )


def comparison_json(comparison: Comparison, verdicts: Sequence[GateVerdict] | None = None) -> dict[str, Any]:
    """All of it as JSON types; `gates` where it was tested against some."""
    judged = {} if verdicts is None else {"gates": as_json(verdicts)}
    return {**jsonable(comparison), **judged}


def _side(name: str, runs: Sequence[str]) -> str:
    if name:
        return f"{clean(name, _TEXT)} ({count(len(runs), 'run')})"
    first = clean(runs[0], _TEXT)
    return first if len(runs) == 1 else f"{count(len(runs), 'run')}, {first} to {clean(runs[-1], _TEXT)}"


def _state(comparison: Comparison) -> State:
    """The overall verdict, and what it rests on."""
    row = comparison.overall
    if row is None or row.ratio is None:
        return State("NOT KNOWN", "doubt", "No duration is known of both sides.")
    metric, _, mean = row.note.partition(", ")
    names = " or ".join(metric_words(name) for name in metric.partition(";")[0].split(" or "))
    names += f" ({mean})" if mean else ""
    needs = f" About {_needed(row, comparison.design)} would settle it." if row.runs_needed else ""
    against = f", {in_words(row.b, unit=row.unit).words} against {in_words(row.a, unit=row.unit).words}"
    why = f" {comparison.why}" if comparison.why else ""
    look = _LOOKS.get(row.verdict, "doubt" if row.verdict == "inconclusive" else "plain")
    change = _change(row)
    interval = f" ({change.interval})" if change.interval else ""
    sentence = f"{names} {change.words}{interval}{against}.{why}{needs}"
    return State(row.verdict.upper(), look, sentence)


def _tables(rows: Sequence[Ratio], load: str) -> list[Table]:
    """The rows that answer the question, then, as details, the other metrics and nodes."""
    metrics = [row for row in rows if row.kind != "node"]
    nodes = [row for row in rows if row.kind == "node"]
    judged = [row for row in nodes if row.verdict in _LOOKS][:_NODES]
    first = ([row for row in metrics if _is_first(row)] or [row for row in metrics if row.headline]) + judged
    others = [row for row in rows if row not in first]
    longest = max((abs(row.ratio - 1) for row in first if row.ratio is not None), default=0.0)
    title = clean(load, _TEXT)
    note = f"{_counted(others)} (--all)" if others else ""
    shown = table("changes", _COLUMNS, _cells(first, longest), title=title, note=note)
    rest = table("other_changes", _COLUMNS, _cells(others, longest), title="The others", detail=True)
    return [shown, rest] if others else [shown]


def _is_first(row: Ratio) -> bool:
    """Whether a metric is shown at once, if it is known; failures only where there were some."""
    if row.kind == "failures":
        return bool(row.a or row.b)
    return row.ratio is not None and (row.headline or (row.workflow is None and row.name in _FIRST))


def _counted(rows: Sequence[Ratio]) -> str:
    """`4 more metrics: 3 slower, 1 inconclusive; 7 more nodes: …`."""
    parts = []
    for kind in ("metric", "node"):
        verdicts = Counter(_verdict(row) for row in rows if row.kind == kind)
        if verdicts:
            listed = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
            parts.append(f"{count(verdicts.total(), f'more {kind}')}: {listed}")
    return "; ".join(parts)


_COLUMNS = ("", ">A", ">B", ">jobs", ">B against A", "", "")


def _cells(rows: Sequence[Ratio], longest: float) -> list[list[str | Value]]:
    mixed = len({row.workflow for row in rows if row.kind != "failures"}) > 1
    return [_row(row, mixed, longest) for row in rows]


def _row(row: Ratio, prefixed: bool, longest: float) -> list[str | Value]:
    change = 0.0 if row.ratio is None else abs(row.ratio - 1)
    bar = "▇" * max(1, min(_BAR, round(_BAR * change / longest))) if change and longest else ""
    n = f"{row.n_a}" if row.n_a == row.n_b else f"{row.n_a}/{row.n_b}"
    look = _LOOKS.get(row.verdict, "plain")
    needed = f" (~{_needed(row).removesuffix(' on each side')})" if row.runs_needed else ""
    return [
        _label(row, prefixed),
        in_words(row.a, unit=row.unit).words,
        in_words(row.b, unit=row.unit).words,
        n,
        structs.replace(_change(row), note=clean(row.note, _TEXT)),
        Value(bar, look=look),
        Value(f"{_verdict(row)}{needed}", look=look),
    ]


def _verdict(row: Ratio) -> str:
    return row.verdict if row.ratio is not None or row.kind == "failures" else "not known"


def _needed(row: Ratio, design: str = "") -> str:
    if design == "paired" or " pairs" in row.method:
        return count(row.runs_needed or 0, "pair")
    return f"{count(row.runs_needed or 0, 'run')} on each side"


def _label(row: Ratio, prefixed: bool) -> str:
    name = metric_words(row.name, row.unit) if row.kind == "metric" else clean(row.name, 60)
    name = f"node {name}" if row.kind == "node" else name
    return f"{clean(row.workflow, 40)}: {name}" if prefixed and row.workflow else name


def metric_words(name: str, unit: str = "") -> str:
    """p50_latency_s is p50 latency; images_per_minute is images/min, or what its unit says that it is of."""
    if unit == "previews/min":
        return unit
    words = name.removesuffix("_s").replace("avg_", "mean ").replace("_per_minute", "/min")
    return words.replace("_", " ")


def _change(row: Ratio) -> Value:
    """The change in percent, with its interval, of which one side may have no bound."""
    if row.ratio is None:
        return Value(DASH)
    low, high = ("" if end is None else change_words(end) for end in (row.low, row.high))
    interval = f"{span(low, high)} %" if low and high else f"> {low} %" if low else f"< {high} %" if high else ""
    return Value(f"{change_words(row.ratio)} %", interval=interval)


def change_words(ratio: float) -> str:
    """+12.3: what a factor changes, in percent, with its sign."""
    change = 100 * (ratio - 1)
    return f"{change:+.{1 if abs(change) < 99.95 else 0}f}"


def _differences(differences: Iterable[Difference]) -> list[Table]:
    """What made the sides differs: at once where --accept was needed for it, else as a detail."""
    parts = []
    for refuses, title in ((True, "Differs, and was accepted"), (False, "Differs too")):
        rows = [[d.key, d.a, d.b, "" if refuses else d.why] for d in differences if d.refuses == refuses]
        if rows:
            cells = [[clean(text, _TEXT) for text in row] for row in rows]
            key = "accepted" if refuses else "differences"
            parts.append(table(key, ("what", "A", "B", ""), cells, title=title, detail=not refuses))
    return parts
