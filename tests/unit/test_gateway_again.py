"""Jobs that failed for good: sent again once however often it is asked for, or given up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from comfyload import clock
from comfyload.gateway.again import Again, NotSent, id_again
from comfyload.gateway.job import ClientJob, State
from comfyload.gateway.store import Row, Store
from comfyload.record.policy import Backoff, Breaker, Policy, Rule
from comfyload.sim import Faults, Server, Which
from tests.support.gateway import Desk, desk, farm, frames_of
from tests.support.rig import sleeper


def failing(message: str = "no such thing") -> dict[str, Any]:
    graph = sleeper(0.1)
    graph["2"] = {"class_type": "SimFail", "inputs": {"image": ["1", 0], "message": message, "seed": 1}}
    return graph


async def failed(front: Desk, **more: Any) -> str:
    """The id of a job that failed for good."""
    prompt_id: str = (await front.post(failing(), **more))["prompt_id"]
    await front.end_of(prompt_id, more.get("tenant", "default"))
    return prompt_id


def times_sent(servers: list[Server], prompt_id: str) -> int:
    return sum(server.posts.get(prompt_id, 0) for server in servers)


def test_two_clicks_send_a_job_again_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            again, store = Again(front.gateway, front.intake), front.gateway.store
            old = await failed(front, client_id="me", deadline_s=30.0)
            assert store.needing(None) == [old]
            first, second = await asyncio.gather(again.send(old, "default"), again.send(old, "default"))
            assert first == second == id_again(old, 1)
            assert store.needing(None) == [], "the old one needs no attention"
            await front.end_of(first)
            assert times_sent(servers, first) == 1
            row = store.find(first)
            assert row is not None and (row.client_id, row.deadline_s) == ("me", 30.0)
            assert store.needing(None) == [first], "it failed in its turn"

            third = await again.send(old, "default")
            assert third == id_again(first, 1), "the newest is sent again, whichever is named"
            await front.end_of(third)
            assert len({old, first, third}) == 3

    clock.run_virtual(main())


@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_failed_job_that_its_client_forgets_still_needs_attention(tmp_path: Path, all_of_them: bool) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            store, history = front.gateway.store, front.history
            done = (await front.post(sleeper(0.1)))["prompt_id"]
            await front.end_of(done)
            old = await failed(front, client_id="me", key="page 7")
            history.forget("somebody else", None if all_of_them else [old, done])
            assert history.entry(old, "default") is not None
            history.forget("default", None if all_of_them else [old, done])
            assert (history.entry(old, "default"), history.job(old, "default")) == (None, None)
            assert (b"".join(history.all("default", None, -1)), history.listed("default", {})[0]["jobs"]) == (b"{}", [])
            assert (store.find(done), store.needing(None)) == (None, [old])
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            store, history = front.gateway.store, front.history
            assert frames_of(front.listen("me")) == [], "nor is its end told again"
            new = await Again(front.gateway, front.intake).send(old, None)
            await front.end_of(new)
            assert store.needing(None) == [new]

    clock.run_virtual(main())


def test_a_forgotten_job_is_a_new_one_when_its_client_sends_it_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            old = await failed(front, key="page 7")
            front.history.forget("default", None)
            for more in ({"prompt_id": old}, {"prompt_id": old, "key": "page 7"}):
                assert await failed(front, **more) == old
                front.history.forget("default", [old])
            assert times_sent(servers, old) == 3
            assert front.gateway.store.needing(None) == [old]

    clock.run_virtual(main())


def test_a_job_that_was_sent_again_and_is_done_is_not_sent_a_third_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            again, store = Again(front.gateway, front.intake), front.gateway.store
            old = await failed(front)
            mended = sleeper(0.3)
            store._db.execute(
                "UPDATE graphs SET graph = ? WHERE seq = (SELECT seq FROM jobs WHERE id = ?)", (_json(mended), old)
            )
            new = await again.send(old, None)
            assert (await front.end_of(new))["status"]["status_str"] == "success"
            assert await again.send(old, None) == new
            assert times_sent(servers, new) == 1
            with pytest.raises(NotSent) as refused:
                await again.send(new, None)
            assert refused.value.status == 409

    clock.run_virtual(main())


def test_it_is_known_after_a_kill_that_a_job_was_sent_again(tmp_path: Path) -> None:
    """We were killed after the new job was taken, and before the old one was marked."""

    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            again, store = Again(front.gateway, front.intake), front.gateway.store
            old = await failed(front)
            new = await again.send(old, None)
            store._db.execute("UPDATE jobs SET again = 0, attention = 1 WHERE id = ?", (old,))
            assert await again.send(old, None) == new
            assert store.needing(None) == []
            await front.end_of(new)
            assert times_sent(servers, new) == 1

    clock.run_virtual(main())


def test_what_is_not_there_or_not_one_s_own_is_not_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers) as front:
            again = Again(front.gateway, front.intake)
            theirs = await failed(front, tenant="other")
            running = (await front.post(sleeper(5.0)))["prompt_id"]
            cases = [("11111111-1111-4111-8111-111111111111", 404), (theirs, 404), (running, 409)]
            for job_id, status in cases:
                with pytest.raises(NotSent) as refused:
                    await again.send(job_id, "default")
                assert refused.value.status == status
            with pytest.raises(NotSent):
                again.give_up(theirs, "default")
            again.give_up(theirs, "other")
            assert front.gateway.store.needing(None) == []

    clock.run_virtual(main())


def test_the_newest_jobs_are_listed_by_state(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    for number in range(6):
        job_id = f"{number:08d}-0000-4000-8000-000000000000"
        store.add(
            Row(
                id=job_id,
                tenant="a" if number % 2 else "b",
                client_id=None,
                created_ms=number,
                taken_ms=number,
                number=number,
                workflow="w",
                deadline_s=None,
                key=None,
                digest=b"",
                graph=b"{}",
                extra=b"{}",
            )
        )
        if number < 5:
            state: State = "failed" if number < 3 else "completed"
            store.end(job_id, state, b"{}", b"{}", attention=state == "failed", keep_payload=True)

    def found(tenant: str | None, *states: str, attention: bool | None = None, limit: int = 9, offset: int = 0) -> Any:
        rows, count = store.newest(tenant, states, attention=attention, limit=limit, offset=offset)
        return [row.created_ms for row in rows], count

    assert found(None, "failed", "completed") == ([4, 3, 2, 1, 0], 5), "one has not ended"
    store.attended(f"{1:08d}-0000-4000-8000-000000000000")
    assert found(None, "failed", "completed", attention=True) == ([2, 0], 2)
    assert found(None, "failed", "completed", attention=False) == ([4, 3, 1], 3)
    assert found(None, "failed", attention=False, limit=0) == ([], 1)
    assert found("a", "failed", "completed", attention=False) == ([3, 1], 2)
    assert store.counts(None) == {"failed": 3, "completed": 2, "pending": 1}
    assert store.counts("a") == {"failed": 1, "completed": 1, "pending": 1} and store.counts("nobody") == {}
    assert found(None, "failed", "completed", limit=2, offset=1) == ([3, 2], 5)
    assert found("a", "failed") == ([1], 1)
    assert found(None, "completed", attention=True) == ([], 0)
    assert [job_id[7] for job_id in store.needing("b")] == ["0", "2"]
    store.close()


def _json(graph: dict[str, Any]) -> bytes:
    from comfyload.gateway import forms

    return forms.dumps(graph)


PATIENT = Policy(
    deadline_s=3600.0,
    backoff=Backoff(base_s=600.0, cap_s=600.0, jitter="none"),
    breaker=Breaker(failures=100),
    classes={"transient": Rule(retry=True)},
)


async def waiting(front: Desk, **more: Any) -> ClientJob:
    """A job that failed once and waits long for its next attempt."""
    prompt_id: str = (await front.post(sleeper(0.1), **more))["prompt_id"]
    while front.gateway.jobs[prompt_id].next_attempt_at_ms is None:
        await asyncio.sleep(0.01)
    return front.gateway.jobs[prompt_id]


def test_a_job_that_waits_for_its_next_attempt_is_sent_now(tmp_path: Path) -> None:
    async def main() -> None:
        faults = Faults(node_error=Which(at=(1,)))
        async with farm(1, faults=faults) as servers, desk(tmp_path, servers, policy=PATIENT) as front:
            job = await waiting(front)
            began = front.gateway.clock()
            assert front.gateway.hurry(job)
            entry = await front.end_of(job.id)
            assert entry["status"]["status_str"] == "success" and len(job.attempts) == 2
            assert front.gateway.clock() - began < 5.0
            assert not front.gateway.hurry(job) and not front.gateway.give_up(job), "it has ended"

    clock.run_virtual(main())


def test_a_job_that_is_given_up_has_failed_and_needs_attention(tmp_path: Path) -> None:
    async def main() -> None:
        faults = Faults(node_error=Which(every=1), error_message="it broke")
        async with farm(1, faults=faults) as servers, desk(tmp_path, servers, policy=PATIENT) as front:
            job = await waiting(front)
            began = front.gateway.clock()
            assert front.gateway.give_up(job)
            entry = await front.end_of(job.id)
            assert "it broke" in entry["status"]["error"] and front.gateway.clock() - began < 5.0
            row = front.gateway.store.find(job.id)
            assert row is not None and row.state == "failed" and row.attention
            assert b"next_attempt_at" not in (row.item or b"")
            assert len(job.attempts) == 1 and sum(servers[0].posts.values()) == 1, "it was sent no more"
            new = await Again(front.gateway, front.intake).send(job.id, None)
            again = front.gateway.jobs[new]
            assert not front.gateway.give_up(again), "it waits for its first attempt"
            assert await front.gateway.cancel(new, "default")

    clock.run_virtual(main())


def test_a_job_that_is_cancelled_is_neither_sent_now_nor_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        faults = Faults(node_error=Which(every=1))
        async with farm(1, faults=faults) as servers, desk(tmp_path, servers, policy=PATIENT) as front:
            job = await waiting(front)
            assert await front.gateway.cancel(job.id, "default")
            assert not front.gateway.hurry(job) and not front.gateway.give_up(job)
            while job.id in front.gateway.jobs:
                await asyncio.sleep(0.01)
            assert front.gateway.store.needing(None) == []

    clock.run_virtual(main())
