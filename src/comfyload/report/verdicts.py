"""How verdicts on gates are read: a line a gate on a terminal, a table in Markdown, and as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from comfyload.judge.columns.ledger import clean
from comfyload.judge.gates.gate import GateVerdict, Verdict, overall
from comfyload.judge.gates.verdict import VERDICTS
from comfyload.judge.numbers import ERRORS, number_of
from comfyload.judge.summary import jsonable
from comfyload.report.page import Column, Page, State, Table, Value
from comfyload.report.render.markdown import as_markdown
from comfyload.report.render.terminal import render as draw_page
from comfyload.report.values import in_words
from comfyload.words import DASH, count, duration

_SIGNS: dict[Verdict, str] = {"PASS": "✓", "PASS*": "✓", "INCONCLUSIVE": "?", "FAIL": "✗"}
_LONGEST = 1000
"""Characters of a sentence that are shown; errors are cut before that."""


def render(verdicts: Sequence[GateVerdict], console: Console) -> None:
    """Print a line for each gate, and last what they come to. Nothing is cut at 80 columns."""
    draw_page(Page(title="", tables=gate_tables(verdicts)), console)
    if verdicts:
        console.print()
    draw_page(Page(title="", states=[gate_state(verdicts)]), console)


def markdown(verdicts: Sequence[GateVerdict]) -> str:
    """The same in GitHub's Markdown, with the whole reason of each verdict."""
    state = gate_state(verdicts)
    page = Page(title=f"Gates: {state.word}", subtitle=[state.sentence], tables=gate_tables(verdicts, whole=True))
    return as_markdown(page, level=2)


def gate_state(verdicts: Sequence[GateVerdict]) -> State:
    """What the verdicts come to, and how many there are of each; the place where the words are explained."""
    worst = VERDICTS[overall(verdicts)]
    if not verdicts:
        return State(worst.word, worst.look, "No gate was judged.")
    counts = [(row, sum(verdict.verdict == one for verdict in verdicts)) for one, row in reversed(VERDICTS.items())]
    parts = [f"{number} {row.word} ({row.meaning})" for row, number in counts if number]
    return State(worst.word, worst.look, f"Of {count(len(verdicts), 'gate')}: {', '.join(parts)}.")


def gate_tables(
    verdicts: Sequence[GateVerdict], longest: Mapping[str, float] = {}, *, whole: bool = False
) -> list[Table]:
    """A row for each gate: sign, gate, value, then the verdict and what follows from it.

    Runs that have the same verdicts share a table. `longest`: the maximum of each duration (`latency`), shown where the
    percentile is withheld. `whole`: with the reason also of what is proven or only wants more jobs.
    """
    several = len(by_run(verdicts)) > 1
    titles = ("", "gate", "value", "n", "verdict", "why") if whole else ("", "", "", "", "")
    columns = [Column(title=title, right=title == "n", prose=at == len(titles) - 1) for at, title in enumerate(titles)]
    return [
        Table(
            key="gates",
            title=clean(run, _LONGEST) if several else "",
            columns=columns,
            rows=[verdict_row(one, longest, whole=whole) for one in given],
        )
        for run, given in by_result(verdicts).items()
    ]


def as_json(verdicts: Sequence[GateVerdict]) -> dict[str, Any]:
    """`overall`, and `verdicts` with all their fields; infinity is "inf"."""
    return {"overall": overall(verdicts), "verdicts": jsonable(list(verdicts))}


def by_run(verdicts: Iterable[GateVerdict]) -> dict[str, list[GateVerdict]]:
    """The verdicts of each run, in the order in which runs were judged."""
    runs: dict[str, list[GateVerdict]] = {}
    for verdict in verdicts:
        runs.setdefault(verdict.run, []).append(verdict)
    return runs


def by_result(verdicts: Iterable[GateVerdict]) -> dict[str, list[GateVerdict]]:
    """As `by_run`, with the runs that have exactly the same verdicts under one heading."""
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    runs = by_run(verdicts)
    for run, given in runs.items():
        words = tuple((one.verdict, one.gate, value_words(one), str(one.n), one.why) for one in given)
        alike.setdefault(words, []).append(run)
    return {"; ".join(names): runs[names[0]] for names in alike.values()}


def value_words(verdict: GateVerdict) -> str:
    """`31.9 s`, then the baseline's value if the gate names one; a dash for what is withheld.

    A mean or a rate has its interval behind it. That of a share or a percentile stands with the run's numbers: a
    verdict rests on one side of it, and would show a second one.
    """
    number = number_of(verdict.metric)
    unit = "" if number is None else number.measure
    counted = number is not None and number.kind in ("share", "percentile")
    exact = unit in ("count", "bytes") or (verdict.low, verdict.high) == (verdict.value, verdict.value)
    hidden = exact or (counted and verdict.baseline is None)
    value = in_words(verdict.value, *((None, None) if hidden else (verdict.low, verdict.high)), unit)
    interval = f" ({value.interval})" if value.interval else ""
    of = "" if verdict.baseline is None else f", baseline {_with_unit(in_words(verdict.baseline, unit=unit), unit)}"
    return f"{_with_unit(value, unit)}{interval}{of}"


def _with_unit(value: Value, unit: str) -> str:
    """A rate has no label next to it that names its unit."""
    return f"{value.words}{unit}" if unit.startswith("/") and value.words != DASH else value.words


def verdict_row(verdict: GateVerdict, longest: Mapping[str, float] = {}, *, whole: bool = False) -> list[Value]:
    """The cells of a gate's row in `gate_tables`."""
    shown = VERDICTS[verdict.verdict]
    value = value_words(verdict)
    slowest = longest.get(verdict.metric.partition("_")[2].removesuffix("_s"))
    if verdict.value is None and slowest is not None and verdict.metric.startswith("p"):
        value = f"slowest {duration(slowest)}"
    rest = clean(verdict.why, _LONGEST) if whole else _rest(verdict)
    sign = Value(_SIGNS[verdict.verdict], look=shown.look)
    cells = [sign, Value(clean(verdict.gate, 200)), Value(value)]
    cells += [Value(str(verdict.n or ""))] if whole else []
    return [*cells, Value(shown.word, look=shown.look), Value(rest)]


def _rest(verdict: GateVerdict) -> str:
    """What a reader needs beyond the word: how many jobs would prove it, why it is not so, or if a log was read."""
    if verdict.verdict == "PASS":
        return clean(verdict.why, _LONGEST) if verdict.metric == ERRORS else ""
    if verdict.verdict == "PASS*" and verdict.needs is not None:
        return f"{count(verdict.needs, 'job')} would prove it"
    return clean(verdict.why, _LONGEST)
