"""Knows what a server would refuse in a graph, from its description of the classes: what is missing, what does not fit.

It follows ComfyUI's own checks and says nothing where these cannot be known: a problem that is none would keep people
from a run that works. What a class may allow by a check of its own is reported as not `sure`.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from comfyload.errors import WorkflowError
from comfyload.visible import visible
from comfyload.workflow.graph import Workflow, is_link
from comfyload.workflow.vary import Variation

__all__ = ["Kind", "PreflightFailed", "Problem", "as_sent", "check", "describe"]

Kind = Literal[
    "unknown_class", "missing_model", "missing_image", "bad_option", "missing_input", "out_of_range", "wrong_type",
    "bad_slot", "link_type", "no_outputs",
]  # fmt: skip

COMBO_CHECKED_SINCE = (0, 8, 0)
"""Before, a server took any value for a list that is declared as `COMBO`."""

MODEL_SUFFIXES = (
    ".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx", ".engine", ".yaml",
)  # fmt: skip

UNLIMITED = frozenset(["CustomCombo", "Load3D", "Load3DAdvanced"])
"""Core classes that check all their inputs themselves, so that no list and no bound counts."""

OWN_CHECK = frozenset(
    [(f"Select{what}Device", "device") for what in ("CLIP", "Model", "VAE")]
    + [("ModelAttentionBackend", "attention"), ("LoadImageSetNode", "resize_method")]
)
"""Inputs of core classes whose lists do not count."""


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
        """The problem in one line, whatever the graph or the server wrote into it."""
        return visible(self._told())

    def _told(self) -> str:
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

    lines = True

    def __init__(self, found: Mapping[str, list[Problem]]) -> None:
        """`found`: problems by the workflow's name; those without any are passed over."""
        self.found = {name: problems for name, problems in found.items() if problems}
        told = [describe(problems, name) for name, problems in self.found.items()]
        super().__init__("\n".join([*told, "Nothing was submitted. To submit it all the same, give --no-preflight."]))


def describe(problems: list[Problem], name: str = "the workflow") -> str:
    """All problems: how many of which kind, then one line each."""
    counts = Counter(problem.kind.replace("_", " ") for problem in problems)
    kinds = ", ".join(f"{kind}: {count}" for kind, count in counts.items())
    verdict = "would be refused" if any(problem.sure for problem in problems) else "may be refused"
    head = f"{visible(name)} {verdict} by the server, problems: {len(problems)} ({kinds})"
    return "\n".join([head, *(f"  {problem.text()}" for problem in problems)])


def as_sent(variation: Variation, index: int = 0) -> Workflow:
    """The graph of job `index` as the server gets it, fresh seeds included: a seed in the file may be any number."""
    return Workflow(variation.workflow.name, json.loads(variation.render(index)), variation.workflow.extra)


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
    if not reached and all(workflow.class_of(node) in classes for node in workflow.graph):
        problems.append(Problem(kind="no_outputs", said="no node is an output: the server runs only what feeds one"))
    return problems


class _Checker:
    def __init__(self, workflow: Workflow, classes: Mapping[str, Any], version: tuple[int, int, int] | None) -> None:
        self._workflow = workflow
        self._classes = classes
        self._checks_combo = version is not None and version >= COMBO_CHECKED_SINCE

    def reached(self) -> set[str]:
        """What feeds an output: the server looks at nothing else. A class not described counts as an output."""
        unknown = {"output_node": True}
        todo = [node for node in self._workflow.graph if (self._info(node) or unknown).get("output_node") is True]
        found: set[str] = set()
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                links = [(key, v[0]) for key, v in self._workflow.inputs_of(node).items() if is_link(v)]
                todo += [parent for key, parent in links if self._declares(node, key)]
        return found

    def _declares(self, node: str, key: str) -> bool:
        """Whether the server follows a link at this input; it passes over those that no class declares."""
        info, stem = self._info(node), key.partition(".")[0]
        specs = _specs(info)
        if key in specs:
            return not _dynamic(specs[key][0])
        return info is None or (stem in specs and specs[stem][0] == "COMFY_AUTOGROW_V3")

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

    def problem(self, kind: Kind, node: str, key: str, said: str, value: Any = None, **more: Any) -> Problem:
        title, name = self._workflow.title_of(node), self._workflow.class_of(node)
        return Problem(kind=kind, node=node, title=title, class_type=name, input=key, value=value, said=said, **more)

    def _info(self, node: str) -> dict[str, Any] | None:
        info = self._classes.get(self._workflow.class_of(node))
        return info if isinstance(info, dict) else None

    def _is_core(self, node: str) -> bool:
        """Whether the class is ComfyUI's own. Those of packs can behave otherwise than they are described."""
        module = str((self._info(node) or {}).get("python_module"))
        return module == "nodes" or module.startswith(("comfy_extras.", "comfy_api_nodes."))

    def _link(self, node: str, key: str, wanted: Any, link: list[Any]) -> Iterator[Problem]:
        if not is_link(link) and not (len(link) == 2 and isinstance(link[0], str) and isinstance(link[1], bool)):
            said = f"{key} is a list, which the server takes for a link, and [node id, slot] it is not"
            yield self.problem("wrong_type", node, key, said, link)
            return
        parent, slot = link
        outputs = (self._info(parent) or {}).get("output") if parent in self._workflow.graph else None
        if not isinstance(outputs, list) or not self._is_core(parent):
            return
        name = self._workflow.class_of(parent)
        if isinstance(slot, float) or not -len(outputs) <= slot < len(outputs):
            said = f"{key} takes output {slot} of node {parent} ({name}), which has {len(outputs)} (from 0)"
            yield self.problem("bad_slot", node, key, said, link)
        elif self._is_core(node) and not _fits(outputs[slot], wanted):
            wanted = wanted if isinstance(wanted, str) else "one of a list"
            said = f"{key} takes {wanted}, and output {slot} of node {parent} ({name}) is {outputs[slot]}"
            yield self.problem("link_type", node, key, said, link)

    def _literal(self, node: str, key: str, kind: Any, options: dict[str, Any], value: Any) -> Iterator[Problem]:
        if kind in ("INT", "FLOAT"):
            try:
                value = int(value) if kind == "INT" else float(value)
            except (TypeError, ValueError, OverflowError):
                said = f"{key} = {_shown(value)} cannot be read as {kind}"
                yield self.problem("wrong_type", node, key, said, value)
                return
        name = self._workflow.class_of(node)
        choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
        if (kind == "COMBO" or isinstance(kind, list)) and _holds_file(name, key, options):
            yield from self._files(node, key, choices, value)
        elif name in UNLIMITED or (name, key) in OWN_CHECK or "remote" in options:
            return
        elif isinstance(choices, list):
            several = isinstance(value, list) and options.get("multiselect")
            sure = self._is_core(node) and (isinstance(kind, list) or self._checks_combo)
            for wrong in value if several else [value]:
                if wrong not in choices:
                    yield self._no_choice(node, key, choices, wrong, sure=sure)
        elif isinstance(value, int | float):
            yield from self._bounds(node, key, options, value)

    def _files(self, node: str, key: str, choices: Any, value: Any) -> Iterator[Problem]:
        """Files that people upload. The list holds those of one folder; others may exist, which can only be asked."""
        listed = choices if isinstance(choices, list) else []
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and name and name not in listed:
                said = f"{key} = {_shown(name)} is not among the server's input files"
                near, sure = _near(name, listed), self._is_core(node)
                yield self.problem("missing_image", node, key, said, name, near=near, sure=sure)

    def _no_choice(self, node: str, key: str, choices: list[Any], value: Any, *, sure: bool) -> Problem:
        near = _near(str(value), choices)
        if any(str(name).lower().endswith(MODEL_SUFFIXES) for name in [value, *choices]):
            said = f"{key} = {_shown(value)} is not on the server, which has {len(choices) or 'none'} of that kind"
            return self.problem("missing_model", node, key, said, value, near=near, sure=sure)
        options = f"its {len(choices)} options" if choices else "its options: the list is empty"
        said = f"{key} = {_shown(value)} is not one of {options}"
        return self.problem("bad_option", node, key, said, value, near=near, sure=sure)

    def _bounds(self, node: str, key: str, options: dict[str, Any], value: float) -> Iterator[Problem]:
        low, high = (options.get(end) if isinstance(options.get(end), int | float) else None for end in ("min", "max"))
        if (low is not None and value < low) or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
            said = f"{key} = {value}, and allowed is {allowed}"
            yield self.problem("out_of_range", node, key, said, value, sure=self._is_core(node))


def _specs(info: Mapping[str, Any] | None) -> dict[str, tuple[Any, dict[str, Any], bool]]:
    """Declared inputs: type (or list of choices), options, whether required. What is not understood is left out."""
    declared = (info or {}).get("input")
    found: dict[str, tuple[Any, dict[str, Any], bool]] = {}
    for group in ("optional", "required"):
        inputs = declared.get(group) if isinstance(declared, dict) else None
        for key, spec in inputs.items() if isinstance(inputs, dict) else ():
            if isinstance(spec, list) and spec and isinstance(spec[0], str | list):
                options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
                found[key] = (spec[0], options, group == "required")
    return found


def _dynamic(kind: Any) -> bool:
    """Whether it stands for other inputs, which depend on the values given (`COMFY_AUTOGROW_V3`, …)."""
    return isinstance(kind, str) and kind.startswith("COMFY_") and not kind.startswith("COMFY_MATCHTYPE")


def _holds_file(name: str, key: str, options: Mapping[str, Any]) -> bool:
    """Whether its values are files that people upload, which the server looks for itself."""
    return (name, key) == ("LoadLatent", "latent") or any(
        option.endswith("_upload") and value for option, value in options.items()
    )


def _fits(received: Any, wanted: Any) -> bool:
    """As the server compares types: lists with a comma need one in common. What is not understood fits."""
    if not isinstance(received, str) or received == wanted or "*" in received or received.startswith("COMFY_"):
        return True
    if not isinstance(wanted, str):
        return False  # choices declared by their list take no link from a node of another kind
    if "*" in wanted or wanted.startswith("COMFY_"):
        return True
    return bool({part.strip() for part in received.split(",")} & {part.strip() for part in wanted.split(",")})


def _near(name: str, known: Collection[Any]) -> list[str]:
    """Up to three names like it, best first; folders, capitals and the suffix of models do not count."""

    def stem(path: str) -> str:
        last = path.replace("\\", "/").rpartition("/")[2].lower()
        return next((last.removesuffix(suffix) for suffix in MODEL_SUFFIXES if last.endswith(suffix)), last)

    stems = {str(other): stem(str(other)) for other in known}
    close = difflib.get_close_matches(stem(name), list(dict.fromkeys(stems.values())), 3)
    return [other for like in close for other in stems if stems[other] == like][:3]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"
