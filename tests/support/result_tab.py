"""A tab that asks for results over HTTP, of the runs that lie in a folder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from comfyload.web.folder import RunFolder
from comfyload.web.results import Results
from comfyload.web.worker import Worker

UI = "/comfyload/ui"


class Tab:
    """`changed`: runs of which where they stand has changed."""

    def __init__(self, folder: Path, archive: Path | None, runner: asyncio.Runner, worker: Worker) -> None:
        self.folder = folder
        self.worker = worker
        self.changed: list[Path] = []
        self._runs = RunFolder(folder, archive)
        self._runner = runner
        runner.run(self._open(archive))

    async def _open(self, archive: Path | None) -> None:
        self.results = Results(self._find, archive, self.worker, self.worker, self.changed.append)
        app = web.Application()
        for method, path, handler in self.results.routes():
            app.router.add_route(method, path, handler)
        self._client: TestClient[Any, Any] = TestClient(TestServer(app))
        await self._client.start_server()

    def close(self) -> None:
        self._runner.run(self._client.close())

    def _find(self, run_id: str) -> Path | None:
        self._runs.scan()
        entry = self._runs.find(run_id)
        return None if entry is None else entry.path

    def get(self, path: str, status: int = 200, **headers: str) -> tuple[bytes, Any]:
        """Body and headers of what is there."""

        async def ask() -> tuple[bytes, Any]:
            async with self._client.get(_url(path), headers=headers) as response:
                content = await response.read()
                assert response.status == status, content
                return content, response.headers

        return self._runner.run(ask())

    def read(self, path: str, status: int = 200) -> dict[str, Any]:
        """The JSON that is there."""
        found: dict[str, Any] = json.loads(self.get(path, status)[0])
        return found

    def post(self, path: str, body: Any, status: int = 200) -> dict[str, Any]:
        """What the server answers; `body` is bytes, or becomes JSON."""

        async def ask() -> dict[str, Any]:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            async with self._client.post(_url(path), data=content) as response:
                assert response.status == status, await response.text()
                return dict(await response.json())

        return self._runner.run(ask())

    def live(self, path: Path) -> dict[str, Any]:
        return self._runner.run(self.results.live_summary(path))

    def sleep(self, seconds: float) -> None:
        self._runner.run(asyncio.sleep(seconds))


@contextmanager
def working() -> Iterator[tuple[asyncio.Runner, Worker]]:
    """A loop and a worker, for several tabs one after the other."""
    with asyncio.Runner() as runner:
        worker = runner.run(_worker())
        try:
            yield runner, worker
        finally:
            worker.close()
            runner.run(asyncio.sleep(0))  # what was under way is cancelled


@contextmanager
def opened(folder: Path, archive: Path | None, runner: asyncio.Runner, worker: Worker) -> Iterator[Tab]:
    tab = Tab(folder, archive, runner, worker)
    try:
        yield tab
    finally:
        tab.close()


async def _worker() -> Worker:
    return Worker()


def _url(path: str) -> URL:
    return URL(f"{UI}/{path}", encoded=True)
