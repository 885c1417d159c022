"""How to pass once over a run's lines and keep only columns of numbers, never the records."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
from msgspec import Struct, field

from comfyload.judge.arrays import Flags, Floats
from comfyload.judge.columns.cache import CacheJudge, JobFiles
from comfyload.judge.columns.gpu import GpuReadings
from comfyload.judge.columns.jobs import CACHE_CLASSES, NOWHERE, Columns, Jobs
from comfyload.judge.columns.ledger import Ledger, Tagged, clean, is_ours
from comfyload.judge.columns.made import Made
from comfyload.judge.columns.pace import Ends
from comfyload.judge.columns.retries import Retries
from comfyload.judge.metrics import INSTANTS, instants
from comfyload.record.kinds import Kind, kind_of
from comfyload.record.model import Execution, Line, Outcome, Record, Sample, WorkflowFacts
from comfyload.record.stamps import COARSE_MS, FASTER, LAST, SECONDS_TO, believed, node_spans

_KIND = np.dtype(
    [("images", np.uint32), ("previews", np.uint32), ("cache", np.uint8)]
    + [(name, np.uint16) for name in ("workflow", "server")]
    + [(name, np.bool_) for name in ("completed", "censored", "dropped", "retried", "ours", "warmup")]
)
"""What many jobs have in common; of each job its number is kept, its book, and its instants."""


def surely_plausible(create: Floats, start: Floats, end: Floats, most_s: Floats) -> Flags:
    """Of which jobs `believed` would believe all stamps, as it does of most; `most_s`: from sending to the end."""
    ascend = (create >= SECONDS_TO) & (start >= create) & (end >= start) & (end < LAST)
    return ascend & (end - create <= FASTER * 1000 * most_s + COARSE_MS)


class NodeTimes(Struct, kw_only=True):
    """Seconds of one node's runs, in single precision: finer than the 15 ms that their clock is good to.

    `of_known` is their sum over the jobs whose execution time is known: the numerator of a share.
    """

    seconds: array[float] = field(default_factory=lambda: array("f"))
    of_known: float = 0.0


class OutputCount(Struct, kw_only=True):
    """What jobs reported under one key: jobs, things, and of these the files by `output` or `temp`."""

    jobs: int = 0
    count: int = 0
    files: dict[str, int] = field(default_factory=dict)


class Fetched(Struct, kw_only=True):
    """Downloads of counted jobs' outputs; bytes and seconds are sums, `kinds` the bytes by kind of file."""

    files: int = 0
    bytes: int = 0
    image_bytes: int = 0
    kinds: dict[Kind, int] = field(default_factory=dict)
    seconds: float = 0.0
    problems: dict[str, int] = field(default_factory=dict)


class Held(Struct, kw_only=True):
    """Counted jobs that were held back because the server's queue was full; seconds, and how many were never sent."""

    jobs: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0
    dropped: int = 0


class Reading(Struct, kw_only=True):
    """Telemetry under one name: `unknown` readings have no value and are in no other number.

    `per_s`: how fast it grew, by least squares over all readings; None of fewer than two instants.
    """

    n: int = 0
    unknown: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    per_s: float | None = None


class Fold:
    """Everything the summary needs of a run, gathered line by line in constant memory per number."""

    def __init__(
        self,
        workflows: Iterable[WorkflowFacts],
        *,
        retried: bool = False,
        alike: Mapping[str, int] | None = None,
        servers: Sequence[str] = ("",),
    ) -> None:
        """`servers`: the addresses of the run's servers, as attempts have them; of the only one they need not."""
        self._retried = retried
        facts = list(workflows)
        self._places = {server: place for place, server in enumerate(servers)}
        self.ledger = Ledger()
        self.truth = CacheJudge(facts, several=len(servers) > 1)
        self.workflows: dict[str, int] = {known.name: code for code, known in enumerate(facts)}
        self.outputs = defaultdict[str, OutputCount](OutputCount)
        self.made = Made()
        self.repeated, self.overwritten = Tagged(), 0
        self.impossible = Tagged()
        self.fetched = Fetched()
        self.held = Held()
        self.nodes = defaultdict[tuple[str, str], NodeTimes](NodeTimes)
        self.node_execution_s = defaultdict[str, float](float)
        self.polled = array("d")
        self.readings: dict[tuple[str, str], Reading] = {}
        self.gpus = GpuReadings(alike)
        self.retries = Retries()
        self.ends = [Ends() for _ in servers]
        self.queue_at, self.queue_lengths = array("d"), array("d")
        self.resident: dict[tuple[str, str], tuple[array[float], array[float]]] = {}
        """Instants and bytes of what processes held of the machine's memory, by source and name."""
        self._lines: dict[tuple[str, str], list[float]] = {}
        self._instants = bytearray()
        self._books, self._kind_of = array("q"), array("I")
        self._kinds: dict[tuple[object, ...], int] = {}

    def add(self, lines: Iterable[Line]) -> None:
        """Fold the next lines of the journal."""
        for records in self.ledger.enter_many(lines):
            self._add(records)

    def _add(self, records: Sequence[Record]) -> None:
        runs = [record.execution for record in records]
        files = [self.truth.judge(record) for record in records]
        self._kinds_of_jobs(records, runs, files)
        took_ms, late = self._instants_of(records, runs)
        completed: list[tuple[Record, JobFiles]] = []
        times: list[tuple[Record, float, bool]] = []
        for record, run, its, ms, is_late in zip(records, runs, files, took_ms, late, strict=True):
            if record.warmup:
                continue
            if run.held_s:
                self._held(run)
            if self._retried:
                self.retries.add(run)
            if run.outcome == "completed":
                completed.append((record, its))
                times.append((record, ms, is_late))
                if its.repeated or run.fetches or run.end_source == "history":
                    self._completed(record, run, its)
        self._node_times(times)
        alike = Counter([its for _, its in completed])
        for its, jobs in alike.items():
            self._reported(its, jobs)
        self.made.add(completed, alike)

    def _kinds_of_jobs(self, records: Sequence[Record], runs: Iterable[Execution], files: Iterable[JobFiles]) -> None:
        kinds: dict[tuple[object, ...], int] = {}  # of these jobs
        for record, run, its in zip(records, runs, files, strict=True):
            again, ours = self._retried and len(run.attempts) > 1, run.failure is not None and is_ours(run)
            alike = its, record.workflow, self._place(run), run.outcome, record.censored, again, ours, record.warmup
            kind = kinds.get(alike)
            if kind is None:
                kind = kinds[alike] = self._kind(*alike)
            self._kind_of.append(kind)
        self._books.extend([-1 if record.book is None else record.book for record in records])

    def _place(self, run: Execution) -> int:
        """Of the server that ran it last, among the run's."""
        if len(self._places) == 1:
            return 0
        return self._places.get(run.attempts[-1].server, NOWHERE) if run.attempts else NOWHERE

    def _kind(self, its: JobFiles, workflow: str, server: int, outcome: Outcome, censored: bool, *rest: bool) -> int:
        """The place of such jobs in `_kinds`."""
        completed = outcome == "completed"
        kind = (
            its.images if completed else 0,
            its.previews if completed else 0,
            CACHE_CLASSES.index(its.cache),
            self.workflows.setdefault(workflow, len(self.workflows)),
            server,
            completed,
            censored,
            outcome == "dropped",
            *rest,
        )
        return self._kinds.setdefault(kind, len(self._kinds))

    def _instants_of(self, records: Sequence[Record], runs: Sequence[Execution]) -> tuple[list[float], list[bool]]:
        """Keep the jobs' instants. How long each executed, in ms, and whether its end was seen so late that its last
        node may seem to have run for longer.
        """
        known = chain.from_iterable([instants(record, run.server) for record, run in zip(records, runs, strict=True)])
        at = np.array(list(known), np.float64).reshape(-1, len(INSTANTS))
        _, sent, _, done, create, start, end = at.T
        seen = np.array([run.outcome == "completed" and run.end_source == "events" for run in runs], np.bool_)
        if len(self.ends) == 1:
            self.ends[0].add(done[seen], end[seen])
        else:
            places = np.array([self._place(run) for run in runs])
            for place, ends in enumerate(self.ends):
                ends.add(done[seen & (places == place)], end[seen & (places == place)])
        started = np.array([run.started for run in runs], np.float64)
        late = done > started + (end - start + COARSE_MS) / 1000
        for place in np.flatnonzero(~surely_plausible(create, start, end, done - sent)).tolist():
            stamps = believed(runs[place], records[place].due)
            if stamps is not runs[place].server:
                self.impossible.add(records[place].index)
                at[place] = np.array(instants(records[place], stamps), np.float64)
        self._instants += at.tobytes()
        return (end - start).tolist(), late.tolist()

    def sample(self, sample: Sample) -> None:
        """Fold one telemetry reading."""
        self.gpus.add(sample)
        reading = self.readings.setdefault((sample.source, sample.name), Reading())
        value = sample.value
        if value is None or not math.isfinite(value):
            reading.unknown += 1
            return
        if sample.name == "queue_remaining" and sample.source.startswith("comfy"):
            self.queue_at.append(sample.t)
            self.queue_lengths.append(value)
        if sample.name.endswith(".rss_bytes"):
            at, held = self.resident.setdefault((sample.source, sample.name), (array("d"), array("d")))
            at.append(sample.t)
            held.append(value)
        reading.n += 1
        before = value if reading.mean is None else reading.mean
        reading.mean = before + (value - before) / reading.n
        line = self._lines.setdefault((sample.source, sample.name), [sample.t, 0.0, 0.0])
        late = sample.t - line[0]
        line[0] += late / reading.n
        line[1] += late * (sample.t - line[0])  # sums of squares and of products about the means (Welford 1962)
        line[2] += late * (value - reading.mean)
        reading.per_s = line[2] / line[1] if line[1] > 0 else None
        reading.low = value if reading.low is None else min(reading.low, value)
        reading.high = value if reading.high is None else max(reading.high, value)

    def finish(self) -> Jobs:
        """The jobs, when all lines are folded; what only folding needs is given back, so this works once."""
        self.truth.forget()
        at = np.frombuffer(self._instants).reshape(-1, len(INSTANTS))
        kinds, kind_of_job = np.array(list(self._kinds), _KIND), np.array(self._kind_of)
        warmup = kinds["warmup"][kind_of_job]
        # Counted first, in the order of completion; NaN last; ties keep their order.
        order = np.lexsort((at[:, INSTANTS.index("done")], warmup))
        by_end = {name: kinds[name][kind_of_job[order]] for name in _KIND.names or () if name != "warmup"}
        by_end["book"] = np.array(self._books)[order]
        self._instants, self._books, self._kind_of = bytearray(), array("q"), array("I")
        ordered = {name: at[order, place] for place, name in enumerate(INSTANTS)}
        return Jobs(Columns(instants=ordered, **by_end), counted=int(np.count_nonzero(~warmup)), servers=len(self.ends))

    def _completed(self, record: Record, run: Execution, files: JobFiles) -> None:
        """What is gathered of completed counted jobs one by one."""
        if files.repeated:
            ran = {span.node for span in run.nodes if span.end is not None}
            self.repeated.add(record.index)
            self.overwritten += ran.issuperset(files.repeated.values())
        if run.fetches:
            self._fetches(run, self.truth.kinds(record, files))
        if run.end_source == "history":
            self.polled.append(run.done_uncertainty_s)

    def _reported(self, files: JobFiles, jobs: int) -> None:
        for key, count, folders in files.reported:
            counted = self.outputs[key]
            counted.jobs += jobs
            counted.count += count * jobs
            for folder in folders:
                counted.files[folder] = counted.files.get(folder, 0) + jobs

    def _fetches(self, run: Execution, kinds: Mapping[str, Kind]) -> None:
        for fetch in run.fetches:
            self.fetched.files += 1
            self.fetched.bytes += fetch.bytes
            kind = kinds.get(fetch.file) or kind_of(fetch.file)
            self.fetched.kinds[kind] = self.fetched.kinds.get(kind, 0) + fetch.bytes
            self.fetched.image_bytes += fetch.bytes if kind == "image" else 0
            self.fetched.seconds += fetch.seconds
            if fetch.problem and (len(self.fetched.problems) < 50 or fetch.problem in self.fetched.problems):
                problem = clean(fetch.problem, 80)
                self.fetched.problems[problem] = self.fetched.problems.get(problem, 0) + 1

    def _held(self, run: Execution) -> None:
        self.held.jobs += 1
        self.held.total_s += run.held_s
        self.held.longest_s = max(self.held.longest_s, run.held_s)
        self.held.dropped += run.outcome == "dropped"

    def _node_times(self, jobs: Iterable[tuple[Record, float, bool]]) -> None:
        """Of each job how long it executed, in ms, and whether its spans may be too long."""
        found = defaultdict[tuple[str, bool], defaultdict[str, list[float]]](lambda: defaultdict(list))
        for record, took_ms, late in jobs:
            run, workflow, is_known = record.execution, record.workflow, took_ms == took_ms
            if run.nodes:
                seconds = found[workflow, is_known]
                for span in node_spans(run) if late else run.nodes:
                    end = span.end
                    if end is not None:
                        seconds[span.node].append(end - span.start)
                if is_known:
                    self.node_execution_s[workflow] += took_ms / 1000
        for (workflow, is_known), nodes in found.items():
            for node, its_seconds in nodes.items():
                of_node = self.nodes[workflow, node]
                of_node.seconds.extend(its_seconds)
                if is_known:
                    of_node.of_known = sum(its_seconds, of_node.of_known)
