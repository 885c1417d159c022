"""The runs of a folder for all tabs: each followed once, and only while somebody looks."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from msgspec import Struct

from comfyload import clock
from comfyload.errors import RunFilesError
from comfyload.record.codec import encode
from comfyload.record.model import AgainOf
from comfyload.tasks import end_tasks
from comfyload.web.answers import Refused
from comfyload.web.folder import RunEntry, RunFolder, UnreadFolder
from comfyload.web.follow import RunFollower
from comfyload.web.label import label_of
from comfyload.web.states import View

SCAN_S = 1.0
"""How old the list of runs may be."""

REFRESH_S = 0.1
"""How old what is known of a run may be."""

MOST_FOLLOWED = 32
"""Runs whose jobs are kept; the one that nobody has looked at for longest goes first."""

MOST_KNOWN = 64
"""Views of a run that are kept while it does not change."""

SUMS_S = 0.2
"""How long the list waits for runs that are read; the others come with a later state."""

KEPT = 8
"""Of the runs that are read for the list, those whose jobs are kept."""

_SPARKS = 32

T = TypeVar("T")


class Sums(Struct, frozen=True, kw_only=True):
    """A run in a few numbers. `spark`: latencies over its time, the mean of each part; None where no job ended."""

    jobs: int
    counts: dict[str, int]
    spark: list[float | None]


class _Followed:
    """A follower, and the lock under which it is read on and looked at, in threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = asyncio.Lock()
        self.follower: RunFollower | None = None
        self.read_at = -1e9
        self.known: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()
        """What was found last, by its key, with the version that it is of."""


class Runs:
    """`root` and `archive`: as of `RunFolder`."""

    def __init__(self, root: Path, archive: Path | None) -> None:
        self._folder = RunFolder(root, archive)
        self._scanning = asyncio.Lock()
        self._scanned_at = -1e9
        self._entries: list[RunEntry] = []
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self._sums: dict[str, tuple[float, Sums]] = {}
        self._summing: asyncio.Task[None] | None = None
        self.labels: dict[str, str] = {}
        """What people wrote on runs, by their ids."""

    async def entries(self) -> list[RunEntry]:
        """All runs, the newest first."""
        async with self._scanning:
            if clock.now() - self._scanned_at >= SCAN_S:
                self._entries, self.labels = await asyncio.to_thread(self._scan)
                self._scanned_at = clock.now()
        return self._entries

    def _scan(self) -> tuple[list[RunEntry], dict[str, str]]:
        entries = self._folder.scan()
        return entries, {entry.id: label for entry in entries if (label := label_of(entry.path))}

    async def options(self) -> list[str]:
        """The options of all runs, as JSON: they name the files that a run's jobs are sent again with."""
        return [encode(entry.manifest.options).decode("utf-8", "replace") for entry in await self.entries()]

    @property
    def unread(self) -> list[UnreadFolder]:
        """Folders that the last scan left out, as they cannot be read."""
        return self._folder.unread

    def inside(self, folder: str) -> list[Path]:
        """The directories of the runs right below a folder, by its id, as of the last scan."""
        return [entry.path for entry in self._entries if entry.id.rpartition("/")[0] == folder]

    async def find(self, run_id: object) -> RunEntry:
        """The run of that id, which is looked up in the list and never joined to a path.

        Raises:
            Refused: there is none.
        """
        await self.entries()
        found = self._folder.find(run_id) if isinstance(run_id, str) else None
        if found is None:
            raise Refused(404, f"there is no run {str(run_id)[:200]!r}", "it may have been moved or removed")
        return found

    def path_of(self, run_id: str) -> Path | None:
        """The directory of a run that the last scan found."""
        found = self._folder.find(run_id)
        return None if found is None else found.path

    async def look(self, entry: RunEntry, at: Callable[[RunFollower], T], key: Hashable = None) -> T:
        """What `at` finds in the run, read on to its present end. `key`: what `at` depends on besides the run; of a run
        that does not change, it is then computed once.

        Raises:
            Refused: it cannot be read any more.
        """
        followed = self._followed.get(entry.id)
        if followed is None or followed.path != entry.path:
            followed = self._followed[entry.id] = _Followed(entry.path)
        self._followed.move_to_end(entry.id)
        while len(self._followed) > MOST_FOLLOWED:
            self._followed.popitem(last=False)
        async with followed.lock:
            fresh = clock.now() - followed.read_at < REFRESH_S
            found = await asyncio.to_thread(_look, followed, at, fresh, key)
            followed.read_at = followed.read_at if fresh else clock.now()
        return found

    async def again(self, entry: RunEntry) -> list[tuple[RunEntry, AgainOf]]:
        """The runs that send jobs of this one once more, the oldest first."""
        found = [
            (other, of)
            for other in await self.entries()
            if isinstance(of := other.manifest.again_of, AgainOf) and of.run_id == entry.manifest.run_id
        ]
        return found[::-1]

    async def sums(self, entries: list[RunEntry]) -> dict[str, Sums]:
        """The runs in a few numbers, by their ids. Those that have changed are read on meanwhile; what was known of
        them stands until then, and one that was never read is left out.
        """
        if self._summing is None or self._summing.done():
            changed = [entry for entry in entries if self._sums.get(entry.id, (-1.0,))[0] != entry.modified]
            self._summing = asyncio.create_task(self._sum_up(changed))
        await asyncio.wait([self._summing], timeout=SUMS_S)
        there = {entry.id for entry in entries}
        self._sums = {run_id: known for run_id, known in self._sums.items() if run_id in there}
        return {run_id: sums for run_id, (_, sums) in self._sums.items()}

    async def _sum_up(self, entries: list[RunEntry]) -> None:
        for place, entry in enumerate(entries):
            try:
                # Who sees the list looks at one of the newest next: they are not read twice.
                kept = entry.running or place < KEPT
                found = await (self.look(entry, _sums) if kept else asyncio.to_thread(_read_sums, entry))
            except (Refused, RunFilesError):
                continue
            self._sums[entry.id] = entry.modified, found

    async def close(self) -> None:
        """End what is read."""
        if self._summing is not None:
            await end_tasks([self._summing])


def _look(followed: _Followed, at: Callable[[RunFollower], T], fresh: bool, key: Hashable) -> T:
    try:
        follower = followed.follower or RunFollower(followed.path)
        followed.follower = follower
        if not fresh:
            _read_on(follower)
    except RunFilesError as error:
        raise Refused(404, error.message, error.hint) from None
    if key is None or follower.alive:  # then even the clock is a change
        return at(follower)
    version, found = followed.known.get(key, (-1, None))
    if version != follower.version:
        found = at(follower)
        followed.known[key] = follower.version, found
        while len(followed.known) > MOST_KNOWN:
            followed.known.popitem(last=False)
    return cast(T, found)


def _read_on(follower: RunFollower) -> None:
    follower.refresh()
    while follower.behind:
        follower.refresh()


def _read_sums(entry: RunEntry) -> Sums:
    follower = RunFollower(entry.path)
    _read_on(follower)
    return _sums(follower)


def _sums(follower: RunFollower) -> Sums:
    jobs = follower.jobs
    done, latency = jobs.done, jobs.latency
    ended = np.isfinite(done) & np.isfinite(latency)
    spark: list[float | None] = []
    if ended.any():
        begin, end = float(done[ended].min()), float(done[ended].max())
        place = ((done[ended] - begin) / max(end - begin, 1e-9) * _SPARKS).astype(np.int64).clip(0, _SPARKS - 1)
        count = np.bincount(place, minlength=_SPARKS)
        total = np.bincount(place, weights=latency[ended], minlength=_SPARKS)
        spark = [round(float(t / n), 4) if n else None for t, n in zip(total, count, strict=True)]
    return Sums(jobs=int(jobs.n), counts=View(follower).counts(), spark=spark)
