"""What a tab may watch, by its name: the table into which every view is put."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from msgspec import to_builtins

from comfyload.judge.arrivals import as_it_came
from comfyload.load.arrivals import expected_jobs
from comfyload.record.codec import encode
from comfyload.record.model import AgainOf
from comfyload.report.plan_text import load_words
from comfyload.tasks import within
from comfyload.web.answers import Refused
from comfyload.web.badges import STATES, Badge
from comfyload.web.feed import ColumnFrame, Params, View
from comfyload.web.folder import RunEntry
from comfyload.web.follow import RunFollower
from comfyload.web.job import job_of
from comfyload.web.newest import Newest
from comfyload.web.processes import Processes
from comfyload.web.rows import MOST_ROWS, Order, rows
from comfyload.web.runs import Runs, Sums
from comfyload.web.series import chart, charts_of
from comfyload.web.states import Filter
from comfyload.web.states import View as States
from comfyload.words import count

Standing = Callable[[Path], Awaitable[dict[str, Any]]]
"""Tiles, gates, remarks, nodes and errors of a run so far."""

STANDING_S = 0.15
"""How long a run is shown later for them; those that take longer come with a later state."""

NOTHING_KNOWN: dict[str, Any] = {
    "as_of_s": None,
    **{name: [] for name in ("states", "tiles", "bars", "gates", "remarks", "nodes", "errors")},
    "problem": "",
}
"""Where a run stands of which nothing is measured yet."""

MOST_LISTED = 2_000
"""Runs of a list."""


class Views:
    """All views. `standing`: of a run; `more`: views of others."""

    def __init__(
        self, runs: Runs, root: Path, processes: Processes, standing: Standing, more: Mapping[str, View] | None = None
    ) -> None:
        self._runs = runs
        self._root = root
        self._processes = processes
        self._standing = standing
        self._more = more or {}

    def table(self) -> dict[str, View]:
        own: dict[str, View] = {
            "runs": self._list,
            "run": self._run,
            "jobs": self._jobs,
            "job": self._job,
            "chart": self._chart,
        }
        return own | dict(self._more)

    async def _list(self, _: Params) -> bytes:
        every = await self._runs.entries()
        entries = every[:MOST_LISTED]
        sums = await self._runs.sums(entries)
        labels = self._runs.labels
        shown = [_in_list(entry, sums.get(entry.id), labels.get(entry.id, "")) for entry in entries]
        unread = self._runs.unread
        left_out = {"count": len(unread), **to_builtins(unread[0])} if unread else None
        return encode({"runs": shown, "total": len(every), "folder": str(self._root), "unread": left_out})

    async def _run(self, params: Params) -> bytes:
        entry, flt = await self._runs.find(params.get("run")), _filter(params)
        found = dict(await self._runs.look(entry, lambda follower: _run_of(follower, flt), ("run", flt)))
        again = await self._runs.again(entry)
        of = entry.manifest.again_of
        later = await self._later(again)
        key = ("newest", flt.book, tuple(later.items()))
        found |= await self._runs.look(entry, partial(_now_of, later=later, book=flt.book), key)
        found |= {
            "id": entry.id,
            "name": entry.manifest.name,
            "state": state_of(entry),
            "running": entry.running,
            "started_utc": entry.manifest.started_utc,
            "subtitle": subtitle(entry),
            "of_day": as_it_came(entry.manifest.plan),
            "actions": self._actions(entry, found["needing"]),
            "again": [{"run": later.id, "jobs": len(jobs.indexes)} for later, jobs in again],
            "again_of": await self._whose(of) if isinstance(of, AgainOf) else None,
        }
        standing = await within(STANDING_S, self._standing(entry.path), NOTHING_KNOWN)
        return encode(found | standing)

    async def _later(self, again: list[tuple[RunEntry, AgainOf]]) -> dict[int, Badge]:
        """How the jobs ended that were sent once more, by their indexes; how a killed run's ended, nobody knows."""
        found: dict[int, Badge] = {}
        for run, of in again:
            states = await self._runs.look(run, partial(_states, indexes=list(range(len(of.indexes)))), "every")
            for place, then in enumerate(of.indexes):
                lost = not run.running and states[place]["fine"] in ("unknown", "waiting")
                found[then] = "attention" if lost else states[place]["badge"]
        return found

    async def _whose(self, of: AgainOf) -> dict[str, Any]:
        """The run whose jobs are sent once more; its id is None where the folder has it no more."""
        known = next((one.id for one in await self._runs.entries() if one.manifest.run_id == of.run_id), None)
        return {"run": known, "jobs": len(of.indexes)}

    def _actions(self, entry: RunEntry, needing: int) -> list[str]:
        if as_it_came(entry.manifest.plan):
            return []  # its gateway acts
        if entry.running:
            return ["stop"] if self._processes.alive(entry.id) else []
        return ["retry_all"] if needing else []

    async def _jobs(self, params: Params) -> bytes:
        entry, flt = await self._runs.find(params.get("run")), _filter(params)
        offset, limit = _number(params, "offset", 0), min(_number(params, "limit", 100), MOST_ROWS)
        order_name = params.get("order")
        order = cast(Order, order_name) if order_name in get_args(Order) else "newest"
        key = ("jobs", flt, offset, limit, order)
        total, found = await self._runs.look(entry, lambda follower: rows(follower, flt, offset, limit, order), key)
        newest = await self._newest(entry, {row.index for row in found})
        shown = [to_builtins(row) | {"again": newest.get(row.index)} for row in found]
        return encode({"total": total, "offset": offset, "rows": shown})

    async def _newest(self, entry: RunEntry, wanted: set[int]) -> dict[int, dict[str, Any]]:
        """How the latest time went that each of the jobs was sent once more; a job stays on its card."""
        found: dict[int, dict[str, Any]] = {}
        for later, of in await self._runs.again(entry):
            there = {index: then for index, then in enumerate(of.indexes) if then in wanted}
            if there:
                states = await self._runs.look(later, partial(_states, indexes=list(there)))
                found |= {then: {"run": later.id, "index": index, **states[index]} for index, then in there.items()}
        return found

    async def _job(self, params: Params) -> bytes:
        """One job; what came of it when it was sent once more stands beneath it."""
        entry, index = await self._runs.find(params.get("run")), _number(params, "index", -1)
        found = await self._runs.look(entry, partial(job_of, index=index))
        if found is None:
            raise Refused(404, f"the run has no job {index}")
        again = []
        for later, of in await self._runs.again(entry):
            for place in [place for place, then in enumerate(of.indexes) if then == index]:
                job = await self._runs.look(later, partial(job_of, index=place))
                again.append({"run": later.id, "index": place, "job": job})
        outputs = [
            {**output, "n": n, "name": output["file"].rpartition("/")[2]} for n, output in enumerate(found["outputs"])
        ]
        of_day = as_it_came(entry.manifest.plan)
        actions = [] if entry.running or of_day else ["again"]
        more = {"outputs": outputs, "actions": actions, "again": again, "of_day": of_day}
        if found["ended_s"] is None:  # then something counts down
            more |= {"now_s": await self._runs.look(entry, lambda follower: follower.now_s), "running": entry.running}
        return encode(found | more)

    async def _chart(self, params: Params) -> ColumnFrame:
        entry, name = await self._runs.find(params.get("run")), params.get("chart")
        begin, end, width = _seconds(params, "from_s"), _seconds(params, "to_s"), _number(params, "width", 800)
        key = ("chart", str(name), begin, end, width)
        drawn = await self._runs.look(entry, lambda follower: chart(follower, str(name), begin, end, width), key)
        if drawn is None:
            raise Refused(404, f"there is no chart {str(name)[:60]!r}")
        head = {
            **to_builtins(drawn.head),
            "names": drawn.names,
            "n": drawn.n,
            "from_s": drawn.from_s,
            "to_s": drawn.to_s,
        }
        return ColumnFrame(head, b"".join(column.astype("<f4", copy=False).tobytes() for column in drawn.columns))


# --- a run in words


def state_of(entry: RunEntry) -> str:
    """`lost sight`: the run has no end, and no process is at work in it."""
    return "running" if entry.running else entry.manifest.end or "lost sight"


def subtitle(entry: RunEntry) -> list[str]:
    """What was run, in a few words each."""
    manifest = entry.manifest
    workflows = [facts.name for facts in manifest.workflows]
    named = ", ".join(workflows) if 0 < len(workflows) <= 3 else count(len(workflows), "workflow")
    return [load_words(manifest.plan.load), named, manifest.server.url]


def _in_list(entry: RunEntry, sums: Sums | None, label: str) -> dict[str, Any]:
    manifest = entry.manifest
    counts = {} if sums is None else sums.counts
    return {
        "id": entry.id,
        "name": manifest.name,
        "state": state_of(entry),
        "running": entry.running,
        "started_utc": manifest.started_utc,
        "ended_utc": manifest.ended_utc,
        "load": load_words(manifest.plan.load),
        "server": manifest.server.url,
        "workflows": [facts.name for facts in manifest.workflows],
        "jobs": None if sums is None else sums.jobs,
        "expected": expected_jobs(manifest.plan),
        "attention": counts.get("attention", 0),
        "counts": counts,
        "label": label,
        "spark": [] if sums is None else sums.spark,
    }


def _run_of(follower: RunFollower, flt: Filter) -> dict[str, Any]:
    states = States(follower)
    return {
        "now_s": follower.now_s,
        "counts": states.counts(),
        "chips": [to_builtins(chip) for chip in states.chips(flt)],
        "charts": [to_builtins(head) for head in charts_of(follower)],
        "damaged": follower.damaged,
    }


def _now_of(follower: RunFollower, later: Mapping[int, Badge], book: int | None) -> dict[str, Any]:
    """`needing`: how many jobs still need attention. `book`: the one that is looked at."""
    newest = Newest(States(follower), later)
    number, books = newest.books()
    one = None if book is None else newest.book(book)
    return {
        "needing": len(newest.failed()),
        "books": {"count": number, "first": [to_builtins(each) for each in books]},
        "book": None if one is None else to_builtins(one),
    }


def _states(follower: RunFollower, indexes: list[int]) -> dict[int, dict[str, Any]]:
    """Badge and finer state of these jobs; of one that is not sent yet, that it waits."""
    states = States(follower)
    found = {}
    for index in indexes:
        row = follower.jobs.row(index)
        found[index] = _one(states, row) if row >= 0 else {"badge": "pending", "fine": "waiting", "words": "waiting"}
    return found


def _one(states: States, row: int) -> dict[str, Any]:
    state = STATES[states.fine[row]]
    return {"badge": state.badge, "fine": state.key, "words": state.words}


# --- parameters, which may be anything


def _filter(params: Params) -> Filter:
    return Filter.parse({key: str(value) for key, value in params.items() if isinstance(value, str | int)})


def _number(params: Params, name: str, otherwise: int) -> int:
    value = params.get(name, otherwise)
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 53
    return int(value) if number else otherwise


def _seconds(params: Params, name: str) -> float | None:
    value = params.get(name)
    return (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12 else None
    )
