"""How verdicts on gates are read: as lines in a terminal, as a table in Markdown, and as JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from comfyload.judge.columns.ledger import clean
from comfyload.judge.gates.gate import GateVerdict, Verdict, overall
from comfyload.judge.numbers import number_of
from comfyload.judge.summary import jsonable
from comfyload.report.console import draw, escaped
from comfyload.report.text import DASH, count, decimals, fixed, percent, scale, span

__all__ = ["as_json", "by_result", "by_run", "markdown", "render", "value_words"]

_COLOURS: dict[Verdict, str] = {"PASS": "bold green", "PASS*": "green", "INCONCLUSIVE": "yellow", "FAIL": "bold red"}
_MEANING: dict[Verdict, str] = {
    "FAIL": "disproven, or an unexpected error",
    "INCONCLUSIVE": "undecided",
    "PASS*": "inside, not proven",
    "PASS": "proven",
}
_WORD, _GATE = len("INCONCLUSIVE") + 2, 26
"""Columns of the verdict, and at least of the gate."""
_LONGEST = 1000
"""Characters of a sentence that are shown; errors are cut before that."""


def render(verdicts: Sequence[GateVerdict], console: Console) -> None:
    """Print each verdict on a line, and why under it; last what they come to. Nothing is cut at 80 columns."""
    lines: list[Text] = []
    runs, several = by_result(verdicts), len(by_run(verdicts)) > 1
    for run, given in runs.items():
        if several:
            lines += [Text(part, style="bold") for part in _wrapped(clean(run, _LONGEST), console.width)]
        for verdict in given:
            lines += _lines(verdict, console.width)
        lines.append(Text())
    worst = overall(verdicts)
    first, *rest = _wrapped(f"{worst}. {_tally(verdicts)}", console.width)
    lines += [Text.assemble((worst, _COLOURS[worst]), first.removeprefix(worst)), *map(Text, rest)]
    for line in lines:
        draw(line, console)


def markdown(verdicts: Sequence[GateVerdict], title: str = "Gates") -> str:
    """The same as a table in GitHub's Markdown, with all that it would take for markup escaped."""
    runs, several = by_result(verdicts), len(by_run(verdicts)) > 1
    head = f"## {escaped(title)}: {escaped(overall(verdicts))}\n"
    parts = [head, f"{escaped(_tally(verdicts))}\n"]
    for run, given in runs.items():
        if several:
            parts.append(f"### {escaped(run)}\n")
        rows = ["| verdict | gate | value | n | why |", "| --- | --- | --- | ---: | --- |"]
        for one in given:
            cells = (one.verdict, one.gate, value_words(one), str(one.n) if one.n else "", one.why)
            rows.append(f"| {' | '.join(escaped(cell) for cell in cells)} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


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
    """As `by_run`, with runs of which exactly the same is to be said under one heading."""
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    runs = by_run(verdicts)
    for run, given in runs.items():
        said = tuple((one.verdict, one.gate, value_words(one), str(one.n), one.why) for one in given)
        alike.setdefault(said, []).append(run)
    return {"; ".join(names): runs[names[0]] for names in alike.values()}


def value_words(verdict: GateVerdict) -> str:
    """`31.9 s`, then the baseline's value if the gate names one; a dash for what is withheld.

    A mean or a rate has its interval behind it. That of a share or a percentile stands with the run's numbers: a
    verdict rests on one side of it, and would show a second one.
    """
    number = number_of(verdict.metric)
    unit = "" if number is None else number.measure
    beside = "" if verdict.baseline is None else f", baseline {_in_words(verdict.baseline, None, None, unit)}"
    counted = number is not None and number.kind in ("share", "percentile")
    ends = (None, None) if counted and verdict.baseline is None else (verdict.low, verdict.high)
    return f"{_in_words(verdict.value, *ends, unit)}{beside}"


def _in_words(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    if value is None or unit in ("count", "bytes"):
        return DASH if value is None else f"{value:.0f}"
    factor, sign = scale([value]) if unit == "s" else (1.0, unit)
    places = decimals(value * factor, 1 if sign == "ms" else 3)

    def write(number: float) -> str:
        return percent(number).removesuffix(" %") if unit == "share" else fixed(number * factor, places)

    sign = "%" if unit == "share" else sign
    text = write(value) if math.isinf(value) else f"{write(value)}{sign if sign.startswith('/') else f' {sign}'}"
    if low is not None and high is not None and (low, high) != (value, value):
        return f"{text} ({span(write(low), write(high))})"
    if low is not None and high is None and math.isfinite(low):
        return f"{text} (≥{write(low)})"
    return f"{text} (up to {write(high)})" if low is None and high is not None else text


def _lines(verdict: GateVerdict, width: int) -> list[Text]:
    """The verdict and its gate, the value beside or below it, and why."""
    room, word = width - _WORD, (f"{verdict.verdict:<{_WORD}}", _COLOURS[verdict.verdict])
    gate, numbers = clean(verdict.gate, 200), value_words(verdict) + (f", n {verdict.n}" if verdict.n else "")
    beside = max(_GATE, len(gate)) + 2
    below = _wrapped(clean(verdict.why, _LONGEST), room)
    if beside + len(numbers) <= room:
        head = [Text.assemble(word, (f"{gate:<{beside}}", "bold"), numbers)]
    else:
        first, *rest = _wrapped(gate, room)
        head = [Text.assemble(word, (first, "bold")), *(Text(f"{' ' * _WORD}{part}", style="bold") for part in rest)]
        head += [Text(f"{' ' * _WORD}{part}") for part in _wrapped(numbers, room)]
    return [*head, *(Text(f"{' ' * _WORD}{part}", style="dim") for part in below)]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`; a sign of per cent stays with its number."""
    tied = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.wrap(tied, max(width, 20), break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}%", " %") for line in lines] or [""]


def _tally(verdicts: Sequence[GateVerdict]) -> str:
    if not verdicts:
        return "No gate was judged."
    counts = {word: sum(verdict.verdict == word for verdict in verdicts) for word in _MEANING}
    parts = [f"{number} {word}" for word, number in counts.items() if number]
    legend = [f"{word}: {_MEANING[word]}." for word, number in counts.items() if number and word != "PASS"]
    return " ".join([f"Of {count(len(verdicts), 'gate')}: {', '.join(parts)}.", *legend])
