"""The pages of files: a run, a baseline, a retry policy."""

from __future__ import annotations

import inspect
import re
import typing

import msgspec

from comfyload.record import archive, fleet, model, policy
from comfyload.record.manifest_file import PARTED
from comfyload.retry.policy import RULES
from tools.reference.markdown import NOTE, Missing, Row, agree, is_struct, struct_text, structs_in, table


def run_directory_page() -> str:
    of_policy = structs_in(policy.Policy)
    manifest = [kind for kind in structs_in(model.Manifest) if kind not in of_policy]
    records: list[type[msgspec.Struct]] = [model.Sent, *structs_in(model.Record)]
    structs = {name for name, one in vars(model).items() if is_struct(one) and one.__module__ == model.__name__}
    named = {name for name in structs if not name.startswith("_")} - {"Prompt"}
    kinds: list[type[msgspec.Struct]] = [*manifest, *records, model.Sample, model.LogLine, model.RetryLine]
    missing = named - {kind.__name__ for kind in kinds}
    if missing:
        raise Missing(f"no file of a run holds {', '.join(sorted(missing))}")
    outcomes = ", ".join(f"`{outcome}`" for outcome in typing.get_args(model.Outcome))
    return "\n".join(
        [
            "# The run directory",
            "",
            NOTE,
            "A run is these files. Every number is computed from them alone:",
            "",
            "- `manifest.json`: options, server, environment, seeds. Written at the start; replaced at the end.",
            "- `records.ndjson`: the journal. One line before a job's POST is sent, one when the job has ended, each",
            "  handed to the kernel immediately.",
            "- `samples.ndjson`: telemetry, one reading per line.",
            "- `log.ndjson`, if the run had a log: rows of the server's probe and of the application.",
            "- `records.2.ndjson` and so on: a journal of 256 MiB, but for the log, goes on in another file.",
            "- `label.txt`, if a person gave the run a label on the dashboard: at most 100 characters, and may change.",
            "- `events.ndjson`, if a job was sent again: why, by which rule, and when.",
            "",
            "A run by several generators is a folder of such directories and `fleet.json`, and is read as one run.",
            "",
            "A crash can leave a last line without a line end; it is ignored.",
            f"`format` is {model.FORMAT}, or {PARTED} if a journal has several files; a reader refuses a newer",
            "one. Most objects omit a field that has its",
            "default value; the column `default` gives it.",
            "",
            (inspect.getdoc(model) or "").partition("\n\n")[2],
            "",
            "An `instant` is a float: seconds since the start of the run, negative before it. `seconds` is a float,",
            "`ms` whole milliseconds. `retry` holds a whole [retry policy](retry-policy.md).",
            "",
            "## `manifest.json`",
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in manifest),
            "## `records.ndjson`",
            "",
            'The key `line` is `"sent"` or `"record"`.',
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in records),
            "### Outcome",
            "",
            f"{outcomes}: each job has exactly one, so they add up to the jobs offered.",
            "",
            "### FailureKind",
            "",
            table(("kind", "meaning"), _kinds()),
            "## `samples.ndjson`",
            "",
            struct_text(model.Sample),
            "`comfy`, `queue_remaining`: prompts of all clients that run or wait on the server, at each change.",
            "[how-to/telemetry.md](../how-to/telemetry.md) describes the other sources.",
            "",
            "## `log.ndjson`",
            "",
            struct_text(model.LogLine),
            "Rows are kept as they were written: [instrumentation-log.md](instrumentation-log.md).",
            "",
            "## `events.ndjson`",
            "",
            struct_text(model.RetryLine),
            "A test writes a line when it happens; a gateway writes those of a job when the job has ended.",
            "",
            "## `fleet.json`",
            "",
            "[how-to/many-generators.md](../how-to/many-generators.md) makes one.",
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in structs_in(fleet.FleetManifest)),
        ]
    )


def _kinds() -> list[Row]:
    lines = inspect.getsource(model).partition("FailureKind = Literal[")[2].partition("]")[0]
    rows: list[Row] = [(f"`{kind}`", words) for kind, words in re.findall(r'"(\w+)",\s+# (.+)', lines)]
    agree("the comments of FailureKind", typing.get_args(model.FailureKind), [row[0].strip("`") for row in rows])
    return rows


def baseline_page() -> str:
    return "\n".join(
        [
            "# The folder of a baseline",
            "",
            NOTE,
            inspect.getdoc(archive) or "",
            "",
            "| file | content |",
            "| --- | --- |",
            "| `manifest.json` | below; the only file whose hash is not in it |",
            "| `runs/<run>/` | the [run directories](run-directory.md) |",
            "| `load_<workflow>.json` | the [JSON of `--output`](summary.md) of each run; `_c<n>` if a "
            "workflow was run at several concurrencies |",
            "| `comfyui_metrics.ndjson` | the instrumentation log's rows of the runs; without a log, one row "
            "per job, made from the records. Older baselines may lack it |",
            "| `README.md`, `*.png`, `report.html` | for people |",
            "",
            f"`format` is {archive.FORMAT}; a reader refuses a newer one. The file `promoted`, next to the",
            "baselines, holds the name of the default baseline to compare with.",
            "",
            "## `manifest.json`",
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in structs_in(archive.ArchiveManifest)),
        ]
    )


POLICY_PARTS: tuple[type[msgspec.Struct], ...] = (
    policy.Policy,
    policy.Admission,
    policy.Backoff,
    policy.Budget,
    policy.Breaker,
    policy.Rule,
    policy.Score,
)


def policy_page() -> str:
    rules = [(f"`{name}`", "yes" if rule.retry else "no", rule.why) for name, rule in RULES.items()]
    return "\n".join(
        [
            "# The retry policy",
            "",
            NOTE,
            "What `comfyload policy --output` writes; `comfyload run --policy` and `comfyload.connect` follow it.",
            "[retry.schema.json](retry.schema.json) is its JSON Schema. All keys have defaults; others are refused.",
            "",
            *(f"## {kind.__name__}\n\n{struct_text(kind)}" for kind in POLICY_PARTS),
            "## Classes of failure",
            "",
            "What happens unless the policy says otherwise:",
            "",
            table(("class", "sent again", "why"), rules),
        ]
    )
