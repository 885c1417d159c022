"""The JSON that `--output` writes: summary, statistics, findings, every job flat, and the manifest."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from msgspec import structs

from comfyload.judge.columns.cache import CacheJudge, JobFiles
from comfyload.judge.columns.ledger import Ledger
from comfyload.judge.columns.nodes import NODE_CLOCK_S
from comfyload.judge.metrics import METRICS
from comfyload.judge.summary import Summary, jsonable, or_inf
from comfyload.record.codec import encode, encode_pretty
from comfyload.record.model import Manifest, Record, Sent

_DURATIONS = [(f"{metric.name}_s", metric) for metric in METRICS.values()]


def write_document(file: BinaryIO, manifest: Manifest, summary: Summary, jobs: Iterable[dict[str, Any]]) -> None:
    """Write the whole as one JSON object to a binary file: unknown is null, infinite the string "inf".

    Jobs are written one at a time and one a line, so that no number of them is too many. Replacing an earlier file
    atomically is the caller's part.
    """
    file.write(b"{")
    file.writelines(b"\n" + encode(key) + b": " + encode_pretty(value) + b"," for key, value in _head(summary).items())
    file.write(b'\n"jobs": [')
    file.writelines((b",\n" if number else b"\n") + encode(job) for number, job in enumerate(jobs))
    file.write(b'\n],\n"manifest": ' + encode_pretty(jsonable(manifest)) + b"\n}\n")


def jobs(manifest: Manifest, lines: Iterable[Record | Sent]) -> Iterator[dict[str, Any]]:
    """One flat object of JSON types per job, warm-up included, in the order of the journal.

    They are judged as the summary judges them. A second record of the same job is left out, as it is from every count.
    """
    ledger, truth = Ledger(), CacheJudge(manifest.workflows, several=len(manifest.fleet) > 1)
    servers = {server.url: server.name for server in manifest.fleet} if len(manifest.fleet) > 1 else {}
    for record in ledger.enter(lines):
        yield _job(record, truth, servers)


def _job(record: Record, truth: CacheJudge, servers: Mapping[str, str]) -> dict[str, Any]:
    """`servers`: the names of several by their addresses."""
    run, files = record.execution, truth.judge(record)
    completed = run.outcome == "completed"
    durations = {key: or_inf(metric.of(record)) for key, metric in _DURATIONS}
    return {
        "index": record.index,
        "prompt_id": record.prompt_id,
        "workflow": record.workflow,
        "server": servers.get(run.attempts[-1].server) if servers and run.attempts else None,
        "book": record.book,
        "warmup": record.warmup,
        "outcome": run.outcome,
        "censored": record.censored,
        "cached": files.cache != "fresh",
        "cache": files.cache,
        "due_s": record.due,
        "sent_s": run.sent,
        "done_s": run.done,
        **durations,
        "seen_by": run.end_source,
        "done_within_s": run.done_uncertainty_s,
        "images": files.images if completed else 0,
        "previews": files.previews if completed else 0,
        "made": _made(files) if completed else {},
        "files": list(dict.fromkeys(file for output in run.outputs for file in output.files)),
        "failure": None if run.failure is None else structs.asdict(run.failure),
        "left_on_server": run.server_state_after,
        "values": record.values,
    }


def _made(files: JobFiles) -> dict[str, dict[str, int]]:
    made: dict[str, dict[str, int]] = {}
    for (kind, folder), count in sorted(files.made.items()):
        made.setdefault(kind, {})[folder] = count
    return made


def _head(summary: Summary) -> dict[str, Any]:
    """What is above the jobs: every field of the summary, those without a place of their own under `statistics`."""
    of = structs.asdict(summary)
    top = {name: of.pop(name) for name in ("summary", "statistics", "workflows", "findings")}
    top["statistics"] = {**top["statistics"], **of, "node_clock_s": NODE_CLOCK_S}
    return {name: jsonable(part) for name, part in top.items()}
