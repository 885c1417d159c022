"""`comfyload.locust` under a real Locust, in a process of its own, because Locust changes Python when imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT
from tests.support.servers import simulator

PAGE = (ROOT / "docs" / "how-to" / "locust.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^<!-- file (\S+) -->\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))

REPORTED = """
import json, time
import gevent
from locust import between, constant, events, task
from comfyload.locust import ComfyUser


@events.request.add_listener
def show(request_type, name, response_time, exception, **_):
    print("ROW", json.dumps([request_type, name, response_time, str(exception or "")]))


@events.test_start.add_listener
def watch(**_):
    gevent.spawn(tick)


def tick():
    at = time.monotonic()
    while True:
        gevent.sleep(0.01)
        print("TICK", time.monotonic() - at)
        at = time.monotonic()


class Painter(ComfyUser):
    wait_time = constant(0.05)

"""

pytestmark = [
    pytest.mark.skipif(find_spec("locust") is None, reason="Locust is not installed (the extra `locust`)"),
    pytest.mark.skipif(sys.platform == "win32", reason="it needs uvloop"),
    pytest.mark.long,
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with simulator(speed=1.0) as url:
        yield url


class Table:
    """What one test with Locust reported: rows in ms by type and name, errors, and the gaps between ticks in s."""

    def __init__(self, folder: Path, server: str, tasks: str, *words: str) -> None:
        (folder / "portrait.json").write_text(FILES["portrait.json"])
        (folder / "locustfile.py").write_text(REPORTED + tasks)
        printed = locust(folder, "--host", server, *words)
        self.rows: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        for line in re.findall(r"^ROW (.*)$", printed, re.MULTILINE):
            kind, name, ms, error = json.loads(line)
            self.rows[kind, name].append(ms)
            self.errors.update([error] if error else [])
        self.gaps = [float(gap) for gap in re.findall(r"^TICK (\S+)$", printed, re.MULTILINE)]
        self.printed = printed


def locust(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "locust", "--headless", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def get(server: str, path: str) -> Any:
    with urllib.request.urlopen(f"{server}/{path}", timeout=5) as reply:
        return json.load(reply)


def test_rows_are_the_true_durations_of_the_jobs_that_ran(tmp_path: Path, server: str) -> None:
    before = len(get(server, "history"))
    tasks = "    @task\n    def portrait(self):\n        self.client.run('portrait.json')\n"
    by_name = server.replace("127.0.0.1", "localhost")  # a name that has to be looked up
    words = ("--users", "3", "--spawn-rate", "3", "--run-time", "7s", "--stop-timeout", "20")
    table = Table(tmp_path, by_name, tasks, *words)
    totals = table.rows["total", "portrait"]
    assert len(totals) == len(get(server, "history")) - before >= 8, table.printed
    assert not table.errors
    assert {kind for kind, _ in table.rows} == {"submit", "wait", "execution", "total"}
    assert {len(rows) for rows in table.rows.values()} == {len(totals)}
    assert all(290 <= ms <= 450 for ms in table.rows["execution", "portrait"])
    # Three users, one server: a job waits for two others.
    assert 500 <= sorted(totals)[len(totals) // 2] <= 1500
    parts = zip(*(table.rows[kind, "portrait"] for kind in ("wait", "execution", "total")), strict=True)
    assert all(wait + run <= total + 5 for wait, run, total in parts)
    # While jobs run, the other greenlets do too.
    assert len(table.gaps) > 150 and sorted(table.gaps)[-3] < 0.2, sorted(table.gaps)[-5:]


def test_a_failure_is_one_and_has_the_server_s_words(tmp_path: Path, server: str) -> None:
    tasks = (
        "    @task\n    def bad(self):\n        self.client.run('portrait.json', name='bad', set={'2.seconds': -1})\n"
    )
    table = Table(tmp_path, server, tasks, "--users", "1", "--run-time", "5s", "--stop-timeout", "9")
    (error,) = table.errors
    assert "validation in SimSleep" in error and "smaller than min" in error
    assert table.errors[error] == len(table.rows["total", "bad"]) > 3
    assert list(table.rows) == [("total", "bad")]


def test_a_job_of_the_cache_is_in_rows_of_its_own(tmp_path: Path, server: str) -> None:
    tasks = "    @task\n    def same(self):\n        self.client.run('portrait.json', seed=424242)\n"
    table = Table(tmp_path, server, tasks, "--users", "1", "--run-time", "5s", "--stop-timeout", "9")
    assert len(table.rows["total", "portrait"]) == 1
    assert len(table.rows["total", "portrait (cached)"]) > 3


def test_jobs_of_stopped_users_are_removed_from_the_server(tmp_path: Path, server: str) -> None:
    """The node that sleeps is not interrupted in its sleep, only after it, as a node of ComfyUI in a long kernel."""
    before = get(server, "history").keys()
    tasks = "    @task\n    def long(self):\n        self.client.run('portrait.json', set={'2.seconds': 9.0})\n"
    table = Table(tmp_path, server, tasks, "--users", "3", "--spawn-rate", "3", "--run-time", "6s")
    assert not table.rows, table.printed
    assert get(server, "queue")["queue_pending"] == []
    ends = time.monotonic() + 15
    while get(server, "queue")["queue_running"]:
        assert time.monotonic() < ends
        time.sleep(0.1)
    history = get(server, "history")
    assert [history[one]["status"]["status_str"] for one in history.keys() - before] == ["error"]


def test_no_server_is_a_failure_of_each_job(tmp_path: Path) -> None:
    tasks = "    @task\n    def portrait(self):\n        self.client.run('portrait.json')\n"
    table = Table(tmp_path, "http://127.0.0.1:9", tasks, "--users", "1", "--run-time", "5s")
    assert list(table.rows) == [("total", "portrait")]
    assert table.errors and all("no ComfyUI" in error for error in table.errors)


def test_the_page_s_program_runs(tmp_path: Path, server: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    printed = locust(tmp_path, "--host", server, "--users", "2", "--run-time", "6s", "--stop-timeout", "30")
    for part in ("submit", "wait", "execution", "total"):
        found = re.search(rf"^{part} +portrait +(\d+) +0\(0.00%\)", printed, re.MULTILINE)
        assert found is not None and int(found[1]) > 1, printed
