"""Graphs with one trouble each, and what ComfyUI 0.33.0 and 0.3.64 really did with them: preflight says it, the
simulator does it, and so does a gateway.

The verdicts were seen on servers of both versions; where they differ, both are given.
"""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from comfyload import clock
from comfyload.gateway.intake import PromptRefused
from tests.support.answers import outputs_of, preflight_answer, seen
from tests.support.gateway import desk, farm

VERSIONS = ("0.33.0", "0.3.64")


def empty(**more: Any) -> dict[str, Any]:
    return {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 7} | more}


def show(source: Any, **more: Any) -> dict[str, Any]:
    return {"class_type": "PreviewImage", "inputs": {"images": source} | more}


def invert(source: Any, **more: Any) -> dict[str, Any]:
    return {"class_type": "ImageInvert", "inputs": {"image": source} | more}


def load(image: Any) -> dict[str, Any]:
    return {"class_type": "LoadImage", "inputs": {"image": image}}


def noisy(seed: Any) -> dict[str, Any]:
    add = {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": seed, "strength": 0.5}}
    return {"1": empty(), "2": add, "3": show(["2", 0])}


LINE = {"1": empty(), "2": show(["1", 0])}
SIXTY_FOUR_BITS = 2**64 - 1

CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    # A picture that is a folder.
    "no image named": ({"1": load(""), "2": show(["1", 0])}, "fails", []),
    "the folder as image": ({"1": load("."), "2": show(["1", 0])}, "fails", []),
    # A link to a node that is not there.
    "in a dead node": (LINE | {"9": invert(["77", 0])}, "accepted", []),
    "in a dead node, undeclared": (LINE | {"9": empty(old=["77", 0])}, "accepted", []),
    "at an output's input": (LINE | {"3": show(["77", 0])}, "partly", ["3"]),
    "before an output": (LINE | {"3": invert(["77", 0]), "4": show(["3", 0])}, "partly", ["4"]),
    "before the only output": ({"3": invert(["77", 0]), "4": show(["3", 0])}, "refused", ["4"]),
    "at an undeclared input": ({"1": empty(old=["77", 0]), "2": show(["1", 0])}, "kills", []),
    "at an output's undeclared input": (LINE | {"2": show(["1", 0], old=["77", 0])}, "kills", []),
    "undeclared, beside a dropped output": (
        LINE | {"3": show(["1", 0], old=["77", 0]), "4": show(["88", 0])},
        "kills",
        ["4"],
    ),
    "undeclared, in a dropped output": (LINE | {"4": show(["88", 0], old=["77", 0])}, "partly", ["4"]),
    # A link that no class declares, to a node that is there.
    "undeclared link": (LINE | {"5": empty(color=9), "2": show(["1", 0], old=["5", 0])}, "fails", []),
    "undeclared link to what lacks inputs": (
        LINE | {"5": {"class_type": "EmptyImage", "inputs": {}}, "2": show(["1", 0], old=["5", 0])},
        "fails",
        [],
    ),
    "undeclared literal": (LINE | {"1": empty(old=5, older=math.nan)}, "accepted", []),
    # Nodes that depend on themselves.
    "cycle": ({"1": invert(["2", 0]), "2": invert(["1", 0]), "3": show(["2", 0])}, "refused", ["3"]),
    "cycle of one": ({"1": invert(["1", 0]), "3": show(["1", 0])}, "refused", ["3"]),
    "cycle beside a sound output": (
        {"1": invert(["2", 0]), "2": invert(["1", 0]), "3": show(["2", 0]), "4": empty(), "5": show(["4", 0])},
        "partly",
        ["3"],
    ),
    "dead cycle": (LINE | {"7": invert(["8", 0]), "8": invert(["7", 0])}, "accepted", []),
    "cycle by an undeclared link": (
        {"1": empty(old=["2", 0]), "2": invert(["1", 0]), "5": show(["2", 0])},
        "fails",
        [],
    ),
    "cycle beside another trouble": (
        {"1": invert(["2", 0]), "2": invert(["1", 0]), "3": show(["2", 0]), "4": empty(width=0), "5": show(["4", 0])},
        "refused",
        ["3", "5"],
    ),
    # Pairs that are no links.
    "slot as text": (LINE | {"2": show(["1", "0"])}, "refused", ["2"]),
    "slot as text in a dead node": (LINE | {"4": invert(["1", "0"])}, "accepted", []),
    "slot as text, undeclared": (LINE | {"1": empty(old=["9", "0"])}, "accepted", []),
    "slot as a fraction": (LINE | {"2": show(["1", 0.0])}, "refused", ["2"]),
    "slot null": (LINE | {"2": show(["1", None])}, "refused", ["2"]),
    "id as a number": (LINE | {"2": show([1, 0])}, "refused", ["2"]),
    "three of it": (LINE | {"2": show(["1", 0, 0])}, "refused", ["2"]),
    "none of it": (LINE | {"2": show([])}, "refused", ["2"]),
    "text for an image": (LINE | {"2": show("text")}, "fails", []),
    "null for an image": (LINE | {"2": show(None)}, "fails", []),
    # One output broken, others sound.
    "missing image beside": (LINE | {"3": load("gone.png"), "4": show(["3", 0])}, "partly", ["4"]),
    "missing image": ({"3": load("gone.png"), "4": show(["3", 0])}, "refused", ["4"]),
    "missing image in a dead node": (LINE | {"3": load("gone.png")}, "accepted", []),
    "backslash": ({"3": load("sub\\a.png"), "4": show(["3", 0])}, "refused", ["4"]),
    "image null": ({"3": load(None), "4": show(["3", 0])}, "refused", ["4"]),
    "shared by two outputs": (
        {"1": empty(width=0), "2": show(["1", 0]), "3": show(["1", 0]), "4": empty(), "5": show(["4", 0])},
        "partly",
        ["2", "3"],
    ),
    "output without inputs": (LINE | {"3": {"class_type": "SaveImage", "inputs": {}}}, "partly", ["3"]),
    # Seeds and other words, sent as they are.
    "seed -1": (noisy(-1), "refused", ["3"]),
    "seed as a placeholder": (noisy("%seed%"), "refused", ["3"]),
    "seed as text": (noisy("1234"), "accepted", []),
    "seed as a float": (noisy(7.0), "accepted", []),
    "the greatest seed": (noisy(SIXTY_FOUR_BITS), "accepted", []),
    "is_changed NaN": (LINE | {"1": empty() | {"is_changed": [math.nan]}}, "accepted", []),
    "another key in a node": (LINE | {"1": empty() | {"widgets_values": [1]}}, "accepted", []),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_preflight_says_and_the_simulator_does_what_a_server_did(name: str, version: str) -> None:
    graph, verdict, dropped = CASES[name]
    answer = preflight_answer(graph, version)
    assert (answer.verdict, answer.dropped) == (verdict, dropped)
    assert seen(graph, version) == (verdict, dropped)


@pytest.mark.parametrize("name", CASES)
def test_a_gateway_does_what_a_server_did_and_refuses_what_would_end_it(name: str, tmp_path: Path) -> None:
    graph, verdict, dropped = CASES[name]

    async def main() -> tuple[str, list[str]]:
        async with farm(2) as servers, desk(tmp_path, servers) as behind:
            try:
                answer = await behind.post(deepcopy(graph))
            except PromptRefused as refused:
                assert refused.status == 400
                return ("kills" if b"would stop working" in refused.body else "refused"), dropped
            entry = await behind.end_of(answer["prompt_id"])
            assert [server for server in servers if server.truth[-1:] and server.truth[-1].outcome == "died"] == []
            left_out = [node for node in outputs_of(graph) if node not in entry["prompt"][4]]
            if entry["status"]["messages"][-1][0] == "execution_error":
                return "fails", left_out
            assert bool(answer["node_errors"]) == bool(left_out)
            return ("partly" if left_out else "accepted"), left_out

    assert clock.run_virtual(main()) == (verdict, dropped)


def test_an_undeclared_link_to_no_output_fails_or_kills_where_its_node_is_cached() -> None:
    graph = LINE | {"5": empty(color=9), "2": show(["1", 0], old=["5", 7])}
    assert preflight_answer(graph, "0.3.64").verdict == "fails"
    assert preflight_answer(graph, "0.33.0").verdict == "kills"
    sound = LINE | {"5": empty(color=9), "6": show(["5", 0])}
    for version, first, second in (("0.33.0", "fails", "kills"), ("0.3.64", "fails", "fails")):
        assert seen(graph, version) == (first, [])
        assert seen(graph, version, before=sound) == (second, [])


def test_an_unknown_class_is_refused_even_in_a_dead_node() -> None:
    graph = LINE | {"9": {"class_type": "Nope", "inputs": {}}}
    assert preflight_answer(graph, "0.33.0").verdict == "refused"
