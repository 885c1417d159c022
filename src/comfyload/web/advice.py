"""What a page asks for advice: capacity under sliders, where a server saturates, how to retry.

Service times are read, and servers simulated, in a process of their own; what a slider shows is looked up here.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from comfyload.advise.queueing import Dispatch
from comfyload.advise.surface import Surface, sized
from comfyload.app.advice import DISPATCHES
from comfyload.errors import UsageError
from comfyload.load.grammar import parse_duration, parse_rate, rate_text
from comfyload.report.advice import forecast_table, sizing_words
from comfyload.report.page import Value
from comfyload.tasks import end_tasks
from comfyload.web.answers import Refused, Route, answer
from comfyload.web.file_state import FileState, Side, baseline_state, run_state
from comfyload.web.reply import UI, answered, send, tagged
from comfyload.web.worker import Answer, Busy, Worker

MOST_SERVERS = 16
AHEAD = 8
"""Numbers of servers that are simulated before somebody asks for them."""
KEPT = 200
"""Surfaces that are kept: some 100 kB each."""
MOST_RUNS = 200
POINTS = 48
_P95_S = 45.0
_VIEWS = "comfyload.web.advice_views"
_BASELINE = "baseline:"

Key = tuple[str, Side, tuple[str, ...], Dispatch, FileState]
"""All that surfaces depend on but the number of servers."""


class Advice:
    """`path_of`: the directory of a run by its id, which raises an error that is answered. `inside`: the directories of
    the runs below a folder, by its id. `worker`: one of its own, since a policy takes half a minute.
    """

    def __init__(
        self, path_of: Callable[[str], Path], inside: Callable[[str], list[Path]], archive: Path | None, worker: Worker
    ) -> None:
        self._path_of = path_of
        self._inside = inside
        self._archive = archive
        self._worker = worker
        self._surfaces: OrderedDict[tuple[Key, int], Surface] = OrderedDict()
        self._ahead: asyncio.Task[None] | None = None

    def routes(self) -> list[Route]:
        return [
            ("GET", f"{UI}/advice/basis", answered(self._basis)),
            ("GET", f"{UI}/advice/capacity", answered(self._capacity)),
            ("GET", f"{UI}/advice/capacity/page", answered(self._page)),
            ("GET", f"{UI}/advice/saturation", answered(self._saturation)),
            ("GET", f"{UI}/advice/policy", answered(self._policy)),
        ]

    async def close(self) -> None:
        """End what is computed before somebody asks for it."""
        await end_tasks([] if self._ahead is None else [self._ahead])

    # --- capacity

    async def _basis(self, request: web.Request) -> web.StreamResponse:
        """What advice rests on. From now on the servers are simulated, first one, then two, and so on."""
        key = await self._key(request)
        found = await self._worker.answer(f"{_VIEWS}:basis_answer", *_of(key))
        if found.status != 200:
            return send(found)
        self._begin(key)
        return answer(msgspec.json.decode(found.body) | {"most_servers": MOST_SERVERS, "limit_s": _P95_S})

    async def _capacity(self, request: web.Request) -> web.StreamResponse:
        """What to expect of so many servers at a rate, and how many of them the rate needs."""
        key = await self._key(request)
        rate, limit_s = _rate(request), _limit(request)
        servers = _whole(request, "servers", 1, MOST_SERVERS)
        found = await self._surface(key, servers)
        if isinstance(found, Answer):
            return send(found)
        self._begin(key)
        known = self._known(key)
        rate_per_s = rate if rate is not None else 0.7 * found.rates_per_s[-1]
        return answer(_answered(found, rate_per_s, limit_s) | _sizing(known, rate_per_s, limit_s))

    async def _page(self, request: web.Request) -> web.StreamResponse:
        base, side, shares, dispatch, state = await self._key(request)
        servers = _whole(request, "servers", 1, MOST_SERVERS) if "servers" in request.query else None
        of = base, side, shares, _rate(request), _limit(request), servers, dispatch, state
        return await tagged(request, self._worker, f"{_VIEWS}:capacity_answer", *of)

    async def _surface(self, key: Key, servers: int) -> Surface | Answer:
        """Of so many servers; else the answer that says why there is none."""
        found = self._surfaces.get((key, servers))
        if found is not None:
            self._surfaces.move_to_end((key, servers))
            return found
        base, side, shares, dispatch, state = key
        of = base, side, shares, servers, dispatch, state
        made = await self._worker.answer(f"{_VIEWS}:surface_answer", *of, keep=False)
        if made.status != 200:
            return made
        found = self._surfaces[key, servers] = msgspec.msgpack.decode(made.body, type=Surface)
        while len(self._surfaces) > KEPT:
            self._surfaces.popitem(last=False)
        return found

    def _known(self, key: Key) -> dict[int, Surface]:
        """Those of one server, two, and so on, as far as they have been simulated."""
        found: dict[int, Surface] = {}
        while (surface := self._surfaces.get((key, len(found) + 1))) is not None:
            found[len(found) + 1] = surface
        return found

    def _begin(self, key: Key) -> None:
        """Simulate what is needed next; what was begun for other runs ends."""
        if len(self._known(key)) >= AHEAD:
            return
        if self._ahead is not None and not self._ahead.done():
            if self._ahead.get_name() == str(hash(key)):
                return
            self._ahead.cancel()
        self._ahead = asyncio.create_task(self._go_ahead(key), name=str(hash(key)))

    async def _go_ahead(self, key: Key) -> None:
        with suppress(Busy):
            for servers in range(1, AHEAD + 1):
                if isinstance(await self._surface(key, servers), Answer):
                    return

    async def _key(self, request: web.Request) -> Key:
        named = request.query.getall("of", [])
        if not named:
            raise Refused(400, "no run is named", "write ?of=RUN or ?of=baseline:NAME")
        if len(named) > MOST_RUNS:
            raise Refused(400, f"at most {MOST_RUNS} runs at once")
        side = tuple(("baseline", one.removeprefix(_BASELINE)) if one.startswith(_BASELINE)
                     else ("run", str(self._path_of(one))) for one in named)  # fmt: skip
        way = request.query.get("dispatch", "affinity").replace("-", "_")
        dispatch = next((one for one in DISPATCHES if one == way), None)
        if dispatch is None:
            raise Refused(422, f"unknown dispatch {way[:40]!r}", "choose affinity, shortest-queue or round-robin")
        state = await asyncio.to_thread(_state, self._archive, side)
        base = "" if self._archive is None else str(self._archive)
        return base, side, tuple(request.query.getall("share", [])), dispatch, state

    # --- saturation and policy

    async def _saturation(self, request: web.Request) -> web.StreamResponse:
        paths = self._inside(request.query.get("run", ""))
        if not paths:
            raise Refused(404, "there are no runs in this folder", "choose a folder that comfyload saturate made")
        if len(paths) > MOST_RUNS:
            raise Refused(422, f"more than {MOST_RUNS} runs are in this folder", "choose one that saturate made")
        state = await asyncio.to_thread(lambda: tuple(run_state(path) for path in paths))
        of = tuple(map(str, paths)), _limit(request), state
        return await tagged(request, self._worker, f"{_VIEWS}:saturation_answer", *of)

    async def _policy(self, request: web.Request) -> web.StreamResponse:
        base, side, shares, _, state = await self._key(request)
        deadline_s = parse_duration(request.query.get("deadline", "90s"))
        goal = _number(request.query.get("target", "98"))
        if not 0 < goal < 100:
            raise Refused(422, f"{goal:g} is no share of jobs", "give a percentage between 0 and 100, such as 98")
        if not 0 < deadline_s <= 7 * 86_400:
            raise Refused(422, "the deadline is not above 0, and at most a week", "write 90s")
        servers, blind = _whole(request, "servers", 1, MOST_SERVERS), request.query.get("blind") in ("1", "true")
        of = base, side, shares, deadline_s, goal / 100, _rate(request), servers, blind, state
        return await tagged(request, self._worker, f"{_VIEWS}:policy_answer", *of)


def _answered(found: Surface, rate_per_s: float, limit_s: float) -> dict[str, Any]:
    """The words for one rate, and the line of the p95 over all rates."""
    row = found.at(rate_per_s, limit_s)
    table = forecast_table([row], limit_s)
    names = ("rate", "servers", "load", "p50", "p95", "p99", "late")
    words: dict[str, Value] = dict(zip(names, table.rows[0], strict=True))
    ends = [found.rates_per_s[0], found.rates_per_s[-1]]
    rates = [ends[0] + (ends[1] - ends[0]) * share / (POINTS - 1) for share in range(POINTS)]
    line = [found.at(rate) for rate in rates]
    return {
        "rate_per_minute": 60 * rate_per_s,
        "rate": rate_text(rate_per_s),
        "most_per_minute": 60 * ends[1],
        "servers": found.servers,
        "limit_s": limit_s,
        "stable": row.stable,
        "keeps": row.stable and row.p95_s.high <= limit_s,
        "may_keep": row.stable and row.p95_s.low <= limit_s,
        "values": {name: msgspec.to_builtins(value) for name, value in words.items()},
        "columns": [column.title for column in table.columns],
        "curve": {
            "rate_per_minute": [60 * rate for rate in rates],
            **{
                name: [_finite(getattr(one.p95_s, end)) for one in line]
                for name, end in (("p95_s", "estimate"), ("low_s", "low"), ("high_s", "high"))
            },
            "p50_s": [_finite(one.p50_s.estimate) for one in line],
        },
    }


def _sizing(known: dict[int, Surface], rate_per_s: float, limit_s: float) -> dict[str, Any]:
    """How many servers the rate needs; words are missing until enough of them have been simulated."""
    found = sized(known, rate_per_s, limit_s) if known else None
    over = found is not None and (found.with_spare is not None or not found.rows or len(known) >= AHEAD)
    return {
        "sizing": sizing_words(found) if found is not None and over else "",
        "enough": None if found is None else found.enough,
        "with_spare": None if found is None else found.with_spare,
        "simulated": len(known),
        "to_simulate": AHEAD,
    }


def _state(archive: Path | None, side: Side) -> FileState:
    return tuple(
        run_state(Path(place)) if kind == "run" else () if archive is None else baseline_state(archive, place)
        for kind, place in side
    )


def _of(key: Key) -> tuple[Any, ...]:
    base, side, shares, _, state = key
    return base, side, shares, state


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rate(request: web.Request) -> float | None:
    text = request.query.get("rate", "")
    return parse_rate(text) if text else None


def _limit(request: web.Request) -> float:
    limit_s = parse_duration(request.query.get("p95", f"{_P95_S:g}s"))
    if not 0 < limit_s <= 7 * 86_400:
        raise Refused(422, "the limit of the p95 is not above 0, and at most a week", "write 45s")
    return limit_s


def _whole(request: web.Request, name: str, otherwise: int, most: int) -> int:
    text = request.query.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= most):
        raise Refused(422, f"{name} is not a number from 1 to {most}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text[:40]!r} is not a number") from None
