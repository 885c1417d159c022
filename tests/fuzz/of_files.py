"""What lies on disk: journals, manifests, baselines, logs of the instrumentation."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from comfyload.errors import RunFilesError, UsageError
from comfyload.judge.summary import jsonable, summarise
from comfyload.record import archive
from comfyload.record.by_hand import is_by_hand, read_by_hand
from comfyload.record.codec import encode, encode_pretty
from comfyload.record.journal import RECORDS
from comfyload.record.metrics.lines import Lines
from comfyload.record.metrics.log import InOrder, key_of_row, read_log, row_of_line
from comfyload.record.model import LogLine, Record, RetryLine, Sample, Sent
from comfyload.record.run import EVENTS, LOG, MANIFEST, SAMPLES, RunReader
from comfyload.report.log_text import kind_of_error, log_text, node_words
from comfyload.telemetry.rows import SampleRows
from comfyload.web.follow import RunFollower
from comfyload.web.job import job_of
from comfyload.web.rows import errors, rows
from comfyload.web.series import chart, charts_of
from comfyload.web.states import Filter, View, chips
from tests.fuzz.of_input import scratch
from tests.fuzz.target import Target, kept
from tests.unit.judge_runs import failed, job, manifest

__all__ = ["RUN", "TARGETS", "run_directory"]


def _lines(*values: object) -> bytes:
    return b"".join(encode(value) + b"\n" for value in values)


RUN: dict[str, bytes] = {
    MANIFEST: encode_pretty(manifest(4)),
    RECORDS: _lines(Sent(index=0, prompt_id="a", due=0.0), *(job(index, float(index), 1.0) for index in range(3)),
                    failed(3, 3.0, 1.0, type="E", message="m", node="3", node_class="K")),
    SAMPLES: _lines(*(Sample(t=t / 2, source="nvml", name="gpu.0.power_w", value=100.0 + t) for t in range(6)),
                    Sample(t=1.0, source="comfy", name="queue_remaining", value=None)),
    LOG: _lines(LogLine(t=1.0, source="probe", row={"event": "node", "seq": 1, "boot": "b", "prompt_id": "a"}),
                LogLine(t=None, source="log", row={"level": "error", "message": "x", "timestamp": 1767225600})),
    EVENTS: _lines(RetryLine(t=1.0, index=3, prompt_id="a", server="http://a", attempt=2, of=3, why="oom", message="m",
                             rule="oom: x", wait_s=14.0)),
}  # fmt: skip
"""A small run, by the names of its files."""


def run_directory(folder: Path, **changed: bytes) -> Path:
    """The run in `folder`; `changed` are files' contents by the names without their endings."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in RUN.items():
        (folder / name).write_bytes(changed.get(name.partition(".")[0], content))
    return folder


def _journal(name: str) -> Callable[[bytes], None]:
    """A journal's lines, strictly and saved: what is read can be written and is then read as the same."""
    folder = run_directory(scratch() / name.partition(".")[0])

    def feed(data: bytes) -> None:
        (folder / name).write_bytes(data)
        saved = RunReader(folder, salvage=True)
        of: dict[str, Callable[[RunReader], Any]] = {
            RECORDS: RunReader.lines, SAMPLES: RunReader.samples, LOG: RunReader.log, EVENTS: RunReader.events,
        }  # fmt: skip
        found = list(of[name](saved))
        kept(*found)
        try:
            assert list(of[name](RunReader(folder))) == found and not saved.damage
        except RunFilesError:
            assert saved.damage[name].why, "damage that nobody counts"

    return feed


def followed(data: bytes) -> None:
    """Records, as the dashboard follows them: the jobs are those that a reader finds, and all of it can be shown."""
    folder = run_directory(scratch() / "followed", records=data)
    follower = RunFollower(folder)
    while follower.refresh():
        pass
    lines = list(RunReader(folder, salvage=True).lines())
    first = {line.index: line for line in reversed(lines) if isinstance(line, Record)}
    assert sorted(follower.jobs.index.tolist()) == sorted({line.index for line in lines})
    assert all(follower.record(index) == line for index, line in first.items())
    total, page = rows(follower, Filter(), limit=20)
    assert total == follower.jobs.n == sum(View(follower).counts().values())
    whole = [job_of(follower, row.index) for row in page]
    assert None not in whole
    shown = [page, whole, errors(follower), chips(follower, Filter(text="a"))]
    json.dumps(msgspec.to_builtins(shown), allow_nan=False).encode()
    for head in charts_of(follower):
        assert chart(follower, head.name, width=50) is not None


def run_manifest(data: bytes) -> None:
    """A manifest, and the summary of a run that has it."""
    folder = run_directory(scratch() / "manifest")
    (folder / MANIFEST).write_bytes(data)
    reader = RunReader(folder)
    encode_pretty(reader.manifest)
    json.dumps(jsonable(summarise(reader.manifest, reader.lines(), reader.samples()).summary), allow_nan=False)


def summary(data: bytes) -> None:
    """Records, folded into numbers."""
    folder = run_directory(scratch() / "summary", records=data)
    reader = RunReader(folder, salvage=True)
    found = summarise(reader.manifest, reader.lines(), reader.samples())
    json.dumps(jsonable(found), allow_nan=False)


def readings(data: bytes) -> None:
    """Samples, folded into numbers."""
    folder = run_directory(scratch() / "readings", samples=data)
    reader = RunReader(folder, salvage=True)
    json.dumps(jsonable(summarise(reader.manifest, (), reader.samples())), allow_nan=False)


def baseline(data: bytes) -> None:
    """The manifest of a baseline."""
    base = scratch() / "archive"
    folder = base / "2026-01-01-x"
    if not folder.exists():
        run_directory(folder / "runs" / "r")
    (folder / "manifest.json").write_bytes(data)
    archive.list_all(base)
    archive.list_damaged(base)
    kept_ = archive.find(base, "x")
    archive.verify_files(kept_)
    for _, reader in kept_.runs():
        encode(reader.manifest)


def by_hand(data: bytes) -> None:
    """A folder of the archive that somebody made by hand."""
    folder = scratch() / "2026-02-02"
    folder.mkdir(exist_ok=True)
    (folder / "load.json").write_bytes(data)
    assert is_by_hand(folder)
    encode(read_by_hand(folder).stated)


def metrics_log(data: bytes) -> None:
    """Lines of the instrumentation's log: rows, prompts, readings."""
    order, samples = InOrder(2), SampleRows()
    for line in data.split(b"\n"):
        row = row_of_line(line)
        if row is None:
            continue
        key_of_row(row.raw)
        kept(LogLine(t=row.t, source="log", row=row.raw))
        kept(*samples.samples(row.raw, 1.0, 1.0), *samples.peak(row.raw, 1.0))
        for ordered in order.add(row):
            log_text(ordered), node_words(ordered), kind_of_error(ordered)
    list(order.rest())


def metrics_file(data: bytes) -> None:
    """A whole log, in any encoding, with its times."""
    file = scratch() / "log.ndjson"
    file.write_bytes(data)
    since = datetime(2026, 11, 23, 11, tzinfo=UTC)
    read_log(file, since, datetime(2026, 11, 23, 13, tzinfo=UTC), {"p"})
    lines = Lines()
    at = len(data) // 3
    assert len(b"".join([*lines.feed(data[:at]), *lines.feed(data[at:]), *lines.end()])) <= 4 * len(data) + 16


_PROBE = {"timestamp": "2026-11-23T12:00:00+00:00", "event": "prompt.ended", "boot": "b", "seq": 3, "prompt_id": "p",
          "status": "error", "error": "x", "duration_ms": 12.5, "nodes_run": 3, "context": {"page": 1}}  # fmt: skip
_LOG_LINES = _lines(
    {"timestamp": "2026-11-23T12:00:00+00:00", "event": "prompt.queued", "boot": "b", "seq": 1, "prompt_id": "p"},
    {"timestamp": 1795435200.5, "event": "node", "boot": "b", "seq": 2, "prompt_id": "p", "status": "run", "node": "3"},
    _PROBE,
    {"time": "2026-11-23 12:00:02", "level": "ERROR", "message": {"a": [1]}, "context": {"prompt_id": "p"}},
    {"timestamp": "2026-11-23T12:00:03Z", "event": "sample", "queue_depth": 1, "gpus": [{"index": 0, "power_w": 3}],
     "process": {"cpu_s": 1.0}, "vram_peak_bytes": 5},
)  # fmt: skip
_KEPT = {"format": 1, "name": "x", "saved_utc": "2026-01-01T00:00:00+00:00", "tool": "t",
         "environment": {"a": {"value": 1}},
         "runs": [{"folder": "runs/r", "output": "load.json", "run_id": "i", "name": "n", "load": "l"}], "notes": {},
         "command": [], "log": None, "files": {"runs/r/manifest.json": "0" * 64}}  # fmt: skip

TARGETS = [
    Target(name="records", what="records.ndjson", feed=_journal(RECORDS),
           seeds=[RUN[RECORDS], *RUN[RECORDS].splitlines(True)]),
    Target(name="samples", what="samples.ndjson", feed=_journal(SAMPLES), seeds=[RUN[SAMPLES]]),
    Target(name="log", what="log.ndjson", feed=_journal(LOG), seeds=[RUN[LOG]]),
    Target(name="job_events", what="events.ndjson", feed=_journal(EVENTS), seeds=[RUN[EVENTS]]),
    Target(name="followed", what="records, as the dashboard follows them", feed=followed, seeds=[RUN[RECORDS]],
           slow=True),
    Target(name="manifest", what="manifest.json of a run, to its summary", feed=run_manifest, errors=(RunFilesError,),
           seeds=[RUN[MANIFEST]], slow=True),
    Target(name="summary", what="records, to a summary", feed=summary, seeds=[RUN[RECORDS]], slow=True),
    Target(name="readings", what="samples, to a summary", feed=readings, seeds=[RUN[SAMPLES]], slow=True),
    Target(name="baseline", what="manifest.json of a baseline", feed=baseline, errors=(UsageError,),
           seeds=[msgspec.json.encode(_KEPT)]),
    Target(name="by_hand", what="load.json of a folder made by hand", feed=by_hand,
           seeds=[b'{"summary": {"p50_latency_s": 1.5, "jobs": 3}}']),
    Target(name="metrics_log", what="rows of the instrumentation's log", feed=metrics_log,
           seeds=[_LOG_LINES, *_LOG_LINES.splitlines()]),
    Target(name="metrics_file", what="the instrumentation's log as a file", feed=metrics_file, errors=(UsageError,),
           seeds=[_LOG_LINES, _LOG_LINES.decode().encode("utf-16")]),
]  # fmt: skip
