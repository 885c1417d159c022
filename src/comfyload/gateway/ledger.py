"""Each job of production as a line of a run directory: one directory a day and server, so that every command that
judges a test judges the traffic too.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from comfyload.clock import stopwatch
from comfyload.errors import RunFilesError
from comfyload.record.codec import encode
from comfyload.record.environment.host import describe_host
from comfyload.record.model import FORMAT, Attempt, Execution, Manifest, Record, RetryLine, Server, Span, WorkflowFacts
from comfyload.record.plan import Plan, Replay
from comfyload.record.policy import Policy
from comfyload.record.run import MANIFEST, RunReader, RunWriter
from comfyload.retry.pool import executed_s
from comfyload.workflow.graph import Graph, Workflow, is_link
from comfyload.workflow.object_info import ObjectInfo
from comfyload.workflow.vary import Variation

DAY_S = 86_400.0
MOST_WORKFLOWS = 1_000
"""Different workflows of a day that are distinguished; an application that builds its graphs may have any number."""

MOST_TIMES, MOST_FOLDERS = 500, 8
"""How much of the ledger is read again at a start: jobs, and the directories that they are in."""

MOST_NODES, MOST_NODES_TOGETHER = 5_000, 200_000
"""Nodes of a workflow whose shape is kept, and of all such; a larger one is one of the others."""

LONGEST = 1_000
"""Letters of an input that are looked at."""

OTHERS = "others"
HINT = "free its disk, let the gateway write there, or move away what is damaged; if it has ended, start it again"


def wall_clock() -> tuple[Callable[[], float], datetime]:
    """A clock that counts seconds from the last midnight, UTC, and never goes back; and that midnight."""
    today = datetime.now(UTC)
    midnight = today.replace(hour=0, minute=0, second=0, microsecond=0)
    before, seconds = (today - midnight).total_seconds(), stopwatch()
    return (lambda: before + seconds()), midnight


@contextmanager
def _directing() -> Iterator[None]:
    """Give errors of run directories the hint for who keeps a gateway, in place of the one for who runs a test."""
    try:
        yield
    except RunFilesError as error:
        raise RunFilesError(error.message, HINT) from None


class TrafficLedger:
    """`folder/DATE-SERVER/`: instants count from the date's midnight, UTC.

    A job belongs to the day of its arrival, and to the server that had it last; one that no server had, to the first.
    """

    def __init__(self, folder: Path, midnight: datetime, policy: Policy, *, keep_graphs: bool) -> None:
        self._folder = folder
        self._midnight = midnight
        self._policy = policy
        self._keep_graphs = keep_graphs
        self._open: dict[tuple[int, str], _Day] = {}
        self._facts: dict[str, WorkflowFacts] = {}
        self._nodes = 0

    def know(self, workflow: Workflow, info: ObjectInfo) -> str:
        """The name under which jobs of this shape are recorded."""
        nodes = len(workflow.graph)
        if nodes > MOST_NODES:
            return OTHERS
        name = name_of(workflow, info)
        if name not in self._facts:
            if len(self._facts) >= MOST_WORKFLOWS or self._nodes + nodes > MOST_NODES_TOGETHER:
                return OTHERS
            self._nodes += nodes
            graph = workflow.graph if self._keep_graphs else {n: _short(node) for n, node in workflow.graph.items()}
            named = structs.replace(workflow, name=name, graph=graph)
            facts = Variation(named, info, seed=0, as_is=True).facts({}, keep_graph=self._keep_graphs)
            self._facts[name] = structs.replace(facts, sha256=_shape(workflow))
        return name

    def times(self) -> Iterator[tuple[str, float]]:
        """What the newest jobs took that are recorded here: their workflows, and seconds of their servers' work."""
        folders = sorted(path.parent for path in self._folder.glob(f"*/{MANIFEST}"))
        recent: deque[tuple[str, float]] = deque(maxlen=MOST_TIMES)
        for folder in folders[-MOST_FOLDERS:]:
            with suppress(RunFilesError):  # its manifest is damaged
                recent.extend(_executed(RunReader(folder, salvage=True)))
        yield from recent

    @_directing()
    def prepare(self, record: Record, server: str, facts: Server, retries: Sequence[RetryLine] = ()) -> bytes:
        """What to `write` once the end of the job is in the store, which keeps it, so that a process that dies between
        the two owes it to the next. `server`: the name of the job's last. `retries`: lines about each time it was
        sent again; the job has a number, which they name, only when it has ended.
        """
        number = int(record.due // DAY_S)
        day = self._day(number, server, facts, record.due % DAY_S)
        known, changed = self._facts.get(record.workflow), day.manifest.server != facts
        if record.workflow not in day.workflows and known is not None:
            day.workflows.add(record.workflow)
            day.manifest.workflows.append(known)
            changed = True
        if changed:
            day.manifest.server = facts
            day.writer.write_manifest(day.manifest)
        date = f"{self._midnight + timedelta(days=number):%Y-%m-%d}"
        earlier_s = number * DAY_S
        retried = [structs.replace(line, t=line.t - earlier_s) for line in retries]
        owed = Owed(date=date, server=server, facts=facts, record=shifted(record, -earlier_s), retries=retried)
        return encode(owed)

    @_directing()
    def write(self, owed: bytes) -> None:
        """Write the record of a job that has ended."""
        self._write(msgspec.json.decode(owed, type=Owed))

    @_directing()
    def settle(self, owed: bytes) -> None:
        """Write what an earlier process was about to write last, unless it did."""
        found = msgspec.json.decode(owed, type=Owed)
        path = self._folder / f"{found.date}-{found.server}"
        if (path / MANIFEST).exists():
            lines = RunReader(path).lines()
            if any(isinstance(line, Record) and line.prompt_id == found.record.prompt_id for line in lines):
                return
        self._write(found)

    def _write(self, owed: Owed) -> None:
        day = self._day(self._number(owed.date), owed.server, owed.facts, owed.record.due)
        for line in owed.retries:
            day.writer.write_event(structs.replace(line, index=day.count))
        day.writer.write_line(structs.replace(owed.record, index=day.count))
        day.count += 1

    def _day(self, number: int, server: str, facts: Server, since: float) -> _Day:
        day = self._open.get((number, server))
        if day is None:
            day = self._open[number, server] = self._begin(number, server, facts, since)
        return day

    @_directing()
    def take_up(self, until: float) -> None:
        """Go on with the days that an earlier process did not end; those before `until` end now, as in
        `close_before`.
        """
        for path in self._folder.glob(f"*/{MANIFEST}"):
            date, server = path.parent.name[:10], path.parent.name[11:]
            with suppress(RunFilesError, ValueError):  # what is no day of ours, or damaged, is left as it is
                manifest = RunReader(path.parent).manifest
                if manifest.end is None and isinstance(manifest.plan.load, Replay) and manifest.plan.load.as_it_came:
                    self._day(self._number(date), server, manifest.server, 0.0)
        self.close_before(until)

    def _number(self, date: str) -> int:
        """The day of a date, counted from ours."""
        return (datetime.fromisoformat(date).replace(tzinfo=UTC) - self._midnight).days

    def adopt(self, policy: Policy) -> None:
        """The days that begin from now on have this policy."""
        self._policy = policy

    @_directing()
    def close_before(self, now: float) -> None:
        """End the days whose jobs have all ended; `now`: the arrival of the oldest that has not."""
        for (number, server), day in list(self._open.items()):
            if (number + 1) * DAY_S <= now:
                self._end(day, DAY_S)
                del self._open[number, server]
                day.writer.close()

    @_directing()
    def close(self, now: float) -> None:
        for (number, _), day in self._open.items():
            self._end(day, max(0.0, min(DAY_S, now - number * DAY_S)))
            day.writer.close()
        self._open.clear()

    def _begin(self, number: int, server: str, facts: Server, since: float) -> _Day:
        date = self._midnight + timedelta(days=number)
        path = self._folder / f"{date:%Y-%m-%d}-{server}"
        if (path / MANIFEST).exists():
            reader = RunReader(path)
            manifest = reader.manifest
            manifest.ended_utc = manifest.end = None
            manifest.server = facts
            count = sum(isinstance(line, Record) for line in reader.lines())
            day = _Day(RunWriter.reopen(path), manifest, count)
            day.writer.write_manifest(manifest)
            return day
        manifest = Manifest(
            format=FORMAT,
            tool=f"comfyload {version('comfyload')}",
            run_id=f"{date:%Y%m%d}-{server}",
            name=f"traffic of {server}",
            started_utc=date.isoformat(),
            ended_utc=None,
            end=None,
            plan=Plan(load=Replay(offsets_s=[], source="the gateway's traffic"), as_is=True),
            client=describe_host(),
            server=facts,
            workflows=[],
            retry=self._policy,
            counted_from=since,
        )
        return _Day(RunWriter(path, manifest), manifest, 0)

    def _end(self, day: _Day, at: float) -> None:
        began = datetime.fromisoformat(day.manifest.started_utc)
        day.manifest.counted_to, day.manifest.scheduled = at, day.count
        day.manifest.ended_utc = (began + timedelta(seconds=at)).isoformat()
        day.manifest.end = "complete"
        day.writer.write_manifest(day.manifest)


class Owed(Struct, kw_only=True):
    """A record, and the run directory to which it belongs. Its instants count from the date's midnight."""

    date: str
    server: str
    facts: Server
    record: Record
    retries: list[RetryLine] = []


class _Day:
    def __init__(self, writer: RunWriter, manifest: Manifest, count: int) -> None:
        self.writer = writer
        self.manifest = manifest
        self.count = count
        self.workflows = {facts.name for facts in manifest.workflows}


def _executed(run: RunReader) -> Iterator[tuple[str, float]]:
    for line in run.lines():
        if isinstance(line, Record) and line.execution.outcome == "completed":
            took_s = executed_s(line.execution)
            if took_s is not None:
                yield line.workflow, took_s


def name_of(workflow: Workflow, info: ObjectInfo) -> str:
    """A short name: the class that does the work, and the beginning of the hash of the shape."""
    classes = [workflow.class_of(node) for node in workflow.graph]
    telling = [name for name in classes if info[name].sampler] or [name for name in classes if info[name].output]
    return f"{(telling or classes)[0]}-{_shape(workflow)[:8]}"


def _short(node: dict[str, Any]) -> dict[str, Any]:
    """The node without what is too long to be anything but data."""
    return node | {
        "inputs": {key: value[:LONGEST] if isinstance(value, str) else value for key, value in node["inputs"].items()},
        "_meta": {},
    }


def _shape(workflow: Workflow) -> str:
    """Hash of the graph without its values: jobs that differ in seed or text have the same."""
    graph: Graph = workflow.graph
    ranks = {node: rank for rank, node in enumerate(graph)}
    parts: list[Any] = []
    for node in graph:
        links = {
            key: [ranks.get(value[0], -1), value[1]]
            for key, value in workflow.inputs_of(node).items()
            if is_link(value)
        }
        parts.append([workflow.class_of(node), sorted(links.items()), sorted(workflow.inputs_of(node))])
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()


def shifted(record: Record, by: float) -> Record:
    """The record with all its instants later by so many seconds."""
    return structs.replace(record, due=record.due + by, execution=_moved(record.execution, by))


def _moved(execution: Execution, by: float) -> Execution:
    def at(instant: float | None) -> float | None:
        return None if instant is None else instant + by

    def of_attempt(attempt: Attempt) -> Attempt:
        return structs.replace(attempt, sent=at(attempt.sent), done=at(attempt.done))

    return structs.replace(
        execution,
        sent=at(execution.sent),
        acknowledged=at(execution.acknowledged),
        first_event=at(execution.first_event),
        started=at(execution.started),
        done=at(execution.done),
        nodes=[Span(span.node, span.start + by, at(span.end)) for span in execution.nodes],
        attempts=[of_attempt(attempt) for attempt in execution.attempts],
    )
