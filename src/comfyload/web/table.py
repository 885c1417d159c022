"""The lines of a journal as rows of columns, each job once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from comfyload.judge.arrays import Floats
from comfyload.judge.columns.cache import CacheJudge
from comfyload.judge.columns.fold import surely_plausible
from comfyload.record.model import Execution, Line, Manifest, Record
from comfyload.record.stamps import believed
from comfyload.web.badges import ended_as
from comfyload.web.columns import KINDS, GrowingColumns, Names

_LONGEST = 300
"""Letters of a name or message that are kept."""
_MESSAGES, _NAMES, _MOST_ATTEMPTS = 20_000, 60_000, 60_000
"""Different messages, and different names of one sort, that are kept apart; and attempts that are counted."""

Rows = NDArray[np.int64]


class JobTable:
    """Columns, and the texts that they hold numbers of. In `workflows`, `nodes` and `messages` 0 is "": not known, or
    none; the first of `servers` is the run's.
    """

    def __init__(self) -> None:
        self.columns = GrowingColumns()
        self.workflows, self.servers = Names(_NAMES, ""), Names(_NAMES)
        self.nodes, self.messages = Names(_NAMES, ""), Names(_MESSAGES, "")
        self._cache = CacheJudge([])
        self._only_workflow = 0
        self._pages = 1

    def know(self, manifest: Manifest) -> None:
        """Go by these facts of the run from now on."""
        self._cache = CacheJudge(manifest.workflows, several=len(manifest.fleet) > 1)
        self.servers.number(manifest.server.url)
        numbers = [self.workflows.number(facts.name) for facts in manifest.workflows]
        self._only_workflow = numbers[0] if len(numbers) == 1 else 0
        self._pages = manifest.plan.pages

    def enter(self, lines: Sequence[Line], offsets: Rows) -> tuple[float, list[int]]:
        """Enter the next lines, at least one, which begin there in the journal. The first record of a job counts, as
        for judgement. The latest instant in them, and the indexes of the jobs that have ended.
        """
        columns = self.columns
        rows = columns.rows([line.index for line in lines])
        is_record = np.fromiter((type(line) is Record for line in lines), np.bool_, len(lines))
        without_end = columns.fine[rows] == 0
        sent = np.flatnonzero(without_end & ~is_record)
        latest_s = self._enter_sent(rows[sent], [lines[place] for place in sent.tolist()], offsets[sent])
        ended = np.flatnonzero(without_end & is_record)
        _, first = np.unique(rows[ended], return_index=True)
        ended = ended[np.sort(first)]
        records = [line for place in ended.tolist() if isinstance(line := lines[place], Record)]
        if records:
            latest_s = max(latest_s, self._enter_ended(rows[ended], records, offsets[ended]))
        return latest_s, [record.index for record in records]

    def _enter_sent(self, rows: Rows, lines: list[Line], offsets: Rows) -> float:
        put, due = self.columns.put, np.array([line.due for line in lines])
        put("due", rows, due)
        put("id_head", rows, [id_head(line.prompt_id) for line in lines])
        put("offset", rows, offsets)
        put("workflow", rows, self._only_workflow)
        if self._pages > 1:
            put("book", rows, [line.index // self._pages for line in lines])
        return float(due.max(initial=0.0))

    def _enter_ended(self, rows: Rows, records: list[Record], offsets: Rows) -> float:
        put, runs = self.columns.put, [record.execution for record in records]
        due = np.array([record.due for record in records])
        sent = np.array([run.sent for run in runs], np.float64)
        done = np.array([run.done for run in runs], np.float64)
        create, start, end = _stamps(records, runs, done - sent)
        put("due", rows, due)
        put("sent", rows, sent)
        put("done", rows, done)
        put("queue_wait", rows, _seconds(create, start))
        put("execution", rows, _seconds(start, end))
        put("book", rows, [-1 if record.book is None else record.book for record in records])
        put("offset", rows, offsets)
        new = np.flatnonzero(self.columns.id_head[rows] == 0)  # those without a line from when they were sent
        put("id_head", rows[new], [id_head(records[place].prompt_id) for place in new.tolist()])
        put("workflow", rows, [self.workflows.number(record.workflow) for record in records])
        put("server", rows, [self.servers.number(run.attempts[-1].server) if run.attempts else 0 for run in runs])
        put("attempt", rows, [min(_times_sent(run), _MOST_ATTEMPTS) for run in runs])
        put("warmup", rows, [record.warmup for record in records])
        put("fine", rows, [ended_as(record, cached=self._all_cached(record)) for record in records])
        for row, run in zip(rows.tolist(), runs, strict=True):
            if run.failure is not None:
                put("kind", row, KINDS.index(run.failure.kind))
                put("node", row, self.nodes.number((run.failure.node_class or "")[:_LONGEST]))
                put("message", row, self.messages.number(run.failure.message[:_LONGEST]))
        return float(max(due.max(), done.max(initial=-np.inf, where=~np.isnan(done))))

    def _all_cached(self, record: Record) -> bool:
        cached = record.execution.cached
        return bool(cached) and self._cache.cache_class(record) == "cached"


def id_head(prompt_id: str) -> int:
    """The first 16 hexadecimal digits of an id, as a number; of another text one that is as good as its own."""
    digits = prompt_id.replace("-", "")[:16]
    try:
        return int(digits.ljust(16, "0"), 16)
    except ValueError:
        return hash(prompt_id) & 0xFFFF_FFFF_FFFF_FFFF


def _stamps(records: list[Record], runs: list[Execution], took_s: Floats) -> tuple[Floats, Floats, Floats]:
    """The server's stamps that are believed, of each job, in ms."""
    given = [(run.server.create_ms, run.server.start_ms, run.server.end_ms) for run in runs]
    at = np.array(given, np.float64).reshape(-1, 3)
    for place in np.flatnonzero(~surely_plausible(at[:, 0], at[:, 1], at[:, 2], took_s)).tolist():
        times = believed(runs[place], records[place].due)
        at[place] = np.array((times.create_ms, times.start_ms, times.end_ms), np.float64)
    return at[:, 0], at[:, 1], at[:, 2]


def _seconds(begin: Floats, end: Floats) -> Floats:
    seconds = (end - begin) / 1000
    seconds[seconds < 0] = np.nan
    return seconds


def _times_sent(run: Execution) -> int:
    return len(run.attempts) or int(run.sent is not None)
