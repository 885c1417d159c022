"""What a person may do with a run: stop it, and have jobs of it sent once more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from comfyload.app.run.again import check_again, needing_attention, runs_again
from comfyload.comfy.address import redacted
from comfyload.gateway.fleet import ServerConfig
from comfyload.record.codec import UNREADABLE
from comfyload.record.lock import held_by
from comfyload.web.answers import Refused, Route, answer
from comfyload.web.processes import Processes, begun

if TYPE_CHECKING:
    from comfyload.web.folder import RunEntry
    from comfyload.web.follow import RunFollower
    from comfyload.web.runs import Runs

MOST_NAMED = 1_000
"""Jobs that one call names; more are sent again by "failed"."""


class _Again(Struct, frozen=True, forbid_unknown_fields=True):
    """`jobs`: by their indexes, or all that need attention; `book`: of these, the pages of that book."""

    jobs: list[int] | Literal["failed"]
    book: int | None = None


class Actions:
    """The handlers. `servers`: those that are configured, for the secrets that a run directory does not keep."""

    def __init__(self, runs: Runs, processes: Processes, servers: Sequence[ServerConfig]) -> None:
        self._runs = runs
        self._processes = processes
        self._servers = servers

    def routes(self, ui: str) -> list[Route]:
        return [("POST", f"{ui}/runs/{{id}}/stop", self._stop), ("POST", f"{ui}/runs/{{id}}/again", self._again)]

    async def _stop(self, request: web.Request) -> web.Response:
        entry = await self._runs.find(request.match_info["id"])
        if not entry.running:
            raise Refused(409, "the run has ended")
        if self._processes.stop(entry.id):
            return answer({"stopping": entry.id})
        held = held_by(entry.path)
        where = f" (process {held.pid} on {held.host})" if held is not None else ""
        raise Refused(409, "the run was not begun from this page", f"press Ctrl-C where it runs{where}")

    async def _again(self, request: web.Request) -> web.Response:
        entry = await self._runs.find(request.match_info["id"])
        given = _decoded(await request.read())
        jobs = given.jobs
        if jobs != "failed" and not 0 < len(jobs) <= MOST_NAMED:
            raise Refused(400, f"name from 1 to {MOST_NAMED} jobs, or all with failed")
        check_again(entry.path, entry.manifest)
        wanted = sorted(set(jobs)) if jobs != "failed" else await asyncio.to_thread(needing_attention, entry.path)
        if given.book is not None:
            pages = await self._runs.look(entry, partial(_pages, book=given.book))
            wanted = [index for index in wanted if index in pages]
        if not wanted:
            of = "job of the run" if given.book is None else "page of the book"
            raise Refused(409, f"no {of} needs attention")
        run_id = entry.manifest.run_id
        before = {later.path.name for later in await asyncio.to_thread(runs_again, entry.path, run_id)}

        def made() -> str | None:
            later = [each.path.name for each in runs_again(entry.path, run_id) if each.path.name not in before]
            return later[0] if later else None

        every = jobs == "failed" and given.book is None
        named = [] if every else [word for index in wanted for word in ("--job", str(index))]
        words = ["again", str(entry.path.absolute()), "--quiet", *named]
        name, process = await begun(words, made, self._secrets(entry))
        new = str(PurePosixPath(entry.id).with_name(name))
        self._processes.hold(new, process)
        return answer({"run": new, "jobs": wanted}, 201)

    def _secrets(self, entry: RunEntry) -> dict[str, str]:
        """Values of the headers of the run's server, under the names of variables that a plan gives them."""
        server = next((one for one in self._servers if redacted(one.url) == entry.manifest.server.url), None)
        headers = {} if server is None else server.headers
        return {re.sub(r"\W", "_", name.strip()).upper(): value for name, value in headers.items()}


def _pages(follower: RunFollower, book: int) -> set[int]:
    """The indexes of a book's pages."""
    return set(follower.jobs.index[follower.jobs.book == book].tolist())


def _decoded(body: bytes) -> _Again:
    try:
        return msgspec.json.decode(body, type=_Again)
    except UNREADABLE:
        raise Refused(400, 'write {"jobs": [1, 2]}, {"jobs": "failed"} or {"jobs": "failed", "book": 3}') from None
