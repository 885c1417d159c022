"""Prompts that fail on purpose: refused at once, wrong in a node, or asking for more memory than there can be.

They do no harm: what is too much is refused by the allocator before a byte of it is touched. Whoever wants to see a GPU
truly run out of memory gives a workflow that does it.
"""

import json
from collections.abc import Mapping
from typing import Any

from comfyload.errors import ComfyloadError
from comfyload.workflow import ObjectInfo

SIM_FAIL, WRONG, LATENTS = "SimFail", "RegexReplace", "EmptyHunyuanLatentVideo"
CLASSES = (SIM_FAIL, WRONG, LATENTS)
"""Node classes whose description the server must give before such a prompt can be made for it."""

ADDRESSABLE = 2**48
"""Bytes. No process of today's machines can be given so much, whatever its kernel promises beyond its memory."""


class CannotPlay(ComfyloadError):
    """This server has no node with which to do it."""


def bad_graph(scenario: str, index: int, info: ObjectInfo) -> bytes:
    """A graph for `validation`, `poison` or `oom`, no two alike where that matters to a cache.

    Raises:
        CannotPlay: no node of the server does it, or not without harm.
    """
    if scenario == "validation":
        return _graph({"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}})
    if scenario == "poison":
        if info[SIM_FAIL].known:
            return _seen({"class_type": SIM_FAIL, "inputs": {"message": "poison", "seed": index}})
        if not info[WRONG].known:
            raise CannotPlay(f"it has no {WRONG}, the node that would fail")
        inputs = {"string": str(index), "regex_pattern": "(", "replace": ""}
        return _seen({"class_type": WRONG, "inputs": inputs})
    return _seen({"class_type": LATENTS, "inputs": _too_much(info)})


def _too_much(info: ObjectInfo) -> Mapping[str, int]:
    """The largest of latents, if that is beyond what can be addressed: anything less might be had, and hurt."""
    keys = ("width", "height", "length", "batch_size")
    specs = {key: info[LATENTS].spec(key) for key in keys}
    most = {key: spec.bounds[1] for key, spec in specs.items() if spec is not None and spec.bounds is not None}
    if len(most) < len(keys):
        raise CannotPlay(f"it has no {LATENTS}, the node that would ask for it")
    frames = (most["length"] - 1) // 4 + 1
    # 16 channels of 32 bits, an eighth as wide and as high.
    if 4 * 16 * most["batch_size"] * frames * (most["width"] // 8) * (most["height"] // 8) < ADDRESSABLE:
        raise CannotPlay(f"the limits of its {LATENTS} are so low that the memory might be had")
    return most


def _seen(node: dict[str, Any]) -> bytes:
    return _graph({"1": node, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}})


def _graph(nodes: dict[str, Any]) -> bytes:
    return json.dumps(nodes).encode()
