"""A ComfyUI graph in API format: parsed, checked, and addressed by node id or title."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from msgspec import Struct

from comfyload.errors import UsageError, WorkflowError
from comfyload.text_files import decode
from comfyload.workflow.reading import EXPORT_HINT, find_graph, kind_of, load_json, refuse_pictures

Inputs = dict[str, Any]
Graph = dict[str, dict[str, Any]]
"""Node id -> {"class_type", "inputs", "_meta"}: what `POST /prompt` takes as `prompt`."""


class Workflow(Struct, frozen=True, eq=False):
    """A checked graph with its name. `extra` holds other parts of the file (`extra_data`)."""

    name: str
    graph: Graph
    extra: dict[str, Any] = {}

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
        """The nodes that `node`'s inputs are linked to, as far as they are in the graph."""
        return [value[0] for value in self.inputs_of(node).values() if is_link(value) and value[0] in self.graph]

    def dangling(self) -> list[tuple[str, str]]:
        """Node and input of every link to a node that is not in the graph."""
        return [
            (node, key)
            for node in self.graph
            for key, value in self.inputs_of(node).items()
            if is_link(value) and value[0] not in self.graph
        ]

    def without(self, nodes: Collection[str]) -> Workflow:
        """The graph without these nodes; links to them are kept."""
        return Workflow(self.name, {n: body for n, body in self.graph.items() if n not in nodes}, self.extra)

    def with_inputs(self, values: Mapping[tuple[str, str], Any]) -> Workflow:
        """A copy in which these inputs, by node and name, have these values."""
        graph = copy.deepcopy(self.graph)
        for (node, key), value in values.items():
            graph[node]["inputs"][key] = value
        return Workflow(self.name, graph, self.extra)

    def ancestors(self, node: str) -> set[str]:
        """All nodes that `node` depends on, itself excluded."""
        parents = {other: self.parents(other) for other in self.graph}
        return closure(parents.get(node, []), parents)

    def sinks(self) -> list[str]:
        """The nodes that no other node is linked to: without `/object_info`, the best guess at outputs."""
        used = {parent for node in self.graph for parent in self.parents(node)}
        return [node for node in self.graph if node not in used]


def closure(nodes: Iterable[str], neighbours: Mapping[str, Sequence[str]]) -> set[str]:
    """These nodes and all that are reached from them."""
    found: set[str] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(neighbours.get(node, ()))
    return found


def is_link(value: object) -> TypeGuard[list[Any]]:
    """Whether an input's value is a link `[node id, slot]`; the server takes any such pair for one."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def parse(text: bytes, name: str, source: str = "") -> Workflow:
    """Read an API-format graph, bare or wrapped as `find_graph` knows; `source`: where it was read.

    Integers keep all their digits.

    Raises:
        WorkflowError: it is not such a graph; the message says what it is instead.
    """
    source = source or name
    refuse_pictures(text, source)
    return checked(*find_graph(load_json(decode(text, source, WorkflowError), source), source), name, source)


def checked(graph: dict[str, Any], extra: dict[str, Any], name: str, source: str) -> Workflow:
    """The graph as a workflow.

    Raises:
        WorkflowError: a server could not run it.
    """
    if not graph:
        raise WorkflowError(f"{source} is an empty graph", EXPORT_HINT)
    for problem in _problems(graph):
        raise WorkflowError(f"{source}: {problem}", EXPORT_HINT)
    return Workflow(name, graph, extra)


def _problems(graph: Mapping[str, Any]) -> Iterator[str]:
    """Errors that a server would refuse, or worse: a node without `inputs` kills a real server's worker thread."""
    for node, body in graph.items():
        if not isinstance(body, dict):
            yield f"node {node} is a {kind_of(body)}, not an object"
        elif not isinstance(body.get("class_type"), str):
            yield f"node {node} has no class_type"
        elif not isinstance(body.get("inputs"), dict):
            yield f"node {node} ({body['class_type']}) has no inputs object"


def address(workflow: Workflow, target: str, flag: str = "") -> tuple[str, str]:
    """Node id and input of `NODE.INPUT`. Titles and inputs may hold dots themselves, so every split is tried.

    Raises:
        UsageError: the graph has no such input; `flag` begins the message.
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
