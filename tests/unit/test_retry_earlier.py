"""Jobs that an earlier process had sent, perhaps more than once: found under the id that they had come to."""

from __future__ import annotations

import asyncio
import json

import pytest

from comfyload.comfy.wire.calls import Request, TransportError
from comfyload.record.model import Execution, Prompt
from comfyload.record.policy import Policy, Rule
from comfyload.retry.attempt_log import later_ids
from comfyload.retry.policy import default
from comfyload.sim import Faults, Server, Which
from tests.unit.retrying import Scene, ask, ids, kinds, scene


async def send(found: Scene, prompt_id: str, prompt: Prompt) -> None:
    """As an earlier process did."""
    body = b'{"prompt":%b,"prompt_id":"%b"}' % (prompt.graph(), prompt_id.encode())
    await found.transports[0].call(Request(method="POST", path="prompt", body=body))


def test_an_id_of_an_earlier_process_is_looked_up_first() -> None:
    prompt = ask(1.0)

    async def script(found: Scene) -> Execution:
        await send(found, prompt.id, prompt)
        return await found.client.run(prompt)

    done, found = scene([Server()], default(90.0), script, unconfirmed_ids=frozenset([prompt.id]))
    assert done.outcome == "completed" and found.posts() == 1


def test_an_id_that_an_earlier_process_had_come_to_is_followed_and_not_sent_again() -> None:
    """Its third attempt is on the server: it fails, and the fourth follows under an id of its own."""
    prompt = ask(1.0)
    third = later_ids(prompt.id)[1]

    async def script(found: Scene) -> Execution:
        await send(found, third, prompt)
        return await found.client.run(prompt)

    servers = [Server(faults=Faults(oom=Which(at=(1,))))]
    done, found = scene(servers, default(90.0), script, unconfirmed_ids=frozenset([prompt.id]))
    assert done.outcome == "completed" and found.posts() == 2
    assert [attempt.prompt_id for attempt in done.attempts] == [third, later_ids(prompt.id)[2]]


def test_an_id_that_a_server_does_not_tell_of_at_first_is_asked_for_again() -> None:
    prompt = ask(3.0)

    async def script(found: Scene) -> Execution:
        await send(found, later_ids(prompt.id)[1], prompt)
        requests: set[str] = set()

        async def cut(request: Request) -> None:
            if request.path.startswith("api/jobs/") and request.path not in requests:
                requests.add(request.path)
                raise TransportError("reset", sent=True)

        found.transports[0].before_call = cut
        return await found.client.run(prompt)

    done, found = scene([Server()], default(90.0), script, unconfirmed_ids=frozenset([prompt.id]))
    assert done.outcome == "completed" and found.posts() == 1


def test_a_later_id_whose_post_is_still_on_its_way_is_waited_for() -> None:
    prompt = ask(1.0)

    async def script(found: Scene) -> Execution:
        running = asyncio.create_task(found.client.run(prompt))
        await asyncio.sleep(1.0)
        await send(found, later_ids(prompt.id)[0], prompt)
        return await running

    done, found = scene([Server()], default(90.0), script, unconfirmed_ids=frozenset([prompt.id]))
    assert done.outcome == "completed" and found.posts() == 1 and ids(done) == later_ids(prompt.id)[:1]


def test_a_job_of_an_earlier_process_that_hangs_is_ended_too() -> None:
    prompt = ask(10_000.0, nodes=1)

    async def script(found: Scene) -> Execution:
        await send(found, later_ids(prompt.id)[0], prompt)
        return await found.client.run(prompt)

    policy = Policy(liveness_s=60.0, classes={"hung": Rule(retry=False)})
    done, _ = scene([Server()], policy, script, unconfirmed_ids=frozenset([prompt.id]))
    assert kinds(done) == ["hung"]


@pytest.mark.parametrize("number", [None, 1])
def test_abandoning_takes_off_what_was_not_yet_found(number: int | None) -> None:
    prompt = ask(30.0)

    async def script(found: Scene) -> tuple[Execution, str]:
        theirs = found.servers[0].foreign(json.loads(ask(30.0).graph()))
        await send(found, prompt.id if number is None else later_ids(prompt.id)[number], prompt)
        running = asyncio.create_task(found.client.run(prompt))
        await asyncio.sleep(0.0005)
        await found.client.cancel_all()
        return await running, theirs

    (done, theirs), found = scene([Server()], default(90.0), script, unconfirmed_ids=frozenset([prompt.id]))
    assert (done.outcome, done.server_state_after) == ("cancelled", "unknown") and found.left == [[theirs]]
