"""One process computes for all: each thing once, whoever leaves, and whatever becomes of the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfyload.web import worker as module
from comfyload.web.worker import KEPT, MOST_WAITING, Busy, Worker
from tests.support.computing import HERE

pytestmark = pytest.mark.timeout(240)  # what is judged is judged in a process that gives way to others

NUMBER = f"{HERE}:number"


def using(body: Callable[[Worker], Awaitable[None]]) -> None:
    async def main() -> None:
        worker = Worker()
        try:
            await body(worker)
        finally:
            worker.close()

    asyncio.run(main())


def calls(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def test_a_thing_is_computed_once_however_many_ask(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def body(worker: Worker) -> None:
        answers = await asyncio.gather(*(worker.answer(NUMBER, str(log), 7) for _ in range(5)))
        again = await worker.answer(NUMBER, str(log), 7)
        assert {answer.body for answer in [*answers, again]} == {answers[0].body}
        assert json.loads(again.body)["value"] == 7
        assert calls(log) == ["7"]
        assert json.loads(again.body)["pid"] != os.getpid()

        not_kept = [await worker.answer(NUMBER, str(log), 8, keep=False) for _ in range(2)]
        assert [answer.status for answer in not_kept] == [200, 200] and calls(log) == ["7", "8", "8"]

    using(body)


def test_the_answers_used_last_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def body(worker: Worker) -> None:
        for value in range(KEPT):
            await worker.answer(NUMBER, str(log), value)
        await worker.answer(NUMBER, str(log), 0)  # used again: 1 is the oldest now
        await worker.answer(NUMBER, str(log), KEPT)
        assert len(calls(log)) == KEPT + 1
        await worker.answer(NUMBER, str(log), 0)
        assert len(calls(log)) == KEPT + 1
        await worker.answer(NUMBER, str(log), 1)
        assert calls(log)[-1] == "1" and len(calls(log)) == KEPT + 2

    using(body)


def test_a_large_answer_is_not_kept() -> None:
    async def body(worker: Worker) -> None:
        large = await worker.answer(f"{HERE}:large", module.LARGEST_KEPT)
        assert len(large.body) > module.LARGEST_KEPT
        small = await worker.answer(f"{HERE}:large", 10)
        assert list(worker._kept.values()) == [small]

    using(body)


@pytest.mark.long
def test_who_leaves_costs_nobody_the_answer(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def body(worker: Worker) -> None:
        await worker.start()
        leaving = asyncio.create_task(worker.answer(NUMBER, str(log), 1, 0.3))
        staying = asyncio.create_task(worker.answer(NUMBER, str(log), 1, 0.3))
        await asyncio.sleep(0.05)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        first = json.loads((await staying).body)
        assert first["value"] == 1 and calls(log) == ["1"]
        last = asyncio.create_task(worker.answer(NUMBER, str(log), 2, 0.2))
        await asyncio.sleep(0.05)
        last.cancel()
        second = json.loads((await worker.answer(NUMBER, str(log), 2, 0.2)).body)
        assert second["pid"] == first["pid"], "the process goes on"
        assert calls(log) == ["1", "2"]

    using(body)


def test_no_more_wait_than_there_is_room_for(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def body(worker: Worker) -> None:
        await worker.start()
        first = asyncio.create_task(worker.answer(NUMBER, str(log), 0, 0.3))
        others = [asyncio.create_task(worker.answer(NUMBER, str(log), n)) for n in range(1, MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await worker.answer(NUMBER, str(log), MOST_WAITING)
        same = asyncio.create_task(worker.answer(NUMBER, str(log), 5))
        await asyncio.gather(first, same, *others)
        assert len(calls(log)) == MOST_WAITING
        await worker.answer(NUMBER, str(log), MOST_WAITING)

    using(body)


def test_errors_are_answers_in_words() -> None:
    async def body(worker: Worker) -> None:
        refused = await worker.answer(f"{HERE}:refuse")
        assert (refused.status, json.loads(refused.body)) == (
            422,
            {"error": "that cannot be", "hint": "do it otherwise"},
        )
        assert (await worker.answer(f"{HERE}:absent")).status == 404
        with pytest.raises(RuntimeError, match="a mistake") as caught:
            await worker.answer(f"{HERE}:fail")
        assert "computing.py" in caught.value.__notes__[0], "and where it arose"
        with pytest.raises(RuntimeError, match="Odd: nobody can send it"):
            await worker.answer(f"{HERE}:fail_oddly")
        assert (await worker.answer(f"{HERE}:large", 3)).body == b'"xxx"'

    using(body)


def test_a_dead_process_is_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def body(worker: Worker) -> None:
        first = json.loads((await worker.answer(NUMBER, str(log), 1)).body)["pid"]
        os.kill(first, signal.SIGKILL)
        second = json.loads((await worker.answer(NUMBER, str(log), 2)).body)["pid"]
        assert second != first

        once = await worker.answer(f"{HERE}:die", str(tmp_path / "once"), 1)
        assert json.loads(once.body) == {"lives": True}, "what it was at is done again"
        twice = await worker.answer(f"{HERE}:die", str(tmp_path / "twice"), 2)
        assert twice.status == 500 and "died twice" in json.loads(twice.body)["error"]
        waiting = [
            asyncio.create_task(worker.answer(f"{HERE}:die", str(tmp_path / "third"), 9)),
            asyncio.create_task(worker.answer(NUMBER, str(log), 3)),
        ]
        died, fine = await asyncio.gather(*waiting)
        assert (died.status, fine.status) == (500, 200), "who waits behind it is spared"
        lives = await worker.answer(f"{HERE}:die", str(tmp_path / "twice"), 2)
        assert lives.status == 200, "such an answer is not kept"

    using(body)


def test_closing_ends_the_process_and_its_files(tmp_path: Path) -> None:
    async def main() -> Path:
        before = {child.pid for child in psutil.Process().children()}
        worker = Worker()
        pid = json.loads((await worker.answer(NUMBER, str(tmp_path / "log"), 1)).body)["pid"]
        task = asyncio.create_task(worker.answer(NUMBER, str(tmp_path / "log"), 2, 60.0))
        await asyncio.sleep(0.1)
        assert worker.folder.is_dir()
        worker.close()
        left = {child.pid for child in psutil.Process().children()} - before
        assert not left and not psutil.pid_exists(pid), "it is gone, not only told to go"
        with pytest.raises(asyncio.CancelledError):
            await task
        return worker.folder

    assert not asyncio.run(main()).exists()


def test_one_who_leaves_at_the_start_leaves_no_answer_behind(tmp_path: Path) -> None:
    async def body(worker: Worker) -> None:
        starting = asyncio.create_task(worker.start())
        await asyncio.sleep(0.05)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert json.loads((await worker.answer(NUMBER, str(tmp_path / "log"), 7)).body)["value"] == 7

    using(body)


def test_what_is_printed_is_no_answer(tmp_path: Path) -> None:
    async def body(worker: Worker) -> None:
        assert (await worker.answer(f"{HERE}:chatter")).body == b'"said"'
        assert json.loads((await worker.answer(NUMBER, str(tmp_path / "log"), 7)).body)["value"] == 7

    using(body)


def gone(pid: int, within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


KILLED = f"""
import asyncio, json, sys, time
from comfyload.web.worker import Worker

async def main():
    worker = Worker()
    answer = await worker.answer("{NUMBER}", sys.argv[1], 1)
    print(json.loads(answer.body)["pid"], flush=True)
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


@contextmanager
def server(*words: str) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_process_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(KILLED)
    with server(str(tmp_path / "server.py"), str(tmp_path / "log")) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
        assert gone(pid)


def test_ctrl_c_is_for_the_server(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def body(worker: Worker) -> None:
        pid = json.loads((await worker.answer(NUMBER, str(log), 1)).body)["pid"]
        os.kill(pid, signal.SIGINT)
        assert json.loads((await worker.answer(NUMBER, str(log), 2)).body)["pid"] == pid

    using(body)


def test_tags_differ_by_what_is_computed_and_by_server() -> None:
    async def body(worker: Worker) -> None:
        tags = [worker.tag(NUMBER, "x", 1), worker.tag(NUMBER, "x", 2), worker.tag(f"{HERE}:die", "x", 1)]
        other = Worker()
        tags.append(other.tag(NUMBER, "x", 1))
        other.close()
        assert len(set(tags)) == 4
        assert worker.tag(NUMBER, "x", 1) == tags[0]

    using(body)


def test_the_server_itself_loads_nothing_heavy() -> None:
    """A run with `--ui` must not pay for charts and statistics."""
    heavy: Any = ("altair", "vl_convert", "scipy", "jinja2")
    code = f"import comfyload.web.results, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
