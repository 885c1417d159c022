"""Whether a posted graph can run, in ComfyUI's words: which outputs are valid and what is wrong with the rest."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from comfyload.sim.catalog import CLASSES
from comfyload.sim.frames import READS_FILE
from comfyload.sim.reply import traceback
from comfyload.workflow.graph import is_link
from comfyload.workflow.object_info import InputSpec

Graph = dict[str, Any]
Error = dict[str, Any]

_TRACEBACK = traceback(("execution.py", 1184, "validate_prompt"), ("execution.py", 933, "validate_inputs"))
_CAST = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


class Verdict(Struct):
    """`error` is None if something can run: then `outputs` will, and `node_errors` says what will not."""

    error: Error | None
    outputs: list[str]
    node_errors: dict[str, Any]


def validate(
    graph: Graph, has_file: Callable[[str], bool], targets: list[str] | None, missing: str, *, cycles_named: bool = True
) -> Verdict:
    """Judge `graph`, converting its widget values in place as ComfyUI does.

    `has_file`: whether there is the file that a widget names. `targets` limits the outputs that count, `missing` is the
    error type for a class the server does not know (it changed over versions). `cycles_named`: older servers drop an
    output that depends on itself without an error.

    Raises:
        TypeError, AttributeError: it is not a graph (a real server answers 500).
    """
    outputs = []
    for node_id, node in graph.items():
        found = _class_error(node_id, node, missing)
        if found is not None:
            return Verdict(found, [], {})
        if CLASSES[node["class_type"]].output and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(error_of("prompt_no_outputs", "Prompt has no outputs", ""), [], {})
    checker = _Checker(graph, has_file, cycles_named=cycles_named)
    good: list[str] = []
    node_errors: dict[str, Any] = {}
    reasons: list[Error] = []
    for output in outputs:
        if checker.output(output):
            good.append(output)
            continue
        reasons += checker.verdicts[output]
        for node_id, errors in checker.verdicts.items():
            if errors:
                entry = node_errors.setdefault(
                    node_id, {"errors": errors, "dependent_outputs": [], "class_type": graph[node_id]["class_type"]}
                )
                entry["dependent_outputs"].append(output)
    if good:
        return Verdict(None, good, node_errors)
    details = "\n".join(f"{reason['message']}: {reason['details']}" for reason in reasons)
    failed = error_of("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return Verdict(failed, [], node_errors)


def unfit_arguments(node: dict[str, Any]) -> tuple[str, str] | None:
    """Type and message of the error that a node raises for what the check leaves out: links at undeclared inputs,
    missing inputs of a node that only such a link leads to, a literal for a link, a folder for a picture.
    """
    name, inputs = node["class_type"], node["inputs"]
    if name in READS_FILE and inputs.get("image") in ("", "."):
        return "IsADirectoryError", "[Errno 21] Is a directory: 'input'\n"
    declared = CLASSES[name].inputs
    for key, value in inputs.items():
        if key not in declared:
            if is_link(value):
                return "TypeError", f"{name}() got an unexpected keyword argument '{key}'\n"
            continue
        kind, required = declared[key].kind, declared[key].required
        by_link = isinstance(kind, str) and not {*_CAST, "COMBO", "*"} & {*kind.split(",")}
        if by_link and not isinstance(value, list) and (required or value is not None):
            return "AttributeError", f"'{type(value).__name__}' object has no attribute 'shape'\n"
    missing = [key for key, spec in declared.items() if spec.required and key not in inputs]
    return ("TypeError", f"{name}() missing required arguments: {', '.join(missing)}\n") if missing else None


def _class_error(node_id: str, node: dict[str, Any], missing: str) -> Error | None:
    if "class_type" not in node:
        title = node.get("_meta", {}).get("title")
        shown = title or f"ID #{node_id}"
        message = f"Node '{shown}' has no class_type. The workflow may be corrupted or a custom node is missing."
        kind = None
    elif node["class_type"] not in CLASSES:
        kind = node["class_type"]
        title = node.get("_meta", {}).get("title", kind)
        message = f"Node '{title}' not found. The custom node may not be installed."
    else:
        return None
    extra = {"node_id": node_id, "class_type": kind, "node_title": title}
    return error_of(missing, message, f"Node ID '#{node_id}'", extra)


def error_of(kind: str, message: str, details: str, extra: Error | None = None) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra or {}}


class _Checker:
    """`verdicts` holds each visited node's own errors; a node is valid if it and all it depends on have none."""

    def __init__(self, graph: Graph, has_file: Callable[[str], bool], *, cycles_named: bool) -> None:
        self._graph = graph
        self._has_file = has_file
        self._cycles_named = cycles_named
        self._valid: dict[str, bool] = {}
        self.verdicts: dict[str, list[Error]] = {}

    def output(self, node_id: str) -> bool:
        return self._tried(node_id, [], "exception_during_validation", "Exception when validating node")

    def _tried(self, node_id: str, path: list[str], kind: str, message: str, link: Error | None = None) -> bool:
        try:
            return self._node(node_id, path)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            extra = {"exception_type": type(error).__name__, "traceback": _TRACEBACK}
            extra |= {} if link is None else {**link, "exception_message": str(error)}
            self._fail(node_id, kind, message, str(error), extra)
            return False

    def _fail(self, node_id: str, kind: str, message: str, details: str, extra: Error) -> None:
        self._valid[node_id] = False
        self.verdicts[node_id] = [error_of(kind, message, details, extra)]

    def _node(self, node_id: str, path: list[str]) -> bool:
        if node_id in self._valid:
            return self._valid[node_id]
        if node_id in path:
            if self._cycles_named:
                self._cycle([*path[path.index(node_id) :], node_id])
            return False
        node = self._graph[node_id]
        inputs = node["inputs"]
        errors: list[Error] = []
        sources_valid = True
        for name, spec in CLASSES[node["class_type"]].inputs.items():
            found, config = None, [spec.kind, spec.options]
            if name not in inputs:
                if spec.required:
                    message = "Required input is missing"
                    found = error_of("required_input_missing", message, name, {"input_name": name})
            elif isinstance(inputs[name], list):
                found = self._link(name, config, inputs[name])
                if found is None:
                    link = {"input_name": name, "input_config": config, "linked_node": inputs[name]}
                    kind, message = "exception_during_inner_validation", "Exception when validating inner node"
                    sources_valid &= self._tried(inputs[name][0], [*path, node_id], kind, message, link)
            else:
                found = self._widget(node, name, spec)
            errors += [found] if found is not None else []
        self.verdicts[node_id] = self.verdicts.get(node_id, []) + errors
        self._valid[node_id] = self._valid.get(node_id, True) and sources_valid and not errors
        return self._valid[node_id]

    def _cycle(self, path: list[str]) -> None:
        nodes = list(dict.fromkeys(path))
        shown = " -> ".join(f"{node_id} ({self._graph[node_id]['class_type']})" for node_id in path)
        for node_id in nodes:
            extra = {"node_id": node_id, "cycle_nodes": nodes}
            self._fail(node_id, "dependency_cycle", "Dependency cycle detected", shown, extra)

    def _link(self, name: str, config: list[Any], link: list[Any]) -> Error | None:
        extra = {"input_name": name, "input_config": config}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return error_of("bad_linked_input", message, name, extra | {"received_value": link})
        received = (CLASSES[self._graph[link[0]]["class_type"]].slots or ())[link[1]]
        if _fits(received, config[0]):
            return None
        details = f"{name}, received_type({received}) mismatch input_type({config[0]})"
        extra |= {"received_type": received, "linked_node": link}
        return error_of("return_type_mismatch", "Return type mismatch between linked nodes", details, extra)

    def _widget(self, node: dict[str, Any], name: str, spec: InputSpec) -> Error | None:
        kind, inputs = spec.kind, node["inputs"]
        value = inputs[name]
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        extra = {"input_name": name, "input_config": [kind, spec.options], "received_value": value}
        if isinstance(kind, str) and kind in _CAST:
            try:
                value = inputs[name] = _CAST[kind](value)
            except (TypeError, ValueError, OverflowError) as error:
                message = f"Failed to convert an input value to a {kind} value"
                extra["exception_message"] = str(error)
                return error_of("invalid_input_type", message, f"{name}, {value}, {error}", extra)
        if node["class_type"] in READS_FILE and name == "image":
            # The folder itself is there, too; the node fails then.
            if self._has_file(value):
                return None
            details = f"{name} - Invalid image file: {value}"
            message = "Custom validation failed for node"
            return error_of("custom_validation_failed", message, details, {"input_name": name})
        return _limits(name, value, spec, extra | {"received_value": value})


def _limits(name: str, value: Any, spec: InputSpec, extra: dict[str, Any]) -> Error | None:
    options, choices = spec.options, spec.choices
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return error_of("value_smaller_than_min", message, name, extra)
    if "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return error_of("value_bigger_than_max", message, name, extra)
    if choices is None or value in choices:
        return None
    shown = str(choices)
    if len(choices) > 20:  # a real server does not send back long lists
        shown = f"(list of length {len(choices)})"
        extra = extra | {"input_config": None}
    return error_of("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {shown}", extra)


def _fits(received: str, wanted: Any) -> bool:
    if isinstance(wanted, list) or wanted == "COMBO":
        return received in ("COMBO", "*")
    return received in wanted.split(",") or "*" in (received, wanted)
