"""The simulated server tells what a real one tells, to whom it tells it, and in that order."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest

from comfyload.clock import now, run_virtual
from comfyload.sim import Faults, Server, Which
from tests.support import captures
from tests.unit.test_sim_helpers import (
    Ear,
    call,
    get,
    image_graph,
    same_shape,
    sampler_graph,
    settled,
    sleep_graph,
    submit,
    until,
)


def test_a_cold_run_and_its_rerun_tell_the_recorded_events() -> None:
    cold, rerun = captures.load("ws_cold_run"), captures.load("ws_cached_rerun")

    async def main() -> None:
        async with Server() as server:
            for recorded in (cold, rerun):
                ear = Ear(server)
                prompt_id = await submit(server, recorded["submitted"])
                await until(lambda ear=ear, prompt_id=prompt_id: ear.over(prompt_id))  # type: ignore[misc]
                theirs = [message["msg"] for message in recorded["messages"]]
                assert ear.kinds == [message["type"] for message in theirs]
                ours = [(m["type"], m["data"].get("node")) for m in ear.messages]
                assert ours == [(m["type"], m["data"].get("node")) for m in theirs]
                for mine, other in zip(ear.messages, theirs, strict=True):
                    same_shape(mine, other, mine["type"])
                ear.socket.close()

    run_virtual(main())


def test_a_bystander_hears_only_status() -> None:
    async def main() -> None:
        async with Server() as server:
            ear, other = Ear(server), Ear(server, "other")
            await submit(server, image_graph())
            await settled(server, 1)
            assert other.kinds == ["status"] * 4
            assert "execution_success" in ear.kinds

    run_virtual(main())


def test_without_a_client_id_progress_goes_to_all_and_the_rest_to_nobody() -> None:
    async def main() -> None:
        async with Server(previews=True) as server:
            ear = Ear(server)
            await submit(server, sampler_graph(steps=3), client_id=None)
            await settled(server, 1)
            assert set(ear.kinds) == {"status", "progress_state", "progress"}
            assert sum(isinstance(frame, bytes) for frame in ear.frames) == 3

    run_virtual(main())


def test_an_interrupt_of_a_prompt_without_client_id_is_told_to_all() -> None:
    async def main() -> None:
        async with Server() as server:
            ear = Ear(server)
            await submit(server, sampler_graph(steps=50), client_id=None)
            await asyncio.sleep(6.0)
            await call(server, "POST", "interrupt")
            await settled(server, 1)
            assert "execution_interrupted" in ear.kinds
            assert "executing" not in ear.kinds

    run_virtual(main())


@pytest.mark.parametrize("negotiated", [False, True])
def test_previews_come_bare_or_with_metadata(negotiated: bool) -> None:
    async def main() -> None:
        async with Server(previews=True) as server:
            ear = Ear(server)
            if negotiated:
                flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
                ear.socket.receive(json.dumps(flags))
            prompt_id = await submit(server, sampler_graph(steps=4))
            await settled(server, 1)
            binary = [frame for frame in ear.frames if isinstance(frame, bytes)]
            assert len(binary) == 4
            kind, second = struct.unpack(">II", binary[0][:8])
            if not negotiated:
                assert (kind, second, binary[0][8:11]) == (1, 1, b"\xff\xd8\xff")
                return
            assert kind == 4
            metadata = json.loads(binary[0][8 : 8 + second])
            assert (metadata["node_id"], metadata["prompt_id"]) == ("5", prompt_id)
            assert binary[0][8 + second :].startswith(b"\xff\xd8\xff")
            assert "feature_flags" in ear.kinds

    run_virtual(main())


def test_steps_without_previews_are_thinned_but_for_the_first_and_last() -> None:
    async def main() -> None:
        async with Server(speed=10.0) as server:
            ear = Ear(server)
            await submit(server, sampler_graph(steps=30))
            await settled(server, 1)
            values = [data["value"] for data in ear.of("progress")]
            assert values[0] == 1 and values[-1] == 30
            assert len(values) < 6

    run_virtual(main())


def test_the_second_socket_of_a_client_takes_over_and_falls_silent_when_the_first_closes() -> None:
    async def main() -> None:
        async with Server() as server:
            first, second = Ear(server), Ear(server)
            await submit(server, image_graph(1))
            await settled(server, 1)
            assert first.kinds == ["status"]
            assert "execution_success" in second.kinds
            heard = len(second.frames)
            first.socket.close()
            await submit(server, image_graph(2))
            await settled(server, 2)
            assert len(second.frames) == heard
            assert second.socket.close_code is None

    run_virtual(main())


def test_a_reconnect_during_a_run_is_told_the_node_without_its_prompt() -> None:
    async def main() -> None:
        async with Server() as server:
            ear = Ear(server)
            await submit(server, sleep_graph(1.0))
            await asyncio.sleep(0.5)
            ear.socket.close()
            again = Ear(server)
            await settled(server, 1)
            assert again.kinds[:2] == ["status", "executing"]
            assert again.messages[1]["data"] == {"node": "1"}
            assert Ear(server).kinds == []
            late = Ear(server)
            await asyncio.sleep(0.1)
            assert late.kinds == ["status"]

    run_virtual(main())


def test_history_is_sometimes_written_after_success_was_told() -> None:
    async def main() -> None:
        async with Server() as server:
            for seed in range(60):
                await submit(server, sleep_graph(0.1, seed))
            await settled(server, 60)
            lags = [t.finished - t.ended for t in server.truth if t.finished is not None and t.ended is not None]
            late = [lag for lag in lags if lag > 0]
            assert 15 < len(late) < 45
            assert max(late) <= 0.0111

    run_virtual(main())


def test_history_is_still_empty_at_execution_success_in_a_race() -> None:
    async def main() -> None:
        async with Server(seed=3) as server:
            empty = 0
            for seed in range(20):
                socket = server.connect("me")
                prompt_id = await submit(server, sleep_graph(0.05, seed))
                async for frame in socket:
                    kind = json.loads(frame)["type"]
                    if kind == "execution_success":
                        empty += await get(server, f"history/{prompt_id}") == {}
                    if kind == "executing" and json.loads(frame)["data"]["node"] is None:
                        assert prompt_id in await get(server, f"history/{prompt_id}")
                        break
                socket.close()
            assert 0 < empty < 20

    run_virtual(main())


def test_a_sleep_takes_exactly_its_time_and_stamps_agree_with_the_loop() -> None:
    async def main() -> None:
        async with Server(race_s=0.0) as server:
            start = now()
            prompt_id = await submit(server, sleep_graph(0.1))
            await settled(server, 1)
            truth = server.truth[0]
            assert truth.started == pytest.approx(start)
            assert truth.ended == pytest.approx(start + 0.1)
            messages = (await get(server, f"history/{prompt_id}"))[prompt_id]["status"]["messages"]
            begin, end = messages[0][1]["timestamp"], messages[-1][1]["timestamp"]
            assert isinstance(begin, int) and end - begin in (99, 100, 101)

    run_virtual(main())


def test_unknown_and_duplicate_events_surround_the_true_ones() -> None:
    async def main() -> None:
        async with Server(faults=Faults(unknown_events=True, duplicate_events=True)) as server:
            ear = Ear(server)
            await submit(server, image_graph())
            await settled(server, 1)
            assert sum('"execution_success"' in str(frame) for frame in ear.frames) == 2
            assert any(isinstance(frame, str) and "crystools" in frame for frame in ear.frames)
            assert b"\x00\x00" in ear.frames and "not json at all" in ear.frames

    run_virtual(main())


def test_stalled_events_come_all_at_once_when_the_stall_ends() -> None:
    async def main() -> None:
        faults = Faults(stall_events=Which(at=(2,)), stalled_s=5.0)
        async with Server(faults=faults, race_s=0.0) as server:
            ear = Ear(server)
            await submit(server, sleep_graph(0.1, 1))
            second = await submit(server, sleep_graph(0.1, 2))
            await settled(server, 2)
            assert second in await get(server, f"history/{second}")
            assert not ear.over(second)
            await asyncio.sleep(6.0)
            assert ear.over(second)

    run_virtual(main())


def test_sockets_are_cut_at_the_chosen_event() -> None:
    async def main() -> None:
        faults = Faults(drop_socket=Which(at=(1,)), drop_socket_event=4)
        async with Server(faults=faults) as server:
            ear = Ear(server)
            prompt_id = await submit(server, image_graph())
            await settled(server, 1)
            assert ear.socket.close_code == 1006
            assert ear.kinds == [*["status"] * 3, "execution_start", "execution_cached", "progress_state", "executing"]
            assert prompt_id in await get(server, f"history/{prompt_id}")

    run_virtual(main())
