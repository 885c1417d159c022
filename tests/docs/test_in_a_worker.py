"""The programs of docs/how-to/in-a-worker.md, run by the real thing: RQ, Celery and uvicorn, on a real Redis.

The ComfyUI under them is the simulator, in a process that is killed and started again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "how-to" / "in-a-worker.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^<!-- file (\S+) -->\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these workers need a fork"),
    pytest.mark.skipif(not shutil.which("redis-server"), reason="apt-get install redis-server"),
    pytest.mark.skipif(not all(map(find_spec, ("rq", "celery", "fastapi"))), reason="rq, celery or fastapi is missing"),
]


class Farm:
    """Processes on free ports of this machine, in a folder with the page's files; all end with the test."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.redis, self.comfy, self.web = (_free_port() for _ in range(3))
        for name, text in FILES.items():
            text = text.replace("127.0.0.1:8188", f"127.0.0.1:{self.comfy}")
            (folder / name).write_text(text.replace("127.0.0.1:6379", f"127.0.0.1:{self.redis}"))

    def start(self, *command: object) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path])}
        log = self._stack.enter_context((self.folder / "log").open("ab"))
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self._stack.callback(_end, process)
        return process

    def start_redis(self) -> None:
        self.start("redis-server", "--port", self.redis, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        until(lambda: _listens(self.redis))

    def start_comfy(self) -> subprocess.Popen[bytes]:
        process = self.start(sys.executable, "-m", "comfyload", "sim", "--port", self.comfy, "--speed", "1")
        until(lambda: _listens(self.comfy))
        return process

    def output_of(self, *program: str) -> str:
        """What a program prints, a file of the page or `-c` with text, run in the folder."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path])}
        command = [sys.executable, *program]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.comfy}/{path}", timeout=5) as reply:
            return json.load(reply)

    def runs(self) -> bool:
        return bool(self.get("queue")["queue_running"])

    def executed(self) -> list[str]:
        """How the prompts ended that this server has run."""
        return [entry["status"]["status_str"] for entry in self.get("history").values()]


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with ExitStack() as stack:
        yield Farm(tmp_path, stack)
        sys.stdout.write((tmp_path / "log").read_text(errors="replace"))


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    ends = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """It, and what it forked."""
    with suppress(psutil.NoSuchProcess):
        for each in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.kill()
    process.wait(10)


def restart(farm: Farm, comfy: subprocess.Popen[bytes], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Kill it as a job runs; it is back after two seconds, with an empty queue and no history."""
    until(farm.runs)
    comfy.kill()
    comfy.wait(10)
    meanwhile()
    time.sleep(2.0)
    farm.start_comfy()


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return list(psutil.Process(process.pid).children(recursive=True))


# --- RQ


def rq_worker(farm: Farm) -> subprocess.Popen[bytes]:
    return farm.start(sys.executable, "-m", "rq.cli", "worker", "--url", f"redis://127.0.0.1:{farm.redis}")


def rq_ended(farm: Farm, job_id: str) -> tuple[str, object]:
    """How the job ended, and what it gave back."""
    from redis import Redis
    from rq.job import Job, JobStatus

    with Redis.from_url(f"redis://127.0.0.1:{farm.redis}") as redis:
        job = Job.fetch(job_id, redis)
        until(lambda: job.get_status(refresh=True) in (JobStatus.FINISHED, JobStatus.FAILED))
        return job.get_status().value, job.return_value(refresh=True)


def test_jobs_of_rq_outlive_their_comfyui_and_run_once(farm: Farm) -> None:
    farm.start_redis()
    comfy = farm.start_comfy()
    rq_worker(farm)
    rq_worker(farm)
    jobs = [farm.output_of("enqueue.py")]
    (farm.folder / "enqueue.py").write_text((farm.folder / "enqueue.py").read_text().replace(", 7,", ", 8,"))
    restart(
        farm, comfy, lambda: jobs.append(farm.output_of("enqueue.py"))
    )  # The second is opened while nothing answers.
    ends = [rq_ended(farm, job) for job in jobs]
    assert sorted(str(end) for end in ends) == [f"('finished', ['output/portrait_0000{n}_.png'])" for n in (1, 2)]
    assert farm.executed() == ["success", "success"]


def test_a_job_of_rq_whose_process_died_is_followed_by_the_next(farm: Farm) -> None:
    farm.start_redis()
    farm.start_comfy()
    worker = rq_worker(farm)
    job = farm.output_of("enqueue.py")
    until(farm.runs)
    for horse in children(worker):
        horse.kill()
    assert rq_ended(farm, job)[0] == "finished"
    assert farm.executed() == ["success"]


def test_the_time_limit_of_rq_takes_the_job_off_the_server(farm: Farm) -> None:
    (farm.folder / "portrait.json").write_text(FILES["portrait.json"].replace('"seconds": 2.0', '"seconds": 4.0'))
    (farm.folder / "enqueue.py").write_text(
        (farm.folder / "enqueue.py").read_text().replace("job_timeout=90, retry=Retry(max=2)", "job_timeout=2")
    )
    farm.start_redis()
    farm.start_comfy()
    rq_worker(farm)
    job = farm.output_of("enqueue.py")
    assert rq_ended(farm, job)[0] == "failed"
    until(lambda: not farm.runs())
    assert farm.executed() == ["error"]


# --- Celery


def celery_worker(farm: Farm) -> subprocess.Popen[bytes]:
    return farm.start(sys.executable, "-m", "celery", "--app", "tasks", "worker", "--concurrency", 1)


def celery_task(farm: Farm, seed: int) -> str:
    return farm.output_of("-c", f"import tasks; print(tasks.portrait.delay({seed}).id)")


def celery_result(farm: Farm, task: str) -> str:
    return farm.output_of("-c", f"import tasks; print(tasks.app.AsyncResult('{task}').get(timeout=30))")


def test_a_task_of_celery_outlives_its_comfyui(farm: Farm) -> None:
    farm.start_redis()
    comfy = farm.start_comfy()
    celery_worker(farm)
    task = celery_task(farm, 7)
    restart(farm, comfy)
    assert celery_result(farm, task) == "['output/portrait_00001_.png']"
    assert farm.executed() == ["success"]


def test_a_task_of_celery_outlives_its_process_and_is_ended_before_its_worker(farm: Farm) -> None:
    farm.start_redis()
    farm.start_comfy()
    worker = celery_worker(farm)
    task = celery_task(farm, 7)
    until(farm.runs)
    for each in children(worker):
        each.kill()
    assert celery_result(farm, task) == "['output/portrait_00001_.png']"
    assert farm.executed() == ["success"]
    task = celery_task(farm, 8)
    until(farm.runs)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert celery_result(farm, task) == "['output/portrait_00002_.png']"


# --- FastAPI


def test_a_request_outlives_its_comfyui(farm: Farm) -> None:
    comfy = farm.start_comfy()
    server = farm.start(sys.executable, "-m", "uvicorn", "web:app", "--port", farm.web)
    until(lambda: _listens(farm.web))
    with ThreadPoolExecutor() as pool:
        replies = [pool.submit(_post, f"http://127.0.0.1:{farm.web}/portraits?seed={seed}") for seed in range(2)]
        restart(farm, comfy)
        assert all(reply.result().startswith(b"\x89PNG") for reply in replies)
        assert farm.executed() == ["success", "success"]
        last = pool.submit(_post, f"http://127.0.0.1:{farm.web}/portraits?seed=9")
        until(farm.runs)
        server.send_signal(signal.SIGTERM)
        assert last.result().startswith(b"\x89PNG") and server.wait(10) in (0, -signal.SIGTERM)


def _post(url: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=40) as reply:
        return bytes(reply.read())


def test_every_program_of_the_page_is_run() -> None:
    assert set(FILES) == {"portrait.json", "retry.json", "jobs.py", "enqueue.py", "tasks.py", "web.py"}
    assert PAGE.count("```python") == 4
