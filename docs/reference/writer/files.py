"""The pages of files: a run, a baseline, a retry policy."""

from __future__ import annotations

import inspect
import re
import typing

from comfyload.record import archive, model
from comfyload.retry import policy
from writer.markdown import NOTE, Missing, Row, agree, is_struct, struct_text, structs_in, table


def run_directory_page() -> str:
    manifest = structs_in(model.Manifest)
    records = [model.Sent, *structs_in(model.Record)]
    named = {name for name in model.__all__ if is_struct(getattr(model, name))} - {"Prompt"}
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
            "- `log.ndjson`, where there was one: rows of the server's instrumentation and of the application.",
            "",
            "A last line without a line end is what a crash leaves; it is not read.",
            f"`format` is {model.FORMAT}; a reader refuses a newer one. Most objects leave out a field that has its",
            "default, which the column below tells.",
            "",
            inspect.getdoc(model).partition("\n\n")[2] if inspect.getdoc(model) else "",
            "",
            "In the tables an `instant` is seconds from the start of the run, as a float, negative before it. `ms` is",
            "milliseconds in whole numbers, and `seconds` a float.",
            "",
            "## `manifest.json`",
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in manifest),
            "## `records.ndjson`",
            "",
            'The key `line` says which of the two a line is: `"sent"` or `"record"`.',
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in records),
            "### Outcome",
            "",
            f"{outcomes}: exactly one for each job, so their sum is what was offered.",
            "",
            "### FailureKind",
            "",
            table(("kind", "meaning"), _kinds()),
            "## `samples.ndjson`",
            "",
            struct_text(model.Sample),
            "`comfy`, `queue_remaining`: prompts that run or wait on the server, everyone's, as often as it changes.",
            "What the other sources read is in [../how-to/telemetry.md](../how-to/telemetry.md).",
            "",
            "## `log.ndjson`",
            "",
            struct_text(model.LogLine),
            "Rows are as their writer wrote them: [instrumentation-log.md](instrumentation-log.md).",
            "",
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
            "| file | what |",
            "| --- | --- |",
            "| `manifest.json` | below; the one file that has no hash in it |",
            "| `runs/<run>/` | the [run directories](run-directory.md) |",
            "| `load_<workflow>.json` | [what `--output` writes](summary.md), of each run; `_c<n>` where a "
            "workflow was run at several concurrencies |",
            "| `comfyui_metrics.ndjson` | the instrumentation log's rows of the runs; without a log a row a job, "
            "by the records. Older baselines may lack it |",
            "| `README.md`, `*.png`, `report.html` | for people |",
            "",
            f"`format` is {archive.FORMAT}; a reader refuses a newer one. Beside the baselines, the file `promoted`",
            "holds the name of the one to compare with.",
            "",
            "## `manifest.json`",
            "",
            *(f"### {kind.__name__}\n\n{struct_text(kind)}" for kind in structs_in(archive.ArchiveManifest)),
        ]
    )


POLICY_PARTS = (
    policy.Policy,
    policy.Admission,
    policy.Backoff,
    policy.Budget,
    policy.Breaker,
    policy.Rule,
    policy.Score,
)


def policy_page() -> str:
    rules = [(f"`{name}`", "yes" if rule.retry else "no", rule.why) for name, rule in policy.RULES.items()]
    return "\n".join(
        [
            "# The retry policy",
            "",
            NOTE,
            "What `comfyload policy --output` writes; `comfyload run --policy` and `comfyload.connect` follow it.",
            "[retry.schema.json](retry.schema.json) is its JSON Schema. Unknown keys are refused; all has a default.",
            "",
            *(f"## {kind.__name__}\n\n{struct_text(kind)}" for kind in POLICY_PARTS),
            "## Classes of failure",
            "",
            "What is done where the policy does not say otherwise:",
            "",
            table(("class", "sent again", "why"), rules),
        ]
    )
