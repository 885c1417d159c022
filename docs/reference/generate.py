"""Writes the reference pages from the code: `python docs/reference/generate.py`.

The code gives names, types, defaults and docstrings; the tables below give the meaning of each key and code. A key or
code that has no entry here, or an entry that the code no longer has, stops the script.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect
from typer.models import ArgumentInfo, OptionInfo

from comfyload import errors
from comfyload.cli import app
from comfyload.judge import summary as judge_summary
from comfyload.judge.comparison.comparable import REFUSING
from comfyload.judge.comparison.compare import Comparison
from comfyload.judge.comparison.history import Series
from comfyload.judge.findings import _OBSERVED, FINDINGS, Finding
from comfyload.judge.fold import Fetched, OutputCount, Reading
from comfyload.judge.gates import grammar as judge_gates
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.gpu import GpuRow
from comfyload.judge.ledger import FailureRow
from comfyload.judge.metrics import METRICS
from comfyload.judge.nodes import NodeRow
from comfyload.judge.retries import RetryRow
from comfyload.judge.saturation import GpuBusy, Saturation
from comfyload.judge.stats import CONFIDENCE, Statistic
from comfyload.judge.summary import BookRow
from comfyload.judge.workflows import AfterRow, WorkflowRow
from comfyload.record import archive, model
from comfyload.report.document import document, jobs
from comfyload.retry import policy

__all__ = ["main", "pages"]

HERE = Path(__file__).parent
SOURCE = Path(errors.__file__).parent
NOTE = "<!-- Written by generate.py; edit that or the code, then run: python docs/reference/generate.py -->\n"

Row = tuple[str, ...]


class Missing(Exception):
    """A table of this script and the code disagree."""


# --- what the code does not say of itself

SUMMARY: dict[str, tuple[str, str]] = {
    "valid": ("bool", "no finding of level `invalid`: the numbers measure what they are named after"),
    "total_jobs": ("jobs", "counted jobs offered; the sum of the six outcomes below. Warm-up is not in it"),
    "completed": ("jobs", "ended well by the server's history, and with `--fetch` every output was whole"),
    "failed": ("jobs", "refused, raised in a node, interrupted by somebody else, or an output could not be fetched"),
    "timeouts": ("jobs", "not done within `--timeout`; cancelled on the server"),
    "cancelled": ("jobs", "stopped by us: a second Ctrl-C, SIGTERM, or the end of a run that does not drain"),
    "lost": ("jobs", "accepted once, and unknown to the server afterwards"),
    "dropped": ("jobs", "due but never sent: no place was free, or the run was stopped while they waited for one"),
    "censored": ("jobs", "of `cancelled`: cut off by the end of the run, with `--no-drain`; no failures"),
    "unfinished": ("jobs", "sent, and without a record of their end: the generator was killed before"),
    "warmup_jobs": ("jobs", "run before counting began; in no other number"),
    "cached": ("jobs", "completed, with an output or a sampler taken from the server's cache: the sum of the next two"),
    "cached_fully": ("jobs", "completed, with every output from the cache: the job made nothing"),
    "cached_partly": ("jobs", "completed, with some output or sampler from the cache, but not every output"),
    "images": (
        "images",
        "image files that counted, completed jobs made themselves: not cached, not returned by an earlier job, each "
        "once in its job. Previews count; `.statistics.images_by_type` tells `output` from `temp`",
    ),
    "image_bytes": ("bytes", "size of the images downloaded with `--fetch`; null without it"),
    "wall_clock_s": ("s", "from when the first counted job was due until the last one's end was seen"),
    "offered_per_minute": ("arrivals/min", "arrivals (jobs, or books) that were due, from the first due to the last"),
    "sent_per_minute": ("arrivals/min", "arrivals that were sent, from the first sent to the last"),
    "completed_per_minute": ("arrivals/min", "arrivals that completed, over `wall_clock_s`"),
    "books": ("books", "counted books offered; null where an arrival is one job"),
    "books_completed": ("books", "of which every page completed"),
    "success_rate": ("0..1", "`completed` over `total_jobs` less `censored`"),
    "images_per_minute": ("images/min", "`images` over `wall_clock_s`"),
    "jobs_per_minute": ("jobs/min", "`completed` over `wall_clock_s`"),
    "book_success_rate": ("0..1", "`books_completed` over `books` less those that the end of the run cut off"),
    "books_per_hour": ("books/h", "`books_completed` over `wall_clock_s`"),
    "observed_p99_latency_s": (
        "s",
        "the p99 of the completed jobs by nearest rank, whatever their number: what happened, and no estimate",
    ),
}

DURATIONS: dict[str, str] = {
    "latency": "from when the job was due until its end was seen, on the client's clock",
    "latency_sent": "from when the job was sent until its end was seen, on the client's clock",
    "latency_with_failures": "`latency`, every job that did not complete counted as infinitely long",
    "queue_wait": "from queued to started, on the server's clock",
    "execution": "from started to ended, on the server's clock",
    "book_latency": "from when a book was due until the end of its last page was seen, on the client's clock",
    "acknowledge": "from sending the job until the reply that it is queued was read, on the client's clock",
}

PREFIXES = {
    "avg": "mean",
    "p50": "median",
    "p90": "90th percentile",
    "p95": "95th percentile",
    "p99": "99th percentile",
    "max": "maximum",
}

STATISTICS: dict[str, str] = {
    "quantile_method": "the definition of every percentile here: `hf8`, Hyndman & Fan's eighth",
    "observed": "percentiles and maxima of the completed jobs by nearest rank, whatever their number",
    "other_methods": "the p95 as tools with other definitions would print it, in seconds; null of no jobs",
    "nodes": "one object per node that ran, the costliest in all first",
    "node_clock_s": "how far the times in `nodes` may be off: they are arrivals of messages",
    "failures": "one object per cause of failure, the most frequent first",
    "cache": "by cache class (`fresh`, `partial`, `cached`): `jobs`, `avg_latency_s`, `p50_latency_s`",
    "outputs": "by what a node reported (`images`, `text`, …): one object of counts",
    "images_by_type": "new images by the folder of the server they are in: `output`, `temp`",
    "fetched": "sums over the downloads of `--fetch`; null without them",
    "telemetry": "by `source.name`: one object per series of `samples.ndjson`",
    "gpus": "by the server's index of the GPU, where there are readings of it",
    "saturation": "how busy server and GPUs were, each said on its own: would more in flight help?",
    "retries": "what retries saved and cost, first attempts beside; null without `--retry`",
    "left_on_server": "jobs we gave up, by what had become of them on the server",
    "warmup": "warm-up jobs by outcome",
    "books": "books by how they ended; null where an arrival is one job",
    "after": "mean execution by what the server had run before",
}

JOB: dict[str, tuple[str, str]] = {
    "index": ("", "place in the plan, from 0, warm-up first"),
    "prompt_id": ("", "the job's id on the server"),
    "workflow": ("", "name of the workflow"),
    "book": ("", "number of the book it is a page of, from 0; null where an arrival is one job"),
    "warmup": ("", "whether it is left out of every number"),
    "outcome": ("", "`completed`, `failed`, `timed_out`, `cancelled`, `lost` or `dropped`"),
    "censored": ("", "the end of the run cut it off: it took longer than what was seen of it"),
    "cached": ("", "`cache` is not `fresh`"),
    "cache": ("", "`fresh`, `partial` or `cached`"),
    "due_s": ("s", "when it was due, from the start of the run"),
    "sent_s": ("s", "when its POST left; null if none did"),
    "done_s": ("s", "when its end was seen; null if none was"),
    "seen_by": ("", "who told of the end: `events`, `history`, or `client` where we gave it up ourselves"),
    "done_within_s": ("s", "the end happened at most this long before `done_s`; 0 when told by an event"),
    "images": ("images", "new images, as in `.summary.images`; 0 if it did not complete"),
    "files": ("", "every file it returned, as `type/subfolder/name`, cached ones included"),
    "failure": ("", "why it is no success, or null: see `Failure` in [run-directory.md](run-directory.md)"),
    "left_on_server": ("", "what had become of it there after we gave it up, or null"),
    "values": ("", "`node.input` to the value this job got"),
}

EXIT_CODES: dict[int, str] = {
    0: "The run is valid. Failed jobs do not change that: read `success_rate`.",
    1: "A gate is disproven, or an error came that was not expected. `baseline verify`: a file or a number is not as "
    "it was saved. Python also exits with 1 on an error of comfyload itself, with a traceback: please report it.",
    2: "Nothing was sent, or the result could not be written: the message says what to mend. The server would refuse "
    "the workflow (also `doctor`), or others use it. A comparison is refused. A baseline of that name is there.",
    3: "`doctor`: the server is in no state to be measured. `cleanup`: something of the run is still on the server. "
    "A gate is INCONCLUSIVE, or with `--strict` PASS*.",
    4: "No ComfyUI answers at the address. Nothing was written.",
    5: "A finding of level `invalid` was made, or no job completed. The run directory and `--output` are written. "
    "`show` and `resume` end with the code that the run has.",
    130: "Stopped by Ctrl-C or SIGTERM. The run directory and `--output` are written, with the jobs that ended.",
}
LEVELS: dict[str, str] = {
    "client_clock": "invalid",
    "server_clock": "warning",
    "cached_jobs": "invalid; warning with `--as-is`",
    "repeated_files": "invalid; warning with `--as-is`, or if the files were written over",
    "generator_late": "invalid; warning if only the tail is touched",
    "polled_ends": "info; warning above 1 % of the median",
    "dependent_jobs": "info; warning with one job in flight",
}
"""Of findings whose level depends on what was found."""


# --- reading the code


POLICY_PARTS = (
    policy.Policy,
    policy.Admission,
    policy.Backoff,
    policy.Budget,
    policy.Breaker,
    policy.Rule,
    policy.Score,
)


def pages() -> dict[str, str]:
    """File name to text of every reference page."""
    return {
        "cli.md": cli_page(),
        "summary.md": summary_page(),
        "exit-codes.md": exit_codes_page(),
        "run-directory.md": run_directory_page(),
        "findings.md": findings_page(),
        "judgement.md": judgement_page(),
        "baseline.md": baseline_page(),
        "retry-policy.md": policy_page(),
        "retry.schema.json": json.dumps(msgspec.json.schema(policy.Policy), indent=2) + "\n",
    }


def policy_page() -> str:
    rules = [(f"`{name}`", "yes" if rule.retry else "no", rule.why) for name, rule in policy.RULES.items()]
    return "\n".join(
        [
            "# The retry policy",
            "",
            NOTE,
            "What `comfyload policy --output` writes; `comfyload run --retry` and `comfyload.connect` follow it.",
            "[retry.schema.json](retry.schema.json) is its JSON Schema. Unknown keys are refused; all has a default.",
            "",
            *(f"## {kind.__name__}\n\n{_struct_text(kind)}" for kind in POLICY_PARTS),
            "## Classes of failure",
            "",
            "What is done where the policy does not say otherwise:",
            "",
            _table(("class", "sent again", "why"), rules),
        ]
    )


def cli_page() -> str:
    parts = ["# Command line", "", NOTE, _prose(_callback(app.registered_callback))]
    parts += [
        _table(("flag", "meaning", "default"), [_version_row(), ("`--help`, `-h`", "Show the help and leave.", "")])
    ]
    parts.append("Every command ends with one of the [exit codes](exit-codes.md).\n")
    told: dict[str, list[Row]] = {}
    for name, function in commands():
        rows = list(_options(function))
        parts += [f"## comfyload {name}\n", _prose(function)]
        like = next((other for other, known in told.items() if len(set(known) & set(rows)) > 0.5 * len(known)), None)
        if like is not None:
            less = _listed(row[0].split("`")[1] for row in told[like] if row not in rows)
            parts.append(f"It has the flags of `comfyload {like}`, less {less}.\n")
        own = [row for row in rows if like is None or row not in told[like]]
        if own:
            parts.append(_table(("flag", "meaning", "default"), own))
        elif like is None:
            parts.append("It has no flags.\n")
        told[name] = rows
    return "\n".join(parts)


def commands() -> Iterable[tuple[str, Callable[..., Any]]]:
    """Every command with its name as it is typed, those of a group after the others."""
    groups = [("", app), *((f"{_name_of(group)} ", group.typer_instance) for group in app.registered_groups)]
    for prefix, group in groups:
        for command in group.registered_commands if group else ():
            function = _callback(command)
            yield f"{prefix}{command.name or function.__name__}", function


def _name_of(group: Any) -> str:
    return str(group.typer_instance.info.name)


def options_of(function: Callable[..., Any]) -> Iterable[tuple[list[str], OptionInfo | ArgumentInfo, Any, Any]]:
    """(flags, option, type, default) of every parameter of a command; an argument has no flags."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, option = typing.get_args(hints[name])
        flags = [flag for flag in (option.default, *(option.param_decls or ())) if str(flag).startswith("-")]
        named = [] if isinstance(option, ArgumentInfo) else flags or [f"--{name.replace('_', '-')}"]
        yield named, option, kind, parameter.default


def _options(function: Callable[..., Any]) -> Iterable[Row]:
    for flags, option, kind, default in options_of(function):
        named = ", ".join(f"`{flag}`" for flag in flags)
        if kind is not bool:
            named = f"{named} `{option.metavar or _kind(kind)}`".strip()
        text, _, said = str(option.help).replace("\\[", "[").partition(" [default: ")
        if option.envvar:
            text += f" Read from `{option.envvar}` where the flag is not given."
        text += _bounds(option)
        known = said.removesuffix("]") or ("" if default in (None, False) else str(default))
        shown = "**required**" if default is inspect.Parameter.empty else f"`{known}`" if known else ""
        yield named, text, shown


def _version_row() -> Row:
    (flags, option, _, _), *_ = options_of(_callback(app.registered_callback))
    return ", ".join(f"`{flag}`" for flag in flags), str(option.help), ""


def _callback(info: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = info.callback
    return function


def _kind(kind: Any) -> str:
    inner = [part for part in typing.get_args(kind) if part is not type(None)] or [kind]
    return {"int": "N", "float": "X", "str": "TEXT", "Path": "FILE"}.get(getattr(inner[0], "__name__", ""), "VALUE")


def _bounds(option: OptionInfo | ArgumentInfo) -> str:
    if option.min is None:
        return ""
    return f" At least {option.min:g}." if option.max is None else f" From {option.min:g} to {option.max:g}."


def _prose(function: Callable[..., Any]) -> str:
    """A docstring with rich's markup, as Markdown; lines of `comfyload …` become code."""
    text = re.sub(r"\[/?bold\]", "", inspect.getdoc(function) or "")
    text = re.sub(r"(?<!\n)Examples?:? (?=comfyload)", "\n\n", text).replace("Example: comfyload", "\n\ncomfyload")
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if not paragraph.strip():
            continue
        if paragraph.startswith("comfyload "):
            if parts and parts[-1].endswith("```\n"):
                parts[-1] = parts[-1].removesuffix("```\n") + f"{paragraph}\n```\n"
            else:
                parts.append(f"```bash\n{paragraph}\n```\n")
        elif paragraph.strip() not in ("Example", "Examples"):
            parts.append(f"{paragraph}\n")
    return "\n".join(parts)


def summary_page() -> str:
    summary = judge_summary.summarise(_manifest(), [])
    shown = document(_manifest(), summary, [])
    flat = shown["summary"]
    beside = [key for key in shown["statistics"] if key not in summary.statistics]
    _agree("SUMMARY", [key for key in flat if not _duration(key)], SUMMARY)
    _agree("DURATIONS", {"_".join(key.split("_")[1:-1]) for key in flat if _duration(key)}, DURATIONS)
    _agree("STATISTICS", beside, STATISTICS)
    (job,) = jobs(_manifest(), [msgspec.convert({**_blank(model.Record), "line": "record"}, model.Record)])
    durations = [f"{metric.name}_s" for metric in METRICS]
    _agree("JOB", [key for key in job if key not in durations], JOB)
    rows = [(f"`{key}`", *_meaning(key)) for key in flat]
    job_rows = [(f"`{key}`", *(JOB[key] if key in JOB else ("s", DURATIONS[key.removesuffix("_s")]))) for key in job]
    nested = [("Statistic", Statistic), ("nodes[]", NodeRow), ("failures[]", FailureRow), ("outputs.*", OutputCount)]
    nested += [("gpus.*", GpuRow), ("saturation", Saturation), ("saturation.gpus.*", GpuBusy)]
    nested += [
        ("fetched", Fetched),
        ("telemetry.*", Reading),
        ("books", BookRow),
        ("after", AfterRow),
        ("retries", RetryRow),
    ]
    return "\n".join(
        [
            "# The JSON of `--output`",
            "",
            NOTE,
            f"One object with the keys {_listed(shown)}. Unknown or withheld is `null`,",
            'never 0; infinite is the string `"inf"`. `--json` prints `.summary` alone.',
            "",
            "## `.summary`",
            "",
            "Flat, for tools. Durations are over counted, completed jobs, cached ones included.",
            "",
            _table(("key", "unit", "meaning"), rows),
            "A percentile is `null` where the jobs are too few to carry it:",
            "[why/intervals.md](../why/intervals.md) has the numbers.",
            "",
            "## `.statistics`",
            "",
            "For every key of `.summary` that estimates something, a `Statistic` under the same name: the value, its",
            f"{CONFIDENCE:.0%} interval, how many jobs it rests on, and where a side is missing, why.",
            "",
            f"Counts and maxima have none: {_listed(key for key in flat if key not in summary.statistics)}.",
            "",
            "Beside these:",
            "",
            _table(("key", "meaning"), [(f"`{key}`", STATISTICS[key]) for key in beside]),
            *(f"### `{title}`\n\n{_struct_text(kind)}" for title, kind in nested),
            "## `.workflows.*`",
            "",
            "By the name of the workflow, also where there is only one.",
            "",
            _struct_text(WorkflowRow),
            "## `.findings[]`",
            "",
            _struct_text(Finding),
            "The codes are in [findings.md](findings.md).",
            "",
            "## `.jobs[]`",
            "",
            "One flat object per job in the order of their ends, warm-up included, one job a line.",
            "",
            _table(("key", "unit", "meaning"), job_rows),
            "## `.manifest`",
            "",
            "The run's `manifest.json`: see [run-directory.md](run-directory.md).",
            "",
        ]
    )


def _duration(key: str) -> bool:
    return key.endswith("_s") and key.partition("_")[0] in PREFIXES


def _meaning(key: str) -> tuple[str, str]:
    if not _duration(key):
        return SUMMARY[key]
    prefix, _, name = key.removesuffix("_s").partition("_")
    return "s", f"{PREFIXES[prefix]} of the time {DURATIONS[name]}" if "`" not in DURATIONS[name] else (
        f"{PREFIXES[prefix]} of {DURATIONS[name]}"
    )


def _manifest() -> model.Manifest:
    return msgspec.convert({**_blank(model.Manifest), "end": "complete"}, model.Manifest)


def _blank(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """JSON of the struct with nothing in it: only what it requires, and of that the least."""
    return {field.encode_name: _least(field.type) for field in _info(kind).fields if field.required}


def _info(kind: Any) -> msgspec.inspect.StructType:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return info


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


def _structs_in(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The struct and all that its fields hold, each once, in the order in which a reader meets them."""
    found: dict[type[msgspec.Struct], None] = {kind: None}

    def visit(inner: msgspec.inspect.Type) -> None:
        if isinstance(inner, msgspec.inspect.StructType):
            found.update(dict.fromkeys(known for known in _structs_in(inner.cls) if known not in found))
        for part in (*getattr(inner, "types", ()), *getattr(inner, "item_types", ())):
            visit(part)
        for name in ("item_type", "value_type"):
            if hasattr(inner, name):
                visit(getattr(inner, name))

    for field in _info(kind).fields:
        visit(field.type)
    return list(found)


def exit_codes_page() -> str:
    text = inspect.getdoc(errors) or ""
    said = " ".join(text.partition("Exit codes:")[2].split()).rstrip(".")
    codes = {int(code): words for code, _, words in (part.strip().partition(" ") for part in said.split("·"))}
    _agree("EXIT_CODES", codes, EXIT_CODES)
    for kind in _errors():
        if kind.exit_code not in codes:
            raise Missing(f"{kind.__name__} exits with {kind.exit_code}, which errors.py does not explain")
    tree = text[text.index("ComfyloadError") : text.index("Exit codes:")].rstrip()
    return "\n".join(
        [
            "# Exit codes",
            "",
            NOTE,
            _table(("code", "means", ""), [(f"`{code}`", words, EXIT_CODES[code]) for code, words in codes.items()]),
            "A reader that goes away (`comfyload … | head`) ends the command with 141, as the shell would.",
            "",
            "## The errors behind them",
            "",
            "Every error is one line on standard error, with a hint: what is wrong, and how to mend it.",
            "",
            f"```text\n{tree}\n```",
            "",
        ]
    )


def _errors() -> list[type[errors.ComfyloadError]]:
    kinds = [getattr(errors, name) for name in errors.__all__]
    return [kind for kind in kinds if kind is not errors.ComfyloadError]


def run_directory_page() -> str:
    manifest = _structs_in(model.Manifest)
    records = [model.Sent, *_structs_in(model.Record)]
    named = {name for name in model.__all__ if _is_struct(getattr(model, name))} - {"Prompt"}
    missing = named - {kind.__name__ for kind in (*manifest, *records, model.Sample, model.LogLine)}
    if missing:
        raise Missing(f"no file of a run holds {', '.join(sorted(missing))}")
    outcomes = ", ".join(f"`{outcome}`" for outcome in typing.get_args(model.Outcome))
    return "\n".join(
        [
            "# The run directory",
            "",
            NOTE,
            "A run is these files, and every number is made from them alone:",
            "",
            "- `manifest.json`: all that made the run. Written when it starts, and replaced as a whole when it ends.",
            "- `records.ndjson`: the journal. One line before a job's POST leaves, one when the job has ended, each",
            "  handed to the kernel at once.",
            "- `samples.ndjson`: telemetry, one reading a line.",
            "- `log.ndjson`, where there was one to read: what the server's instrumentation and the application told.",
            "",
            "A last line without a line end is what a crash leaves; it is not read.",
            f"`format` is {model.FORMAT}; a reader refuses a newer one. Most objects leave out a field that has its",
            "default, which the column below tells.",
            "",
            inspect.getdoc(model).partition("\n\n")[2] if inspect.getdoc(model) else "",
            "",
            "## `manifest.json`",
            "",
            *(f"### {kind.__name__}\n\n{_struct_text(kind)}" for kind in manifest),
            "## `records.ndjson`",
            "",
            'The key `line` says which of the two a line is: `"sent"` or `"record"`.',
            "",
            *(f"### {kind.__name__}\n\n{_struct_text(kind)}" for kind in records),
            "### Outcome",
            "",
            f"{outcomes}: exactly one for each job, so their sum is what was offered.",
            "",
            "### FailureKind",
            "",
            _table(("kind", "meaning"), _kinds()),
            "## `samples.ndjson`",
            "",
            _struct_text(model.Sample),
            "`comfy`, `queue_remaining`: prompts that run or wait on the server, everyone's, as often as it changes.",
            "What the other sources read is in [../how-to/telemetry.md](../how-to/telemetry.md).",
            "",
            "## `log.ndjson`",
            "",
            _struct_text(model.LogLine),
            "Rows are as their writer wrote them: [instrumentation-log.md](instrumentation-log.md).",
            "",
        ]
    )


def _kinds() -> list[Row]:
    lines = inspect.getsource(model).partition("FailureKind = Literal[")[2].partition("]")[0]
    rows: list[Row] = [(f"`{kind}`", words) for kind, words in re.findall(r'"(\w+)",\s+# (.+)', lines)]
    _agree("the comments of FailureKind", typing.get_args(model.FailureKind), [row[0].strip("`") for row in rows])
    return rows


def findings_page() -> str:
    levels, seen = finding_levels(), observation_codes() | set(_OBSERVED)
    _agree("FINDINGS of judge/findings.py", set(levels) | seen, FINDINGS)
    _agree("LEVELS", [code for code, found in levels.items() if len(found) > 1 or not all(found)], LEVELS)
    made = [
        (f"`{code}`", LEVELS.get(code) or _only(levels[code]), *FINDINGS[code]) for code in FINDINGS if code in levels
    ]
    observed = [
        (f"`{code}`", _OBSERVED[code][0] if code in _OBSERVED else "info", *FINDINGS[code])
        for code in FINDINGS
        if code in seen
    ]
    heads = ("code", "level", "means", "what to do")
    return "\n".join(
        [
            "# Findings",
            "",
            NOTE,
            "What to know before reading a number. `invalid`: the numbers do not measure what they are named after,",
            "and the [exit code](exit-codes.md) is 5. `warning`: they do, with the doubt named. `info`: worth knowing.",
            "",
            "## Made from the numbers",
            "",
            _table(heads, made),
            "## Noticed during the run",
            "",
            "Kept in the manifest's `observations` as they are seen, and told as findings of the same code.",
            "",
            _table(heads, observed),
        ]
    )


def _only(levels: set[str]) -> str:
    (level,) = levels
    return level


def finding_levels() -> dict[str, set[str]]:
    """The codes of findings that `judge` makes, with the levels they are given; "" for one that is computed."""
    found: dict[str, set[str]] = {}
    for call in _calls(SOURCE / "judge", "Finding"):
        words = {word.arg: word.value for word in call.keywords}
        level, known = _constants(words["level"]), _codes(words["code"])
        for code in known:
            found.setdefault(code, set()).update(level)
    return found


def _codes(value: ast.expr) -> set[str]:
    """A constant, or for one that is put together, every code of the table that it may be."""
    if isinstance(value, ast.JoinedStr):
        parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"\w+" for p in value.values]
        return {code for code in FINDINGS if re.fullmatch("".join(parts), code)}
    return {str(value.value)} if isinstance(value, ast.Constant) else set()


def _constants(value: ast.expr) -> set[str]:
    if isinstance(value, ast.IfExp):
        return _constants(value.body) | _constants(value.orelse)
    return {str(value.value)} if isinstance(value, ast.Constant) else {""}


def observation_codes() -> set[str]:
    """The codes of what is noticed during a run: those that `Observation` names, and any that the code has beside."""
    named = re.findall(r"`(\w+)`", (inspect.getdoc(model.Observation) or "").partition("Codes:")[2])
    calls = [*_calls(SOURCE, "_note"), *_calls(SOURCE, "Observation")]
    first = [call.args[0] for call in calls if call.args]
    return {*named, *(str(argument.value) for argument in first if isinstance(argument, ast.Constant))}


def _calls(folder: Path, name: str) -> Iterable[ast.Call]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and name in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
                yield node


# --- writing Markdown


def _struct_text(kind: type[msgspec.Struct]) -> str:
    """A struct's docstring and a table of its fields."""
    rows = []
    annotations = {
        name: hint for base in reversed(kind.__mro__) for name, hint in inspect.get_annotations(base).items()
    }
    for field in msgspec.structs.fields(kind):
        default = field.default
        shown = "" if default is msgspec.NODEFAULT else f"`{_json(default)}`"
        if field.default_factory is not msgspec.NODEFAULT:
            shown = f"`{_json(field.default_factory())}`"
        rows.append((f"`{field.name}`", f"`{annotations[field.name]}`", shown))
    return f"{inspect.getdoc(kind)}\n\n{_table(('field', 'type', 'default'), rows)}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _is_struct(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, msgspec.Struct)


def _table(heads: Row, rows: Iterable[Row]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _agree(table: str, code: Iterable[str] | Iterable[int], entries: Iterable[str] | Iterable[int]) -> None:
    """Both name the same things, or the page would lie."""
    here, there = set(entries), set(code)
    if here != there:
        raise Missing(
            f"{table}: no entry for {sorted(there - here)}; no longer in the code: {sorted(here - there)}"  # type: ignore[type-var]
        )


def judgement_page() -> str:
    by_kind = {kind: [n for n, known in judge_gates.KNOWN.items() if known.kind == kind] for kind in GATE_KINDS}
    rows = [(GATE_KINDS[kind], _listed(names)) for kind, names in by_kind.items()]
    of_one = ", ".join(f"`{name}`" for name in judge_gates.OF_A_WORKFLOW)
    return "\n".join(
        [
            "# Gates, comparisons, trends",
            "",
            NOTE,
            "## Gates",
            "",
            "A gate is a number, one of `<=`, `<`, `>=`, `>`, `==`, and a limit: `p95_latency_s <= 45`,",
            "`success_rate >= 98 %`, `max_latency_s < 90 s`, `images_per_minute >= 0.95 * baseline`.",
            "",
            f"Without any: {', '.join(f'`{text}`' for text in judge_gates.DEFAULT_GATES)}.",
            "",
            _table(("judged as", "numbers"), rows),
            f"Of one workflow of a mix, with its name before it (`book_medium.p95_latency_s`): {of_one}.",
            "",
            "A file of gates is TOML with `gates` and `expected_errors`, both lists of texts.",
            "",
            "## `check --json`",
            "",
            "`overall` is the worst verdict; `verdicts` is a list of:",
            "",
            *(f"### {kind.__name__}\n\n{_struct_text(kind)}" for kind in (GateVerdict,)),
            "## `compare --json` and `ab --json`",
            "",
            *(f"### {kind.__name__}\n\n{_struct_text(kind)}" for kind in _structs_in(Comparison)),
            "### What refuses",
            "",
            _table(("key", "why"), [(f"`{key}`", why) for key, why in REFUSING.items()]),
            "## `trend --json`",
            "",
            "A list of:",
            "",
            *(f"### {kind.__name__}\n\n{_struct_text(kind)}" for kind in _structs_in(Series)),
        ]
    )


GATE_KINDS = {
    "share": "a share: exact binomial, 5 % each side",
    "percentile": "a percentile: jobs beyond the limit are counted, exact binomial, 5 % each side",
    "mean": "a mean or a rate: its 95 % interval",
    "fact": "a fact of this run: no inference",
    "errors": "errors of records and log, less those expected",
}


def baseline_page() -> str:
    return "\n".join(
        [
            "# The folder of a baseline",
            "",
            NOTE,
            inspect.getdoc(archive) or "",
            "",
            "| file | what |",
            "| --- | --- |",
            "| `manifest.json` | below; the one file that has no hash in it |",
            "| `runs/<run>/` | the [run directories](run-directory.md) |",
            "| `load_<workflow>.json` | [what `--output` writes](summary.md), of each run; `_c<n>` where a "
            "workflow was run at several concurrencies |",
            "| `comfyui_metrics.ndjson` | the instrumentation log's rows of the runs' time; absent without a log |",
            "| `README.md`, `*.png`, `report.html` | for people |",
            "",
            f"`format` is {archive.FORMAT}; a reader refuses a newer one. Beside the baselines, the file `promoted`",
            "holds the name of the one to compare with.",
            "",
            "## `manifest.json`",
            "",
            *(f"### {kind.__name__}\n\n{_struct_text(kind)}" for kind in _structs_in(archive.ArchiveManifest)),
        ]
    )


def main() -> None:
    """Write the pages beside this script."""
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")
        sys.stdout.write(f"{HERE / name}\n")


if __name__ == "__main__":
    main()
