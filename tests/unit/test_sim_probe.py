"""The simulated instrumentation tells what the pack would tell, on a clock of its own."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comfyload.clock import now, run_virtual
from comfyload.comfy.wire.calls import Request
from comfyload.sim import Faults, Server, Which
from tests.unit.test_sim_helpers import sampler_graph, settled, sleep_graph, submit

SCHEMA = Path(__file__).parents[2] / "pack/comfyload_probe/schema.json"


async def _get(server: Server, route: str) -> Any:
    reply = await server.call(Request(method="GET", path=f"comfyload/v1/{route}"))
    return json.loads(reply.body) if reply.status == 200 else reply.status


async def _rows(server: Server) -> list[dict[str, Any]]:
    return list((await _get(server, "events?after=0&limit=5000"))["rows"])


def test_a_server_without_the_pack_has_no_such_route() -> None:
    async def main() -> None:
        async with Server() as server:
            assert await _get(server, "clock") == 404

    run_virtual(main())


def test_every_prompt_and_node_is_told_once_and_by_the_schema() -> None:
    async def main() -> None:
        async with Server(probe=True, faults=Faults(node_error=Which(every=3))) as server:
            ids = [await submit(server, sleep_graph(0.5, seed)) for seed in range(6)]
            await settled(server, 6)
            rows = await _rows(server)
            for row in rows:
                jsonschema.validate(row, json.loads(SCHEMA.read_text()))
            assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
            ended = [row for row in rows if row["event"] == "prompt.ended"]
            assert [row["prompt_id"] for row in ended] == ids
            assert [row["status"] for row in ended] == ["ok", "ok", "error", "ok", "ok", "error"]
            nodes = [row for row in rows if row["event"] == "node" and row["prompt_id"] == ids[0]]
            assert {row["node"] for row in nodes} == set(server.truth[0].executed)
            spans = server.truth[0].spans
            for row in nodes:
                begin, end = spans[row["node"]]
                assert row["duration_ms"] == pytest.approx(1000 * (end - begin))

    run_virtual(main())


def test_its_gpu_is_busy_while_a_sampler_runs_and_its_energy_grows_with_its_power() -> None:
    async def main() -> None:
        async with Server(probe=True) as server:
            await _get(server, "clock")
            await asyncio.sleep(5.0)
            await submit(server, sampler_graph(steps=20))
            await settled(server, 1)
            await asyncio.sleep(5.0)
            samples = [row for row in await _rows(server) if row["event"] == "sample"]
            gpus = [row["gpus"][0] for row in samples]
            assert gpus[0]["utilisation_percent"] == 0
            assert max(gpu["utilisation_percent"] for gpu in gpus) > 90
            assert gpus[-1]["utilisation_percent"] == 0
            pauses = [b["mono_s"] - a["mono_s"] for a, b in pairwise(samples)]
            assert max(pauses) == pytest.approx(0.5)
            used_j = gpus[-1]["energy_j"] - gpus[0]["energy_j"]
            assert used_j == pytest.approx(sum(gpu["power_w"] * 0.5 for gpu in gpus[1:]), rel=0.01)

    run_virtual(main())


def test_its_clock_is_not_the_clients_and_a_restart_is_another_boot() -> None:
    async def main() -> None:
        async with Server(probe=True) as server:
            shown = await _get(server, "clock")
            assert shown["mono_s"] > now() + 1000
            await submit(server, sleep_graph(0.1))
            await settled(server, 1)
            server.restart()
            again = await _get(server, f"events?after=3&boot={shown['boot']}")
            assert again["boot"] != shown["boot"]
            assert all(row["seq"] <= len(again["rows"]) for row in again["rows"])
            assert await _get(server, "events?after=-1") == 400

    run_virtual(main())
