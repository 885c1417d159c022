"""A ComfyUI graph in API format: parsed, checked, and addressed by node id or title."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from comfyload.errors import UsageError, WorkflowError
from comfyload.text_files import decode

__all__ = ["Graph", "Inputs", "Workflow", "address", "is_link", "parse"]

Inputs = dict[str, Any]
Graph = dict[str, dict[str, Any]]
"""Node id -> {"class_type", "inputs", "_meta"}: what `POST /prompt` takes as `prompt`."""

_EXPORT_HINT = "in ComfyUI choose Workflow > Export (API), or Save (API Format) in older versions"


class Workflow:
    """A checked graph with its name. `extra` holds what stood beside `prompt` in the file (`extra_data`)."""

    def __init__(self, name: str, graph: Graph, extra: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.graph = graph
        self.extra = dict(extra or {})

    @property
    def sha256(self) -> str:
        """Of the graph alone, in canonical JSON: the same for any layout or key order of the file."""
        canonical = json.dumps(self.graph, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    def class_of(self, node: str) -> str:
        return str(self.graph[node]["class_type"])

    def title_of(self, node: str) -> str:
        """The node's title as the user sees it, or its class."""
        meta = self.graph[node].get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        return title if isinstance(title, str) and title else self.class_of(node)

    def inputs_of(self, node: str) -> Inputs:
        inputs: Inputs = self.graph[node]["inputs"]
        return inputs

    def parents(self, node: str) -> list[str]:
        """The nodes that `node`'s inputs are linked to."""
        return [value[0] for value in self.inputs_of(node).values() if is_link(value)]

    def ancestors(self, node: str) -> set[str]:
        """All nodes that `node` depends on, itself excluded."""
        found: set[str] = set()
        todo = self.parents(node)
        while todo:
            parent = todo.pop()
            if parent not in found:
                found.add(parent)
                todo.extend(self.parents(parent))
        return found

    def sinks(self) -> list[str]:
        """The nodes that no other node takes anything from: without `/object_info`, the best guess at outputs."""
        used = {parent for node in self.graph for parent in self.parents(node)}
        return [node for node in self.graph if node not in used]


def is_link(value: object) -> bool:
    """Whether an input's value is a link `[node id, slot]`; the server takes any such pair for one."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
        and not isinstance(value[1], bool)
    )


def parse(text: bytes, name: str, source: str = "") -> Workflow:
    """Read an API-format graph, bare or as `{"prompt": {...}}`; `source` is where it was read, for messages.

    Integers keep all their digits.

    Raises:
        WorkflowError: it is not such a graph; the message says what it is instead.
    """
    source = source or name
    try:
        loaded = json.loads(decode(text, source, WorkflowError))
    except json.JSONDecodeError as error:
        raise WorkflowError(
            f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            "the file may be cut short; export it again" if error.pos >= len(text.rstrip()) - 1 else _EXPORT_HINT,
        ) from None
    except RecursionError:
        raise WorkflowError(f"{source} is nested too deeply to be a graph", _EXPORT_HINT) from None
    except ValueError as error:
        raise WorkflowError(f"{source} is not JSON: {error}", _EXPORT_HINT) from None
    if not isinstance(loaded, dict):
        raise WorkflowError(f"{source} holds a JSON {_kind(loaded)}, not a graph", _EXPORT_HINT)
    if isinstance(loaded.get("nodes"), list):
        raise WorkflowError(f"{source} is saved in the editor's own format, which the server cannot run", _EXPORT_HINT)
    extra: dict[str, Any] = {}
    if isinstance(loaded.get("prompt"), dict) and "class_type" not in loaded["prompt"]:
        extra = {"extra_data": loaded["extra_data"]} if isinstance(loaded.get("extra_data"), dict) else {}
        loaded = loaded["prompt"]
        if isinstance(loaded.get("nodes"), list):
            raise WorkflowError(
                f"{source} is saved in the editor's own format, which the server cannot run", _EXPORT_HINT
            )
    if not loaded:
        raise WorkflowError(f"{source} is an empty graph", _EXPORT_HINT)
    for problem in _problems(loaded):
        raise WorkflowError(f"{source}: {problem}", _EXPORT_HINT)
    return Workflow(name, loaded, extra)


def _problems(graph: Mapping[str, Any]) -> Iterator[str]:
    """What a server would refuse, or worse: a node without `inputs` kills the real server's worker thread."""
    for node, body in graph.items():
        if not isinstance(body, dict):
            yield f"node {node} is a {_kind(body)}, not an object"
        elif not isinstance(body.get("class_type"), str):
            yield f"node {node} has no class_type"
        elif not isinstance(body.get("inputs"), dict):
            yield f"node {node} ({body['class_type']}) has no inputs object"
    for node, body in graph.items():
        if not isinstance(body, dict) or not isinstance(body.get("inputs"), dict):
            continue
        for key, value in body["inputs"].items():
            if is_link(value) and value[0] not in graph:
                yield (
                    f"node {node} ({body.get('class_type')}) takes {key} from node {value[0]}, "
                    f"which is not in the graph"
                )


def _kind(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def address(workflow: Workflow, target: str, flag: str = "") -> tuple[str, str]:
    """Node id and input of `NODE.INPUT`. Titles and inputs may hold dots themselves, so every split is tried.

    Raises:
        UsageError: the graph has none such; `flag` begins the message.
    """
    nodes_named: list[str] = []
    for dot in (at for at, letter in enumerate(target) if letter == "."):
        name, key = target[:dot], target[dot + 1 :]
        named = [name] if name in workflow.graph else [n for n in workflow.graph if workflow.title_of(n) == name]
        matches = [node for node in named if key in workflow.inputs_of(node)]
        if len(matches) > 1:
            raise UsageError(
                f"{flag}{target}: {len(matches)} nodes are titled {name!r} (ids {', '.join(matches)})",
                "name the node by its id",
            )
        if matches:
            return matches[0], key
        nodes_named.extend(named)
    if nodes_named:
        node = nodes_named[0]
        known = sorted(workflow.inputs_of(node))
        near = difflib.get_close_matches(target.rpartition(".")[2], known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"{flag}{target}: node {node} ({workflow.class_of(node)}) has no such input",
            f"{hint}its inputs are {', '.join(known) or 'none'}",
        )
    everything = [f"{n}.{key}" for n in workflow.graph for key in workflow.inputs_of(n)]
    everything += [f"{workflow.title_of(n)}.{key}" for n in workflow.graph for key in workflow.inputs_of(n)]
    near = difflib.get_close_matches(target, everything, 3)
    raise UsageError(
        f"{flag}{target}: the graph has no such node",
        f"did you mean {' or '.join(near)}?" if near else "write NODE.INPUT, NODE being an id or a title",
    )
