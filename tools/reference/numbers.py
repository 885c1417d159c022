"""The pages of what is written for programs: the summary, gates and comparisons."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import msgspec.inspect

from comfyload.judge import summary as judge_summary
from comfyload.judge.columns.fold import Fetched, OutputCount, Reading
from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.columns.ledger import FailureRow
from comfyload.judge.columns.nodes import NodeRow
from comfyload.judge.columns.retries import RetryRow
from comfyload.judge.comparison.comparable import REFUSING
from comfyload.judge.comparison.compare import Comparison
from comfyload.judge.comparison.history import TrendSeries
from comfyload.judge.findings.table import Finding
from comfyload.judge.gates import grammar as judge_gates
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.metrics import METRICS
from comfyload.judge.numbers import NUMBERS, workflow_numbers
from comfyload.judge.saturation import GpuBusy, Saturation
from comfyload.judge.servers import ServerRow
from comfyload.judge.statistics.stats import CONFIDENCE, Statistic
from comfyload.judge.summary import BookRow
from comfyload.judge.workflows import AfterRow, WorkflowRow
from comfyload.record import model
from comfyload.record.outcomes import OUTCOMES
from comfyload.report.document import jobs, write_document
from tools.reference.markdown import NOTE, agree, info_of, listed, struct_text, structs_in, table
from tools.reference.meanings import JOB, STATISTICS


def summary_page() -> str:
    summary = judge_summary.summarise(_manifest(), [])
    file = io.BytesIO()
    write_document(file, _manifest(), summary, [])
    shown = json.loads(file.getvalue())
    flat = shown["summary"]
    others = [key for key in shown["statistics"] if key not in summary.statistics]
    agree("STATISTICS", others, STATISTICS)
    (job,) = jobs(_manifest(), [msgspec.convert({**_blank(model.Record), "line": "record"}, model.Record)])
    known = {"outcome": ("", f"one of {listed(OUTCOMES)}")}
    known |= {f"{metric.name}_s": ("s", metric.meaning) for metric in METRICS.values()}
    agree("JOB", [key for key in job if key not in known], JOB)
    rows = [(f"`{key}`", NUMBERS[key].unit, NUMBERS[key].meaning) for key in flat]
    job_rows = [(f"`{key}`", *(known.get(key) or JOB[key])) for key in job]
    nested: list[tuple[str, type[msgspec.Struct]]] = [
        ("Statistic", Statistic),
        ("nodes[]", NodeRow),
        ("failures[]", FailureRow),
        ("outputs.*", OutputCount),
    ]
    nested += [("gpus.*", GpuRow), ("saturation", Saturation), ("saturation.gpus.*", GpuBusy)]
    nested += [
        ("fetched", Fetched),
        ("telemetry.*", Reading),
        ("books", BookRow),
        ("after", AfterRow),
        ("retries", RetryRow),
        ("servers.*", ServerRow),
    ]
    return "\n".join(
        [
            "# The JSON of `--output`",
            "",
            NOTE,
            f"One object with the keys {listed(shown)}. A number that is unknown or",
            'withheld is `null`, never 0; an infinite one is the string `"inf"`. `--json` prints `.summary` alone.',
            "",
            "## `.summary`",
            "",
            "A flat object. Durations cover the counted, completed jobs, cached ones included.",
            "",
            table(("key", "unit", "meaning"), rows),
            "A percentile is `null` if there are too few jobs for it:",
            "[why/intervals.md](../why/intervals.md) has the numbers.",
            "",
            "## `.statistics`",
            "",
            "Every key of `.summary` that is an estimate has a `Statistic` of the same name: the value, its",
            f"{CONFIDENCE:.0%} interval, the number of jobs it rests on, and the reason if a bound is missing.",
            "",
            f"Counts and maxima have none: {listed(key for key in flat if key not in summary.statistics)}.",
            "",
            "It also has these keys:",
            "",
            table(("key", "meaning"), [(f"`{key}`", STATISTICS[key]) for key in others]),
            *(f"### `{title}`\n\n{struct_text(kind)}" for title, kind in nested),
            "## `.workflows.*`",
            "",
            "One object per workflow, by its name, even if there is only one.",
            "",
            struct_text(WorkflowRow),
            "## `.findings[]`",
            "",
            struct_text(Finding),
            "[findings.md](findings.md) lists the codes.",
            "",
            "## `.jobs[]`",
            "",
            "One flat object per job, one per line, in the order in which the jobs ended, warm-up included.",
            "",
            table(("key", "unit", "meaning"), job_rows),
            "## `.manifest`",
            "",
            "The run's `manifest.json`: [run-directory.md](run-directory.md).",
            "",
        ]
    )


def _manifest() -> model.Manifest:
    return msgspec.convert({**_blank(model.Manifest), "end": "complete"}, model.Manifest)


def _blank(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """JSON of the struct with nothing in it: only what it requires, and of that the least."""
    return {field.encode_name: _least(field.type) for field in info_of(kind).fields if field.required}


def _least(kind: msgspec.inspect.Type) -> Any:
    match kind:
        case msgspec.inspect.UnionType(types=kinds):
            return None if kind.includes_none else _least(kinds[0])
        case msgspec.inspect.StructType():
            return {**({kind.tag_field: kind.tag} if kind.tag_field else {}), **_blank(kind.cls)}
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return 1
        case msgspec.inspect.StrType():
            return ""
        case msgspec.inspect.BoolType():
            return False
        case msgspec.inspect.DictType():
            return {}
    return []


GATE_KINDS = {
    "share": "a share: binomial, 5 % each side, a burst of failures as one trial",
    "percentile": "a percentile: by the number of jobs over the limit, exact binomial, 5 % each side",
    "mean": "a mean or a rate: by its 95 % interval, which has both ends from 59 independent jobs on",
    "fact": "a fact of this run: the value itself, no inference",
    "errors": "errors in records and log, without the expected ones",
}


def judgement_page() -> str:
    by_kind = {kind: [key for key, number in NUMBERS.items() if number.kind == kind] for kind in GATE_KINDS}
    rows = [(GATE_KINDS[kind], listed(names)) for kind, names in by_kind.items()]
    of_one = ", ".join(f"`{name}`" for name in workflow_numbers())
    return "\n".join(
        [
            "# Gates, comparisons, trends",
            "",
            NOTE,
            "## Gates",
            "",
            "A gate is a number of the summary, an operator (`<=`, `<`, `>=`, `>`, `==`) and a limit:",
            "`p95_latency_s <= 45`, `success_rate >= 98 %`, `max_latency_s < 90 s` or",
            "`images_per_minute >= 0.95 * baseline`.",
            "",
            f"Default gates: {', '.join(f'`{text}`' for text in judge_gates.DEFAULT_GATES)}.",
            "",
            table(("judged as", "numbers"), rows),
            f"For one workflow of a mix, put its name first (`book_medium.p95_latency_s`): {of_one}.",
            "",
            "A file for `--gates` is TOML with `gates` and `expected_errors` (lists of strings) and",
            "`independent_failures` (true or false).",
            "",
            "## `check --json`",
            "",
            "`overall` is the worst verdict; `verdicts` is a list of:",
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in (GateVerdict,)),
            "## `compare --json` and `ab --json`",
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in structs_in(Comparison)),
            "### Differences that refuse a comparison",
            "",
            table(("key", "why"), [(f"`{key}`", why) for key, why in REFUSING.items()]),
            "## `trend --json`",
            "",
            "A list of:",
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in structs_in(TrendSeries)),
        ]
    )
