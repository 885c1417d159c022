"""Runs of the real engine against simulators, followed by another thread while they go on."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

from msgspec import structs

from comfyload.app.run.launch import run
from comfyload.app.run.options import RunOptions
from comfyload.app.run.viewer import Viewer
from comfyload.judge.summary import measure
from comfyload.record.run import RunReader
from comfyload.sim import Faults, Server, Which
from comfyload.web.folder import RunFolder
from comfyload.web.follow import RunFollower
from comfyload.web.job import job_of
from comfyload.web.rows import rows
from comfyload.web.states import Filter, View, chips
from tests.integration.test_run_ends import options
from tests.support.servers import in_thread

POLICY = """{"attempts": 3, "classes": {"transient":
    {"retry": true, "delay": "backoff", "why": "it may pass"}}, "backoff": {"base_s": 0.4, "jitter": "none"}}"""


class Watching:
    """Follows a run as a dashboard does, until `stop`; what it saw of each job on the way is in `seen`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[int, set[str]] = {}
        self.found: set[bool] = set()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow)

    def _follow(self) -> None:
        runs, follower = RunFolder(self.folder), None
        while not self.over.is_set():
            self.found |= {entry.running for entry in runs.scan()}
            if follower is None and (entry := runs.find("run")) is not None:
                follower = RunFollower(entry.path)
            if follower is not None:
                follower.refresh()
                for row in rows(follower, Filter(), limit=200)[1]:
                    self.seen.setdefault(row.index, set()).add(row.fine)
            time.sleep(0.02)


def watched(tmp_path: Path, asked: RunOptions) -> Watching:
    watching = Watching(tmp_path)
    watching.thread.start()
    try:
        asyncio.run(run(asked, Viewer()))
    finally:
        watching.over.set()
        watching.thread.join()
    return watching


def test_a_run_is_seen_while_it_goes_on_and_counts_as_judgement_does(tmp_path: Path) -> None:
    (tmp_path / "retry.json").write_text(POLICY, encoding="utf-8")
    faults = Faults(node_error=Which(at=(2,)))
    with in_thread(lambda: Server(speed=1, faults=faults)) as (url, _):
        watching = watched(tmp_path, options(tmp_path, url, retry=str(tmp_path / "retry.json")))
    assert watching.found == {True, False} or watching.found == {True}
    assert any("retrying" in states for states in watching.seen.values())
    assert any("running" in states for states in watching.seen.values())

    events = list(RunReader(tmp_path / "run").events())
    assert events and all(event.rule == "transient: it may pass" and event.of == 3 for event in events)
    assert all(event.wait_s > 0 and event.server.startswith(url[:16]) for event in events)
    follower = RunFollower(tmp_path / "run")
    assert follower.refresh() and not follower.refresh()
    assert not follower.alive and not follower.retries
    assert View(follower).counts() == {"pending": 0, "rendering": 0, "attention": 0, "done": 20, "ended": 0}
    again = {event.index for event in events}
    found = {row.index for row in rows(follower, Filter(attempt=2))[1]}
    assert found == again
    assert [chip.count for chip in chips(follower, Filter()) if (chip.group, chip.key) == ("attempt", "2")] == [
        len(again)
    ]
    one = job_of(follower, events[0].index)
    assert one is not None and len(one["attempts"]) >= 2
    first = one["attempts"][0]
    assert (first["id"], first["rule"]) == (events[0].prompt_id, "transient: it may pass")
    reader = RunReader(tmp_path / "run")
    measured = measure("", reader.manifest, reader.lines(), reader.samples())
    latency = sorted(row.latency or 0.0 for row in rows(follower, Filter(), limit=200)[1])
    assert latency == sorted(measured.jobs.metric("latency").tolist())


def test_a_run_without_a_policy_writes_no_events(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, _):
        asked = options(tmp_path, url)
        asyncio.run(run(structs.replace(asked, plan=structs.replace(asked.plan, jobs=3)), Viewer()))
    assert sorted(path.name for path in (tmp_path / "run").glob("*.*")) == [
        "manifest.json",
        "records.ndjson",
        "samples.ndjson",
    ]
