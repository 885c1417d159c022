"""What a node class is to the simulator, and how `/object_info` describes one."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = ["SEED", "InputSpec", "NodeClass", "choice", "combo", "describe", "real", "whole"]

InputSpec = Any  # a type name such as "MODEL", or (type name or list of choices, options)


class NodeClass(Struct, frozen=True):
    """One class: `required` and `optional` map names to specs, `outputs` and `names` are split at spaces."""

    name: str
    title: str
    category: str
    required: dict[str, InputSpec]
    outputs: str
    optional: dict[str, InputSpec] = {}
    names: str = ""
    module: str = "nodes"
    is_output: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(self.outputs.split())

    def inputs(self) -> dict[str, tuple[InputSpec, dict[str, Any], bool]]:
        """Every input by name: its type (or list of choices), its options, whether it is required."""
        found = {}
        for group, required in ((self.required, True), (self.optional, False)):
            for name, spec in group.items():
                kind, options = (spec, {}) if isinstance(spec, str) else (spec[0], spec[1])
                found[name] = (kind, options, required)
        return found


def whole(default: int, low: int, high: int, step: int | None = None, **more: Any) -> InputSpec:
    """An INT widget."""
    return ("INT", _range(default, low, high, step) | more)


def real(default: float, low: float, high: float, step: float | None = None, **more: Any) -> InputSpec:
    """A FLOAT widget."""
    return ("FLOAT", _range(default, low, high, step) | more)


def choice(options: list[str], **more: Any) -> InputSpec:
    """A list widget as old node classes declare it: the type is the list itself."""
    return (options, more)


def combo(options: list[str]) -> InputSpec:
    """A list widget as new node classes declare it."""
    return ("COMBO", {"multiselect": False, "options": options})


def describe(node: NodeClass) -> dict[str, Any]:
    """The entry of `node` in `/object_info`."""
    given: dict[str, Any] = {"required": {name: _spec(spec) for name, spec in node.required.items()}}
    if node.optional:
        given["optional"] = {name: _spec(spec) for name, spec in node.optional.items()}
    return {
        "input": given,
        "input_order": {group: list(inputs) for group, inputs in given.items()},
        "is_input_list": False,
        "output": list(node.types),
        "output_is_list": [False] * len(node.types),
        "output_name": node.names.split() or list(node.types),
        "name": node.name,
        "display_name": node.title,
        "description": "",
        "python_module": node.module,
        "category": node.category,
        "output_node": node.is_output,
        "has_intermediate_output": False,
    }


def _spec(spec: InputSpec) -> list[Any]:
    if isinstance(spec, str):
        return [spec]
    kind, options = spec
    return [kind, options] if options else [kind]


def _range(default: float, low: float, high: float, step: float | None) -> dict[str, Any]:
    given: dict[str, Any] = {"default": default, "min": low, "max": high}
    return given if step is None else given | {"step": step}


SEED: InputSpec = whole(0, 0, 2**64 - 1, control_after_generate=True)
