"""Prompts that fail on purpose, and do no harm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyload.app.bad_prompts import ADDRESSABLE, LATENTS, WRONG, CannotPlay, bad_graph
from comfyload.workflow import ObjectInfo


def described(batch: int = 4096) -> dict[str, Any]:
    """As servers from 0.3.64 to 0.33.0 describe it."""
    size = ["INT", {"default": 848, "min": 16, "max": 16384, "step": 16}]
    length = ["INT", {"default": 25, "min": 1, "max": 16384, "step": 4}]
    inputs = {"width": size, "height": size, "length": length, "batch_size": ["INT", {"min": 1, "max": batch}]}
    return {LATENTS: {"input": {"required": inputs}}}


def test_what_is_too_much_is_beyond_what_can_be_addressed_or_not_asked_for() -> None:
    (node, _) = json.loads(bad_graph("oom", 5, ObjectInfo(described()))).values()
    assert node["inputs"] == {"width": 16384, "height": 16384, "length": 16384, "batch_size": 4096}
    # What a real server said that it was asked for: 4503599627370496 bytes.
    assert 4 * 16 * 4096 * 4096 * 2048 * 2048 == 4_503_599_627_370_496 > ADDRESSABLE
    with pytest.raises(CannotPlay, match="might be had"):
        bad_graph("oom", 5, ObjectInfo(described(batch=64)))
    with pytest.raises(CannotPlay, match="has no"):
        bad_graph("oom", 5, ObjectInfo())


def test_a_node_that_is_wrong_is_one_that_the_server_has() -> None:
    with pytest.raises(CannotPlay, match="has no"):
        bad_graph("poison", 5, ObjectInfo())
    (node, _) = json.loads(bad_graph("poison", 5, ObjectInfo({WRONG: {}}))).values()
    assert (node["class_type"], node["inputs"]["regex_pattern"]) == (WRONG, "(")
