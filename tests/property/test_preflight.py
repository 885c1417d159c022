"""Over graphs with every kind of trouble, preflight says what the server then does: refuse, drop, run, fail or die."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload.sim.catalog import CLASSES
from comfyload.workflow import parse
from tests.answers import seen, told

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
    """Up to seven nodes; one link or value in five is wrong in one way or another, and links may go in circles."""
    count = draw(st.integers(2, len(NODES)))
    trouble = st.integers(0, draw(st.sampled_from((4, 12, 1000))))
    graph: dict[str, Any] = {}
    for place, node in enumerate(NODES[:count]):
        kinds = MAKERS if place < 2 or draw(st.integers(0, 2)) else SHOWS
        name = draw(st.sampled_from(kinds))
        inputs: dict[str, Any] = {}
        for key, (kind, _, _) in CLASSES[name].inputs().items():
            odd = draw(trouble) == 0
            if odd and draw(st.booleans()):
                continue
            if kind in ("IMAGE", "*"):
                earlier = NODES[: max(1, place)]
                inputs[key] = [draw(st.sampled_from(earlier)), 0]
                if odd:
                    any_node = [draw(st.sampled_from(NODES[:count])), 0]
                    wrong: list[Any] = [any_node, any_node, ["77", 0], [any_node[0], 4], [any_node[0], "0"], [], "text"]
                    inputs[key] = draw(st.sampled_from(wrong))
            else:
                inputs[key] = draw(st.sampled_from(BAD[key])) if odd and key in BAD else GOOD[key]
        if draw(trouble) == 0:
            any_node = draw(st.sampled_from(NODES[:count]))
            inputs["old"] = draw(st.sampled_from([["77", 0], [any_node, 0], [any_node, 6], "text", ["77", "0"], 7]))
        graph[node] = {"class_type": name, "inputs": inputs}
    return graph


@pytest.mark.parametrize("version", ["0.33.0", "0.3.64"])
def test_preflight_says_what_the_server_does(version: str) -> None:
    verdicts: set[str] = set()

    @given(graphs())
    @settings(max_examples=250, deadline=None, derandomize=True)
    def same(graph: dict[str, Any]) -> None:
        answer = told(graph, version)
        verdict, dropped = seen(graph, version)
        verdicts.add(verdict)
        assert (answer.verdict, answer.dropped if verdict != "refused" else dropped) == (verdict, dropped), graph

    same()
    assert verdicts == {"refused", "kills", "fails", "partly", "accepted"}


@given(graphs())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_is_left_when_broken_outputs_are_left_out_runs_whole(graph: dict[str, Any]) -> None:
    answer = told(graph, "0.33.0")
    if answer.verdict != "partly":
        return
    rest = parse(json.dumps(graph).encode(), "g").without(answer.dropped).graph
    assert told(rest, "0.33.0").verdict == "accepted"
    assert seen(rest, "0.33.0") == ("accepted", [])
