"""Which jobs are in which state, how many of each kind there are, and those that a person wants to see."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.judge.arrays import Flags
from comfyload.web.badges import BADGES, PLACES, STATES
from comfyload.web.columns import KINDS, NO_NAME, GrowingColumns, Names
from comfyload.web.follow import RunFollower
from comfyload.web.table import id_head

Codes = NDArray[np.uint8]

MOST_CHIPS = 30
"""Of one group; the most frequent are shown."""
_QUEUE = ("comfy", "queue_remaining")
_BADGE_KEYS = tuple(BADGES)
_BADGE_OF = np.array([_BADGE_KEYS.index(state.badge) for state in STATES], np.uint8)
_NTH = range(2, 7)
_HEX = re.compile(r"[0-9a-f]{4,32}")


class Filter(Struct, frozen=True, kw_only=True):
    """What a person wants to see; an empty field lets all pass.

    `state`: the key of a badge or of a finer state. `attempt`: the job was sent so often, or more. `kind`: of failure.
    `node`: the class of the node that failed. `text`: the job's index, the beginning of its id, or a part of its
    message. `nothing`: a value was none that a job can have.
    """

    state: str = ""
    attempt: int = 0
    kind: str = ""
    workflow: str = ""
    server: str = ""
    node: str = ""
    book: int | None = None
    text: str = ""
    nothing: bool = False

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Filter:
        """From a query string, or JSON; keys that are none of a filter's are ignored, a wrong value matches no job."""
        found: dict[str, Any] = {}
        for key in (*_TEXTS, *_NONE):
            value = given.get(key)
            if value is None or value == "":
                continue
            text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else None
            if text is not None and key in _TEXTS:
                found[key] = text
            elif text is not None and text.isascii() and text.isdigit() and len(text) <= 16:
                found[key] = int(text)
            else:
                found["nothing"] = True
        return cls(**found)

    def query(self) -> dict[str, str]:
        """What `parse` reads as this filter."""
        found = {key: str(getattr(self, key)) for key in (*_TEXTS, "attempt") if getattr(self, key)}
        return found | ({} if self.book is None else {"book": str(self.book)})


_TEXTS = ("state", "kind", "workflow", "server", "node", "text")
_GROUPS = ("state", "attempt", "kind", "workflow", "server", "node", "book")
_NONE = {"attempt": 0, "book": None}


class Chip(Struct, frozen=True, kw_only=True):
    """One choice: with `group` = `key` in the filter, so many jobs are seen. `on`: it is chosen."""

    group: str
    key: str
    label: str
    count: int
    on: bool


class View:
    """The jobs of a run at one instant: the state of each, and which of them a filter lets pass."""

    def __init__(self, follower: RunFollower) -> None:
        self.follower = follower
        self.fine = states_of(follower)
        self.badge: Codes = _BADGE_OF[self.fine]
        self.attempt = np.maximum(follower.jobs.attempt, follower.jobs.fine == 0)
        for row, line in waiting(follower):
            self.attempt[row] = min(line.attempt, np.iinfo(np.uint16).max)

    def matching(self, flt: Filter, without: str = "") -> Flags:
        """Which jobs pass; the field `without` is left out."""
        passing = np.full(self.follower.jobs.n, not flt.nothing)
        for group in (*_GROUPS, "text"):
            if group != without and getattr(flt, group) != _NONE.get(group, ""):
                passing &= self._passing(group, flt)
        return passing

    def _passing(self, group: str, flt: Filter) -> Flags:
        jobs = self.follower.jobs
        if group == "text":
            return self._with_text(flt.text)
        if group == "attempt":
            return np.asarray(self.attempt >= flt.attempt)
        column, number = self._chosen(group, flt, jobs)
        return np.asarray(column == number)

    def _chosen(self, group: str, flt: Filter, jobs: GrowingColumns) -> tuple[NDArray[Any], int]:
        """The column of a group, and the number in it that is chosen; one that no job has, where no job can have it."""
        if group == "state":
            if flt.state in BADGES:
                return self.badge, _BADGE_KEYS.index(flt.state)
            return self.fine, PLACES.get(flt.state, len(STATES))
        if group == "kind":
            return jobs.kind, KINDS.index(flt.kind) if flt.kind in KINDS else len(KINDS)
        if group == "book":
            return jobs.book, -2 if flt.book is None else flt.book
        number = self._names(group).find(getattr(flt, group))
        return getattr(jobs, group), number if number >= 0 else NO_NAME

    def _names(self, group: str) -> Names:
        follower = self.follower
        return {"workflow": follower.workflows, "server": follower.servers, "node": follower.nodes}[group]

    def _with_text(self, text: str) -> Flags:
        jobs, wanted = self.follower.jobs, text.casefold()
        texts = self.follower.messages.texts
        found = np.isin(jobs.message, [at for at, message in enumerate(texts) if at and wanted in message.casefold()])
        if text.isascii() and text.isdigit() and len(text) <= 16:
            found |= jobs.index == int(text)
        digits = wanted.replace("-", "")
        if _HEX.fullmatch(digits):
            low, high = int(digits[:16].ljust(16, "0"), 16), int(digits[:16].ljust(16, "f"), 16)
            found |= (jobs.id_head >= np.uint64(low)) & (jobs.id_head <= np.uint64(high))
        else:
            found |= jobs.id_head == np.uint64(id_head(text))
        return found

    # --- counts

    def counts(self) -> dict[str, int]:
        """How many jobs have each badge."""
        counted = np.bincount(self.badge, minlength=len(_BADGE_KEYS)).tolist()
        return dict(zip(_BADGE_KEYS, counted, strict=True))

    def chips(self, flt: Filter) -> Iterator[Chip]:
        """Every choice with a job in it, or that is on; the count is of the jobs that the other groups let pass."""
        for group in _GROUPS:
            passing, chosen = self.matching(flt, without=group), getattr(flt, group)
            on = "" if chosen == _NONE.get(group, "") else str(chosen)
            found = list(self._counted(group, passing))
            shown = [(key, label, count) for key, label, count in found if count or key == on]
            if group in _SHORTENED and len(shown) > MOST_CHIPS:
                shown = sorted(shown, key=lambda chip: (chip[0] != on, -chip[2]))[:MOST_CHIPS]
            if on and all(key != on for key, _, _ in shown):
                count = int(np.count_nonzero(passing & self._passing(group, flt)))
                shown.append((on, _label(group, on), count))
            for key, label, count in shown:
                yield Chip(group=group, key=key, label=label, count=count, on=key == on)

    def _counted(self, group: str, passing: Flags) -> Iterator[tuple[str, str, int]]:
        jobs = self.follower.jobs
        if group == "state":
            fine = np.bincount(self.fine[passing], minlength=len(STATES)).tolist()
            for key, label in BADGES.items():
                beneath = [(state, n) for state, n in zip(STATES, fine, strict=True) if state.badge == key]
                yield key, label, sum(n for _, n in beneath)
                yield from ((state.key, state.words, n) for state, n in beneath)
        elif group == "attempt":
            for nth in _NTH:
                yield str(nth), _label(group, str(nth)), int(np.count_nonzero(self.attempt[passing] >= nth))
        elif group == "kind":
            counted = np.bincount(jobs.kind[passing], minlength=len(KINDS)).tolist()
            yield from ((kind, _label(group, kind), n) for kind, n in zip(KINDS, counted, strict=True) if kind)
        elif group == "book":
            return  # a run may have thousands: only the one that is chosen has a chip
        else:
            texts = self._names(group).texts
            counted = np.bincount(getattr(jobs, group)[passing], minlength=len(texts)).tolist()
            yield from ((text, text, n) for text, n in zip(texts, counted, strict=True) if text)


_SHORTENED = ("kind", "workflow", "server", "node")


def _label(group: str, key: str) -> str:
    if group == "attempt":
        return {"2": "2nd attempt", "3": "3rd attempt"}.get(key, f"{key}th attempt") + " or later"
    return key.replace("_", " ") if group == "kind" else f"book {key}" if group == "book" else key


def chips(follower: RunFollower, flt: Filter) -> list[Chip]:
    """The choices of a run; see `View.chips`."""
    return list(View(follower).chips(flt))


# --- jobs that have not ended


def waiting(follower: RunFollower) -> Iterator[tuple[int, Any]]:
    """Rows of jobs without a record that failed before, and the last line about each."""
    for index, line in follower.retries.items():
        row = follower.jobs.row(index)
        if row >= 0:
            yield row, line


def states_of(follower: RunFollower) -> Codes:
    """The finer state of each job now, as places in STATES.

    A server works through its queue in order. If it has as many prompts as jobs were sent to it, or fewer, the oldest
    is running and those behind it wait in the queue; if it has more, some are of others, and who runs is not known.
    """
    fine = follower.jobs.fine.copy()
    rows = np.flatnonzero(fine == 0)
    if not follower.alive or not len(rows):
        return fine
    since, now = follower.jobs.due.copy(), follower.now_s
    for row, line in waiting(follower):
        since[row] = line.t + line.wait_s
        fine[row] = PLACES["retrying"] if now < since[row] else 0
    there = rows[fine[rows] == 0]
    fine[there] = PLACES["sent"]
    queue = follower.samples.get(_QUEUE)
    length = queue.value[-1] if queue is not None and queue.n else np.nan
    if 1 <= length <= len(there):
        ahead = there[np.argsort(since[there], kind="stable")[: int(length)]]
        fine[ahead] = PLACES["queued"]
        fine[ahead[0]] = PLACES["running"]
    return fine
