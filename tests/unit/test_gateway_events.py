"""What clients of the gateway hear: whose message it is, what a new socket is told, and what a slow reader misses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from comfyload import clock
from comfyload.gateway import forms
from comfyload.gateway.job import ClientJob
from comfyload.gateway.live import EventRelay
from comfyload.gateway.sockets import BACKLOG, MOST_FRAMES, TRY_AGAIN_LATER, ClientSocket, Sockets
from comfyload.record.policy import Policy
from tests.support.gateway import TENANT, Desk, desk, farm, frames_of
from tests.support.rig import sleeper

MINE = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
ATTEMPT = "16fd2706-8baf-433b-82eb-8c7fada847da"


def job_of(job_id: str, client_id: str | None, attempt_id: str = "") -> ClientJob:
    job = ClientJob(id=job_id, tenant=TENANT, client_id=client_id, due=0.0, created_ms=0, number=0, workflow="w")
    job.attempt_id = attempt_id or job_id
    return job


def frame(kind: str, **data: Any) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode()


def preview(**metadata: Any) -> bytes:
    head = json.dumps(metadata | {"image_type": "image/png"}).encode()
    return (4).to_bytes(4, "big") + len(head).to_bytes(4, "big") + head + b"PNG"


class Room:
    """Two clients' jobs under way on two servers."""

    def __init__(self) -> None:
        self.sockets = Sockets()
        self.live = EventRelay(self.sockets, lambda output, _server, _job: output, lambda _: 0, lambda _: None)
        self.mine, self.other = job_of(MINE, "me", ATTEMPT), job_of(OTHER, "other")
        self.live.begin(self.mine, "gpu1", ATTEMPT)
        self.live.begin(self.other, "gpu2", OTHER)
        self.me, self.them = ClientSocket("me", TENANT), ClientSocket("other", TENANT)
        self.sockets.add(self.me)
        self.sockets.add(self.them)

    def start(self) -> None:
        self.live.on_frame("gpu1", frame("execution_start", prompt_id=ATTEMPT, timestamp=1), True)
        self.live.on_frame("gpu2", frame("execution_start", prompt_id=OTHER, timestamp=1), True)
        frames_of(self.me), frames_of(self.them)


def within_room(look: Callable[[Room], None]) -> None:
    async def main() -> None:
        look(Room())

    clock.run_virtual(main())


def test_a_message_without_an_id_is_about_the_prompt_that_runs_there() -> None:
    def look(room: Room) -> None:
        own = frame("my_pack.step", text="half way")
        room.live.on_frame("gpu1", own, True)
        assert frames_of(room.me) == [], "nothing runs there"
        room.start()
        room.live.on_frame("gpu1", own, True)
        room.live.on_frame("gpu1", frame("executing", node="5"), True)
        room.live.on_frame("gpu1", frame("status", status={}), True)
        assert frames_of(room.me) == [json.loads(own), {"type": "executing", "data": {"node": "5", "prompt_id": MINE}}]
        assert frames_of(room.them) == []

    within_room(look)


def test_what_another_application_s_prompt_tells_is_not_ours() -> None:
    def look(room: Room) -> None:
        room.start()
        room.live.on_frame(
            "gpu1", frame("progress", value=1, max=2, prompt_id="ffffffff-0000-4000-8000-000000000000"), True
        )
        room.live.on_frame("gpu1", frame("my_pack.step", prompt_id="theirs"), True)
        room.live.on_frame("gpu2", frame("progress", value=1, max=2, prompt_id=ATTEMPT), True)
        assert frames_of(room.me) == [] and frames_of(room.them) == []

    within_room(look)


def test_an_id_that_a_node_prints_leads_nowhere() -> None:
    """Not to the client whose job has that id."""

    def look(room: Room) -> None:
        room.start()
        said = f'"prompt_id": "{OTHER}" and {OTHER}'
        room.live.on_frame("gpu1", frame("executed", node="3", output={"text": [said]}, prompt_id=ATTEMPT), True)
        (heard,) = frames_of(room.me)
        assert heard["data"] == {"node": "3", "output": {"text": [said]}, "prompt_id": MINE}
        assert frames_of(room.them) == []

    within_room(look)


@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_preview_has_the_form_that_the_socket_asked_for(with_metadata: bool) -> None:
    def look(room: Room) -> None:
        room.start()
        room.me.with_metadata = with_metadata
        room.live.on_frame("gpu1", preview(node_id="5", prompt_id=ATTEMPT), False)
        (cell,) = room.me.waiting
        if with_metadata:
            assert cell.frame == preview(node_id="5", prompt_id=MINE)
        else:
            assert cell.frame == (1).to_bytes(4, "big") + (2).to_bytes(4, "big") + b"PNG"
        assert not room.them.waiting

    within_room(look)


def test_two_sockets_with_one_id_hear_everything() -> None:
    def look(room: Room) -> None:
        again = ClientSocket("me", TENANT)
        room.sockets.add(again)
        room.start()
        room.live.on_frame("gpu1", frame("progress", value=1, max=2, prompt_id=ATTEMPT), True)
        assert [each["type"] for each in frames_of(again)] == ["execution_start", "progress"]
        room.sockets.remove(room.me)
        room.live.on_frame("gpu1", frame("progress", value=2, max=2, prompt_id=ATTEMPT), True)
        assert [each["type"] for each in frames_of(again)] == ["progress"]

    within_room(look)


def test_a_slow_reader_misses_old_progress_and_no_end() -> None:
    socket = ClientSocket("me", TENANT)
    for step in range(1000):
        socket.push(frame("progress", value=step), True, "progress a")
        socket.push(b"picture %d" % step, False, "preview a")
    socket.push(frame("execution_success"), True)
    assert len(socket.waiting) <= BACKLOG + 3
    assert [cell.frame for cell in socket.waiting if not cell.is_text][-1] == b"picture 999"
    texts = [json.loads(cell.frame) for cell in socket.waiting if cell.is_text]
    assert texts[-2]["data"] == {"value": 999} and texts[-1]["type"] == "execution_success"


def test_a_reader_far_behind_is_cut_off() -> None:
    socket = ClientSocket("me", TENANT)
    for _ in range(MOST_FRAMES + 1):
        socket.push(b"{}", True)
    assert socket.closed == TRY_AGAIN_LATER and not socket.waiting and socket.over.is_set()


def test_a_new_socket_is_told_what_its_job_does_even_between_attempts(tmp_path: Path) -> None:
    async def main() -> None:
        policy = Policy(liveness_s=2.0)
        async with farm(1) as servers, desk(tmp_path, servers, policy=policy) as front:
            answer = await front.post(sleeper(5.0), client_id="me")
            await asyncio.sleep(1.0)
            (job,) = front.gateway.jobs.values()
            kinds = [each["type"] for each in greeted(front, job)]
            assert kinds[0] == "execution_start" and kinds[-1] == "executing" and "progress_state" in kinds
            assert {each["data"]["prompt_id"] for each in greeted(front, job)} == {job.id}
            servers[0].restart(downtime_s=20.0)
            await asyncio.sleep(10.0)
            assert front.status_of(answer["prompt_id"]) == "in_progress"
            (start,) = greeted(front, job)
            assert start == {"type": "execution_start", "data": {"prompt_id": job.id, "timestamp": job.started_ms}}

    clock.run_virtual(main())


def greeted(front: Desk, job: ClientJob) -> list[dict[str, Any]]:
    socket = ClientSocket("me", TENANT)
    front.gateway.live.greet(socket, [job])
    return frames_of(socket)


def test_the_queue_s_length_is_told_four_times_a_second_at_most(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1, speed=10) as servers, desk(tmp_path, servers) as front:
            socket = front.listen("me")
            for number in range(40):
                await front.post(sleeper(1.0 + number / 1000))
            began = asyncio.get_running_loop().time()
            while front.gateway.jobs:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            took = asyncio.get_running_loop().time() - began
            told = [each["data"]["status"] for each in frames_of(socket) if each["type"] == "status"]
            assert 2 <= len(told) <= took * 4 + 2
            assert told[-1] == {"exec_info": {"queue_remaining": 0}}

    clock.run_virtual(main())


def test_the_workflow_and_the_first_start_are_in_the_list_of_jobs(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers, policy=Policy(liveness_s=2.0)) as front:
            extra = {"extra_pnginfo": {"workflow": {"id": "the workflow"}}}
            answer = await front.post(sleeper(3.0), extra=extra)
            await asyncio.sleep(1.0)
            (job,) = front.gateway.jobs.values()
            assert forms.unended_item(job)["workflow_id"] == "the workflow"
            servers[0].restart(downtime_s=5.0)
            await front.end_of(answer["prompt_id"])
            item = front.history.job(answer["prompt_id"], TENANT)
            assert item is not None and item["workflow_id"] == "the workflow"
            assert item["execution_start_time"] == job.started_ms
            assert item["execution_end_time"] - item["execution_start_time"] > 5000

    clock.run_virtual(main())


def over_sockets(folder: Path, look: Callable[[Desk, aiohttp.ClientSession, str], Awaitable[None]]) -> None:
    """A gateway that listens, before one simulator."""

    async def main() -> None:
        async with farm(1) as servers, desk(folder, servers) as front, aiohttp.ClientSession() as client:
            runner = web.AppRunner(front.front.app(), access_log=None, shutdown_timeout=0.2)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            try:
                await look(front, client, f"http://127.0.0.1:{runner.addresses[0][1]}")
            finally:
                await runner.cleanup()

    asyncio.run(main())


def test_one_that_reads_nothing_stalls_nobody_and_its_connection_ends(tmp_path: Path) -> None:
    async def look(front: Desk, client: aiohttp.ClientSession, base: str) -> None:
        host, port = base.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(
            f"GET /ws?clientId=slow HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        async with client.ws_connect(f"{base}/ws?clientId=good") as good:
            assert (await good.receive_json())["type"] == "status"
            async with asyncio.timeout(5):
                while len(front.gateway.sockets) < 2:
                    await asyncio.sleep(0.01)
            big = b"x" * (1 << 20)
            for number in range(64):
                front.gateway.sockets.send_preview(TENANT, "slow", big, big, f"j{number}")
            front.gateway.sockets.send(TENANT, "good", frame("executing", node=None, prompt_id=MINE))
            async with asyncio.timeout(1):
                assert (await good.receive_json())["type"] == "executing"
            async with asyncio.timeout(5):
                while len(front.gateway.sockets) > 1:
                    await asyncio.sleep(0.02)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    over_sockets(tmp_path, look)


def test_a_page_learns_what_all_servers_can_do_and_gets_its_id(tmp_path: Path) -> None:
    async def look(front: Desk, client: aiohttp.ClientSession, base: str) -> None:
        for member in front.gateway.fleet.members:
            assert member.facts is not None
        async with client.ws_connect(f"{base}/api/ws") as socket:
            hello = await socket.receive_json()
            assert hello["type"] == "status" and len(hello["data"]["sid"]) == 32
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            flags = await socket.receive_json()
            assert flags == {"type": "feature_flags", "data": front.gateway.fleet.features()}
            assert flags["data"]["supports_preview_metadata"] is True
            (open_one,) = front.gateway.sockets.of(TENANT, None)
            assert open_one.with_metadata
        async with client.head(f"{base}/history") as reply:
            assert reply.status == 200

    over_sockets(tmp_path, look)
