"""A graph is read, checked and addressed as ComfyUI would, and refused with a hint where it would not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyload.errors import UsageError, WorkflowError
from comfyload.workflow import ObjectInfo, Variation, override, parse

GRAPH: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a fox"}, "_meta": {"title": "p.1"}},
    "3": {
        "class_type": "KSampler",
        "inputs": {"model": ["1", 0], "positive": ["2", 0], "seed": 16037163844193913000, "steps": 20},
        "_meta": {"title": "Paint"},
    },
    "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "book/page"}},
}

INFO = ObjectInfo(
    {
        "CheckpointLoaderSimple": {"output": ["MODEL", "CLIP", "VAE"], "output_node": False},
        "CLIPTextEncode": {"output": ["CONDITIONING"], "output_node": False},
        "KSampler": {
            "output": ["LATENT"],
            "output_node": False,
            "input": {"required": {"seed": ["INT", {"min": 0, "max": 2**64 - 1}]}},
        },
        "VAEDecode": {"output": ["IMAGE"], "output_node": False},
        "SaveImage": {"output": [], "output_node": True, "python_module": "nodes"},
        "PreviewImage": {"output": [], "output_node": True},
        "LoadImage": {"output": ["IMAGE", "MASK"], "output_node": False},
        "UpscaleModelLoader": {"output": ["UPSCALE_MODEL"], "output_node": False},
        "ImageUpscaleWithModel": {"output": ["IMAGE"], "output_node": False},
    }
)


def text(graph: object) -> bytes:
    return json.dumps(graph).encode()


def graph_of(variation: Variation, index: int) -> Any:
    return json.loads(variation.render(index))


def test_bare_and_wrapped_graphs_are_the_same_workflow() -> None:
    assert parse(text(GRAPH), "g").sha256 == parse(text({"prompt": GRAPH, "client_id": "x"}), "g").sha256


def test_a_byte_order_mark_is_no_matter() -> None:
    assert parse(b"\xef\xbb\xbf" + text(GRAPH), "g").graph == GRAPH


def test_seeds_of_64_bits_keep_every_digit() -> None:
    variation = Variation(parse(text(GRAPH), "g"), INFO, seed=1, as_is=True)
    assert b"16037163844193913000" in variation.render(0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b'{"1": {', "not JSON"),
        (b"\xff\xfe\x00", "cannot be read as such"),
        (b"[]", "a JSON list"),
        (b"3", "a JSON number"),
        (b"{}", "empty graph"),
        (text({"nodes": [], "links": []}), "editor's own format"),
        (text({"prompt": {"nodes": [], "links": []}}), "editor's own format"),
        (text({"1": 5}), "node 1 is a number"),
        (text({"1": {"inputs": {}}}), "node 1 has no class_type"),
        (text({"1": {"class_type": "A"}}), "no inputs object"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_graph_is_refused_with_a_hint(content: bytes, says: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        parse(content, "g", "dir/g.json")
    assert says in caught.value.message
    assert caught.value.message.startswith("dir/g.json")
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_inputs_are_overridden_by_id_and_by_title() -> None:
    changed, applied = override(parse(text(GRAPH), "g"), ["3.steps=30", "p.1.text=two = 2.0 foxes", "Paint.seed=7"])
    assert changed.graph["3"]["inputs"]["steps"] == 30
    assert changed.graph["2"]["inputs"]["text"] == "two = 2.0 foxes"
    assert applied == {"3.steps": 30, "2.text": "two = 2.0 foxes", "3.seed": 7}


def test_a_text_input_stays_text_even_if_it_looks_like_a_number() -> None:
    changed, _ = override(parse(text(GRAPH), "g"), ["2.text=12"])
    assert changed.graph["2"]["inputs"]["text"] == "12"


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("steps", "NODE.INPUT=VALUE"),
        ("3.step=4", "did you mean steps"),
        ("Pain.steps=4", "did you mean"),
        ("x=1", "NODE.INPUT"),
    ],
)
def test_an_unknown_target_names_the_nearest(setting: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(parse(text(GRAPH), "g"), [setting])
    assert hint in caught.value.hint


def test_a_title_that_two_nodes_have_is_refused() -> None:
    graph = {**GRAPH, "6": {**GRAPH["3"]}}
    with pytest.raises(UsageError, match="2 nodes are titled"):
        override(parse(text(graph), "g"), ["Paint.steps=1"])


def test_jobs_differ_in_their_seeds_and_nothing_else() -> None:
    variation = Variation(parse(text(GRAPH), "g"), INFO, seed=1)
    first, second = graph_of(variation, 0), graph_of(variation, 1)
    assert first["3"]["inputs"].pop("seed") != second["3"]["inputs"].pop("seed")
    assert first == second


def test_as_is_changes_nothing_at_all() -> None:
    variation = Variation(parse(text(GRAPH), "g"), INFO, seed=1, as_is=True, output_folder="comfyload/r")
    assert graph_of(variation, 3) == GRAPH
    assert not variation.varied


def test_outputs_go_below_the_runs_folder() -> None:
    variation = Variation(parse(text(GRAPH), "g"), INFO, seed=1, output_folder="comfyload/r")
    assert graph_of(variation, 0)["5"]["inputs"]["filename_prefix"] == "comfyload/r/book/page"
    assert variation.facts({}, keep_graph=False).output_prefix == "comfyload/r"


def test_the_graph_is_kept_only_if_asked() -> None:
    variation = Variation(parse(text(GRAPH), "g"), INFO, seed=1)
    assert variation.facts({}, keep_graph=False).graph is None
    assert variation.facts({}, keep_graph=True).graph == GRAPH


def test_text_that_looks_like_a_slot_is_left_alone() -> None:
    graph = {**GRAPH, "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": 'slot "slot" slot_'}}}
    assert graph_of(Variation(parse(text(graph), "g"), INFO, seed=1), 5)["2"] == graph["2"]
