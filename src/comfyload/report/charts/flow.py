"""The picture of what came, what left and what waited, over time."""

from typing import Any

import altair as alt
import numpy as np

from comfyload.judge.arrays import Floats
from comfyload.report.charts.chart import WIDTH, Rows, data, over_time, palette, ranks, spec, time_unit, upto, withheld
from comfyload.report.charts.chart_data import JobColumns, ReadingSeries
from comfyload.report.charts.theme import BLUE, GREEN, ORANGE, PURPLE
from comfyload.report.page import Chart, table
from comfyload.words import count

_STEPS = 400
_COUNTED = {"came due": BLUE, "completed": GREEN}
_FLIGHT, _QUEUED = "in flight", "queued or running on the server"
_HELD = {_FLIGHT: PURPLE, _QUEUED: ORANGE}


def flow_chart(columns: JobColumns, queue: ReadingSeries | None, *, servers: int = 1) -> Chart:
    """Arrivals and completions as they add up, and below how many jobs were under way and in the server's queue; the
    queues of several are no one queue, and left out.
    """
    name, title = "flow", "Arrivals, completions, jobs in flight and the queue"
    if not len(columns.due):
        return withheld(name, title, "no job came due")
    zero, size = columns.zero, time_unit(columns.wall_s)
    here = columns.completed & ~np.isnan(columns.done)
    counted = _counts("came due", columns.due - zero, size[0])
    counted += _counts("completed", columns.done[here] - zero, size[0])
    flight, most = _in_flight(columns, size[0])
    held = flight + ([] if queue is None else _queue(queue, zero, columns.wall_s, size[0]))
    deepest = None if queue is None else queue.high
    depth = "unknown" if deepest is None else f"{deepest:.0f}"
    came, completed = len(columns.due), int(here.sum())
    words = [f"{count(came, 'job')} came due and {completed} completed.", f"{most} in flight at most."]
    if servers > 1:
        words.append(f"The queues of the {servers} servers are not drawn.")
    elif deepest is None:
        words.append("The server's queue was not recorded.")
    else:
        words.append(f"The server had {depth} queued or running at most.")
    if came > _STEPS:
        words.append(f"Drawn at {_STEPS} points; of jobs in flight, the most in each stretch of time.")
    numbers = {"came due": came, "completed": completed, "most in flight": most, "most queued or running": depth}
    return Chart(
        name=name,
        title=title,
        description=" ".join(words),
        spec=_draw(counted, held, columns.wall_s / size[0], size[1]),
        numbers=table(name, ("what", "jobs"), [(what, str(number)) for what, number in numbers.items()]),
    )


def _draw(counted: Rows, held: Rows, end: float, unit: str) -> dict[str, Any]:
    upper = _steps("counted", over_time(end, ""), "jobs in total", _COUNTED, counted)
    flight = _steps("held", over_time(end, unit), "jobs at a time", _HELD, held)
    filled = flight.mark_area(interpolate="step-after", opacity=0.4).transform_filter(f"datum.what === '{_FLIGHT}'")
    lower = alt.layer(filled, flight.transform_filter(f"datum.what !== '{_FLIGHT}'"))
    panels = [panel.properties(width=WIDTH, height=130) for panel in (upper, lower)]
    return spec(alt.vconcat(*panels).resolve_scale(color="independent"), counted=counted, held=held)


def _steps(name: str, x: alt.X, title: str, colours: dict[str, str], rows: Rows) -> alt.Chart:
    there = {row["what"] for row in rows}
    named = {what: colour for what, colour in colours.items() if what in there}
    most = max((row["n"] or 0 for row in rows), default=0)
    axis = alt.Axis(values=list(range(int(most) + 1)), format="d") if most <= 5 else alt.Axis(format="~s")
    y = alt.Y("n:Q", title=title, scale=upto(1.06 * max(most, 1)), axis=axis, stack=None)
    legend = alt.Legend(symbolType="square", symbolOpacity=1)
    tips = [alt.Tooltip("what:N", title="jobs"), alt.Tooltip("t:Q", title="at", format=".4~f"), "n:Q"]
    line = alt.Chart(data(name)).mark_line(interpolate="step-after", strokeWidth=1.6)
    colour = alt.Color("what:N", scale=palette(named), legend=legend)
    chart: alt.Chart = line.encode(x=x, y=y, color=colour, tooltip=tips)
    return chart


def _counts(what: str, instants: Floats, size: float) -> Rows:
    ordered = np.sort(instants)
    steps = [{"what": what, "t": float(ordered[n - 1]) / size, "n": n} for n in ranks(len(ordered), _STEPS)]
    return [{"what": what, "t": 0.0, "n": 0}, *steps]


def _in_flight(columns: JobColumns, size: float) -> tuple[Rows, int]:
    """Jobs between sent and done, as steps, and the most of them; a job without an end never leaves."""
    begins = columns.sent[~np.isnan(columns.sent)] - columns.zero
    ends = columns.done[~np.isnan(columns.sent) & ~np.isnan(columns.done)] - columns.zero
    times = np.concatenate([begins, ends])
    changes = np.concatenate([np.ones(len(begins)), -np.ones(len(ends))])
    order = np.lexsort((changes, times))  # who leaves makes room before who comes
    times, level = times[order], np.cumsum(changes[order]).astype(int)
    if not len(times):
        return [], 0
    most = int(level.max())
    if len(times) > 2 * _STEPS:
        edges = np.linspace(0, columns.wall_s, _STEPS + 1)
        starts = np.unique(np.searchsorted(times, edges[:-1]).clip(max=len(times) - 1))
        times, level = times[starts], np.maximum.reduceat(level, starts)
    return [{"what": _FLIGHT, "t": float(t) / size, "n": int(n)} for t, n in zip(times, level, strict=True)], most


def _queue(series: ReadingSeries, zero: float, wall_s: float, size: float) -> Rows:
    """Readings are written when they change, so each holds until the next, and the last to the end."""
    points = [(max(0.0, t - zero), value) for t, value in series.thinned()]
    if points and points[-1][1] is not None:
        points.append((max(wall_s, points[-1][0]), points[-1][1]))
    return [{"what": _QUEUED, "t": t / size, "n": value} for t, value in points if t <= wall_s]
