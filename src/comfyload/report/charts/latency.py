"""The picture of each job's latency: what it was made of, in the order in which jobs came due."""

from typing import Any

import altair as alt
import numpy as np

from comfyload.judge.metrics import PHASES
from comfyload.judge.summary import Measured
from comfyload.record.outcomes import OUTCOMES
from comfyload.report.charts.chart import MOST, WIDTH, Rows, data, over_time, palette, spec, time_unit, upto, withheld
from comfyload.report.charts.chart_data import ChartData, JobColumns
from comfyload.report.charts.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from comfyload.report.page import Chart, table
from comfyload.words import count, duration, scale

_UNKNOWN = "phases unknown"
_COLOURS = dict(zip((*PHASES, _UNKNOWN), (PURPLE, ORANGE, BLUE, GREY, GREY), strict=True))
_X = "M-1,-1L1,1M1,-1L-1,1"
_UNSEEN = 0.003
"""Of the height: a phase so short is less than a line, and a legend of it would be looked for in vain."""

_NAME, _TITLE, _BINS = "latency", "Latency of each job, by phase", 80


def latency_chart(measured: Measured, chart_data: ChartData, columns: JobColumns) -> Chart:
    """Bars of single jobs, or of a long run the spread by time."""
    known = columns.latency[~np.isnan(columns.latency)]
    if not len(known):
        return withheld(_NAME, _TITLE, "no job of this run has a latency")
    factor, unit = scale([float(known.max())], below=1.0)
    jobs = chart_data.jobs
    return Chart(
        name=_NAME,
        title=_TITLE if jobs is not None else "Latency over time, by phase",
        description=_words(measured, columns, grouped=jobs is None),
        spec=_bars(jobs, factor, unit) if jobs is not None else _bands(columns, factor, unit),
        numbers=table(_NAME, ("phase", "mean", "longest", "jobs"), _numbers(columns)),
    )


def _bars(jobs: list[dict[str, Any]], factor: float, unit: str) -> dict[str, Any]:
    half = 0.42 if len(jobs) <= 200 else 0.5
    bars = [row for job in jobs for row in _phases(job, factor, half)]
    marks = [row for job in jobs for row in _marked(job, factor)]
    top = 1.1 * max([row["to"] for row in bars], default=1.0)
    bars = [row for row in bars if row["to"] - row["from"] > _UNSEEN * top]
    warm = [job["index"] for job in jobs if job["warmup"]]
    shade: Rows = [{"a": min(warm) - 0.5, "b": max(warm) + 0.5, "words": "warm-up"}] if warm else []
    within = alt.Scale(domain=[jobs[0]["index"] - 0.5, jobs[-1]["index"] + 0.5], nice=False)
    axis = alt.Axis(tickMinStep=1, format="d")
    x = alt.X("a:Q", title="job, in the order in which they came due", scale=within, axis=axis)
    y = alt.Y("from:Q", title=f"latency, {unit}", scale=upto(top))
    warmed = alt.Chart(data("shade")).encode(x=x)
    layers = [
        warmed.mark_rect(style="shade").encode(x2="b:Q"),
        warmed.mark_text(style="note", align="left", baseline="bottom", y=-2).encode(text="words:N"),
        _stacks(x, y, bars, unit),
        *([_marks(marks, unit)] if marks else []),
    ]
    picture = alt.layer(*layers).resolve_scale(color="independent", shape="independent")
    return spec(picture.properties(width=WIDTH, height=230), bars=bars, marks=marks, shade=shade)


def _stacks(x: alt.X, y: alt.Y, bars: Rows, unit: str) -> alt.Chart:
    tips = [alt.Tooltip(f"{key}:N", title=key) for key in ("job", "phase", "workflow")]
    tips += [alt.Tooltip(f"{key}:Q", title=f"{key}, {unit}", format=".3~f") for key in ("took", "latency")]
    faint = alt.condition("datum.warmup", alt.value(0.45), alt.value(1))
    base = alt.Chart(data("bars")).mark_rect(clip=True)
    chart: alt.Chart = base.encode(x=x, x2="b:Q", y=y, y2="to:Q", color=_by_phase(bars), opacity=faint, tooltip=tips)
    return chart


def _by_phase(rows: Rows) -> alt.Color:
    """The colours of the phases that are drawn."""
    drawn = {row["phase"] for row in rows}
    return alt.Color("phase:N", scale=palette({name: one for name, one in _COLOURS.items() if name in drawn}))


def _ends() -> dict[str, tuple[str, str, str]]:
    """What marks a job that did not end as most do: words, shape, colour."""
    of_outcomes: dict[str, tuple[str, str, str]] = {
        name: (row.words if row.sent else f"{row.words}, never sent", row.mark or "square", RED if row.sent else PURPLE)
        for name, row in OUTCOMES.items()
    }
    return {
        **of_outcomes,
        "censored": ("cut off: took longer", "triangle-up", PURPLE),
        "cached": ("all from the cache", "circle", GREEN),
        "partial": ("partly from the cache", "triangle-right", SKY),
    }


def _marked(job: dict[str, Any], factor: float) -> Rows:
    """What is drawn above a job that did not end as most do."""
    end = _end(job)
    if end is None:
        return []
    why = "" if job["failure"] is None else str(job["failure"]["message"])[:200]
    return [{"job": job["index"], "y": factor * (job["latency_s"] or 0.0), "end": _ends()[end][0], "why": why}]


def _marks(marks: Rows, unit: str) -> alt.Chart:
    there = {row["end"] for row in marks}
    ends = [one for one in _ends().values() if one[0] in there]
    tips = [alt.Tooltip("job:Q", title="job"), alt.Tooltip("end:N", title="end")]
    tips += [alt.Tooltip("y:Q", title=f"after, {unit}", format=".3~f"), alt.Tooltip("why:N", title="message")]
    legend = alt.Legend(orient="top", offset=18)
    shape = alt.Shape("end:N", scale=palette({words: shape for words, shape, _ in ends}), legend=legend)
    colour = alt.Color("end:N", scale=palette({words: colour for words, _, colour in ends}), legend=legend)
    points = alt.Chart(data("marks")).mark_point(size=55, strokeWidth=1.8, opacity=1, yOffset=-7)
    chart: alt.Chart = points.encode(x="job:Q", y="y:Q", shape=shape, color=colour, tooltip=tips)
    return chart


def _end(job: dict[str, Any]) -> str | None:
    if job["censored"]:
        return "censored"
    if job["outcome"] != "completed":
        return str(job["outcome"])
    return None if job["cache"] == "fresh" else str(job["cache"])


def _phases(job: dict[str, Any], factor: float, half: float) -> Rows:
    """The job's bar from the bottom up. Phases by the server's clock are laid end to end: only their lengths count."""
    whole = job["latency_s"]
    if whole is None:
        return []
    unsent = 0.0 if job["sent_s"] is None else max(job["sent_s"] - job["due_s"], 0.0)
    lengths = zip(PHASES, (unsent, job["queue_wait_s"], job["execution_s"]), strict=False)
    known = {name: length for name, length in lengths if length}
    rest = max(whole - sum(known.values()), 0.0)
    known[PHASES[-1] if job["execution_s"] is not None else _UNKNOWN] = rest
    rows, base = [], 0.0
    for name, length in known.items():
        to = min(base + length, whole)  # the two clocks are read at different moments
        rows.append(
            {
                "job": job["index"],
                "a": job["index"] - half,
                "b": job["index"] + half,
                "from": factor * base,
                "to": factor * to,
                "took": factor * length,
                "phase": name,
                "latency": factor * whole,
                "warmup": job["warmup"],
                "workflow": job["workflow"],
            }
        )
        base = to
    return rows


def _bands(columns: JobColumns, factor: float, unit: str) -> dict[str, Any]:
    size, time = time_unit(columns.wall_s)
    bands, parts = _groups(columns, factor, size)
    x = over_time(columns.wall_s / size, time, "due after")
    tips = [alt.Tooltip(f"{key}:Q", format=".3~f") for key in ("low", "middle", "high")]
    counts = [alt.Tooltip("jobs:Q", title="jobs"), alt.Tooltip("bad:Q", title="without success")]
    base = alt.Chart(data("bands")).encode(x=x)
    upper = alt.layer(
        base.mark_area(color=BLUE, opacity=0.2).encode(y=alt.Y("low:Q", title=f"latency, {unit}"), y2="high:Q"),
        base.mark_line(color=BLUE, strokeWidth=2).encode(y="middle:Q", tooltip=[*tips, *counts]),
        base.mark_point(shape=_X, color=RED, size=40, strokeWidth=1.8)
        .transform_filter("datum.bad > 0")
        .encode(y="high:Q", tooltip=counts),
    ).properties(width=WIDTH, height=160)
    mean = alt.Y("mean:Q", title=f"mean by phase, {unit}")
    lower = alt.Chart(data("parts")).mark_area().encode(x=x, y=mean, color=_by_phase(parts))
    lower = lower.properties(width=WIDTH, height=120)
    return spec(alt.vconcat(upper, lower), bands=bands, parts=parts)


def _groups(columns: JobColumns, factor: float, size: float) -> tuple[Rows, Rows]:
    """Spread and mean phases of the jobs due in each stretch of time; a stretch without any is a gap."""
    edges = np.linspace(0, columns.wall_s, _BINS + 1)
    group = np.clip(np.digitize(columns.due - columns.zero, edges) - 1, 0, _BINS - 1)
    bands: Rows = []
    parts: Rows = []
    for number in range(_BINS):
        here = (group == number) & ~np.isnan(columns.latency)
        middle = (edges[number] + edges[number + 1]) / 2 / size
        if not here.any():
            bands.append({"t": middle, "low": None, "middle": None, "high": None, "jobs": 0, "bad": 0})
            continue
        low, mid, high = (factor * float(q) for q in np.quantile(columns.latency[here], (0, 0.5, 1)))
        bad = int((here & ~columns.completed & ~columns.censored).sum())
        bands.append({"t": middle, "low": low, "middle": mid, "high": high, "jobs": int(here.sum()), "bad": bad})
        for name, column in columns.phases.items():
            parts.append({"t": middle, "phase": name, "mean": factor * float(np.mean(np.nan_to_num(column[here])))})
    top = max([row["mean"] for row in parts], default=0.0)
    visible = {row["phase"] for row in parts if row["mean"] > _UNSEEN * top}
    return bands, [row for row in parts if row["phase"] in visible]


def _words(measured: Measured, columns: JobColumns, *, grouped: bool) -> str:
    counted = columns.completed & ~columns.warmup & ~np.isnan(columns.latency)
    seconds = columns.latency[counted]
    words = [f"{count(len(columns.latency), 'job')}, {int(columns.warmup.sum())} of them warm-up."]
    if len(seconds):
        words.append(
            f"Of {count(len(seconds), 'completed counted job')} the median took {duration(float(np.median(seconds)))}, "
            f"the fastest {duration(float(seconds.min()))} and the slowest {duration(float(seconds.max()))}."
        )
    flat = measured.summary.summary
    bad = sum(int(flat[row.key] or 0) for row in OUTCOMES.values() if row.error)
    words.append(f"{count(bad, 'job')} failed; {flat['cached']} used the server's cache.")
    if grouped:
        words.append(
            f"More than {MOST} jobs are drawn in {_BINS} groups by due time: the line is the median, the band the "
            "fastest to the slowest; a cross marks groups with jobs that had no success."
        )
    return " ".join(words)


def _numbers(columns: JobColumns) -> list[list[str]]:
    counted = columns.completed & ~columns.warmup
    rows = []
    for name, column in {**columns.phases, "whole latency": columns.latency}.items():
        seconds = column[counted & ~np.isnan(column)]
        if len(seconds):
            rows.append([name, duration(float(seconds.mean())), duration(float(seconds.max())), str(len(seconds))])
    return rows
