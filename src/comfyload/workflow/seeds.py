"""Knows which values of a graph are its seeds: literals named so, and literals that reach such an input by links."""

from __future__ import annotations

import re
from typing import Any, Literal

from msgspec import Struct

from comfyload.workflow.graph import Workflow, is_link
from comfyload.workflow.object_info import InputSpec, ObjectInfo

__all__ = ["Seed", "find_seeds", "is_seed_name", "takes_seed"]

UNKNOWN_BOUNDS = (0, 2**32 - 1)
"""Taken for a seed whose bounds the server does not give: every sampler accepts these."""

_FLOAT_MOST = 2**53
_WHOLE_TEXT = re.compile(r"[+-]?[0-9]{1,40}")
Form = Literal["integer", "text", "float"]
_FORM_OF_KIND: dict[str, Form] = {"INT": "integer", "FLOAT": "float", "STRING": "text"}
_Place = tuple[str, str]


class Seed(Struct, frozen=True, kw_only=True):
    """A literal to vary: where it stands, least and greatest value, and the form in which the server takes it."""

    node: str
    key: str
    bounds: tuple[int, int] = UNKNOWN_BOUNDS
    form: Form = "integer"

    def written(self, number: int) -> Any:
        """The number as it is written into the graph."""
        return str(number) if self.form == "text" else float(number) if self.form == "float" else number


def is_seed_name(key: str) -> bool:
    """Whether an input is named as a seed: `seed`, `noise_seed`, `…_seed`, also behind a dot (`mode.seed`)."""
    name = key.rpartition(".")[2]
    return name == "seed" or name.endswith("_seed")


def find_seeds(workflow: Workflow, info: ObjectInfo | None = None) -> list[Seed]:
    """Every seed of the graph, in its order; several inputs may be linked to one.

    A literal is an integer, a whole float, or a text of digits; where the server declares an integer, any text counts
    (a placeholder such as `%seed%`). A link leads to a seed if it ends at a node that holds one whole number and takes
    nothing else, through nodes with one link each, and nothing but seeds and texts depends on that number.
    """
    info = info or ObjectInfo()
    found: dict[_Place, Seed] = {}
    for node in workflow.graph:
        for key in workflow.inputs_of(node):
            if takes_seed(workflow, info, node, key):
                seed = _follow(workflow, info, (node, key))
                if seed is not None:
                    known = found.get((seed.node, seed.key), seed)
                    found[seed.node, seed.key] = Seed(
                        node=seed.node, key=seed.key, bounds=_common(known.bounds, seed.bounds), form=seed.form
                    )
    places = [(node, key) for node in workflow.graph for key in workflow.inputs_of(node)]
    return [found[place] for place in places if place in found]


def takes_seed(workflow: Workflow, info: ObjectInfo, node: str, key: str) -> bool:
    """Whether the input is a seed: by its name, and by its declared type where the server tells it."""
    spec = info[workflow.class_of(node)].spec(key)
    if spec is not None and spec.kind == "INT" and spec.options.get("control_after_generate") and "seed" in key.lower():
        return True
    return is_seed_name(key) and (spec is None or spec.kind in (*_FORM_OF_KIND, "INT,FLOAT", "*"))


def _follow(workflow: Workflow, info: ObjectInfo, place: _Place) -> Seed | None:
    """The literal that feeds a seed input, or None: it is no number, or more than seeds depends on it."""
    start = place
    bounds = _bounds(workflow, info, place)
    direct, passed = True, {place[0]}
    while is_link(value := workflow.inputs_of(place[0])[place[1]]):
        parent = value[0]
        if parent in passed or parent not in workflow.graph or info[workflow.class_of(parent)].plain is False:
            return None
        passed.add(parent)
        if not _feeds_only_seeds(workflow, info, parent, set()):
            return None
        links = [key for key, held in workflow.inputs_of(parent).items() if is_link(held)]
        numbers = _numbers(workflow, info, parent)
        if any(is_seed_name(key) for key in numbers) or len(links) > 1 or (not links and len(numbers) != 1):
            return None
        direct = direct and not (links and numbers)  # arithmetic: what comes out has other bounds than what goes in
        place = (parent, links[0] if links else numbers[0])
    spec = _spec(workflow, info, place)
    if not _is_number(value, spec):
        return None
    if place != start:
        bounds = _common(bounds, _bounds(workflow, info, place))
    form = _form(value, spec)
    bounds = bounds if direct else _common(bounds, UNKNOWN_BOUNDS)
    most = (-_FLOAT_MOST, _FLOAT_MOST) if form == "float" else bounds
    return Seed(node=place[0], key=place[1], bounds=_common(bounds, most), form=form)


def _numbers(workflow: Workflow, info: ObjectInfo, node: str) -> list[str]:
    """The inputs that hold a whole number: integers, or else texts of digits, or else whole floats."""
    held = {key: value for key, value in workflow.inputs_of(node).items() if not isinstance(value, bool | list | dict)}
    for kind in (int, str, float):
        keys = [
            key
            for key, value in held.items()
            if isinstance(value, kind) and _is_number(value, _spec(workflow, info, (node, key)))
        ]
        if keys:
            return keys
    return []


def _is_number(value: object, spec: InputSpec | None) -> bool:
    if isinstance(value, bool) or value is None or (spec is not None and spec.choices is not None):
        return False
    if isinstance(value, int):
        return True
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, str) and (bool(_WHOLE_TEXT.fullmatch(value)) or (spec is not None and spec.kind == "INT"))


def _feeds_only_seeds(workflow: Workflow, info: ObjectInfo, node: str, passed: set[str]) -> bool:
    """Whether only seeds and texts depend on a node's output: a number that is a width as well must not vary."""
    passed.add(node)
    for taker, key in _takers(workflow, node):
        spec, taking = _spec(workflow, info, (taker, key)), info[workflow.class_of(taker)]
        kind = None if spec is None else spec.kind
        if taker in passed or takes_seed(workflow, info, taker, key) or kind == "STRING":
            continue
        if (kind == "*" and taking.output) or (taking.plain and _feeds_only_seeds(workflow, info, taker, passed)):
            continue
        return False
    return True


def _takers(workflow: Workflow, node: str) -> list[_Place]:
    """The inputs that are linked to a node."""
    inputs = [(taker, key, value) for taker in workflow.graph for key, value in workflow.inputs_of(taker).items()]
    return [(taker, key) for taker, key, value in inputs if is_link(value) and value[0] == node]


def _spec(workflow: Workflow, info: ObjectInfo, place: _Place) -> InputSpec | None:
    return info[workflow.class_of(place[0])].spec(place[1])


def _form(value: object, spec: InputSpec | None) -> Form:
    declared = _FORM_OF_KIND.get(spec.kind) if spec is not None and isinstance(spec.kind, str) else None
    if declared is not None:
        return declared
    return "text" if isinstance(value, str) else "integer"


def _bounds(workflow: Workflow, info: ObjectInfo, place: _Place) -> tuple[int, int]:
    spec = _spec(workflow, info, place)
    return UNKNOWN_BOUNDS if spec is None or spec.bounds is None else spec.bounds


def _common(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (low, high) if low <= high else one
