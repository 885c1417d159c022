"""Results over HTTP: Pages, pictures, comparisons, trends and baselines of real runs, as a tab reads them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec import structs

from comfyload.record.lock import alone_in
from comfyload.record.run import RunReader, RunWriter
from comfyload.web.results import Results
from comfyload.web.worker import Worker
from tests.support.commands import call
from tests.support.rig import sleeper
from tests.support.servers import simulator
from tests.unit.judge_runs import failed, job, manifest, one_by_one

RAN = (0, 5)
UI = "/comfyload/ui"


class Tab:
    """A tab that asks a server for what lies in a folder of runs and an archive."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self.folder = folder
        self.changed: list[Path] = []
        self._runner = runner
        runner.run(self._open())

    async def _open(self) -> None:
        self.worker = Worker()
        self.results = Results(self._find, self.folder / "archive", self.worker, self.changed.append)
        app = web.Application()
        for method, path, handler in self.results.routes():
            app.router.add_route(method, path, handler)
        self.client: TestClient[Any, Any] = TestClient(TestServer(app))
        await self.client.start_server()

    def close(self) -> None:
        self.worker.close()
        self._runner.run(self.client.close())

    def _find(self, run_id: str) -> Path | None:
        return {run: self.folder / run for run in ("one", "two", "slow", "a/01", "odd")}.get(run_id)

    def get(self, path: str, status: int = 200, **headers: str) -> tuple[bytes, Any]:
        async def ask() -> tuple[bytes, Any]:
            async with self.client.get(_url(path), headers=headers) as response:
                content = await response.read()
                assert response.status == status, content
                return content, response.headers

        return self._runner.run(ask())

    def read(self, path: str, status: int = 200) -> dict[str, Any]:
        content, _ = self.get(path, status)
        found: dict[str, Any] = json.loads(content)
        return found

    def post(self, path: str, body: Any, status: int = 200) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            async with self.client.post(_url(path), data=content) as response:
                assert response.status == status, await response.text()
                return dict(await response.json())

        return self._runner.run(ask())

    def live(self, path: Path) -> dict[str, Any]:
        return self._runner.run(self.results.live_summary(path))

    def sleep(self, seconds: float) -> None:
        self._runner.run(asyncio.sleep(seconds))


def _url(path: str) -> Any:
    from yarl import URL

    return URL(f"{UI}/{path}", encoded=True)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Two runs of 24 jobs on a simulated server, and one of a slower workflow."""
    folder = tmp_path_factory.mktemp("runs")
    with simulator(speed=1) as url:
        for name, seconds in (("one", 0.04), ("two", 0.04), ("slow", 0.08)):
            (folder / f"{name}.json").write_text(json.dumps(sleeper(seconds)), encoding="utf-8")
            words = ["-n", "24", "--warmup", "1", "--run-dir", name, "--name", "sleeper", "-q", "--timeout", "30"]
            done = call("run", "--server", url, "--workflow", f"{name}.json", *words, cwd=folder)
            assert done.returncode in RAN, done.stderr
    (folder / "a").mkdir()
    shutil.copytree(folder / "one", folder / "a" / "01")
    with asyncio.Runner() as runner:
        opened = Tab(folder, runner)
        yield opened
        opened.close()


def test_try(tab: Tab) -> None:
    out = Path("/tmp/w3")
    for name, path in {
        "page": "runs/one/page",
        "csv": "runs/one/jobs.csv",
        "json": "runs/one/jobs.json",
        "compare": "compare?a=one&b=two",
        "environment": "environment?a=one&b=two",
        "trend": "trend?run=one&run=two&run=slow",
        "archive": "archive",
    }.items():
        (out / name).write_bytes(tab.get(path)[0])
    (out / "refused").write_bytes(tab.get("compare?a=one&b=slow", 409)[0])
    for theme in ("light", "dark"):
        for chart in tab.read("runs/one/page")["charts"]:
            if not chart["withheld"]:
                (out / f"{chart['name']}-{theme}.svg").write_bytes(
                    tab.get(f"runs/one/charts/{chart['name']}.svg?theme={theme}")[0]
                )
    (out / "live").write_text(json.dumps(tab.live(tab.folder / "one"), indent=1))
    (out / "saved").write_text(json.dumps(tab.post("archive", {"runs": ["one"], "name": "first"}, 201)))
    (out / "archive2").write_bytes(tab.get("archive")[0])
