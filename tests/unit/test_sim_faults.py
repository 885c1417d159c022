"""Each fault of the simulated server strikes when told to, and shows as it does on a real one."""

from __future__ import annotations

import asyncio
import json

import pytest

from comfyload.clock import now, run_virtual
from comfyload.comfy.stream import frames_of
from comfyload.comfy.wire.calls import Request, TransportError
from comfyload.sim import Faults, Server, Which
from tests.support.direct import Direct
from tests.unit.test_sim_helpers import Ear, call, get, image_graph, sampler_graph, settled, sleep_graph, submit, until


def test_every_nth_prompt_fails_at_the_chosen_class_and_keeps_what_is_upstream() -> None:
    async def main() -> None:
        faults = Faults(node_error=Which(every=2), error_class="VAEDecode", nan_in_error=True)
        async with Server(faults=faults) as server:
            ear = Ear(server)
            ids = [await submit(server, sampler_graph(seed)) for seed in (1, 2, 2)]
            await settled(server, 3)
            assert [truth.outcome for truth in server.truth] == ["completed", "failed", "completed"]
            (error,) = ear.of("execution_error")
            assert (error["prompt_id"], error["node_id"], error["node_type"]) == (ids[1], "6", "VAEDecode")
            assert sum("NaN" in str(frame) for frame in ear.frames) == 1
            body = (await call(server, "GET", f"history/{ids[1]}")).body
            assert b"NaN" in body and b'"completed": false' in body
            assert "5" in server.truth[2].cached

    run_virtual(main())


def test_a_slow_prompt_takes_its_factor() -> None:
    async def main() -> None:
        async with Server(faults=Faults(slow=Which(at=(2,)), slow_factor=3.0)) as server:
            for seed in (1, 2):
                await submit(server, sleep_graph(1.0, seed))
            await settled(server, 2)
            spans = [truth.spans["1"] for truth in server.truth]
            assert [end - start for start, end in spans] == [pytest.approx(1.0), pytest.approx(3.0)]

    run_virtual(main())


def test_a_hung_prompt_does_not_notice_an_interrupt() -> None:
    async def main() -> None:
        async with Server(faults=Faults(hang=Which(at=(1,)))) as server:
            await submit(server, sampler_graph())
            await asyncio.sleep(60.0)
            await call(server, "POST", "interrupt")
            await asyncio.sleep(600.0)
            assert server.truth[0].outcome == ""
            assert await get(server, "prompt") == {"exec_info": {"queue_remaining": 1}}

    run_virtual(main())


def test_a_blocked_execution_is_told_as_an_error_and_ends_well() -> None:
    async def main() -> None:
        async with Server(faults=Faults(partial=Which(at=(1,)))) as server:
            ear = Ear(server)
            prompt_id = await submit(server, image_graph())
            await settled(server, 1)
            (error,) = ear.of("execution_error")
            assert error["exception_type"] == "ExecutionBlocked" and "timestamp" not in error
            assert ear.kinds.index("execution_error") < ear.kinds.index("execution_success")
            status = (await get(server, f"history/{prompt_id}"))[prompt_id]["status"]
            assert status["status_str"] == "success"
            assert "execution_error" not in [message[0] for message in status["messages"]]

    run_virtual(main())


def test_a_history_can_say_success_with_an_error_among_its_messages() -> None:
    async def main() -> None:
        async with Server(faults=Faults(success_lie=Which(at=(1,)))) as server:
            prompt_id = await submit(server, image_graph())
            await settled(server, 1)
            status = (await get(server, f"history/{prompt_id}"))[prompt_id]["status"]
            assert (status["status_str"], status["completed"]) == ("success", True)
            assert [message[0] for message in status["messages"]][-1] == "execution_error"
            assert (await get(server, f"api/jobs/{prompt_id}"))["status"] == "completed"
            assert server.truth[0].outcome == "failed"

    run_virtual(main())


@pytest.mark.parametrize("how", ["fault", "lever", "graph"])
def test_a_dead_worker_accepts_and_runs_nothing(how: str) -> None:
    async def main() -> None:
        faults = Faults(dead_worker=Which(at=(1,))) if how == "fault" else None
        async with Server(faults=faults) as server:
            graph = sleep_graph(1.0, 1)
            if how == "graph":  # an unreachable node without inputs passes validation and kills a real worker
                graph["9"] = {"class_type": "EmptyImage"}
            first = await submit(server, graph)
            await asyncio.sleep(0.5)
            if how == "lever":
                server.kill_worker()
            await submit(server, sleep_graph(1.0, 2))
            await asyncio.sleep(100.0)
            shown = await get(server, "queue")
            assert [row[1] for row in shown["queue_running"]] == [first]
            assert len(shown["queue_pending"]) == 1
            assert await get(server, "history") == {}
            assert [truth.outcome for truth in server.truth] == ["died"]

    run_virtual(main())


def test_a_restart_forgets_everything_and_refuses_while_down() -> None:
    async def main() -> None:
        faults = Faults(restart=Which(at=(2,)), downtime_s=5.0)
        async with Server(faults=faults, race_s=0.0) as server:
            ear = Ear(server)
            first = await submit(server, sleep_graph(0.1, 1))
            await submit(server, sleep_graph(0.1, 2))
            third = await submit(server, sleep_graph(0.1, 3))
            await until(lambda: not server.up)
            assert ear.socket.close_code == 1006
            with pytest.raises(TransportError) as refused:
                await get(server, "prompt")
            assert not refused.value.sent
            with pytest.raises(TransportError):
                server.connect("me")
            await until(lambda: server.up)
            for prompt_id in (first, third):
                assert await get(server, f"history/{prompt_id}") == {}
            assert [truth.outcome for truth in server.truth] == ["completed", "died"]
            reply = await call(server, "POST", "prompt", {"prompt": sleep_graph(0.1, 4)})
            assert json.loads(reply.body)["number"] == 0
            await settled(server, 2)

    run_virtual(main())


def test_a_restart_can_come_at_a_time() -> None:
    async def main() -> None:
        async with Server(faults=Faults(restart_at_s=10.0, downtime_s=2.0)) as server:
            await submit(server, sleep_graph(100.0))
            up = []
            for pause in (9.9, 1.0, 60.0):
                await asyncio.sleep(pause)
                up.append(server.up)
            assert up == [True, False, True]
            assert [truth.outcome for truth in server.truth] == ["died"]

    run_virtual(main())


def test_a_restart_by_hand_wipes_temp_files_and_keeps_the_output() -> None:
    async def main() -> None:
        async with Server() as server:
            graph = image_graph()
            graph["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
            prompt_id = await submit(server, graph)
            await settled(server, 1)
            outputs = (await get(server, f"history/{prompt_id}"))[prompt_id]["outputs"]
            temp = outputs["4"]["images"][0]["filename"]
            server.restart()
            assert (await call(server, "GET", "view?filename=a_00001_.png&subfolder=run")).status == 200
            assert (await call(server, "GET", f"view?filename={temp}&type=temp")).status == 404

    run_virtual(main())


def test_a_lost_reply_was_accepted_and_a_refused_call_was_not() -> None:
    async def main() -> None:
        faults = Faults(drop_reply=Which(at=(1,)), refuse=Which(at=(1,)))
        async with Server(faults=faults) as server:
            body = {"prompt": image_graph(), "prompt_id": "0ce8a2cf-9b48-4a76-bacf-9618298d2218"}
            with pytest.raises(TransportError) as refused:
                await call(server, "POST", "prompt", body)
            assert not refused.value.sent and not server.posts
            with pytest.raises(TransportError) as lost:
                await call(server, "POST", "prompt", body)
            assert lost.value.sent and server.posts[body["prompt_id"]] == 1  # type: ignore[index]
            await settled(server, 1)
            assert server.truth[0].prompt_id == body["prompt_id"]

    run_virtual(main())


def test_a_lost_prompt_vanishes_without_a_word() -> None:
    async def main() -> None:
        async with Server(faults=Faults(lost_queue=Which(at=(2,)))) as server:
            await submit(server, sleep_graph(0.1, 1))
            lost = await submit(server, sleep_graph(0.1, 2))
            third = await submit(server, sleep_graph(5.0, 3))
            fourth = await submit(server, sleep_graph(0.1, 4))
            assert server.lose(fourth) and not server.lose(fourth)
            await settled(server, 2)
            assert [truth.prompt_id for truth in server.truth][1:] == [third]
            assert (await call(server, "GET", f"api/jobs/{lost}")).status == 404

    run_virtual(main())


def test_the_first_calls_to_a_path_are_answered_500() -> None:
    async def main() -> None:
        async with Server(faults=Faults(http_500="/history", http_500_first=2)) as server:
            statuses = [(await call(server, "GET", "history/x")).status for _ in range(3)]
            assert statuses == [500, 500, 200]
            assert (await call(server, "GET", "prompt")).status == 200
            assert server.calls["GET /history/{id}"] == 1

    run_virtual(main())


def test_history_can_be_late_by_seconds() -> None:
    async def main() -> None:
        async with Server(faults=Faults(no_history_s=3.0)) as server:
            prompt_id = await submit(server, sleep_graph(0.1))
            await settled(server, 1)
            assert await get(server, f"history/{prompt_id}") == {}
            await asyncio.sleep(3.0)
            assert prompt_id in await get(server, f"history/{prompt_id}")

    run_virtual(main())


def test_somebody_else_submits_too() -> None:
    async def main() -> None:
        async with Server() as server:
            ear = Ear(server)
            theirs = server.foreign(sleep_graph(1.0))
            await asyncio.sleep(0.1)
            assert (await get(server, "queue"))["queue_running"][0][1] == theirs
            await settled(server, 1)
            assert set(ear.kinds) == {"status"}

    run_virtual(main())


def test_the_same_seed_gives_the_same_run() -> None:
    async def run(seed: int) -> list[float | None]:
        async with Server(seed=seed) as server:
            for number in range(5):
                await submit(server, sampler_graph(number))
            await settled(server, 5)
            return [truth.finished for truth in server.truth]

    async def main() -> tuple[list[float | None], ...]:
        return await run(1), await run(2)

    first, second = run_virtual(main()), run_virtual(main())
    assert first == second
    assert first[0] != first[1]


def test_the_direct_transport_takes_its_time_both_ways() -> None:
    async def main() -> None:
        async with Server(race_s=0.0) as server:
            seen: list[str] = []

            async def note(request: Request) -> None:
                seen.append(request.path)

            direct = Direct(server, latency_s=0.05, before_call=note)
            async with frames_of(direct, "me") as events:
                start = now()
                body = json.dumps({"prompt": sleep_graph(0.1), "client_id": "me"}).encode()
                reply = await direct.call(Request(method="POST", path="prompt", body=body))
                assert reply.status == 200 and now() - start == pytest.approx(0.1)
                async for frame, _ in events:
                    if b'"execution_success"' in frame:
                        break
                assert now() - start == pytest.approx(0.2)
            got = await direct.download("view?filename=example.png&type=input", 5.0)
            assert (got.status, got.bytes, got.head[:4]) == (200, got.expected, b"\x89PNG")
            assert seen == ["prompt", "view?filename=example.png&type=input"]
            with pytest.raises(TransportError) as late:
                await direct.call(Request(method="GET", path="prompt", timeout_s=0.06))
            assert late.value.sent

    run_virtual(main())


def test_the_events_of_a_direct_transport_end_with_the_server() -> None:
    async def main() -> None:
        async with Server() as server, frames_of(Direct(server), "me") as events:
            asyncio.get_running_loop().call_later(1.0, server.drop_sockets)
            kinds = [json.loads(frame)["type"] async for frame, _ in events]
            assert kinds == ["status"]

    run_virtual(main())
