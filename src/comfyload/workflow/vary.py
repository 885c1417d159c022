"""How jobs of one workflow differ: fresh seeds, a salt where there is no seed, outputs in a folder of the run's own.

A ComfyUI server answers a repeated graph from its cache, so every job must differ where the work is, and nowhere else:
a changed loader would load its model again. Each value is a pure function of (run seed, job index).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import uuid
from collections.abc import Callable
from typing import Any

from comfyload.errors import UsageError
from comfyload.record.model import NodeFacts, Prompt, WorkflowFacts
from comfyload.workflow.data import Rows
from comfyload.workflow.graph import Graph, Workflow, address, coerce
from comfyload.workflow.object_info import ObjectInfo

__all__ = ["SALT_INPUT", "Variation", "prompt_id", "seed_inputs"]

SALT_INPUT = "comfyload_salt"
"""An input that no node declares: the real server keys its cache by it and passes it to nobody."""

UNKNOWN_BOUNDS = (0, 2**32 - 1)
"""Taken for a seed whose bounds the server does not give: every sampler accepts these."""

SALT_BOUNDS = (0, 2**63 - 1)

Slot = tuple[str, str, Callable[[int], Any]]
"""Node, input, and the value of job `index`."""


def seed_inputs(workflow: Workflow) -> list[tuple[str, str]]:
    """Node and name of every literal integer input called `seed`, `noise_seed` or `…_seed`."""
    return [
        (node, key)
        for node in workflow.graph
        for key, value in workflow.inputs_of(node).items()
        if (key == "seed" or key.endswith("_seed")) and isinstance(value, int) and not isinstance(value, bool)
    ]


def prompt_id(run_id: str, index: int) -> str:
    """The job's id on the server: a canonical lower-case UUID, the same for the same run and index."""
    digest = hashlib.blake2b(f"{run_id}/{index}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


class Variation:
    """Turns one workflow into its jobs: the graph is serialised once, and per job the varying values are spliced in."""

    def __init__(
        self,
        workflow: Workflow,
        info: ObjectInfo,
        *,
        seed: int,
        as_is: bool = False,
        output_folder: str | None = None,
        rows: Rows | None = None,
    ) -> None:
        """`rows` give inputs their values job by job; a column that the graph has no input for is passed over."""
        self.workflow = workflow
        self.as_is = as_is
        self.outputs = [node for node in workflow.graph if info[workflow.class_of(node)].output]
        self.outputs = self.outputs or workflow.sinks()
        graph = copy.deepcopy(workflow.graph)
        told = _columns(workflow, rows or [])
        seeds = [] if as_is else [slot for slot in seed_inputs(workflow) if slot not in told]
        reached = [out for out in self.outputs if (workflow.ancestors(out) | {out}) & {node for node, _ in seeds}]
        self.salted = [] if as_is or reached else _salt_targets(workflow, info, self.outputs)
        self.constant = [out for out in self.outputs if reached and out not in reached]
        """Outputs that show the same in every job (a preview of a control image): no work, and no new images."""
        fresh = [(node, key, info[workflow.class_of(node)].bounds(key) or UNKNOWN_BOUNDS) for node, key in seeds]
        fresh += [(node, SALT_INPUT, SALT_BOUNDS) for node in self.salted]
        slots = [(n, k, _sequence(seed, f"{workflow.name}/{n}.{k}", bounds)) for n, k, bounds in fresh]
        self._slots = sorted([*slots, *told.values()], key=_place_in(graph))
        self.period = max((high - low + 1 for _, _, (low, high) in fresh), default=1)
        """How many jobs differ in their seeds before these repeat."""
        self.prefixed = [] if as_is or output_folder is None else _move_outputs(graph, output_folder)
        self.output_folder = output_folder if self.prefixed else None
        self._pieces = _pieces(graph, [(node, key) for node, key, _ in self._slots])
        self._extra = json.dumps(workflow.extra["extra_data"]).encode() if "extra_data" in workflow.extra else b""
        self._info = info

    def takes(self, column: str) -> bool:
        """Whether a column of the rows is an input of this graph."""
        return bool(_columns(self.workflow, [{column: ""}]))

    @property
    def varied(self) -> list[str]:
        return [f"{node}.{key}" for node, key, _ in self._slots if key != SALT_INPUT]

    def values(self, index: int) -> dict[str, Any]:
        """`node.input` -> the value that job `index` gets."""
        return {f"{node}.{key}": at(index) for node, key, at in self._slots}

    def render(self, index: int) -> bytes:
        """The graph of job `index` as JSON."""
        if not self._slots:
            return self._pieces[0]
        parts = [self._pieces[0]]
        for (_, _, at), piece in zip(self._slots, self._pieces[1:], strict=True):
            parts += [json.dumps(at(index)).encode(), piece]
        return b"".join(parts)

    def prompt(self, run_id: str, index: int, *, warmup: bool) -> Prompt:
        return Prompt(
            id=prompt_id(run_id, index),
            index=index,
            workflow=self.workflow.name,
            warmup=warmup,
            values=self.values(index),
            graph=lambda: self.render(index),
            extra_data=self._extra,
        )

    def facts(self, overrides: dict[str, Any], *, keep_graph: bool) -> WorkflowFacts:
        """What the manifest keeps: identity and classes, the graph itself only if asked."""
        workflow = self.workflow
        samplers = {n for n in workflow.graph if self._info[workflow.class_of(n)].sampler}
        nodes = {
            node: NodeFacts(
                class_type=workflow.class_of(node),
                output=node in self.outputs and node not in self.constant,
                sampler=node in samplers,
                samplers=sorted(workflow.ancestors(node) & samplers) if node in self.outputs else [],
            )
            for node in workflow.graph
        }
        return WorkflowFacts(
            name=workflow.name,
            sha256=workflow.sha256,
            nodes=nodes,
            varied=self.varied,
            salted=self.salted,
            constant=self.constant,
            overrides=overrides,
            output_prefix=self.output_folder,
            graph=dict(workflow.graph) if keep_graph else None,
        )


def _columns(workflow: Workflow, rows: Rows) -> dict[tuple[str, str], Slot]:
    """The columns of a table that are inputs of this graph, as slots by node and input."""
    slots: dict[tuple[str, str], Slot] = {}
    for column in rows[0] if rows else ():
        try:
            node, key = address(workflow, column)
        except UsageError:
            continue
        present = workflow.inputs_of(node)[key]
        values = [coerce(row[column], present) if isinstance(row[column], str) else row[column] for row in rows]
        slots[node, key] = (node, key, _cycled(values))
    return slots


def _cycled(values: list[Any]) -> Callable[[int], Any]:
    return lambda index: values[index % len(values)]


def _sequence(run_seed: int, slot: str, bounds: tuple[int, int]) -> Callable[[int], int]:
    """Distinct values over the whole range: a start and a stride, coprime to the range's size, both from the seed."""
    low, high = bounds
    size = high - low + 1
    digest = hashlib.blake2b(f"{run_seed}/{slot}".encode(), digest_size=32).digest()
    start = int.from_bytes(digest[:16], "big") % size
    stride = int.from_bytes(digest[16:], "big") % size or 1
    while math.gcd(stride, size) != 1:
        stride += 1

    def value(index: int) -> int:
        return low + (start + index * stride) % size

    return value


def _salt_targets(workflow: Workflow, info: ObjectInfo, outputs: list[str]) -> list[str]:
    """Where the work of the outputs begins: nodes that prepare nothing heavy and depend on no other such node."""
    light = {node for node in workflow.graph if not info[workflow.class_of(node)].heavy}
    targets: set[str] = set()
    for output in outputs:
        upstream = (workflow.ancestors(output) | {output}) & light
        targets |= {node for node in upstream if not workflow.ancestors(node) & light} or {output}
    return sorted(targets)


def _move_outputs(graph: Graph, folder: str) -> list[str]:
    """Put every saved file below `folder`: a real server slows down as one folder fills."""
    moved = []
    for node, body in graph.items():
        prefix = body["inputs"].get("filename_prefix")
        if isinstance(prefix, str) and not prefix.startswith(("/", "\\")) and ":" not in prefix[:2]:
            body["inputs"]["filename_prefix"] = f"{folder}/{prefix}"
            moved.append(node)
    return moved


def _place_in(graph: Graph) -> Callable[[Slot], tuple[int, int]]:
    """Sorts slots in the order in which they are written out; a salt is added after a node's own inputs."""
    nodes = {node: place for place, node in enumerate(graph)}

    def place(slot: Slot) -> tuple[int, int]:
        keys = list(graph[slot[0]]["inputs"])
        return nodes[slot[0]], keys.index(slot[1]) if slot[1] in keys else len(keys)

    return place


def _pieces(graph: Graph, slots: list[tuple[str, str]]) -> list[bytes]:
    """The serialised graph cut at the slots, which come in its order. A marker that the graph does not hold stands
    for each value.
    """
    marker = "slot"
    while marker in json.dumps(graph):
        marker += "_"
    marked = copy.deepcopy(graph)
    for node, key in slots:
        marked[node]["inputs"][key] = marker
    return [piece.encode() for piece in json.dumps(marked, separators=(",", ":")).split(f'"{marker}"')]
