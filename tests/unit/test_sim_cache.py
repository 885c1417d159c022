"""The simulated server's cache hits and misses as a real one's do, in every mode."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from comfyload.clock import run_virtual
from comfyload.sim import Faults, Server, Which
from tests.support import captures
from tests.unit.test_sim_helpers import Ear, call, get, image_graph, sampler_graph, settled, submit, until

Graph = dict[str, Any]


def renumbered(graph: Graph) -> Graph:
    text = copy.deepcopy(graph)
    for node in text.values():
        node["inputs"] = {
            name: [value[0] + "0", value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
    return {node_id + "0": node for node_id, node in text.items()}


def changed(graph: Graph, node_id: str, **inputs: object) -> Graph:
    graph = copy.deepcopy(graph)
    graph[node_id]["inputs"] |= inputs
    return graph


def noise_graph(seed: int) -> Graph:
    graph = image_graph(77)
    graph["2"] = {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": seed, "strength": 0.5}}
    return graph


def steps() -> dict[str, Graph]:
    """The recorded session, step by step."""
    a = image_graph(1)
    titled = copy.deepcopy(a)
    titled["1"]["_meta"] = {"title": "another"}
    twins = copy.deepcopy(a)
    twins["4"], twins["5"] = copy.deepcopy(a["3"]), copy.deepcopy(a["3"])
    dead_branch = image_graph(88)
    dead_branch["9"] = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}
    failing = image_graph(99)
    failing["3"] = {"class_type": "SimFail", "inputs": {"message": "no", "seed": 0, "image": ["2", 0]}}
    failing["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}
    text: Graph = {
        "1": image_graph(55)["1"],
        "2": {"class_type": "PreviewAny", "inputs": {"source": "words"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    return {
        "A first": a,
        "A again": a,
        "B (other color)": image_graph(2),
        "A after B": a,
        "A with other node ids": renumbered(a),
        "A with other _meta title": titled,
        "A other filename_prefix only": changed(a, "3", filename_prefix="run/b"),
        "A with an extra unknown input on node 1": changed(a, "1", unknown=5),
        "two identical SaveImage (3,5) and (4)": twins,
        "A with color as float": changed(a, "1", color=1.0),
        "C first": noise_graph(1),
        "C seed+1": noise_graph(2),
        "dead branch node 9 not feeding an output": dead_branch,
        "failing first": failing,
        "failing again (upstream cached)": failing,
        "text output (PreviewAny)": text,
        "A after /free free_memory": a,
    }


@pytest.mark.parametrize(
    ("recorded", "options"),
    [
        ("cache_semantics", {"cache": "ram"}),
        ("cache_semantics_cacheclassic", {"cache": "classic"}),
        ("cache_semantics_cachelru100", {"cache": "lru", "lru": 100}),
        ("cache_semantics_cachenone", {"cache": "none"}),
        ("cache_semantics_cacheram22", {"cache": "ram", "host_ram_gib": 256.0}),
    ],
)
def test_a_session_hits_and_misses_as_recorded(recorded: str, options: dict[str, Any]) -> None:
    theirs = captures.load(recorded)

    async def main() -> None:
        async with Server(**options) as server:
            for title, graph in steps().items():
                if "/free" in title:
                    await call(server, "POST", "free", {"unload_models": True, "free_memory": True})
                ear = Ear(server)
                prompt_id = await submit(server, copy.deepcopy(graph))
                await until(lambda ear=ear, prompt_id=prompt_id: ear.over(prompt_id))  # type: ignore[misc]
                entry = (await get(server, f"history/{prompt_id}"))[prompt_id]
                expected = theirs[title]
                assert ear.of("execution_cached")[0]["nodes"] == expected["cached"], title
                executing = [data["node"] for data in ear.of("executing")]
                executed = [data["node"] for data in ear.of("executed")]
                if "identical" in title:  # a real server orders equals at random
                    assert sorted(map(str, executing)) == sorted(map(str, expected["executing"]))
                    assert sorted(executed) == sorted(expected["executed"])
                else:
                    assert executing == expected["executing"], title
                    assert executed == expected["executed"], title
                    assert list(entry["outputs"]) == expected["hist_outputs"], title
                assert entry["status"]["status_str"] == expected["status"]
                ear.socket.close()

    run_virtual(main())


def test_a_hit_shows_the_old_file_and_writes_none() -> None:
    async def main() -> None:
        async with Server() as server:
            names = []
            for graph in (image_graph(1), image_graph(1), image_graph(2)):
                prompt_id = await submit(server, graph)
                await settled(server, len(server.truth) + 1)
                images = (await get(server, f"history/{prompt_id}"))[prompt_id]["outputs"]["3"]["images"]
                names.append((images[0]["subfolder"], images[0]["filename"]))
            assert names == [("run", "a_00001_.png"), ("run", "a_00001_.png"), ("run", "a_00002_.png")]
            assert server.truth[1].cached == ["1", "2", "3"] and not server.truth[1].executed

    run_virtual(main())


def test_the_lru_keeps_no_more_than_its_number_of_old_results() -> None:
    async def main() -> None:
        async with Server(cache="lru", lru=4) as server:
            for color in (1, 2, 3, 1):
                await submit(server, image_graph(color))
            await settled(server, 4)
            assert server.truth[3].cached == []

    run_virtual(main())


def test_neighbouring_widget_values_are_different_results() -> None:
    async def main() -> None:
        async with Server(cache="lru") as server:
            for seed in (2**61 - 1, 0, 2**64 - 1):  # Python's own hash cannot tell the first two apart
                await submit(server, noise_graph(seed))
            await settled(server, 3)
            assert [truth.cached for truth in server.truth] == [[], ["1"], ["1"]]

    run_virtual(main())


def test_models_load_once_until_they_are_unloaded() -> None:
    async def main() -> None:
        async with Server() as server:

            async def seconds(seed: int) -> float:
                await submit(server, sampler_graph(seed, steps=20))
                await settled(server, len(server.truth) + 1)
                truth = server.truth[-1]
                assert truth.ended is not None
                return truth.ended - truth.started

            cold, warm = await seconds(1), await seconds(2)
            assert cold > warm + 3.0
            assert 1.8 < warm < 3.0
            await call(server, "POST", "free", {"unload_models": True})
            reloaded = await seconds(3)
            assert reloaded > warm + 1.0
            assert server.truth[-1].cached  # the loader's result is still there: only its model was unloaded

    run_virtual(main())


def test_running_out_of_memory_unloads_the_models() -> None:
    async def main() -> None:
        async with Server(faults=Faults(oom=Which(at=(2,)))) as server:
            ear = Ear(server)
            for seed in (1, 2, 3, 4):
                await submit(server, sampler_graph(seed))
            await settled(server, 4)
            (error,) = ear.of("execution_error")
            assert error["exception_type"] == "torch.OutOfMemoryError"
            assert error["node_type"] == "KSampler"
            spans = [truth.spans["5"] for truth in server.truth if "5" in truth.spans]
            first, after, warm = (end - start for start, end in spans)
            assert after > warm + 1.0 and after > first + 1.0

    run_virtual(main())


def test_bigger_images_and_more_steps_take_longer() -> None:
    async def main() -> None:
        async with Server(speed=2.0) as server:
            small, large = sampler_graph(1, steps=10), sampler_graph(1, steps=20)
            large["4"]["inputs"] |= {"width": 2048}
            for graph in (small, large):
                await submit(server, graph)
            await settled(server, 2)
            short, long = (truth.spans["5"][1] - truth.spans["5"][0] for truth in server.truth)
            assert 3.6 < long / short < 4.4
            assert 0.4 < short < 0.5

    run_virtual(main())
