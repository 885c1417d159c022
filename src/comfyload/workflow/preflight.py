"""Knows what a server would refuse in a graph, from its description of the classes: what is missing, what does not fit.

It follows ComfyUI's own checks and says nothing where these cannot be known: a problem that is none would keep people
from a run that works. What a class may allow by a check of its own is reported as not `sure`.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from comfyload.errors import WorkflowError
from comfyload.workflow.graph import Workflow, is_link
from comfyload.workflow.vary import Variation

__all__ = ["Kind", "PreflightFailed", "Problem", "as_sent", "check", "describe"]

Kind = Literal[
    "unknown_class",
    "missing_model",
    "missing_image",
    "bad_option",
    "missing_input",
    "out_of_range",
    "wrong_type",
    "bad_slot",
    "link_type",
    "no_outputs",
]

COMBO_CHECKED_SINCE = (0, 8, 0)
"""Before, a server took any value for a list that is declared as `COMBO`."""

MODEL_SUFFIXES = (
    ".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx", ".engine", ".yaml",
)  # fmt: skip

UNLIMITED = frozenset(["CustomCombo", "Load3D", "Load3DAdvanced"])
"""Core classes that check all their inputs themselves, so that no list and no bound counts."""

OWN_CHECK = frozenset(
    [
        ("ModelAttentionBackend", "attention"),
        ("SelectCLIPDevice", "device"),
        ("SelectModelDevice", "device"),
        ("SelectVAEDevice", "device"),
        ("LoadImageSetNode", "resize_method"),
    ]
)
"""Inputs of core classes whose lists do not count."""

_WORDS: dict[str, str] = {
    "unknown_class": "unknown class",
    "missing_model": "missing model",
    "missing_image": "missing image",
    "bad_option": "unknown option",
    "missing_input": "missing input",
    "out_of_range": "value out of range",
    "wrong_type": "value of a wrong type",
    "bad_slot": "link to no output",
    "link_type": "link of a wrong type",
    "no_outputs": "graph without outputs",
}


class Problem(Struct, frozen=True, kw_only=True):
    """One thing the server would refuse. `near` are existing names like the one that is missing, best first.

    `sure` False: the class may have a check of its own, or the server may be too old to check, and then accepts it.
    """

    kind: Kind
    node: str = ""
    title: str = ""
    class_type: str = ""
    input: str = ""
    value: Any = None
    near: list[str] = []
    said: str = ""
    sure: bool = True

    def text(self) -> str:
        """The problem in one line."""
        if not self.node:
            return self.said
        names = [f"node {self.node}"]
        names += [json.dumps(self.title, ensure_ascii=False)] if self.title not in ("", self.class_type) else []
        names += [f"({self.class_type})"] if self.kind != "unknown_class" else []
        line = f"{' '.join(names)}: {self.said}"
        line += f"; nearest: {', '.join(self.near)}" if self.near else ""
        return line if self.sure else f"{line} (but its class may allow it)"


class PreflightFailed(WorkflowError):
    """The server would refuse a graph. The message has one line for each problem of each workflow."""

    def __init__(self, found: Mapping[str, list[Problem]]) -> None:
        """`found`: problems by the workflow's name; those without any are passed over."""
        self.found = {name: problems for name, problems in found.items() if problems}
        told = [describe(problems, name) for name, problems in self.found.items()]
        super().__init__("\n".join([*told, "Nothing was submitted. To submit it all the same, give --no-preflight."]))


def describe(problems: list[Problem], name: str = "the workflow") -> str:
    """All problems: how many of which kind, then one line each."""
    counts = Counter(_WORDS[problem.kind] for problem in problems)
    kinds = ", ".join(f"{count} × {word}" for word, count in counts.items())
    verdict = "would be refused" if any(problem.sure for problem in problems) else "may be refused"
    head = f"{name} {verdict} by the server: {len(problems)} problem{'s' if len(problems) > 1 else ''} ({kinds})"
    return "\n".join([head, *(f"  {problem.text()}" for problem in problems)])


def as_sent(variation: Variation, index: int = 0) -> Workflow:
    """The graph of job `index` as the server gets it, fresh seeds included: a seed in the file may be any number."""
    workflow = variation.workflow
    return Workflow(workflow.name, json.loads(variation.render(index)), workflow.extra)


def check(
    workflow: Workflow,
    classes: Mapping[str, Any],
    known: Collection[str] | None = None,
    *,
    version: tuple[int, int, int] | None = None,
) -> list[Problem]:
    """All that the server would refuse, in the order of the graph.

    Args:
        classes: the server's `/object_info`, at least of the classes in the graph.
        known: all classes the server has; None if that is not known: then a class not described may be there.
        version: the server's; None if it does not say.
    """
    checker = _Checker(workflow, classes, version)
    reached = checker.reached()
    problems: list[Problem] = []
    for node in workflow.graph:
        name = workflow.class_of(node)
        if name not in classes:
            if known is not None and name not in known:
                near, said = _near(name, known), f"the server has no class {name}"
                problems.append(checker.problem("unknown_class", node, "", said, name, near=near))
        elif node in reached:
            problems += checker.inputs(node)
    described = all(workflow.class_of(node) in classes for node in workflow.graph)
    if described and not reached:
        problems.append(Problem(kind="no_outputs", said="no node is an output: the server runs only what feeds one"))
    return problems


class _Checker:
    def __init__(self, workflow: Workflow, classes: Mapping[str, Any], version: tuple[int, int, int] | None) -> None:
        self._workflow = workflow
        self._classes = classes
        self._checks_combo = version is not None and version >= COMBO_CHECKED_SINCE

    def reached(self) -> set[str]:
        """What feeds an output: the server looks at nothing else. A class not described counts as an output."""
        graph = self._workflow.graph
        todo = [node for node in graph if self._info(node) is None or (self._info(node) or {}).get("output_node") is True]
        found: set[str] = set()
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                specs = _specs(self._info(node))
                open_ended = not specs or any(_dynamic(kind) for kind, _, _ in specs.values())
                links = [(k, v) for k, v in self._workflow.inputs_of(node).items() if is_link(v)]
                todo += [link[0] for key, link in links if open_ended or key in specs]
        return found

    def inputs(self, node: str) -> Iterator[Problem]:
        given = self._workflow.inputs_of(node)
        for key, (kind, options, required) in _specs(self._info(node)).items():
            if _dynamic(kind):
                continue
            value = given.get(key)
            if key not in given:
                if required:
                    yield self.problem("missing_input", node, key, f"{key} is not given")
            elif isinstance(value, list):
                yield from self._link(node, key, kind, value)
            else:
                value = value["__value__"] if isinstance(value, dict) and "__value__" in value else value
                yield from self._literal(node, key, kind, options, value)

    def problem(
        self, kind: Kind, node: str, key: str, said: str, value: Any = None, *, near: list[str] | None = None,
        sure: bool = True,
    ) -> Problem:  # fmt: skip
        workflow = self._workflow
        title, name = workflow.title_of(node), workflow.class_of(node)
        return Problem(
            kind=kind, node=node, title=title, class_type=name, input=key, value=value, near=near or [], said=said,
            sure=sure,
        )  # fmt: skip

    def _info(self, node: str) -> dict[str, Any] | None:
        info = self._classes.get(self._workflow.class_of(node))
        return info if isinstance(info, dict) else None

    def _is_core(self, node: str) -> bool:
        """Whether the class is ComfyUI's own. Those of packs can behave otherwise than they are described."""
        module = (self._info(node) or {}).get("python_module")
        return isinstance(module, str) and (module == "nodes" or module.startswith(("comfy_extras", "comfy_api_nodes")))

    def _link(self, node: str, key: str, wanted: Any, link: list[Any]) -> Iterator[Problem]:
        if not is_link(link) and not (len(link) == 2 and isinstance(link[1], bool)):
            said = f"{key} is a list, which the server takes for a link, and [node id, slot] it is not"
            yield self.problem("wrong_type", node, key, said, link)
            return
        parent, slot = link
        outputs = (self._info(parent) or {}).get("output") if parent in self._workflow.graph else None
        if not isinstance(outputs, list) or not self._is_core(parent):
            return
        name = self._workflow.class_of(parent)
        if isinstance(slot, float) or not -len(outputs) <= slot < len(outputs):
            said = f"{key} takes output {slot} of node {parent} ({name}), which has {_slots(len(outputs))}"
            yield self.problem("bad_slot", node, key, said, link)
        elif self._is_core(node) and not _fits(outputs[slot], wanted):
            said = f"{key} takes {wanted}, and output {slot} of node {parent} ({name}) is {outputs[slot]}"
            yield self.problem("link_type", node, key, said, link)

    def _literal(self, node: str, key: str, kind: Any, options: dict[str, Any], value: Any) -> Iterator[Problem]:
        convert: Callable[[Any], Any] | None = {"INT": int, "FLOAT": float}.get(kind) if isinstance(kind, str) else None
        if convert is not None:
            try:
                value = convert(value)
            except (TypeError, ValueError, OverflowError):
                article = "an INT" if kind == "INT" else "a FLOAT"
                yield self.problem("wrong_type", node, key, f"{key} = {_shown(value)} is not {article}", value)
                return
        name = self._workflow.class_of(node)
        choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
        if (kind == "COMBO" or isinstance(kind, list)) and _holds_file(name, key, options):
            names = value if isinstance(value, list) else [value]
            for missing in names:
                if isinstance(missing, str) and missing and missing not in (choices or []):
                    near, sure = _near(missing, choices or []), self._is_core(node)
                    said = f"{key} = {_shown(missing)} is not among the server's files"
                    yield self.problem("missing_image", node, key, said, missing, near=near, sure=sure)
        elif name in UNLIMITED or (name, key) in OWN_CHECK or "remote" in options:
            return
        elif isinstance(choices, list):
            yield from self._choice(node, key, choices, options, value, sure=isinstance(kind, list) or self._checks_combo)
        else:
            yield from self._bounds(node, key, options, value)

    def _choice(
        self, node: str, key: str, choices: list[Any], options: dict[str, Any], value: Any, *, sure: bool
    ) -> Iterator[Problem]:
        several = isinstance(value, list) and options.get("multiselect")
        for wrong in value if several else [value]:
            if wrong in choices:
                continue
            files = any(str(name).lower().endswith(MODEL_SUFFIXES) for name in [wrong, *choices])
            what = f"of its {len(choices)}" if choices else "and the server has none"
            said = f"{key} = {_shown(wrong)} is not on the server, which has {len(choices) or 'none'} of its kind"
            said = said if files else f"{key} = {_shown(wrong)} is none of its options ({what})".replace(" (of its ", " (")
            kind: Kind = "missing_model" if files else "bad_option"
            sure = sure and self._is_core(node)
            yield self.problem(kind, node, key, said, wrong, near=_near(str(wrong), choices), sure=sure)

    def _bounds(self, node: str, key: str, options: dict[str, Any], value: Any) -> Iterator[Problem]:
        if not isinstance(value, int | float):
            return
        low, high = (_number(options.get(end)) for end in ("min", "max"))
        if (low is not None and value < low) or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
            said = f"{key} = {value}, allowed is {allowed}"
            yield self.problem("out_of_range", node, key, said, value, sure=self._is_core(node))
