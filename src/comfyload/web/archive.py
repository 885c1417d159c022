"""What a tab reads and does with several runs: baselines, comparisons, trends."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from comfyload.gateway.http import Route
from comfyload.record.archive import PROMOTED
from comfyload.web.file_state import FileState, Side, archive_state, baseline_state, run_state
from comfyload.web.reply import UI, Unanswered, answered, body_of, send, tagged
from comfyload.web.worker import Worker

MOST_RUNS = 200
"""Runs that are compared, kept or followed through time at once."""
_VIEWS = "comfyload.web.kept_views"
_BASELINE = "baseline:"


class Archive:
    """`folder` None: there are no baselines. `path_of`: the directory of a run by its id."""

    def __init__(self, path_of: Callable[[str], Path], folder: Path | None, worker: Worker) -> None:
        self._path_of = path_of
        self._folder = folder
        self._worker = worker

    def routes(self) -> list[Route]:
        kept = f"{UI}/archive/{{name}}"
        return [
            ("GET", f"{UI}/compare", answered(self._compare)),
            ("GET", f"{UI}/environment", answered(self._environment)),
            ("GET", f"{UI}/trend", answered(self._trend)),
            ("GET", f"{UI}/trend.svg", answered(self._trend_chart)),
            ("GET", f"{UI}/archive", answered(self._list)),
            ("POST", f"{UI}/archive", answered(self._save)),
            ("POST", f"{UI}/archive/promote", answered(self._promote)),
            ("GET", f"{kept}/page", answered(self._page)),
            ("GET", f"{kept}/charts/{{chart}}.svg", answered(self._chart)),
        ]

    # --- baselines

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if self._folder is None:
            nothing: dict[str, Any] = {"folder": None, "promoted": None, "problem": "", "baselines": []}
            return web.json_response(nothing)
        return await tagged(request, self._worker, f"{_VIEWS}:archive_answer", self._base(), await self._state())

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name, number = request.match_info["name"], _number(request, "run")
        state = await self._state(("baseline", name))
        return await tagged(request, self._worker, f"{_VIEWS}:baseline_answer", self._base(), name, number, state)

    async def _chart(self, request: web.Request) -> web.StreamResponse:
        name, number, chart = request.match_info["name"], _number(request, "run"), request.match_info["chart"]
        of = self._base(), name, number, chart, _dark(request), await self._state(("baseline", name))
        return await tagged(request, self._worker, f"{_VIEWS}:baseline_chart_answer", *of)

    async def _save(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        runs, name, notes = body.get("runs"), body.get("name") or "", body.get("notes") or {}
        texts = [*runs, name] if isinstance(runs, list) else [None]
        texts += [*notes, *notes.values()] if isinstance(notes, dict) else [None]
        if not runs or not all(isinstance(text, str) for text in texts):
            raise Unanswered(422, "there is no run to keep", 'write {"runs": ["ID"], "name": "rtx5060ti", "notes": {}}')
        if len(runs) > MOST_RUNS:
            raise Unanswered(422, f"a baseline has at most {MOST_RUNS} runs")
        paths = tuple(str(self._path_of(run)) for run in runs)
        of = self._base(), name, paths, tuple(sorted(notes.items()))
        return send(await self._worker.answer(f"{_VIEWS}:save_answer", *of, keep=False))

    async def _promote(self, request: web.Request) -> web.StreamResponse:
        name = (await body_of(request)).get("name")
        if not isinstance(name, str) or not name or name == PROMOTED:
            raise Unanswered(422, "no baseline is named", 'write {"name": "2026-11-28-rtx5060ti"}')
        return send(await self._worker.answer(f"{_VIEWS}:promote_answer", self._base(), name, keep=False))

    # --- several runs

    async def _compare(self, request: web.Request) -> web.StreamResponse:
        a, b = self._sides(request)
        margin = _share(request, "margin", 0.05)
        accept = tuple(request.query.getall("accept", []))
        paired = request.query.get("paired") in ("1", "true")
        of = self._base_or_none(), a, b, paired, margin, accept, await self._state(*a, *b)
        return await tagged(request, self._worker, f"{_VIEWS}:compare_answer", *of)

    async def _environment(self, request: web.Request) -> web.StreamResponse:
        a, b = self._sides(request)
        of = self._base_or_none(), a, b, await self._state(*a, *b)
        return await tagged(request, self._worker, f"{_VIEWS}:environment_answer", *of)

    async def _trend(self, request: web.Request) -> web.StreamResponse:
        return await tagged(request, self._worker, f"{_VIEWS}:trend_answer", *await self._of_trend(request))

    async def _trend_chart(self, request: web.Request) -> web.StreamResponse:
        of, number = await self._of_trend(request), _number(request, "n")
        return await tagged(request, self._worker, f"{_VIEWS}:trend_chart_answer", *of, number or 0, _dark(request))

    async def _of_trend(self, request: web.Request) -> tuple[Any, ...]:
        """The archive, the runs that were named, the metrics, and the state of all."""
        runs = self._side([run for run in request.query.getall("run", []) if not run.startswith(_BASELINE)])
        metrics = tuple(request.query.getall("metric", []))
        return self._base_or_none(), runs, metrics, await self._state(*runs)

    def _sides(self, request: web.Request) -> tuple[Side, Side]:
        given = [request.query.getall(name, []) for name in ("a", "b")]
        if not all(given):
            raise Unanswered(400, "a comparison needs two sides", "name them as ?a=RUN&b=baseline:NAME")
        return self._side(given[0]), self._side(given[1])

    def _side(self, named: list[str]) -> Side:
        """The runs and baselines that were named."""
        if len(named) > MOST_RUNS:
            raise Unanswered(400, f"at most {MOST_RUNS} runs at once")
        return tuple(
            ("baseline", one.removeprefix(_BASELINE)) if one.startswith(_BASELINE) else ("run", str(self._path_of(one)))
            for one in named
        )

    # --- where

    def _base(self) -> str:
        if self._folder is None:
            raise Unanswered(404, "there is no archive of baselines", "name one with --archive")
        return str(self._folder)

    def _base_or_none(self) -> str:
        return "" if self._folder is None else str(self._folder)

    async def _state(self, *sides: tuple[str, str]) -> FileState:
        """The state of all files that an answer is made of; of no run and no baseline, that of the archive."""
        return await asyncio.to_thread(_state, self._folder, sides)


def _state(folder: Path | None, side: Side) -> FileState:
    if not side:
        return () if folder is None else archive_state(folder)
    return tuple(
        run_state(Path(place)) if kind == "run" else () if folder is None else baseline_state(folder, place)
        for kind, place in side
    )


def _dark(request: web.Request) -> bool:
    return request.query.get("theme") == "dark"


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise Unanswered(400, f"{name} is not a number")
    return int(text)


def _share(request: web.Request, name: str, usual: float) -> float:
    try:
        value = float(request.query.get(name, usual))
    except ValueError:
        value = -1.0
    if not 0.001 <= value <= 1:
        raise Unanswered(400, f"{name} is not a number from 0.001 to 1")
    return value
