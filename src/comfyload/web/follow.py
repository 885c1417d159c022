"""One run directory, followed while it grows: only what was appended is read, and kept as columns of numbers.

Nothing is locked and nothing is written: the run does not notice. Files stay open only while they are read.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from comfyload.errors import RunFilesError
from comfyload.judge.arrivals import as_it_came
from comfyload.record.codec import UNREADABLE, decode
from comfyload.record.journal import RECORDS
from comfyload.record.lock import is_taken
from comfyload.record.model import Manifest, Record, RetryLine, Sample, Sent
from comfyload.record.run import EVENTS, MANIFEST, SAMPLES, RunReader
from comfyload.web.columns import GrowingReadings
from comfyload.web.table import JobTable, Rows
from comfyload.web.tail import Tail, lines_at

MOST_LINES = 20_000
"""Read by one `refresh`, about."""
_HELD_S = 2.0
"""How often it is looked whether a process is at work in the directory."""
_NEWLINE = 10

T = TypeVar("T")


class _Named(msgspec.Struct):
    prompt_id: str


class RunFollower:
    """`refresh` reads on; everything else shows what was read so far. Not for several threads at once.

    `version` rises with each change. `behind`: there is more to read. `damaged`: lines that could not be read. `alive`:
    a process is at work in the directory. `latest_s`: the latest instant in any file.
    """

    manifest: Manifest

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        """`wall` counts Unix seconds.

        Raises:
            RunFilesError: it is no run directory.
        """
        self.path = path
        self.version = 0
        self._wall = wall
        self._lines = msgspec.json.Decoder(Sent | Record)
        self._named = msgspec.json.Decoder(_Named)
        self._sample = msgspec.json.Decoder(Sample)
        self._event = msgspec.json.Decoder(RetryLine)
        self._forget()
        self._manifest_at: tuple[int, int, int] | None = None
        self._read_manifest()

    def _forget(self) -> None:
        self._table = JobTable()
        self.jobs = self._table.columns
        self.samples: dict[tuple[str, str], GrowingReadings] = {}
        self.retries: dict[int, RetryLine] = {}
        """Of jobs without a record, the last line about each that failed before."""
        self.workflows, self.servers = self._table.workflows, self._table.servers
        self.nodes, self.messages = self._table.nodes, self._table.messages
        self._damaged = 0
        self.behind = self.alive = False
        self.latest_s = 0.0
        self._event_index, self._event_offset = list[int](), list[int]()
        self._tails = {name: Tail(self.path / name) for name in (RECORDS, EVENTS, SAMPLES)}
        self._clock_zero: float | None = None
        self._looked = -np.inf
        self._to_come = 0

    @property
    def damaged(self) -> int:
        return self._damaged + sum(tail.too_long for tail in self._tails.values())

    @property
    def now_s(self) -> float:
        """The present instant of the run's clock; of a run that has ended, the latest that is known.

        A line is written at its instant, so that a file's last change and its last line tell one clock by the other.
        """
        if not self.alive or self._clock_zero is None:
            return self.latest_s
        return max(self.latest_s, self._wall() - self._clock_zero)

    def refresh(self, most: int = MOST_LINES) -> bool:
        """Read what was appended, about so many lines at most. Whether anything changed, be it by time alone."""
        changed = self._read_manifest()
        lost = [tail.look() for tail in self._tails.values()]
        if any(lost):
            self._forget()
            self._table.know(self.manifest)
            for tail in self._tails.values():
                tail.look()
            changed = True
        changed |= self._look_for_holder()
        left, read = most, 0
        for name, take in ((RECORDS, self._take_lines), (EVENTS, self._take_events), (SAMPLES, self._take_samples)):
            tail = self._tails[name]
            while left > 0 and tail.behind:
                before = tail.offset
                begin, block = tail.read()
                if tail.offset == before:
                    break  # only a part of a line is there
                count = take(begin, block) if block else 0
                left, read = left - count, read + 1
        self.behind = left <= 0
        if read:
            for tail in self._tails.values():
                tail.look()  # what was read was written before
            self._set_clock()
        changed |= read > 0
        due = self._retries_to_come()
        changed |= due != self._to_come
        self._to_come = due
        self.version += changed
        return changed

    def record(self, index: int) -> Record | Sent | None:
        """The job's line, read again from the journal; None: there is none, or it cannot be read any more."""
        row = self.jobs.row(index)
        line = None if row < 0 else self._decoded(RECORDS, int(self.jobs.offset[row]), self._lines)
        return line if line is not None and line.index == index else None

    def ids(self, rows: Rows) -> list[str]:
        """The ids of jobs, read again from the journal; "" where one cannot be read any more."""
        found = self._decoded_all(RECORDS, self.jobs.offset[rows].tolist(), self._named)
        ids = ["" if line is None else line.prompt_id for line in found]
        return ids + [""] * (len(rows) - len(ids))

    def retries_of(self, index: int) -> list[RetryLine]:
        """All that was written of the job when it was sent again, in order."""
        offsets = [at for at, of in zip(self._event_offset, self._event_index, strict=True) if of == index]
        return [line for line in self._decoded_all(EVENTS, offsets, self._event) if line is not None]

    # --- reading

    def _read_manifest(self) -> bool:
        """Read it again if it was replaced; while it cannot be read, the last one stays."""
        file = self.path / MANIFEST
        try:
            found = file.stat()
            at = found.st_ino, found.st_mtime_ns, found.st_size
        except (OSError, ValueError):
            at = None
        if at == self._manifest_at and at is not None:
            return False
        try:
            manifest = RunReader(self.path).manifest
        except RunFilesError:
            if self._manifest_at is None:
                raise
            return False
        if self._manifest_at is not None and manifest.run_id != self.manifest.run_id:
            self._forget()
        self.manifest, self._manifest_at = manifest, at
        self._table.know(manifest)
        return True

    def _retries_to_come(self) -> int:
        """How many jobs still wait to be sent again: that changes without a line."""
        now = self.now_s
        return sum(now < line.t + line.wait_s for line in self.retries.values()) if self.alive else 0

    def _look_for_holder(self) -> bool:
        now, before = self._wall(), self.alive
        if self.manifest.end is not None:
            self.alive = False
        elif not 0 <= now - self._looked < _HELD_S:
            self._looked = now
            self.alive = is_held(self.path, self.manifest)
        return self.alive != before

    def _set_clock(self) -> None:
        """The wall clock at the run's zero: the least of what its files say, as a line may be written late."""
        changed_at = max(tail.changed_at for tail in self._tails.values())
        if self.latest_s > 0.0 and not self.behind:
            zero = changed_at - self.latest_s
            self._clock_zero = zero if self._clock_zero is None else min(self._clock_zero, zero)

    def _take_lines(self, begin: int, block: bytes) -> int:
        lines, offsets = self._decode(self._lines, begin, block)
        if lines:
            latest_s, ended = self._table.enter(lines, offsets)
            self.latest_s = max(self.latest_s, latest_s)
            if self.retries:
                for index in ended:
                    self.retries.pop(index, None)
        return block.count(b"\n")

    def _take_events(self, begin: int, block: bytes) -> int:
        lines, offsets = self._decode(self._event, begin, block)
        for line, offset in zip(lines, offsets.tolist(), strict=True):
            self._event_index.append(line.index)
            self._event_offset.append(offset)
            self.latest_s = max(self.latest_s, line.t)
            row = self.jobs.row(line.index)
            if row < 0 or self.jobs.fine[row] == 0:
                self.retries[line.index] = line
        return block.count(b"\n")

    def _take_samples(self, _: int, block: bytes) -> int:
        lines, _offsets = self._decode(self._sample, 0, block)
        by_name: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        for line in lines:
            t, values = by_name.setdefault((line.source, line.name), ([], []))
            t.append(line.t)
            values.append(np.nan if line.value is None else line.value)
        for key, (t, values) in by_name.items():
            self.samples.setdefault(key, GrowingReadings()).add(t, values)
            self.latest_s = max([self.latest_s, *t])
        return block.count(b"\n")

    def _decode(self, decoder: msgspec.json.Decoder[T], begin: int, block: bytes) -> tuple[list[T], Rows]:
        """The values of whole lines, and where each line begins; a damaged line is counted and left out."""
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE)
        starts = np.concatenate([[0], ends[:-1] + 1])
        try:
            values = decoder.decode_lines(block)
        except UNREADABLE:
            values = []
        if len(values) == len(starts):
            return values, begin + starts
        values, good = [], []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            try:
                values.append(decode(block[start:end], decoder))
            except msgspec.MsgspecError:
                self._damaged += 1
            else:
                good.append(start)
        return values, begin + np.array(good, np.int64)

    def _decoded(self, name: str, offset: int, decoder: msgspec.json.Decoder[T]) -> T | None:
        for found in self._decoded_all(name, [offset], decoder):
            return found
        return None

    def _decoded_all(self, name: str, offsets: list[int], decoder: msgspec.json.Decoder[T]) -> Iterator[T | None]:
        for line in lines_at(self.path / name, offsets):
            try:
                yield decode(line, decoder)
            except msgspec.MsgspecError:
                yield None


def is_held(path: Path, manifest: Manifest) -> bool:
    """Whether a process is at work in the directory; a gateway is at work in the folder of its days."""
    return is_taken(path) or (as_it_came(manifest.plan) and is_taken(path.parent))
