"""How a trend is read: per load what changed from the first baseline to the last, then every point of each metric."""

from collections.abc import Sequence

from comfyload.judge.columns.ledger import clean
from comfyload.judge.comparison.history import LevelShift, TrendSeries
from comfyload.report.comparison import change_words, metric_words
from comfyload.report.page import Look, Page, Row, State, Table, Value, table
from comfyload.report.values import in_words
from comfyload.words import count

_LOOKS: dict[str, Look] = {"slower": "bad", "lower": "bad", "faster": "good", "higher": "good"}
_NAME = 40
"""Characters of a baseline's name that are shown."""


def history_page(series: Sequence[TrendSeries], of: str = "baseline") -> Page:
    """Every series, oldest first; those without a step in full only as details. `of`: what a point is."""
    found = sum(len(one.steps) for one in series)
    possible = any(one.possible is not None for one in series)
    if max((len(one.points) for one in series), default=0) < 2:
        sentence = "They must have the same workflows and load, or be the traffic of one server."
        return Page(title="", states=[State(f"A trend needs two {of}s", "plain", sentence)])
    look: Look = "doubt" if found or possible else "plain"
    sentence = f"A step? is one if the next {of} confirms it." if possible else ""
    word = f"{count(found, 'step')} in {count(len(series), 'series', 'series')}"
    loads = dict.fromkeys(one.load for one in series)
    ends = [_ends(load, [one for one in series if one.load == load]) for load in loads]
    return Page(
        title="Trend", states=[State(word, look, sentence)], tables=[*ends, *(_points(one, of) for one in series)]
    )


def _ends(load: str, series: Sequence[TrendSeries]) -> Table:
    """A row a metric: the first baseline, the last one, and where the level changed."""
    rows = list[Row]()
    for one in series:
        first, last = one.points[0], one.points[-1]
        change = f"{change_words(last.value / first.value)} %" if first.value and len(one.points) > 1 else ""
        marks = "; ".join(f"{text} ({clean(one.points[at].name, _NAME)})" for at, (text, _) in step_marks(one).items())
        looks = [look for _, look in step_marks(one).values()]
        ends = (in_words(end.value, unit=one.unit) for end in (first, last))
        rows.append(
            [metric_words(one.metric, one.unit), *ends, change, Value(marks, look=looks[-1] if looks else "plain")]
        )
    return table("ends", ("metric", ">first", ">last", ">change", ""), rows, title=clean(load, 300))


def _points(series: TrendSeries, of: str) -> Table:
    marks = step_marks(series)
    rows = list[Row]()
    for place, point in enumerate(series.points):
        text, look = marks.get(place, ("", "plain"))
        number = in_words(point.value, point.low, point.high, series.unit)
        cells = (clean(point.name, _NAME), clean(point.utc[:10], 10), number, str(point.n))
        rows.append([*cells, Value(text, look=look)])
    name = metric_words(series.metric, series.unit)
    title = clean(f"{series.load}: {name}" if series.load else name, 300)
    columns = (of, "date", f">{name}", ">jobs", "")
    return table("points", columns, rows, title=title, detail=not marks, note="Intervals are of 95 %.")


def step_marks(series: TrendSeries) -> dict[int, tuple[str, Look]]:
    """By the index of its point: a step in words, and its look."""
    marks = {step.at: (f"step: {_step(step)}", _LOOKS[step.verdict]) for step in series.steps}
    if series.possible is not None:
        marks[series.possible.at] = f"a step? {_step(series.possible)}", "doubt"
    return marks


def _step(step: LevelShift) -> str:
    change = "from 0" if step.ratio is None else f"{change_words(step.ratio)} %"
    return f"{change}, {step.verdict}"
