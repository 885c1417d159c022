"""What a tab reads of runs: Page, pictures, jobs as files, and where a run that goes on stands."""

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import web
from msgspec import Struct

from comfyload.gateway.http import Route
from comfyload.judge.columns.ledger import clean
from comfyload.web.archive import Archive
from comfyload.web.file_state import FileState, run_state
from comfyload.web.label import label_of, write_label
from comfyload.web.reply import UI, Unanswered, answered, body_of, has, not_modified, send, tagged
from comfyload.web.worker import KEPT, Busy, Worker, refusal

Find = Callable[[str], Path | None]
"""The directory of a run by its id; None: no such run was found."""

_RUN, _CHART, _LIVE = (f"comfyload.web.run_views:{name}_answer" for name in ("run", "chart", "live"))
_JOBS = "comfyload.web.job_files:jobs_answer"
FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/json; charset=utf-8"}
"""Of files of jobs."""
_BLOCK = 1 << 18
_FILES = 4
_NOT_IN_NAMES = re.compile("[^A-Za-z0-9._-]+")

THROTTLE = 10
"""A run that goes on is measured no sooner than so many times what the last time took."""

_NO_LISTS: dict[str, Any] = {name: [] for name in ("states", "tiles", "bars", "gates", "remarks", "nodes", "errors")}


class Standing(Struct, kw_only=True):
    """Where a run stood. `state`: of the files it was made of; `due`: when it may be computed again."""

    found: dict[str, Any]
    state: FileState
    due: float


class Results:
    """`archive` None: there is no folder of baselines. `exporter`: writes jobs as files, which takes long, and a page
    must not wait for it. `changed`: called with a run's directory when what `live_summary` gives of it has changed.
    """

    def __init__(
        self,
        find: Find,
        archive: Path | None,
        worker: Worker,
        exporter: Worker,
        changed: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self._find = find
        self._worker = worker
        self._exporter = exporter
        self._changed = changed
        self._live: OrderedDict[Path, Standing] = OrderedDict()
        self._measuring: dict[Path, asyncio.Task[dict[str, Any]]] = {}
        self._archive = Archive(self.path_of, archive, worker)

    def routes(self) -> list[Route]:
        run = f"{UI}/runs/{{id}}"
        return [
            ("GET", f"{run}/page", answered(self._page)),
            ("GET", f"{run}/charts/{{name}}.svg", answered(self._chart)),
            *(("GET", f"{run}/jobs.{kind}", answered(self._jobs)) for kind in FORMATS),
            ("POST", f"{run}/label", answered(self._label)),
            *self._archive.routes(),
        ]

    def path_of(self, run_id: str) -> Path:
        """The directory of a run that was found."""
        path = self._find(run_id)
        if path is None:
            raise Unanswered(404, f"there is no run {clean(run_id, 200)!r}", "it may have been moved or removed")
        return path

    # --- one run

    async def _page(self, request: web.Request) -> web.StreamResponse:
        run_id = request.match_info["id"]
        path = self.path_of(run_id)
        state = await asyncio.to_thread(run_state, path)
        label = await asyncio.to_thread(label_of, path)
        return await tagged(request, self._worker, _RUN, str(path), state, run_id, label)

    async def _chart(self, request: web.Request) -> web.StreamResponse:
        path = self.path_of(request.match_info["id"])
        state = await asyncio.to_thread(run_state, path)
        name, dark = request.match_info["name"], request.query.get("theme") == "dark"
        return await tagged(request, self._worker, _CHART, str(path), state, name, dark)

    async def _label(self, request: web.Request) -> web.StreamResponse:
        run_id = request.match_info["id"]
        path, text = self.path_of(run_id), (await body_of(request)).get("label")
        if not isinstance(text, str):
            raise Unanswered(422, "the label is not a text", 'write {"label": "after the update"}')
        label = await asyncio.to_thread(write_label, path, text)
        self._changed(path)
        return web.json_response({"id": run_id, "label": label})

    async def _jobs(self, request: web.Request) -> web.StreamResponse:
        """The jobs that the filter leaves, as a file. Some of the last files are kept."""
        exporter, run_id, kind = self._exporter, request.match_info["id"], request.path.rpartition(".")[2]
        path = self.path_of(run_id)
        state = await asyncio.to_thread(run_state, path)
        query = tuple(sorted(request.query.items()))
        tag = exporter.tag(_JOBS, str(path), kind, query, state)
        if has(request, tag):
            return not_modified(tag)
        file = exporter.folder / f"{tag}.{kind}"
        content = await asyncio.to_thread(_opened, file)
        if content is None:
            answer = await exporter.answer(_JOBS, str(path), kind, query, str(file), keep=False)
            content = await asyncio.to_thread(_opened, file)
            if content is None:
                return send(answer if answer.status != 200 else refusal(503, "the file went too soon", "try again"))
            await asyncio.to_thread(_remove_old, exporter.folder)
        with content:
            response = web.StreamResponse(headers=self._head_of_file(run_id, kind))
            response.etag = tag
            await response.prepare(request)
            while block := await asyncio.to_thread(content.read, _BLOCK):
                await response.write(block)
            await response.write_eof()
            return response

    @staticmethod
    def _head_of_file(run_id: str, kind: str) -> dict[str, str]:
        name = _NOT_IN_NAMES.sub("_", run_id)[-100:]
        return {
            "Content-Type": FORMATS[kind],
            "Content-Disposition": f'attachment; filename="{name}-jobs.{kind}"',
            "Cache-Control": "private, no-cache",
        }

    # --- where a run stands

    async def live_summary(self, path: Path) -> dict[str, Any]:
        """Tiles, gates, remarks, nodes and errors of what is there of a run so far; `as_of_s`: until when they count.

        Only the first call for a run waits for the measurement. Later ones have what is known, and a new measurement
        begins if the files have changed and the last one is long enough ago; `changed` tells when it is there.
        """
        known = self._live.get(path)
        if known is None:
            return await asyncio.shield(self._measure(path))
        self._live.move_to_end(path)
        if time.monotonic() >= known.due and path not in self._measuring:
            state = await asyncio.to_thread(run_state, path)
            if state != known.state:
                self._measure(path)
        return known.found

    def _measure(self, path: Path) -> asyncio.Task[dict[str, Any]]:
        """The measurement that is under way, or a new one."""
        task = self._measuring.get(path)
        if task is None:
            task = self._measuring[path] = asyncio.create_task(self._measured(path))
            task.add_done_callback(lambda _: self._measuring.pop(path, None))
        return task

    async def _measured(self, path: Path) -> dict[str, Any]:
        state = await asyncio.to_thread(run_state, path)
        try:
            answer = await self._worker.answer(_LIVE, str(path), state)
        except Busy:
            answer = refusal(503, "too much is being computed at this moment")
        found: dict[str, Any] = json.loads(answer.body)
        if answer.status != 200:
            found = {"as_of_s": None, **_NO_LISTS, "problem": ": ".join(filter(None, [found["error"], found["hint"]]))}
        before = self._live.get(path)
        self._live[path] = Standing(found=found, state=state, due=time.monotonic() + THROTTLE * answer.took_s)
        while len(self._live) > KEPT:
            self._live.popitem(last=False)
        if before is None or before.found != found:
            self._changed(path)
        return found


def _opened(file: Path) -> BinaryIO | None:
    try:
        return file.open("rb")
    except OSError:
        return None


def _remove_old(folder: Path) -> None:
    """Keep the last few files."""
    ages = []
    for file in folder.iterdir():
        with suppress(OSError):
            ages.append((file.stat().st_mtime_ns, file))
    for _, file in sorted(ages)[:-_FILES]:
        with suppress(OSError):  # Windows keeps one that is being sent
            file.unlink()
