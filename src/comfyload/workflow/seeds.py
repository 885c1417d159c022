"""Finds the seeds of a graph: literals of inputs named as seeds, and literals linked to such inputs."""

import re
from typing import Any, Literal

from msgspec import Struct, structs

from comfyload.workflow.graph import Workflow, is_link
from comfyload.workflow.object_info import InputSpec, ObjectInfo

UNKNOWN_BOUNDS = (0, 2**32 - 1)
"""For seeds without declared bounds: every sampler accepts these."""

_EXACT_FLOATS = (-(2**53), 2**53)
_WHOLE_TEXT = re.compile(r"[+-]?[0-9]{1,40}")
Form = Literal["integer", "text", "float"]
_FORM_OF_KIND: dict[str, Form] = {"INT": "integer", "FLOAT": "float", "STRING": "text"}
_Place = tuple[str, str]


class Seed(Struct, frozen=True, kw_only=True):
    """A literal to vary: its place, least and greatest value, and the form in which the server takes it."""

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
    return _Search(workflow, info or ObjectInfo()).found()


def takes_seed(workflow: Workflow, info: ObjectInfo, node: str, key: str) -> bool:
    """Whether the input is a seed: by its name, and by its type if the server declares it."""
    spec = info[workflow.class_of(node)].spec(key)
    if spec is not None and spec.kind == "INT" and spec.options.get("control_after_generate") and "seed" in key.lower():
        return True
    return is_seed_name(key) and (spec is None or spec.kind in (*_FORM_OF_KIND, "INT,FLOAT", "*"))


class _Search:
    """Follows the links of one graph from its seed inputs to the numbers that feed them."""

    def __init__(self, workflow: Workflow, info: ObjectInfo) -> None:
        self._workflow, self._info = workflow, info
        self._takers: dict[str, list[_Place]] = {}
        for node in workflow.graph:
            for key, value in workflow.inputs_of(node).items():
                if is_link(value):
                    self._takers.setdefault(value[0], []).append((node, key))
        self._feeds_seeds: dict[str, bool] = {}

    def found(self) -> list[Seed]:
        workflow = self._workflow
        places = [(node, key) for node in workflow.graph for key in workflow.inputs_of(node)]
        seeds: dict[_Place, Seed] = {}
        for node, key in places:
            seed = self._follow((node, key)) if takes_seed(workflow, self._info, node, key) else None
            if seed is not None:
                known = seeds.get((seed.node, seed.key), seed)
                bounds = _common(known.bounds, seed.bounds)
                seeds[seed.node, seed.key] = structs.replace(seed, bounds=bounds)
        return [seeds[place] for place in places if place in seeds]

    def _follow(self, place: _Place) -> Seed | None:
        """The literal that feeds a seed input; None: it is not a number, or not only seeds depend on it."""
        bounds, direct, passed = self._bounds(place), True, {place[0]}
        while is_link(value := self._workflow.inputs_of(place[0])[place[1]]):
            parent = value[0]
            if parent in passed or parent not in self._workflow.graph or not self._gives_seeds(parent):
                return None
            passed.add(parent)
            links = [key for key, held in self._workflow.inputs_of(parent).items() if is_link(held)]
            numbers = self._numbers(parent)
            if any(is_seed_name(key) for key in numbers) or len(links) > 1 or (not links and len(numbers) != 1):
                return None
            direct = direct and not (links and numbers)  # arithmetic: what comes out has other bounds than what goes in
            place = (parent, links[0] if links else numbers[0])
        spec = self._spec(place)
        if not _is_number(value, spec):
            return None
        declared = _FORM_OF_KIND.get(spec.kind) if spec is not None and isinstance(spec.kind, str) else None
        form = declared or ("text" if isinstance(value, str) else "integer")
        bounds = _common(bounds, self._bounds(place)) if len(passed) > 1 else bounds
        bounds = bounds if direct else _common(bounds, UNKNOWN_BOUNDS)
        bounds = _common(bounds, _EXACT_FLOATS) if form == "float" else bounds
        return Seed(node=place[0], key=place[1], bounds=bounds, form=form)

    def _spec(self, place: _Place) -> InputSpec | None:
        return self._info[self._workflow.class_of(place[0])].spec(place[1])

    def _bounds(self, place: _Place) -> tuple[int, int]:
        spec = self._spec(place)
        return UNKNOWN_BOUNDS if spec is None or spec.bounds is None else spec.bounds

    def _numbers(self, node: str) -> list[str]:
        """The inputs that hold a whole number: integers, or else texts of digits, or else whole floats."""
        held = self._workflow.inputs_of(node)
        numbers = {key: type(value) for key, value in held.items() if _is_number(value, self._spec((node, key)))}
        for kind in (int, str, float):
            keys = [key for key, its in numbers.items() if its is kind]
            if keys:
                return keys
        return []

    def _gives_seeds(self, node: str) -> bool:
        """Whether a node puts out numbers, and only seeds and texts depend on them."""
        if node not in self._feeds_seeds:
            plain = self._info[self._workflow.class_of(node)].plain
            self._feeds_seeds[node] = plain is not False and self._feeds_only_seeds(node, set())
        return self._feeds_seeds[node]

    def _feeds_only_seeds(self, node: str, passed: set[str]) -> bool:
        """Whether only seeds and texts depend on a node's output: a number that is a width as well must not vary."""
        passed.add(node)
        for taker, key in self._takers.get(node, ()):
            spec, taking = self._spec((taker, key)), self._info[self._workflow.class_of(taker)]
            kind = None if spec is None else spec.kind
            if taker in passed or takes_seed(self._workflow, self._info, taker, key) or kind == "STRING":
                continue
            if (kind == "*" and taking.output) or (taking.plain and self._feeds_only_seeds(taker, passed)):
                continue
            return False
        return True


def _is_number(value: object, spec: InputSpec | None) -> bool:
    if isinstance(value, bool) or value is None or (spec is not None and spec.choices is not None):
        return False
    if isinstance(value, int):
        return True
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, str) and (bool(_WHOLE_TEXT.fullmatch(value)) or (spec is not None and spec.kind == "INT"))


def _common(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (low, high) if low <= high else one
