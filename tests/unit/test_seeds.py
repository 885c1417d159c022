"""What varies between jobs: seeds of every form and by links, and what is salted where none reaches."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyload.errors import UsageError
from comfyload.sim.catalog import OBJECT_INFO
from comfyload.workflow import ObjectInfo, Variation, parse
from comfyload.workflow.data import parse_table
from comfyload.workflow.remarks import remarks
from comfyload.workflow.seeds import find_seeds

MORE = {
    "TextGenerate": {
        "output": ["STRING"],
        "input": {
            "required": {
                "sampling_mode": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "off", "inputs": {"required": {}}},
                            {"key": "on", "inputs": {"required": {"seed": ["INT", {"min": 0, "max": 2**64 - 1}]}}},
                        ]
                    },
                ]
            }
        },
    },
    "INTConstant": {"output": ["INT"], "input": {"required": {"value": ["INT", {"min": 0, "max": 2**63}]}}},
    "Reroute": {"output": ["*"], "input": {"required": {"": ["*"]}}},
    "StringToInt": {"output": ["INT"], "input": {"required": {"string": ["STRING", {}]}}},
    "AddInts": {"output": ["INT"], "input": {"required": {"a": ["INT", {}], "b": ["INT", {}]}}},
    "JoinText": {"output": ["STRING"], "input": {"required": {"text": ["STRING", {}], "number": ["STRING", {}]}}},
    "Efficient": {"output": ["MODEL", "LATENT", "IMAGE"], "input": {"required": {"seed": ["INT", {}]}}},
    "OwnPathSave": {"output": [], "output_node": True, "python_module": "custom_nodes.own"},
    "LoraLoaderModelOnly": {
        "output": ["MODEL"],
        "input": {"required": {"model": ["MODEL"], "strength_model": ["FLOAT", {}]}},
    },
}
INFO = ObjectInfo(OBJECT_INFO | MORE)


def sampled(seed: object, **more: Any) -> dict[str, Any]:
    """A text-to-image graph whose sampler takes `seed`; `more` are further nodes, `n20` being node 20."""
    graph: dict[str, Any] = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 0], "text": "a cat"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "positive": ["3", 0], "latent_image": ["5", 0]}},
        "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "w"}},
    }
    graph["6"]["inputs"]["seed"] = seed
    return graph | {name[1:]: node for name, node in more.items()}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


ONE = node("PrimitiveInt", value=1)
TEXT = node("PrimitiveString", value="1")


def varied(graph: dict[str, Any], table: str | None = None, **rules: Any) -> Variation:
    workflow = parse(json.dumps(graph).encode(), "g")
    return Variation(workflow, INFO, seed=1, table=None if table is None else parse_table(table, "t"), **rules)


def job(variation: Variation, index: int) -> Any:
    return json.loads(variation.render(index))


@pytest.mark.parametrize("seed", [7, 0, -1, 2**64 - 1, "1234", "%seed%", "", 7.0])
def test_a_literal_seed_is_varied_whatever_its_form(seed: object) -> None:
    variation = varied(sampled(seed))
    assert (variation.varied, variation.salted) == (["6.seed"], [])
    first, second = (job(variation, index)["6"]["inputs"]["seed"] for index in (0, 1))
    assert first != second and isinstance(first, int) and 0 <= first < 2**64


@pytest.mark.parametrize(
    ("link", "more", "slot"),
    [
        (["20", 0], {"n20": node("PrimitiveInt", value=1234)}, "20.value"),
        (["20", 0], {"n20": node("INTConstant", value=1234)}, "20.value"),
        (["20", 0], {"n20": node("SomeUnknownInt", number=1234, label="x")}, "20.number"),
        (["21", 0], {"n20": ONE, "n21": node("Reroute", **{"": ["20", 0]})}, "20.value"),
        (["21", 0], {"n20": TEXT, "n21": node("StringToInt", string=["20", 0])}, "20.value"),
        (["21", 0], {"n20": ONE, "n21": node("AddInts", a=["20", 0], b=3)}, "20.value"),
        (["20", 0], {"n20": ONE, "n30": node("PreviewAny", source=["20", 0])}, "20.value"),
    ],
)  # fmt: skip
def test_a_seed_is_followed_to_the_literal_that_feeds_it(link: Any, more: Any, slot: str) -> None:
    variation = varied(sampled(link, **more))
    assert (variation.varied, variation.salted) == ([slot], [])
    assert "9" in variation.reach.runs and variation.reach.samplers == {"6"}


def test_a_value_keeps_the_form_that_its_input_takes() -> None:
    text = varied(sampled(["21", 0], n20=node("PrimitiveString", value="1"), n21=node("StringToInt", string=["20", 0])))
    assert isinstance(job(text, 0)["20"]["inputs"]["value"], str)
    added = varied(sampled(["21", 0], n20=node("PrimitiveInt", value=1), n21=node("AddInts", a=["20", 0], b=3)))
    assert all(job(added, index)["20"]["inputs"]["value"] < 2**32 for index in range(20))  # the sum is in bounds too


@pytest.mark.parametrize(
    "more",
    [
        {"n20": node("PrimitiveInt", value=64), "n5": node("EmptyLatentImage", width=["20", 0], height=64)},
        {"n20": node("AddInts", a=1, b=2)},
        {"n20": node("LoadImage", image="a.png", index=3)},
        {"n20": node("RandomNumber", low=["21", 0], high=["22", 0]), "n21": ONE, "n22": ONE},
    ],
)  # fmt: skip
def test_a_number_that_is_more_than_a_seed_is_left_alone_and_the_sampler_salted(more: Any) -> None:
    variation = varied(sampled(["20", 0], **more))
    assert (variation.varied, variation.salted) == ([], ["6"])
    assert variation.reach.reloaded == []


def test_two_samplers_with_one_linked_seed_share_it() -> None:
    second = {"n21": node("KSampler", seed=["20", 0], latent_image=["6", 0], model=["1", 0])}
    graph = sampled(["20", 0], n20=node("PrimitiveInt", value=5), **second)
    graph["7"]["inputs"]["samples"] = ["21", 0]
    assert varied(graph).varied == ["20.value"]


def test_a_sampler_that_no_seed_reaches_is_salted_beside_one_that_is_reached() -> None:
    other = {"n21": node("KSampler", seed=["30", 0], model=["1", 0]), "n22": node("VAEDecode", samples=["21", 0])}
    graph = sampled(7, **other, n30=node("Magic", a=1, b=2), n23=node("SaveImage", images=["22", 0]))
    variation = varied(graph)
    assert (variation.varied, variation.salted, variation.constant) == (["6.seed"], ["21"], [])
    assert variation.reach.samplers == {"6", "21"}
    (remark,) = remarks(variation)
    assert remark.level == "warning" and "no seed reaches node 21" in remark.text


def test_dotted_inputs_of_an_option_are_seeds_with_its_bounds() -> None:
    graph = {
        "2": node("TextGenerate", **{"prompt": "a", "sampling_mode": "on", "sampling_mode.seed": 5}),
        "3": node("PreviewAny", source=["2", 0]),
    }
    variation = varied(graph)
    assert (variation.varied, variation.salted) == (["2.sampling_mode.seed"], [])
    assert max(job(variation, index)["2"]["inputs"]["sampling_mode.seed"] for index in range(50)) > 2**32


def test_names_that_only_look_like_seeds_are_none() -> None:
    graph = {
        "8": node("Noise", noise_seed=1, wildcard_seed=2, seeds=3, x_seed=True, use_seed=False, seedling=4),
        "9": node("SaveImage", images=["8", 0]),
    }
    assert varied(graph).varied == ["8.noise_seed", "8.wildcard_seed"]


def test_a_seed_that_feeds_no_output_is_not_called_varied() -> None:
    assert varied(sampled(7, n30=node("Noise", seed=3))).varied == ["6.seed"]


# What a table or --set says counts as varying, or as fixed.

STILL = {
    "1": node("EmptyImage", width=64, height=64, batch_size=1, color=3),
    "2": node("ImageBlur", image=["1", 0], blur_radius=15, sigma=5.0),
    "4": node("ImageAddNoise", image=["2", 0], seed=7, strength=0.5),
    "5": node("SaveImage", images=["4", 0], filename_prefix="d"),
}


def test_a_table_of_seeds_varies_them_and_salts_nothing() -> None:
    variation = varied(STILL, "4.seed\n101\n102\n103\n")
    assert (variation.salted, variation.varied, variation.period) == ([], ["4.seed"], 3)
    assert [job(variation, index)["4"]["inputs"]["seed"] for index in range(4)] == [101, 102, 103, 101]
    assert variation.reach.runs == {"4", "5"}
    assert not list(remarks(variation, jobs=3))
    (remark,) = remarks(variation, jobs=8)
    assert "only 3 of 8 jobs differ" in remark.text


def test_a_table_of_texts_leaves_the_seed_to_us() -> None:
    variation = varied(sampled(7), "3.text\na fox\nan owl\n")
    assert (variation.varied, variation.salted) == (["3.text", "6.seed"], [])
    assert variation.reach.runs == {"3", "6", "7", "9"}


def test_a_column_that_only_names_files_varies_no_work() -> None:
    graph = {key: body for key, body in STILL.items() if key != "4"}
    graph["5"] = node("SaveImage", images=["2", 0], filename_prefix="d")
    variation = varied(graph, "5.filename_prefix\na\nb\n")
    assert variation.salted == ["1"]


def test_a_seed_that_is_set_stays_and_that_is_said() -> None:
    variation = varied(STILL | {"4": node("ImageAddNoise", image=["2", 0], seed=5, strength=0.5)}, fixed={"4.seed"})
    assert {job(variation, index)["4"]["inputs"]["seed"] for index in range(5)} == {5}
    assert (variation.pinned, variation.varied, variation.salted, variation.constant) == (["4.seed"], [], [], [])
    (remark,) = remarks(variation, jobs=3)
    assert "4.seed is the same in every job" in remark.text and "answered from the cache" in remark.text


def test_a_table_with_one_seed_fixes_it_as_set_does() -> None:
    assert varied(STILL, "4.seed\n5\n5\n").pinned == ["4.seed"]


def test_an_input_cannot_be_set_and_be_a_column() -> None:
    with pytest.raises(UsageError, match=r"4\.seed is set for all jobs, and a column"):
        varied(STILL, "4.seed\n1\n2\n", fixed={"4.seed"})


def test_a_fixed_seed_beside_a_varied_one_is_no_work_of_each_job() -> None:
    graph = sampled(7, n20=node("KSampler", model=["1", 0], seed=5, latent_image=["5", 0]))
    graph["6"]["inputs"]["latent_image"] = ["20", 0]
    variation = varied(graph, fixed={"20.seed"})
    facts = variation.facts({}, keep_graph=False)
    assert (facts.pinned, facts.salted, facts.varied) == (["20.seed"], [], ["6.seed"])
    assert [node for node, known in facts.nodes.items() if known.sampler] == ["6"]
    assert facts.nodes["9"].samplers == ["6"]


def test_a_column_replaces_a_linked_seed_and_its_source_is_no_seed_any_more() -> None:
    variation = varied(sampled(["20", 0], n20=node("PrimitiveInt", value=1)), "6.seed\n1\n2\n")
    assert (variation.varied, variation.salted) == (["6.seed"], [])


# What is salted, and what must not run again.


def test_a_graph_without_a_seed_is_salted_where_its_work_begins_never_at_a_loader() -> None:
    graph = {
        "1": node("UpscaleModelLoader", model_name="4x.pth"),
        "2": node("LoadImage", image="a.png"),
        "3": node("ImageUpscaleWithModel", upscale_model=["1", 0], image=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="u"),
    }
    variation = varied(graph)
    assert variation.salted == ["2"]
    first, second = (job(variation, i)["2"]["inputs"]["comfyload_salt"] for i in (0, 1))
    assert first != second


def test_the_salt_keeps_away_from_what_a_loader_depends_on() -> None:
    lora = {
        "n40": node("PrimitiveFloat", value=0.8),
        "n41": node("LoraLoaderModelOnly", model=["1", 0], strength_model=["40", 0]),
    }
    graph = sampled(["20", 0], **lora, n20=node("Magic", a=1, b=2))
    graph["6"]["inputs"]["model"] = ["41", 0]
    variation = varied(graph)
    assert (variation.salted, variation.reach.reloaded) == (["6"], [])


def test_where_all_work_goes_through_a_loader_it_runs_and_that_is_said() -> None:
    graph = {
        "1": node("LoadImage", image="a.png"),
        "2": node("LoraLoaderModelOnly", model=["1", 0], strength_model=1),
        "3": node("PreviewAny", source=["2", 0]),
    }
    variation = varied(graph)
    assert (variation.salted, variation.reach.reloaded) == (["1"], ["2"])
    assert any("loaded or patched in each job" in remark.text for remark in remarks(variation))


def test_a_column_that_patches_a_model_is_done_and_said() -> None:
    graph = sampled(7, n41=node("LoraLoaderModelOnly", model=["1", 0], strength_model=1.0))
    graph["6"]["inputs"]["model"] = ["41", 0]
    variation = varied(graph, "41.strength_model\n0.5\n0.6\n")
    assert variation.reach.reloaded == ["41"]


def test_a_node_that_samples_and_passes_its_model_on_is_no_loader() -> None:
    info = ObjectInfo({"KSampler (Efficient)": MORE["Efficient"]})
    assert info["KSampler (Efficient)"].sampler and not info["KSampler (Efficient)"].loads


def test_a_side_output_that_no_seed_reaches_is_named_and_not_salted() -> None:
    graph = sampled(7, n17=node("LoadImage", image="pose.png"), n18=node("PreviewImage", images=["17", 0]))
    variation = varied(graph)
    facts = variation.facts({}, keep_graph=False)
    assert (variation.salted, facts.constant) == ([], ["18"])
    assert not facts.nodes["18"].output
    assert facts.nodes["9"].samplers == ["6"]


def test_nodes_that_are_alike_stay_alike_under_salt() -> None:
    graph = {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=3),
        "2": node("EmptyImage", width=64, height=64, batch_size=1, color=3),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("PreviewImage", images=["3", 0]),
    }
    first = job(varied(graph), 0)
    assert first["1"] == first["2"]


# Where outputs go.


def test_only_classes_known_to_take_a_folder_get_one_before_their_prefix() -> None:
    graph = sampled(7, n10=node("OwnPathSave", images=["7", 0], output_path="mine", filename_prefix="ComfyUI"))
    variation = varied(graph, output_folder="comfyload/r")
    sent = job(variation, 0)
    assert sent["9"]["inputs"]["filename_prefix"] == "comfyload/r/w"
    assert sent["10"]["inputs"]["filename_prefix"] == "ComfyUI"
    assert (variation.prefixed, variation.kept_prefix) == (["9"], ["10"])
    assert any("filename_prefix of node 10 is left alone" in remark.text for remark in remarks(variation))


def test_without_a_servers_description_links_and_forms_are_found_and_no_prefix_is_touched() -> None:
    graph = sampled(["20", 0], n20=node("PrimitiveInt", value=1))
    workflow = parse(json.dumps(graph).encode(), "g")
    assert [(seed.node, seed.key) for seed in find_seeds(workflow)] == [("20", "value")]
    variation = Variation(workflow, ObjectInfo(), seed=1, output_folder="comfyload/r")
    assert (variation.varied, variation.prefixed) == (["20.value"], [])
