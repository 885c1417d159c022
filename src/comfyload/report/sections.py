"""The tables of a page that a single run's page lacks: one line a run, gates of all runs, jobs, environment."""

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from comfyload.judge.columns.ledger import clean
from comfyload.judge.gates.gate import GateVerdict, overall
from comfyload.judge.statistics.stats import Statistic, value_needs
from comfyload.judge.summary import Measured, Summary
from comfyload.record.kinds import KIND_WORDS, KINDS
from comfyload.record.model import Environment
from comfyload.record.model import Fact as Known
from comfyload.report.page import Column, Row, Table, Value, table
from comfyload.report.plan_text import load_words
from comfyload.report.values import in_words, value_of
from comfyload.report.verdicts import gate_tables, verdict_row
from comfyload.words import DASH, count, duration, gib

_MESSAGE = 300


def sure(statistic: Statistic) -> Value:
    """The number with its interval; without one, why in the note."""
    value = value_of(statistic)
    return value if value.note or value.interval else structs.replace(value, note=statistic.reason)


def p95(summary: Summary) -> Value:
    """The p95 of latency; of too few jobs for one, the longest latency, which no completed job exceeded."""
    found, longest = summary.statistics["p95_latency_s"], summary.summary.get("max_latency_s")
    few = found.value is None and found.n < value_needs(0.95) and not summary.summary["censored"]
    if few and isinstance(longest, float):
        return Value(f"≤ {duration(longest)}", note=f"the slowest job: a p95 needs {value_needs(0.95)} jobs")
    return sure(found)


def results(runs: Sequence[Measured]) -> Table:
    """A row for each run."""
    images = any(run.summary.statistics["images_per_minute"].value for run in runs)
    rate = "images_per_minute" if images else "jobs_per_minute"
    closed = all(run.manifest.plan.concurrency is not None for run in runs)
    columns = ["run", ">in flight" if closed else "load", ">images/min" if images else ">jobs/min", ">half wait",
               ">p95", ">slowest", ">completed", ">busy"]  # fmt: skip
    rows = list[Row]()
    for run in runs:
        flat, found, plan = run.summary.summary, run.summary.statistics, run.manifest.plan
        longest, busy = flat["max_latency_s"], run.summary.saturation.server_busy
        rows.append(
            [
                clean(run.manifest.name, 60) + ("" if run.summary.valid else " (INVALID)"),
                str(plan.concurrency) if closed else load_words(plan.load),
                sure(found[rate]),
                sure(found["p50_latency_s"]),
                p95(run.summary),
                duration(longest) if isinstance(longest, float) else DASH,
                f"{flat['completed']} of {flat['total_jobs']}",
                in_words(busy, unit="share"),
            ]
        )
    return table("results", columns, rows, title="Results")


def gates(verdicts: Sequence[GateVerdict]) -> Table | None:
    """A row for each gate: its worst verdict of all runs, nearest to the limit where several are alike."""
    rows = []
    for gate in dict.fromkeys(one.gate for one in verdicts):
        given = [one for one in verdicts if one.gate == gate]
        same = [one for one in given if one.verdict == overall(given)]
        sign = 1 if "<" in gate else -1
        first = max(same, key=lambda one: sign * (one.value if one.value is not None else float("inf")))
        cells = verdict_row(first)
        rows.append([*cells[:4], Value(f"{len(same)} of {count(len(given), 'run')}"), *cells[4:]])
    titles = ("", "gate", "worst value", "verdict", "of", "~")
    return table("gates", titles, rows, title="Verdicts") if rows else None


def gates_by_run(verdicts: Sequence[GateVerdict]) -> Table | None:
    """Each gate of each run, with its reason."""
    tables = gate_tables(verdicts, whole=True)
    if len(tables) < 2:
        return None
    columns = [Column(title="run"), *tables[0].columns]
    rows = [[Value(one.title), *row] for one in tables for row in one.rows]
    return Table(key="gates-by-run", title="Verdicts of each run", columns=columns, rows=rows, detail=True)


def jobs_table(jobs: Sequence[dict[str, Any]], title: str) -> Table | None:
    """A row for each job of `document.jobs`."""
    rows = list[Row]()
    for job in jobs:
        end = "cut off by the end" if job["censored"] else str(job["outcome"]).replace("_", " ")
        times = (job[key] for key in ("latency_s", "queue_wait_s", "execution_s"))
        rows.append(
            [
                f"{job['index']}{' (warm-up)' if job['warmup'] else ''}",
                *(in_words(time, unit="s") for time in times),
                end,
                str(job["cache"]),
                _made(job["made"]),
                clean(str((job["failure"] or {}).get("message", "")), _MESSAGE),
            ]
        )
    columns = ["job", ">latency", ">queue wait", ">execution", "end", "cache", "made", "message"]
    return table("jobs", columns, rows, title=title, detail=True) if rows else None


def _made(made: dict[str, dict[str, int]]) -> str:
    """`1 image`, `1 image, 1 preview`; a dash for nothing."""
    parts = []
    for kind in KINDS:
        for folder, several in made.get(kind, {}).items():
            preview = kind == "image" and folder != "output"
            parts.append(count(several, "preview") if preview else count(several, *KIND_WORDS[kind]))
    return ", ".join(parts) or DASH


def environment_rows(environment: Environment, notes: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    """Key, value and source. A note of the same name takes the place of what the program found. What is unknown of one
    thing for one reason is one row.
    """
    left = dict(notes or {})
    rows: list[tuple[str, str, str]] = []
    unknown: dict[tuple[str, str], list[str]] = {}
    for key, fact in environment.items():
        of, _, what = key.rpartition(".")
        if key.startswith("note."):
            continue
        if key in left:
            rows.append((key, left.pop(key), "you"))
        elif fact.value is not None:
            rows.append((key, _fact_words(key, fact), fact.source))
        elif fact.source:
            names = unknown.setdefault((of, fact.source), [])
            names.append(what)
            if len(names) == 1:
                rows.append((of, "", fact.source))
    known = [row if row[1] else _unknown(row, unknown[row[0], row[2]]) for row in rows]
    return known + [(key, text, "you") for key, text in left.items()]


def _unknown(row: tuple[str, str, str], names: list[str]) -> tuple[str, str, str]:
    key = f"{row[0]}.{names[0]}" if len(names) == 1 else f"{row[0]}: {', '.join(names)}"
    return key.removeprefix("."), "unknown", row[2]


def _fact_words(key: str, fact: Known) -> str:
    """The value with a unit that its key names."""
    value = fact.value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if key.endswith("_bytes"):
            return gib(value)
        for ending, unit in (("_w", "W"), ("_mhz", "MHz"), ("_percent", "%")):
            if key.endswith(ending):
                return f"{value:g} {unit}"
    return str(value)
