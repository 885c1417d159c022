"""What a server would do with a graph, from its description of the classes: what is missing, what does not fit.

It follows ComfyUI's own checks and reports nothing where these cannot be known: a false problem would keep people from
a run that works. What a class may allow by a check of its own is reported as not `sure`.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

from msgspec import structs

from comfyload.workflow.graph import Workflow, is_link
from comfyload.workflow.led_to import LedTo
from comfyload.workflow.near import MODEL_SUFFIXES, near_classes, near_files, near_options
from comfyload.workflow.object_info import InputSpec, NodeClass, ObjectInfo
from comfyload.workflow.problems import Kind, PreflightAnswer, PreflightFailed, Problem, Then, describe, merged
from comfyload.workflow.vary import Variation

__all__ = ["PreflightAnswer", "PreflightFailed", "Problem", "as_sent", "check", "deadly", "describe", "merged"]

COMBO_CHECKED_SINCE = (0, 8, 0)
"""Before, a server took any value for a list that is declared as `COMBO`."""

SLOTS_FOLLOWED_SINCE = (0, 29, 0)
"""From then on, a slot that does not exist kills the worker where no check covers the link, and the node that it
is of is cached.
"""

LINKED = frozenset(
    [
        "IMAGE", "MASK", "LATENT", "MODEL", "CLIP", "VAE", "CONDITIONING", "CONTROL_NET", "CLIP_VISION",
        "CLIP_VISION_OUTPUT", "STYLE_MODEL", "UPSCALE_MODEL", "SAMPLER", "SIGMAS", "NOISE", "GUIDER", "AUDIO", "VIDEO",
    ]
)  # fmt: skip
"""Types that come by a link alone: no check refuses a literal in its place, and the node fails with it."""

NOT_LOOKED_AT = frozenset(["missing_model", "missing_image", "missing_input"])
"""What makes a node fail that runs although the server has not checked it."""

UNLIMITED = frozenset(["CustomCombo", "Load3D", "Load3DAdvanced"])
"""Core classes that check all their inputs themselves, so that no list and no bound counts."""

OWN_CHECK = frozenset(
    [(f"Select{what}Device", "device") for what in ("CLIP", "Model", "VAE")]
    + [("ModelAttentionBackend", "attention"), ("LoadImageSetNode", "resize_method")]
)
"""Inputs of core classes whose lists do not count."""


def as_sent(variation: Variation, index: int = 0) -> Workflow:
    """The graph of job `index` as the server gets it, fresh seeds included: a seed in the file may be any number."""
    return Workflow(variation.workflow.name, json.loads(variation.render(index)), variation.workflow.extra)


def check(
    workflow: Workflow,
    classes: Mapping[str, Any],
    known: Collection[str] | None = None,
    *,
    version: tuple[int, int, int] | None = None,
) -> PreflightAnswer:
    """What the server would do, with all that is wrong in the order of the graph.

    Args:
        classes: the server's `/object_info`, at least of the classes in the graph.
        known: all classes the server has; None if that is not known: then a class not described may be there.
        version: the server's; None if it does not report one.
    """
    return _Checker(workflow, ObjectInfo(classes), version).answer(known)


def deadly(workflow: Workflow, info: ObjectInfo, version: tuple[int, int, int] | None) -> Problem | None:
    """What in a graph would end a server's worker, so that nothing runs there until it is restarted; None: nothing
    surely would.
    """
    checker = _Checker(workflow, info, version)
    if not checker.may_kill():  # as nearly always, and soon known
        return None
    answer = checker.answer(None)
    if answer.verdict != "kills":
        return None
    left = set(answer.left)
    return next(problem for problem in answer.problems if problem.then == "kill" and left & set(problem.outputs))


class _Checker:
    """`outputs`: the output nodes; one of a class that is not described counts as one."""

    def __init__(self, workflow: Workflow, info: ObjectInfo, version: tuple[int, int, int] | None) -> None:
        self._workflow = workflow
        self._info = info
        self._checks_combo = version is not None and version >= COMBO_CHECKED_SINCE
        self._follows_slots = version is not None and version >= SLOTS_FOLLOWED_SINCE
        self.outputs = [node for node in workflow.graph if self._class(node).output or not self._class(node).known]

    @cached_property
    def _led_to(self) -> LedTo:
        return LedTo(self._workflow, self.outputs, self._declares)

    def answer(self, known: Collection[str] | None) -> PreflightAnswer:
        """What the server would do; `known` as for `check`."""
        problems: list[Problem] = []
        for node in self._workflow.graph:
            name = self._workflow.class_of(node)
            if known is not None and not self._class(node).known and name not in known:
                near, message = near_classes(name, known), f"the server has no class {name}"
                problems.append(self.problem("unknown_class", node, "", message, name, near=near, then="refuse"))
            else:
                problems += self.node(node)
        if not self.outputs:
            message = "the graph has no output node: the server runs only what leads to one"
            problems.append(Problem(kind="no_outputs", message=message, then="refuse"))
        outputs = {node: self._workflow.class_of(node) for node in self.outputs}
        return PreflightAnswer(outputs=outputs, problems=[*problems, *self.cycles()])

    def may_kill(self) -> bool:
        """Whether there is a link to nothing, or one at an input that is not declared: nothing else ends a worker."""
        graph = self._workflow.graph
        return any(
            is_link(value) and (value[0] not in graph or not self._declares(node, key))
            for node in graph
            for key, value in self._workflow.inputs_of(node).items()
        )

    def node(self, node: str) -> Iterator[Problem]:
        """What is wrong with a node that the server looks at, or runs."""
        looked_at, run = self._led_to.looked_at.get(node, []), self._led_to.run.get(node, [])
        if looked_at:
            for problem in self._inputs(node):
                yield structs.replace(problem, outputs=looked_at)
        elif run:
            for problem in self._inputs(node):
                if problem.kind in NOT_LOOKED_AT:
                    yield structs.replace(problem, outputs=run, then="fail", sure=False)
        for problem in self._unchecked(node) if run else ():
            yield structs.replace(problem, outputs=run)

    def cycles(self) -> Iterator[Problem]:
        """Nodes that depend on themselves."""
        led_to = self._led_to
        for cycle, hidden in led_to.cycles():
            message = f"it depends on itself: {' <- '.join([*cycle, cycle[0]])}"
            outputs = (led_to.run if hidden else led_to.looked_at)[cycle[0]]
            then: Then = "fail" if hidden else "drop"
            yield self.problem("cycle", cycle[0], "", message, cycle, then=then, outputs=outputs)

    def _declares(self, node: str, key: str) -> bool:
        """Whether the server's check follows a link at this input; it passes over those that no class declares."""
        inputs, stem = self._class(node).inputs, key.partition(".")[0]
        if key in inputs:
            return not inputs[key].dynamic
        return not self._class(node).known or (stem in inputs and inputs[stem].kind == "COMFY_AUTOGROW_V3")

    def _stands_for(self, node: str, key: str) -> bool:
        """Whether it is one of the inputs that a dynamic one stands for; which of them there are depends on values."""
        stem, dot, _ = key.partition(".")
        inputs = self._class(node).inputs
        return bool(dot) and key not in inputs and stem in inputs and inputs[stem].dynamic

    def _unchecked(self, node: str) -> Iterator[Problem]:
        """Links of a node that runs that no check looks at, and a run follows all the same."""
        kind, looked_at = self._class(node), node in self._led_to.looked_at
        for key, value in self._workflow.inputs_of(node).items():
            declared = kind.known and (self._declares(node, key) or self._stands_for(node, key))
            if not is_link(value) or (looked_at and declared):
                continue
            parent, slot = value
            if parent not in self._workflow.graph:
                why = "no output leads here by declared inputs" if declared else f"{kind.name} declares no such input"
                why = why if kind.known else f"the server does not describe {kind.name}"
                message = f"{key} is linked to node {parent}, which is not in the graph, and {why}: no check refuses it"
                yield self.problem("dangling_link", node, key, message, value, then="kill")
            elif kind.core and not declared and key.partition(".")[0] not in kind.inputs:
                slots = self._class(parent).slots
                message = f"{key} is linked to output {slot} of node {parent}, and {kind.name} declares no such input"
                deadly = self._follows_slots and slots is not None and slot >= len(slots)
                if deadly:
                    has = f"node {parent} has {len(slots or ())} (from 0)"
                    message += f"; {has}: the job fails, or the worker dies if it is cached"
                yield self.problem("undeclared_link", node, key, message, value, then="kill" if deadly else "fail")

    def _inputs(self, node: str) -> Iterator[Problem]:
        """What the server's check finds at declared inputs."""
        given, core = self._workflow.inputs_of(node), self._class(node).core
        for key, link in given.items():
            if is_link(link) and link[0] not in self._workflow.graph and self._stands_for(node, key):
                yield self._dangling(node, key, link)
        for key, spec in self._class(node).inputs.items():
            if spec.dynamic:
                continue
            value = given.get(key)
            if key not in given:
                if spec.required:
                    yield self.problem("missing_input", node, key, f"{key} is not given")
            elif isinstance(value, list):
                yield from self._link(node, key, spec.kind, value)
            else:
                value = value["__value__"] if isinstance(value, dict) and "__value__" in value else value
                yield from self._literal(node, key, spec, value)
                linked = isinstance(spec.kind, str) and spec.kind in LINKED
                if linked and core and (spec.required or value is not None):
                    message = f"{key} = {_shown(value)} is not a link, and {spec.kind} needs one"
                    yield self.problem("wrong_type", node, key, message, value, then="fail", sure=spec.required)

    def problem(self, kind: Kind, node: str, key: str, message: str, value: Any = None, **more: Any) -> Problem:
        title, name = self._workflow.title_of(node), self._workflow.class_of(node)
        return Problem(
            kind=kind, node=node, title=title, class_type=name, input=key, value=value, message=message, **more
        )

    def _class(self, node: str) -> NodeClass:
        return self._info[self._workflow.class_of(node)]

    def _link(self, node: str, key: str, wanted: Any, link: list[Any]) -> Iterator[Problem]:
        if not is_link(link):
            message = f"{key} = {_shown(link)} is a list, which the server takes for a link"
            yield self.problem("wrong_type", node, key, f"{message}, and [node id, slot] it is not", link)
            return
        parent, slot = link
        if parent not in self._workflow.graph:
            yield self._dangling(node, key, link)
            return
        source, outputs = self._class(parent), self._class(parent).slots
        if outputs is None or not source.core:  # classes of packs can behave otherwise than they are described
            return
        if isinstance(slot, float) or not -len(outputs) <= slot < len(outputs):
            message = f"{key} takes output {slot} of node {parent} ({source.name}), which has {len(outputs)} (from 0)"
            yield self.problem("bad_slot", node, key, message, link)
        elif self._class(node).core and not _fits(outputs[slot], wanted):
            wanted = wanted if isinstance(wanted, str) else "one of a list"
            message = f"{key} takes {wanted}, and output {slot} of node {parent} ({source.name}) is {outputs[slot]}"
            yield self.problem("link_type", node, key, message, link)

    def _dangling(self, node: str, key: str, link: list[Any]) -> Problem:
        message = f"{key} is linked to node {link[0]}, which is not in the graph"
        return self.problem("dangling_link", node, key, message, link)

    def _literal(self, node: str, key: str, spec: InputSpec, value: Any) -> Iterator[Problem]:
        kind, options, choices = spec.kind, spec.options, spec.choices
        if kind in ("INT", "FLOAT"):
            try:
                value = int(value) if kind == "INT" else float(value)
            except (TypeError, ValueError, OverflowError):
                message = f"{key} = {_shown(value)} cannot be read as {kind}"
                yield self.problem("wrong_type", node, key, message, value)
                return
        name = self._workflow.class_of(node)
        if (kind == "COMBO" or isinstance(kind, list)) and _holds_file(name, key, options):
            yield from self._files(node, key, choices or [], value)
        elif name in UNLIMITED or (name, key) in OWN_CHECK or "remote" in options:
            return
        elif choices is not None:
            several = isinstance(value, list) and options.get("multiselect")
            sure = self._class(node).core and (isinstance(kind, list) or self._checks_combo)
            for wrong in value if several else [value]:
                if wrong not in choices:
                    yield self._no_choice(node, key, choices, wrong, sure=sure)
        elif isinstance(value, int | float):
            yield from self._bounds(node, key, options, value)

    def _files(self, node: str, key: str, listed: list[Any], value: Any) -> Iterator[Problem]:
        """Files that people upload. The list holds those of one folder; only a request shows whether others exist."""
        core = self._class(node).core
        if not isinstance(value, str | list) and core:
            yield self.problem("wrong_type", node, key, f"{key} = {_shown(value)} is not the name of a file", value)
        for name in value if isinstance(value, list) else [value]:
            if name in ("", ".") and core:
                message = f"{key} = {_shown(name)} is the server's input folder itself, and no file"
                yield self.problem("wrong_type", node, key, message, name, then="fail")
            elif isinstance(name, str) and name and name not in listed:
                message = f"{key} = {_shown(name)} is not among the server's input files"
                near = near_files(name, listed)
                yield self.problem("missing_image", node, key, message, name, near=near, sure=core)

    def _no_choice(self, node: str, key: str, choices: list[Any], value: Any, *, sure: bool) -> Problem:
        if any(str(name).lower().endswith(MODEL_SUFFIXES) for name in [value, *choices]):
            near = near_files(str(value), choices)
            message = f"{key} = {_shown(value)} is not on the server, which has {len(choices) or 'none'} of that kind"
            return self.problem("missing_model", node, key, message, value, near=near, sure=sure)
        near = near_options(str(value), choices)
        options = f"its {len(choices)} options" if choices else "its options: the list is empty"
        message = f"{key} = {_shown(value)} is not one of {options}"
        return self.problem("bad_option", node, key, message, value, near=near, sure=sure)

    def _bounds(self, node: str, key: str, options: dict[str, Any], value: float) -> Iterator[Problem]:
        low, high = (options.get(end) if isinstance(options.get(end), int | float) else None for end in ("min", "max"))
        if (low is not None and value < low) or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
            message = f"{key} = {value}, and allowed is {allowed}"
            yield self.problem("out_of_range", node, key, message, value, sure=self._class(node).core)


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


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"
