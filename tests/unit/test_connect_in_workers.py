"""A connection as workers use it: forks, deadlines that hold whatever hangs, servers that come later, keys."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

import comfyload
from comfyload.comfy.http import Http
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.errors import ComfyloadError, JobFailed, NotComfyUI, NotLetIn, UsageError
from comfyload.record.model import Execution, Failure
from comfyload.record.policy import Policy
from comfyload.retry.policy import default
from comfyload.sim import Faults, Server, Which
from comfyload.sim.http import serve
from tests.support.rig import SLEEPER
from tests.support.servers import answering, in_thread

FORKS = """
import asyncio, os, sys, time
import comfyload
from comfyload.errors import UsageError
from tests.support.rig import SLEEPER

def child(call):
    try:
        call()
    except UsageError as error:
        print(error, flush=True)

url, kind = sys.argv[1:]
if kind == "threads":
    with comfyload.connect(url) as comfy:
        execution = comfy.run(SLEEPER)
        pid = os.fork()
        if pid == 0:
            child(lambda: comfy.run(SLEEPER, deadline_s=60))
            child(lambda: comfy.fetch(execution))
        else:
            os.waitpid(pid, 0)
            print(comfy.run(SLEEPER, seed=2).end_source, flush=True)
else:
    async def main():
        async with comfyload.connect(url) as comfy:
            execution = await comfy.run(SLEEPER)
            pid = os.fork()
            if pid == 0:
                child(lambda: asyncio.run(comfy.run(SLEEPER)))
                child(lambda: asyncio.run(comfy.fetch(execution)))
                os._exit(0)
            os.waitpid(pid, 0)
            print((await comfy.run(SLEEPER, seed=2)).end_source, flush=True)
    asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("kind", ["threads", "loop"])
def test_a_forked_process_is_refused_and_its_parent_goes_on(kind: str) -> None:
    with in_thread(lambda: Server(speed=20)) as (url, server):
        command = [sys.executable, "-c", FORKS, url, kind]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
        assert len(said) == 3 and said[2] == "events"
        assert all("before it forked (open it in the worker, after the fork)" in line for line in said[:2])
        assert sum(server.posts.values()) == 2


def test_a_connection_of_another_loop_is_refused() -> None:
    with in_thread(Server) as (url, _):

        async def main() -> None:
            async with comfyload.connect(url) as comfy:
                with pytest.raises(UsageError, match="another event loop"):
                    await asyncio.to_thread(lambda: asyncio.run(comfy.run(SLEEPER)))

        asyncio.run(main())


@contextmanager
def silent(patch: pytest.MonkeyPatch, where: str) -> Iterator[None]:
    """Calls of such paths are never answered."""
    real = Http.call

    async def call(self: Http, request: Request) -> Reply:
        if where in request.path:
            await asyncio.sleep(1e5)
        return await real(self, request)

    with patch.context() as within:
        within.setattr(Http, "call", call)
        yield


def limits(patch: pytest.MonkeyPatch, **seconds: float) -> None:
    for name, value in seconds.items():
        for module in ("async_comfy", "connect"):
            patch.setattr(f"comfyload.app.library.{module}.{name}", value, raising=False)


@pytest.mark.parametrize("where", ["", "prompt", "object_info", "history"])
def test_a_deadline_holds_whatever_a_server_does_not_answer(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, SLACK_S=0.2, LEAVE_S=0.5)
    doubtful = SLEEPER | {"9": {"class_type": "ImageInvert", "inputs": {"image": ["77", 0]}}}
    with in_thread(Server) as (url, _), comfyload.connect(url) as comfy, silent(monkeypatch, where):
        began = time.monotonic()
        assert comfy.run(doubtful, deadline_s=0.5).outcome in ("timed_out", "failed")
        assert time.monotonic() - began < 1.5


def test_a_file_that_does_not_come_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, SLACK_S=0.2)
    with in_thread(Server) as (url, _), comfyload.connect(url) as comfy:
        execution = comfy.run(SLEEPER)
        with silent(monkeypatch, "view"), pytest.raises(ComfyloadError, match=r"did not come within 0\.3 s"):
            comfy.fetch(execution, deadline_s=0.3)
        assert len(comfy.fetch(execution)) == 1


def test_a_deadline_holds_though_the_thread_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, SLACK_S=0.2)
    free = threading.Event()
    with in_thread(Server) as (url, _), comfyload.connect(url) as comfy:
        began = time.monotonic()
        execution = comfy.run(SLEEPER, deadline_s=0.5, on_event=lambda _: free.wait(20))
        assert execution.outcome == "timed_out" and "did not answer" in str(execution.failure)
        assert time.monotonic() - began < 1.5
        free.set()
        assert comfy.run(SLEEPER, seed=2).outcome == "completed"


def test_a_call_from_its_own_thread_is_refused_and_not_waited_for() -> None:
    said: list[str] = []

    def on_event(_: object) -> None:
        try:
            comfy.run(SLEEPER)
        except UsageError as error:
            said.append(str(error))

    with in_thread(Server) as (url, _), comfyload.connect(url) as comfy:
        assert comfy.run(SLEEPER, on_event=on_event).outcome == "completed"
    assert said and "its own thread" not in said[0] and "own thread" in said[0]


def test_a_thread_that_has_ended_is_said() -> None:
    with in_thread(Server) as (url, _):
        comfy = comfyload.connect(url).__enter__()
        comfy._thread.close(5.0)
        with pytest.raises(ComfyloadError, match="thread has ended"):
            comfy.run(SLEEPER)


def test_leaving_takes_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    limits(monkeypatch, SLACK_S=0.2, LEAVE_S=0.5)
    with in_thread(Server) as (url, _):
        connection = comfyload.connect(url)
        comfy = connection.__enter__()
        with silent(monkeypatch, "api/jobs"):
            comfy.run(SLEEPER, set={"2.seconds": 30.0}, deadline_s=0.3)
            began = time.monotonic()
            connection.__exit__()
        assert time.monotonic() - began < 2.0 and "may still be on the servers" in caplog.text


def test_with_a_policy_jobs_wait_for_a_server_that_is_being_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyload.app.library.async_comfy.TRY_AGAIN_S", (0.05,))

    async def main() -> None:
        async with Server(speed=20) as server:
            async with serve(server) as url:
                pass  # The port is free again, and known.
            async with comfyload.connect(url, default(30.0)) as comfy:
                assert list(comfy.left_out) == [url]
                running = [asyncio.create_task(comfy.run(SLEEPER, seed=seed)) for seed in range(2)]
                await asyncio.sleep(0.2)
                async with serve(server, port=urlsplit(url).port or 0):
                    assert {(await job).outcome for job in running} == {"completed"}
                    assert not comfy.left_out

    asyncio.run(main())


def test_a_job_for_which_no_server_came_says_so() -> None:
    with comfyload.connect("http://127.0.0.1:9", Policy()) as comfy:
        execution = comfy.run(SLEEPER, deadline_s=0.3)
        assert execution.outcome == "failed" and execution.failure is not None and execution.failure.kind == "connect"
        assert "connection refused" in execution.failure.message
        with pytest.raises(ComfyloadError, match="no server has answered"):
            comfy.fetch(execution)


def test_leaving_ends_jobs_that_wait_for_a_server() -> None:
    ended: list[Execution] = []
    with comfyload.connect("http://127.0.0.1:9", default(30.0)) as comfy:
        waiting = threading.Thread(target=lambda: ended.append(comfy.run(SLEEPER)))
        waiting.start()
        time.sleep(0.1)
    waiting.join(5)
    assert [execution.outcome for execution in ended] == ["cancelled"]


@pytest.mark.parametrize(("status", "error"), [(404, NotComfyUI), (401, NotLetIn)])
def test_what_waiting_cannot_mend_is_raised_at_once(status: int, error: type[Exception]) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status)

    with answering(handler) as url, pytest.raises(error), comfyload.connect(url, default(30.0)):
        raise AssertionError


# --- keys


def test_a_job_of_the_same_key_is_followed_and_not_sent_again() -> None:
    with in_thread(Server) as (url, server):
        with comfyload.connect(url) as comfy:
            first = comfy.run(SLEEPER, key="order 7")
        with comfyload.connect(url) as comfy:
            again = comfy.run(SLEEPER, key="order 7")
            other = comfy.run(SLEEPER, key="order 8", seed=2)
        assert {first.outcome, again.outcome, other.outcome} == {"completed"} and first.outputs == again.outputs
        assert sum(server.posts.values()) == 2


def test_calls_with_one_key_on_one_connection_are_one_job() -> None:
    async def ask(url: str) -> list[str]:
        async with comfyload.connect(url) as comfy, asyncio.timeout(20):
            same = [comfy.run(SLEEPER, key="k", seed=1) for _ in range(3)]
            return [execution.outcome for execution in await asyncio.gather(*same)]

    with in_thread(Server) as (url, server):
        assert asyncio.run(ask(url)) == ["completed"] * 3
        assert sum(server.posts.values()) == 1


def test_a_call_whose_key_is_under_way_until_its_deadline_sends_nothing() -> None:
    async def ask(url: str) -> tuple[Execution, Execution]:
        async with comfyload.connect(url) as comfy, asyncio.timeout(20):
            long = comfy.run(SLEEPER, set={"2.seconds": 2.0}, key="k", seed=1)
            return await asyncio.gather(long, comfy.run(SLEEPER, key="k", seed=1, deadline_s=0.5))

    with in_thread(Server) as (url, server):
        first, second = asyncio.run(ask(url))
        assert (first.outcome, second.outcome) == ("completed", "timed_out")
        assert second.failure is not None and "another call with its key" in second.failure.message
        assert sum(server.posts.values()) == 1


def test_a_key_that_is_no_text_is_refused() -> None:
    with in_thread(Server) as (url, _), comfyload.connect(url) as comfy, pytest.raises(UsageError, match="key"):
        comfy.run(SLEEPER, key="\udce9")


def test_a_job_that_runs_for_a_worker_that_died_is_followed() -> None:
    with in_thread(Server) as (url, server):
        script = f"import comfyload; comfyload.connect({url!r}).__enter__().run({SLEEPER | {}!r}, key='k', seed=1)"
        script = script.replace("'seconds': 0.1", "'seconds': 1.0")
        with subprocess.Popen([sys.executable, "-c", script]) as worker:
            while not sum(server.posts.values()):
                time.sleep(0.02)
            worker.kill()
        with comfyload.connect(url) as comfy:
            assert comfy.run(SLEEPER, set={"2.seconds": 1.0}, seed=1, key="k").outcome == "completed"
        assert sum(server.posts.values()) == 1


def test_a_job_that_failed_or_was_stopped_is_run_again_under_its_key() -> None:
    faults = Faults(node_error=Which(at=(1,)), error_type="ValueError")
    with in_thread(lambda: Server(faults=faults)) as (url, server), comfyload.connect(url) as comfy:
        assert comfy.run(SLEEPER, key="k").outcome == "failed"
        assert comfy.run(SLEEPER, key="k", set={"2.seconds": 2.0}, deadline_s=0.3).outcome == "timed_out"
        assert comfy.run(SLEEPER, key="k").outcome == "completed"
        assert comfy.run(SLEEPER, key="k").outcome == "completed"
        assert sum(server.posts.values()) == 3 and sum(t.outcome == "completed" for t in server.truth) == 1


# --- what fails


def test_an_error_carries_what_happened_also_between_processes() -> None:
    failure = Failure(kind="oom", node_class="KSampler", message="no memory")
    with pytest.raises(JobFailed) as raised:
        Execution(outcome="failed", failure=failure).raise_for_failure()
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert error.kind == "oom" and error.failure == failure and error.execution.outcome == "failed"
        assert str(error) == str(raised.value)
    with pytest.raises(JobFailed) as raised:
        Execution(outcome="lost").raise_for_failure()
    assert raised.value.kind is None and raised.value.failure is None
