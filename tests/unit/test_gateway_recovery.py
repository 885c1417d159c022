"""What a gateway that died leaves to the next one: each job ends once, is recorded once, and its client hears of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from comfyload import clock
from comfyload.app.summary import report_run
from comfyload.gateway.fair import Demand, FairQueue
from comfyload.record.model import Record
from comfyload.record.run import RunReader
from comfyload.retry.expected import ExpectedTimes
from comfyload.retry.policy import default
from tests.support.direct import Direct
from tests.support.gateway import Desk, desk, farm, frames_of
from tests.support.rig import sleeper


def ids_in(folder: Path) -> list[str]:
    """The jobs in a ledger, one for each record."""
    runs = sorted(path.parent for path in folder.glob("*/manifest.json"))
    return [line.prompt_id for run in runs for line in RunReader(run).lines() if isinstance(line, Record)]


def test_a_record_that_was_owed_is_written_once(tmp_path: Path) -> None:
    async def main() -> list[str]:
        async with farm(1) as servers:
            async with desk(tmp_path, servers) as front:
                done = await _run(front)
                front.gateway.ledger.write = lambda owed: None  # type: ignore[method-assign] # it dies before
                owed = await _run(front)
                assert front.status_of(owed) == "completed"
            assert ids_in(tmp_path) == [done]
            for _ in range(2):
                async with desk(tmp_path, servers):
                    pass
                assert ids_in(tmp_path) == [done, owed]
            return [done, owed]

    jobs = clock.run_virtual(main())
    (run,) = (path.parent for path in tmp_path.glob("*/manifest.json"))
    reader = RunReader(run)
    assert [line.index for line in reader.lines()] == list(range(len(jobs)))
    assert len(reader.manifest.workflows) == 1
    assert report_run(run, quiet=True) == 0, "comfyload show calls it valid"


def test_a_cancel_that_was_answered_holds(tmp_path: Path) -> None:
    """One runs, one waits on its server, one waits here; the gateway ends before it has cancelled them there."""

    async def main() -> None:
        async with farm(1) as servers:
            ids = []
            async with desk(tmp_path, servers) as front:
                ids += [(await front.post(sleeper(5.0 + number)))["prompt_id"] for number in range(4)]
                await asyncio.sleep(1.0)
                for job_id in ids[:3]:
                    front.gateway.store.cancel(job_id)
            async with desk(tmp_path, servers) as front:
                entry = await front.end_of(ids[3])
                assert entry["status"]["status_str"] == "success"
                assert [front.status_of(job_id) for job_id in ids[:3]] == ["cancelled", None, None]
            completed = [truth.prompt_id for truth in servers[0].truth if truth.outcome == "completed"]
            assert completed == [ids[3]]
            assert sorted(ids_in(tmp_path)) == sorted(ids)

    clock.run_virtual(main())


def test_a_job_just_taken_can_be_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            posting = asyncio.create_task(front.post(sleeper(5.0)))
            while not front.gateway.jobs:
                await asyncio.sleep(0)
            (job_id,) = front.gateway.jobs
            assert await front.gateway.cancel(job_id, "default")
            await posting
            await asyncio.sleep(1.0)
            assert not front.gateway.jobs
            assert not [truth for truth in servers[0].truth if truth.outcome == "completed"]

    clock.run_virtual(main())


@pytest.mark.parametrize("latency_s", [0.0, 0.02])
def test_a_cancel_is_promised_where_it_holds(tmp_path: Path, latency_s: float) -> None:
    """At each hundredth of a second about a job's end."""

    async def main() -> None:
        said = set()
        async with farm(1) as servers, desk(tmp_path, servers, transports=[Direct(servers[0], latency_s)]) as front:
            for step in range(20):
                graph = sleeper(0.4)
                graph["2"]["inputs"]["seed"] = step
                job_id = (await front.post(graph))["prompt_id"]
                await asyncio.sleep(0.35 + step / 100)
                promised = await front.gateway.cancel(job_id, "default")
                await front.end_of(job_id)
                assert (front.status_of(job_id) == "cancelled") is promised
                said.add(promised)
        assert said == {True, False}

    clock.run_virtual(main())


def test_a_running_job_stays_in_progress(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers:
            async with desk(tmp_path, servers) as front:
                job_id = (await front.post(sleeper(5.0)))["prompt_id"]
                await asyncio.sleep(1.0)
                before = front.history.job(job_id, "default")
            async with desk(tmp_path, servers) as front:
                after = front.history.job(job_id, "default")
                assert before is not None and after is not None
                assert after["status"] == "in_progress"
                assert after["execution_start_time"] == before["execution_start_time"]
                await front.end_of(job_id)

    clock.run_virtual(main())


def test_an_end_is_told_to_a_socket_that_comes_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers:
            async with desk(tmp_path, servers) as front:
                job_id = (await front.post(sleeper(0.5), client_id="me"))["prompt_id"]
                await front.end_of(job_id)
                assert _told(front, "me") == [job_id]
                assert _told(front, "me") == [], "once"
                assert _told(front, "somebody else") == []
            async with desk(tmp_path, servers) as front:
                assert _told(front, "me") == [job_id], "as the first may have died before it was on its way"

    clock.run_virtual(main())


def test_a_job_waits_for_the_server_that_may_have_it(tmp_path: Path) -> None:
    """Both ended, and the server is up again later than the gateway: what it has is looked up there."""

    async def main() -> None:
        async with farm(2) as servers:
            async with desk(tmp_path, servers) as front:
                job_id = (await front.post(sleeper(20.0)))["prompt_id"]
                await asyncio.sleep(1.0)
                has = next(number for number, server in enumerate(servers) if server.posts)
            up = asyncio.Event()
            ways = [Direct(server) for server in servers]

            async def hold(_: object) -> None:
                await up.wait()

            ways[has].before_call = hold
            asyncio.get_running_loop().call_later(10.0, up.set)
            async with desk(tmp_path, servers, transports=ways, policy=default(120.0)) as front:
                entry = await front.end_of(job_id)
                assert entry["status"]["status_str"] == "success"
            assert [len(server.truth) for server in servers] == ([1, 0] if has == 0 else [0, 1])

    clock.run_virtual(main())


def test_jobs_of_a_server_that_is_configured_no_more_end_there(tmp_path: Path) -> None:
    """One that had joined while the gateway ran, or stands in its file no more: it gets no new job, and leaves."""

    async def main() -> None:
        async with farm(2) as servers:
            async with desk(tmp_path, servers, policy=default(120.0)) as front:
                ids = [(await front.post(sleeper(20.0 + number)))["prompt_id"] for number in range(4)]
                await asyncio.sleep(1.0)
            async with desk(tmp_path, servers, configured=1, policy=default(120.0)) as front:
                assert [member.leaving for member in front.gateway.fleet.members] == [False, True]
                ids += [(await front.post(sleeper(1.0 + number)))["prompt_id"] for number in range(4)]
                for job_id in ids:
                    assert (await front.end_of(job_id))["status"]["status_str"] == "success"
                await asyncio.sleep(5.0)
                assert [member.name for member in front.gateway.fleet.members] == ["gpu1"]
            ran = [truth.prompt_id for server in servers for truth in server.truth]
            assert sorted(ran) == sorted(ids) == sorted(ids_in(tmp_path))
            assert ran[-1] in ids[:4] and len(servers[1].truth) == 1, "what waited there was taken back"

    clock.run_virtual(main())


def test_a_promised_job_goes_before_a_fair_one() -> None:
    queue = FairQueue[str]()
    for number in range(3):
        queue.put(f"many{number}", f"many{number}", "many", number, 10.0, begin_by=100.0 + number)
    queue.put("few", "few", "few", 9, 10.0, begin_by=1000.0)
    assert queue.next(0.0) == "many0"
    assert queue.next(0.0) == "few", "each tenant in turn"
    queue.put("few", "few", "few", 9, 10.0, begin_by=1000.0)
    assert [queue.next(90.0), queue.next(90.0), queue.next(90.0), queue.next(90.0)] == ["many1", "many2", "few", None]


def test_a_job_that_cannot_be_in_time_goes_after_those_that_can() -> None:
    queue = FairQueue[str]()
    for number, begin_by in enumerate((10.0, 20.0, 99.0, 101.0, 500.0)):
        queue.put(f"job{number}", f"job{number}", "one", number, 5.0, begin_by)
    assert queue.remove("job1") == "job1"
    assert [queue.next(100.0) for _ in range(2)] == ["job3", "job4"], "one was about to be late, then the order"
    queue.put("other", "other", "two", 0, 5.0, 600.0)
    assert [queue.next(100.0) for _ in range(4)] == ["other", "job0", "job2", None]
    assert len(queue) == 0 and queue.total_s == 0.0


def test_demand_is_counted_and_forgotten() -> None:
    demand = Demand()
    for second in range(300):
        demand.note("steady", 0.5, float(second))
    (rate,) = demand.rates(300.0).values()
    assert rate == pytest.approx(0.5, rel=0.1)
    assert demand.rates(3000.0) == {}


def _told(front: Desk, client_id: str) -> list[str]:
    """The jobs of whose ends a socket hears that is opened now."""
    socket = front.listen(client_id)
    front.gateway.live.greet(socket, [])
    frames = frames_of(socket)
    front.gateway.sockets.remove(socket)
    return [json.loads(json.dumps(f))["data"]["prompt_id"] for f in frames if f["type"] == "execution_success"]


async def _run(front: Desk) -> str:
    job_id = str((await front.post(sleeper(0.5)))["prompt_id"])
    await front.end_of(job_id)
    return job_id


def test_what_is_promised_allows_for_how_wrong_times_were() -> None:
    steady, mixed = ExpectedTimes(), ExpectedTimes()
    for number in range(100):
        steady.learn("w", "w", 10.0 + 0.1 * (number % 2))
        mixed.learn("w", "w", 24.0 if number % 10 < 3 else 4.0)
    assert steady.variance(100.0) < 1.0
    assert 500.0 < mixed.variance(100.0) < 2_000.0, "ten jobs, each of variance 84, and a mean of few values"
    steady.learn("w", "w", 600.0)  # it hung
    assert steady.variance(100.0) < 400.0, "and not the 120,000 of a job that may take ten minutes"
    for _ in range(5):
        mixed.learn("w", "w", 4.0)
    assert mixed.cautious_s("w") == pytest.approx(10.0, rel=0.1), "a few short ones do not make the next ones short"
    assert ExpectedTimes().variance(100.0) == ExpectedTimes().cautious_s("w") == 0.0
