"""The tables of a page as rows of words: gates, comparison, durations, failures, jobs, environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from comfyload.judge.columns.ledger import clean
from comfyload.judge.gates.gate import overall
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured, Summary
from comfyload.record.kinds import KIND_WORDS, KINDS
from comfyload.record.model import Environment, Fact
from comfyload.report.busy import gpu_value, server_words
from comfyload.report.comparison import change_words, metric_words
from comfyload.report.comparison import value_words as compared
from comfyload.report.headline import Number, number
from comfyload.report.made import made_words
from comfyload.report.plan_text import plan_words
from comfyload.report.text import DASH, count, decimals, duration, fixed, span
from comfyload.report.verdicts import by_result
from comfyload.report.verdicts import value_words as judged
from comfyload.visible import visible

if TYPE_CHECKING:
    from comfyload.judge.comparison.compare import Comparison, Ratio
    from comfyload.judge.gates.gate import GateVerdict

__all__ = [
    "SHOWN",
    "comparison_view",
    "duration_rows",
    "environment_rows",
    "fact_words",
    "failure_rows",
    "finding_rows",
    "gate_groups",
    "gpu_words",
    "job_rows",
    "run_facts",
    "workflow_rows",
]

SHOWN = ("mean", "p50", "p90", "p95", "p99", "max")
_KEYS = ("avg", "p50", "p90", "p95", "p99", "max")
_DURATIONS = (
    ("latency, from due", "latency"),
    ("latency, from sent", "latency_sent"),
    ("latency, failures as ∞", "latency_with_failures"),
    ("whole book, from due", "book_latency"),
    ("queue wait, by the server", "queue_wait"),
    ("execution, by the server", "execution"),
    ("acknowledge", "acknowledge"),
)
_LEVELS = {"invalid": "bad", "warning": "doubt", "info": ""}
_LOOKS = {"PASS": ("good", "✓"), "PASS*": ("doubt", "✓"), "INCONCLUSIVE": ("doubt", "?"), "FAIL": ("bad", "✗")}
_BETTER, _WORSE = ("faster", "fewer failures"), ("slower", "more failures")
_MESSAGE = 300
_NODES = 8


def run_facts(measured: Measured) -> list[tuple[str, str]]:
    """What was run, on what."""
    manifest = measured.manifest
    server, flat = manifest.server, measured.summary.summary
    wall = flat["wall_clock_s"]
    version = (
        f" (ComfyUI {visible(server.comfyui_version)})" if server.comfyui_version else " (ComfyUI of unknown version)"
    )
    return [
        ("Workflow", clean(", ".join(facts.name for facts in manifest.workflows), 200) or DASH),
        ("Load", plan_words(manifest.plan)),
        ("Server", f"{server.url}{version}"),
        ("GPU", gpu_words(measured)),
        ("Jobs", f"{flat['total_jobs']} offered, {flat['completed']} completed"),
        ("Made", made_words(measured.summary)),
        *_load_facts(measured.summary),
        ("Wall clock", duration(wall) if isinstance(wall, float) else DASH),
        ("Run", f"{manifest.run_id}, began {manifest.started_utc[:19].replace('T', ' ')} UTC"),
    ]


def _load_facts(summary: Summary) -> list[tuple[str, str]]:
    """How busy the server and its GPUs were, as far as that is known."""
    values = {gpu: gpu_value(row) for gpu, row in summary.gpus.items()}
    gpus = [(f"GPU {gpu}", " · ".join(filter(None, (one.words, one.note)))) for gpu, one in values.items()]
    return [row for row in [("Busy", server_words(summary.saturation)), *gpus] if row[1]]


def gpu_words(measured: Measured) -> str:
    """The GPUs by name, from the environment, or else as the server called them."""
    facts = measured.manifest.environment
    named = [str(fact.value) for key, fact in facts.items() if _is_model(key) and fact.value is not None]
    named = named or [str(device.get("name") or device.get("type")) for device in measured.manifest.server.devices]
    return clean(", ".join(named), 200) or "unknown"


def _is_model(key: str) -> bool:
    return key.startswith("gpu.") and key.endswith(".model")


def finding_rows(summary: Summary) -> list[dict[str, str]]:
    return [
        {"level": one.level, "look": _LEVELS[one.level], "text": one.text, "hint": one.hint} for one in summary.findings
    ]


def gate_groups(verdicts: Sequence[GateVerdict]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The verdicts by run; the run is named where there are several."""
    groups = []
    for run, given in by_result(verdicts).items():
        rows = []
        for one in given:
            look, sign = _LOOKS[one.verdict]
            row = {"verdict": one.verdict, "gate": one.gate, "value": judged(one), "n": one.n or "", "why": one.why}
            rows.append({**row, "look": look, "sign": sign})
        groups.append((f"{run}: {overall(given)}", rows))
    return groups


def comparison_view(comparison: Comparison) -> dict[str, Any]:
    """The comparison, its overall ratio in a sentence."""
    row = comparison.overall
    sentence, look = "No duration is known of both sides.", "doubt"
    if row is not None and row.ratio is not None:
        against = f"{compared(row.b, row.unit)} against {compared(row.a, row.unit)}"
        names = row.note.partition(", ")[0].partition(";")[0].split(" or ")  # the overall ratio says what it is of
        of = " or ".join(metric_words(name) for name in names if name) or metric_words(row.name)
        sentence = f"{row.verdict.upper()}: {of} {_change(row)}, {against}. {comparison.why}".rstrip()
        look = _look(row) or "doubt"
    return {
        "sentence": sentence,
        "look": look,
        "a": ", ".join(comparison.runs_a),
        "b": ", ".join(comparison.runs_b),
        "design": {"paired": "interleaved pairs", "runs": "several runs a side"}.get(comparison.design, "single runs"),
        "rows": [_ratio(one, comparison.design) for one in _shown(comparison.rows)],
        "left_out": len(comparison.rows) - len(_shown(comparison.rows)),
        "differences": [(d.key, d.a, d.b, "accepted" if d.refuses else d.why) for d in comparison.differences],
        "caveats": comparison.caveats,
    }


def _shown(rows: Sequence[Ratio]) -> list[Ratio]:
    """All but nodes without a verdict that are not among the first few, the costliest."""
    nodes = [row for row in rows if row.kind == "node"]
    kept = [row for place, row in enumerate(nodes) if place < _NODES or _look(row)]
    return [row for row in rows if row.kind != "node"] + kept


def _ratio(row: Ratio, design: str) -> dict[str, str]:
    name = metric_words(row.name, row.unit) if row.kind == "metric" else row.name
    where = [part for part in (row.load, row.workflow) if part]
    unit = "pairs" if design == "paired" else "runs a side"
    needs = f" (about {row.runs_needed} {unit} would settle it)" if row.runs_needed else ""
    return {
        "what": clean(": ".join([*where, name]), 160),
        "a": compared(row.a, row.unit),
        "b": compared(row.b, row.unit),
        "n": f"{row.n_a}" if row.n_a == row.n_b else f"{row.n_a}/{row.n_b}",
        "change": _change(row),
        "verdict": (row.verdict if row.ratio is not None or row.kind == "failures" else "withheld") + needs,
        "look": _look(row),
        "note": row.note,
    }


def _look(row: Ratio) -> str:
    return "good" if row.verdict in _BETTER else "bad" if row.verdict in _WORSE else ""


def _change(row: Ratio) -> str:
    if row.ratio is None:
        return DASH
    ends = ""
    if row.low is not None and row.high is not None:
        ends = f" ({span(change_words(row.low), change_words(row.high))} %)"
    return f"{change_words(row.ratio)} %{ends}"


def duration_rows(summary: Summary) -> list[dict[str, Any]]:
    """A row for each duration that any job has."""
    rows = []
    for label, key in _DURATIONS:
        cells = [_cell(summary, f"{shown}_{key}_s") for shown in _KEYS]
        n = max((cell.n for cell in cells if cell is not None), default=0)
        every = summary.summary["completed"] == summary.summary["total_jobs"]
        if n and not (key == "latency_with_failures" and every):
            rows.append({"label": label, "cells": cells, "n": n})
    return rows


def _cell(summary: Summary, key: str) -> Number | None:
    statistic, value = summary.statistics.get(key), summary.summary.get(key)
    if statistic is not None:
        return number("", statistic)
    if not isinstance(value, float):
        return None
    return number("", Statistic(value=value, n=1, unit="s", method="max"))


def workflow_rows(summary: Summary) -> list[list[str]]:
    """A row for each of several workflows."""
    if len(summary.workflows) < 2:
        return []
    return [
        [
            clean(name, 80),
            str(row.jobs),
            *(_words(statistic) for statistic in (row.success_rate, row.avg_latency_s, row.p95_latency_s)),
            _words(row.avg_execution_s),
            f"{row.images} + {row.previews}" if row.previews else str(row.images),
            str(row.cached),
        ]
        for name, row in summary.workflows.items()
    ]


def _words(statistic: Statistic) -> str:
    said = number("", statistic)
    return f"{said.value} ({said.interval})" if said.interval else said.value


def failure_rows(summary: Summary) -> list[list[str]]:
    rows = []
    for row in summary.failures:
        kind = row.kind if not row.type or row.type == row.kind else f"{row.kind}: {row.type}"
        rows.append([kind, str(row.count), row.node_class or "", row.example, str(row.index)])
    return rows


def job_rows(jobs: Sequence[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for job in jobs:
        end = "cut off by the end" if job["censored"] else str(job["outcome"]).replace("_", " ")
        times = (job[key] for key in ("latency_s", "queue_wait_s", "execution_s"))
        message = clean(str((job["failure"] or {}).get("message", "")), _MESSAGE)
        rows.append(
            [
                f"{job['index']}{' (warm-up)' if job['warmup'] else ''}",
                end,
                *(DASH if time is None else duration(time) for time in times),
                str(job["cache"]),
                _made(job["made"]),
                message,
            ]
        )
    return rows


def _made(made: dict[str, dict[str, int]]) -> str:
    """`1 image`, `1 image, 1 preview`; a dash for nothing."""
    parts = []
    for kind in KINDS:
        for folder, several in made.get(kind, {}).items():
            preview = kind == "image" and folder != "output"
            parts.append(count(several, "preview") if preview else count(several, *KIND_WORDS[kind]))
    return ", ".join(parts) or DASH


def environment_rows(environment: Environment) -> list[tuple[str, str, str]]:
    """Key, value and source. What is unknown of one thing for one reason is one row."""
    rows: list[tuple[str, str, str]] = []
    unknown: dict[tuple[str, str], list[str]] = {}
    for key, fact in environment.items():
        of, _, what = key.rpartition(".")
        if fact.value is not None:
            rows.append((key, fact_words(key, fact), fact.source))
        elif fact.source:
            names = unknown.setdefault((of, fact.source), [])
            names.append(what)
            if len(names) == 1:
                rows.append((of, "", fact.source))
    return [row if row[1] else _unknown(row, unknown[row[0], row[2]]) for row in rows]


def _unknown(row: tuple[str, str, str], names: list[str]) -> tuple[str, str, str]:
    key = f"{row[0]}.{names[0]}" if len(names) == 1 else f"{row[0]}: {', '.join(names)}"
    return key.removeprefix("."), "unknown", row[2]


def fact_words(key: str, fact: Fact) -> str:
    """The value with a unit that its key names; unknown if it is not known."""
    value = fact.value
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        gib = value / 2**30
        if key.endswith("_bytes"):
            return f"{fixed(gib, decimals(gib, 1))} GiB"
        for ending, unit in (("_w", "W"), ("_mhz", "MHz"), ("_percent", "%")):
            if key.endswith(ending):
                return f"{value:g} {unit}"
    return str(value)
