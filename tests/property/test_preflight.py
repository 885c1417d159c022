"""Over graphs with every kind of trouble, preflight says what the server then does: refuse, drop, run, fail or die."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload.sim.catalog import CLASSES
from comfyload.workflow import parse
from tests.support.answers import preflight_answer, seen

MAKERS = ("EmptyImage", "LoadImage", "ImageInvert", "ImageBatch", "ImageAddNoise", "ImageScale")
SHOWS = ("PreviewImage", "SaveImage", "PreviewAny")
NODES = [str(number) for number in range(7)]
GOOD = {
    "width": 8, "height": 8, "batch_size": 1, "color": 3, "image": "example.png", "seed": 5, "strength": 0.5,
    "upscale_method": "area", "crop": "disabled", "filename_prefix": "x", "source": 4,
}  # fmt: skip
BAD: dict[str, list[Any]] = {
    "width": [0, 99999, "much", None, [], [1, 2, 3]],
    "batch_size": [0, "two"],
    "color": [-1, 16777216],
    "image": ["gone.png", "sub\\a.png"],
    "seed": [-1, "%seed%", None],
    "strength": [1.5, "x"],
    "upscale_method": ["bicubicc"],
    "crop": ["none"],
}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Up to seven nodes that run, and then up to three troubles: a value or link that is wrong in one of many ways."""
    count = draw(st.integers(2, len(NODES)))
    nodes = NODES[:count]
    graph: dict[str, Any] = {}
    for place, node in enumerate(nodes):
        kinds = MAKERS[:2] if place == 0 else SHOWS if place == count - 1 else MAKERS + SHOWS
        name = draw(st.sampled_from(kinds))
        inputs = {
            key: [draw(st.sampled_from(nodes[:place])), 0] if spec.kind in ("IMAGE", "*") else GOOD[key]
            for key, spec in CLASSES[name].inputs.items()
        }
        graph[node] = {"class_type": name, "inputs": inputs}
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        _spoil(draw, graph)
    return graph


def _spoil(draw: st.DrawFn, graph: dict[str, Any]) -> None:
    body, other = graph[draw(st.sampled_from(list(graph)))], draw(st.sampled_from(list(graph)))
    inputs = body["inputs"]
    key = draw(st.sampled_from([*inputs, "old"]))
    if key == "old":
        inputs[key] = draw(st.sampled_from([["77", 0], [other, 0], [other, 6], "text", ["77", "0"], 7]))
    elif draw(st.integers(0, 3)) == 0:
        del inputs[key]
    elif isinstance(inputs[key], list):
        wrong: list[Any] = [[other, 0], [other, 0], ["77", 0], [other, 4], [other, "0"], [], "text", 5, None]
        inputs[key] = draw(st.sampled_from(wrong))
    elif key in BAD:
        inputs[key] = draw(st.sampled_from(BAD[key]))


@pytest.mark.parametrize("version", ["0.33.0", "0.3.64"])
def test_preflight_says_what_the_server_does(version: str) -> None:
    verdicts: set[str] = set()

    @given(graphs())
    @settings(max_examples=250, deadline=None, derandomize=True)
    def same(graph: dict[str, Any]) -> None:
        answer = preflight_answer(graph, version)
        verdict, dropped = seen(graph, version)
        if verdict == "fails" and any(p.kind == "undeclared_link" and p.then == "kill" for p in answer.problems):
            verdict = "kills"  # as it would where the node that lacks this output is cached
        verdicts.add(verdict)
        assert (answer.verdict, answer.dropped if verdict != "refused" else dropped) == (verdict, dropped), graph

    same()
    assert verdicts == {"refused", "kills", "fails", "partly", "accepted"}


@given(graphs())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_is_left_when_broken_outputs_are_left_out_runs_whole(graph: dict[str, Any]) -> None:
    answer = preflight_answer(graph, "0.33.0")
    if answer.verdict != "partly":
        return
    rest = parse(json.dumps(graph).encode(), "g").without(answer.dropped).graph
    assert preflight_answer(rest, "0.33.0").verdict == "accepted"
    assert seen(rest, "0.33.0") == ("accepted", [])
