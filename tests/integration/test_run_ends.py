"""Whatever ends a run: our prompts leave the server, and what was measured is kept."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from comfyload.app.run.launch import run
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.resume import cleanup, resume
from comfyload.app.run.viewer import Viewer
from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.errors import OwnFault, RunFilesError
from comfyload.record.lock import alone_in
from comfyload.record.model import Line, Record
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RunReader
from comfyload.sim import Server
from tests.integration.test_cli import graph_file
from tests.support.rig import sleeper
from tests.support.servers import in_thread


def options(folder: Path, url: str, seconds: float = 0.1, retry: str | None = None) -> RunOptions:
    return RunOptions(
        server=url,
        workflows=[WorkflowChoice(file=graph_file(folder, sleeper(seconds)))],
        plan=Plan(load=Closed(concurrency=4), jobs=20),
        run_dir=str(folder / "run"),
        telemetry=False,
        policy=retry,
    )


def queue(server: Server) -> Any:
    reply = asyncio.run(server.call(Request(method="GET", path="queue")))
    return json.loads(reply.body)


EMPTY: dict[str, list[Any]] = {"queue_running": [], "queue_pending": []}


class FullDisk:
    """No room from the n-th line of the journal on; a part of that line still fits."""

    def __init__(self, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = after
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: Any) -> int:
        if bytes(data[:9]) == b'{"line":"' or self.left < 0:
            self.left -= 1
        if self.left > 0:
            return self._write(descriptor, data)
        if self.left == 0 and len(data) > 20:
            return self._write(descriptor, data[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("after", "retry"),
    [(12, None), (7, '{"attempts": 3}')]
    + [pytest.param(*rest, marks=pytest.mark.long) for rest in ((7, None), (12, '{"attempts": 3}'))],
)
def test_a_full_disk_is_one_line_and_leaves_nothing_on_the_server(
    after: int, retry: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if retry is not None:
        (tmp_path / "retry.json").write_text(retry, encoding="utf-8")
    with in_thread(lambda: Server(speed=1)) as (url, server):
        given = options(tmp_path, url, retry=None if retry is None else str(tmp_path / "retry.json"))
        with monkeypatch.context() as patched:
            FullDisk(after, patched)
            with pytest.raises(RunFilesError) as caught:
                asyncio.run(run(given, Viewer()))
        assert caught.value.exit_code == 2
        assert caught.value.message == f"cannot go on writing to {tmp_path / 'run'}: no space left on device"
        assert f"comfyload resume {tmp_path / 'run'}" in caught.value.hint
        assert not getattr(caught.value, "__notes__", [])
        assert queue(server) == EMPTY
        lines = list(RunReader(tmp_path / "run").lines())
        assert len(lines) == after - 1
        assert (tmp_path / "run" / "records.ndjson").read_bytes().endswith(b"\n")
        assert asyncio.run(resume(tmp_path / "run", RunOptions(), Viewer()))
    records = [line for line in RunReader(tmp_path / "run").lines() if isinstance(line, Record)]
    assert sorted(record.index for record in records) == list(range(20))


class Broken(Viewer):
    """A viewer with a mistake in it."""

    def __init__(self) -> None:
        self.lines = 0

    def line(self, line: Line) -> None:
        self.lines += 1
        if self.lines == 9:
            raise ZeroDivisionError


def test_a_mistake_of_ours_is_a_crash_and_leaves_nothing_on_the_server(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, server):
        with pytest.raises(OwnFault) as caught:
            asyncio.run(run(options(tmp_path, url), Broken()))
        assert caught.value.run == tmp_path / "run"
        assert isinstance(caught.value.cause, BaseExceptionGroup)
        assert caught.value.cause.subgroup(ZeroDivisionError)
        assert queue(server) == EMPTY
        assert RunReader(tmp_path / "run").manifest.end == "crashed"
        assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.long
def test_what_could_not_be_taken_off_is_said_with_the_line_that_does_it(tmp_path: Path) -> None:
    def deaf(server: Server) -> Server:
        """It takes prompts, and nothing that takes them back."""
        plain = server.call

        async def call(request: Request) -> Reply:
            if request.method == "POST" and request.path != "prompt":
                raise TransportError("no", sent=True)
            return await plain(request)

        server.call = call  # type: ignore[method-assign]
        return server

    with in_thread(lambda: deaf(Server(speed=1))) as (url, _):
        with pytest.raises(OwnFault) as caught:
            asyncio.run(run(options(tmp_path, url, seconds=3.0), Broken()))
        assert caught.value.__notes__ == [
            f"Prompts of this run may still be on the server. To remove them: comfyload cleanup {tmp_path / 'run'}"
        ]


@pytest.mark.parametrize("verb", ["resume", "cleanup", "run"])
def test_nobody_else_works_in_the_directory_of_a_run_under_way(verb: str, tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=100)) as (url, server):
        asyncio.run(run(options(tmp_path, url), Viewer()))
        posts = len(server.posts)
        works: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "resume": lambda: resume(tmp_path / "run", RunOptions(), Viewer()),
            "cleanup": lambda: cleanup(tmp_path / "run", RunOptions()),
            "run": lambda: run(options(tmp_path, url), Viewer()),
        }
        with alone_in(tmp_path / "run"), pytest.raises(RunFilesError, match="is in use: process"):
            asyncio.run(works[verb]())
        assert len(server.posts) == posts
