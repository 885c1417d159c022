"""How jobs of one workflow differ: fresh seeds, a salt where no seed reaches, outputs in a folder of the run's own.

A ComfyUI server answers a repeated graph from its cache, so every job must differ where the work is, and nowhere else:
a changed loader would load its model again. Each value is a pure function of (run seed, job index).
"""

import copy
import hashlib
import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any

from comfyload.errors import UsageError
from comfyload.record.model import NodeFacts, Prompt, WorkflowFacts
from comfyload.workflow.data import DataTable
from comfyload.workflow.graph import Graph, Workflow, address
from comfyload.workflow.object_info import ObjectInfo
from comfyload.workflow.reach import Reach
from comfyload.workflow.seeds import Seed, find_seeds
from comfyload.workflow.values import Unfit, typed

SALT_INPUT = "comfyload_salt"
"""An input that no node declares: a real server keys its cache by it and passes it to no node."""

SALT_BOUNDS = (0, 2**63 - 1)

PREFIX_INPUT = "filename_prefix"

Place = tuple[str, str]
Slot = tuple[str, str, Callable[[int], Any]]
"""Node, input, and the value of job `index`."""


def prompt_id(run_id: str, index: int) -> str:
    """The job's id on the server: a canonical lower-case UUID, the same for the same run and index."""
    digest = hashlib.blake2b(f"{run_id}/{index}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:]}"


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
        table: DataTable | None = None,
        fixed: Collection[str] = (),
    ) -> None:
        """`table`: values of inputs, job by job; a column without an input in the graph is skipped.
        `fixed`: inputs (`node.input`) whose value somebody chose; a seed among them is not varied.

        Raises:
            UsageError: a value of the table does not fit its input, or a column is among the fixed.
        """
        self.workflow = workflow
        self.as_is = as_is
        self.outputs = [node for node in workflow.graph if info[workflow.class_of(node)].output]
        self.outputs = self.outputs or workflow.sinks()
        self._info = info
        self._table = _columns(workflow, info, table)
        for place in self._table:
            if ".".join(place) in fixed:
                raise UsageError(
                    f"{'.'.join(place)} is set for all jobs, and a column of the table too", "leave one out"
                )
        # With the table's first row: a column may put a number where the graph has a link.
        first = {place: values[0] for place, values in self._table.items()}
        self._filled = workflow.with_inputs(first) if first else workflow
        seeds = {(found.node, found.key): found for found in find_seeds(self._filled, info)}
        distinct = {place: len({repr(value) for value in values}) for place, values in self._table.items()}
        chosen = {place for place in seeds if ".".join(place) in fixed or distinct.get(place) == 1}
        fresh = [found for place, found in seeds.items() if place not in chosen and place not in self._table]
        moving = {place for place, count in distinct.items() if count > 1}
        moving |= {(found.node, found.key) for found in fresh}
        self.reach = Reach(
            self._filled,
            info,
            self.outputs,
            moving=[] if as_is else [node for node, key in moving if key != PREFIX_INPUT],
            chosen=list(workflow.graph) if as_is else [node for node, _ in chosen],
        )
        self.salted = self.reach.salted
        """Nodes that get an input which ComfyUI ignores, so that they run in each job."""
        self.constant = self.reach.constant
        """Outputs that are the same in every job, such as a preview of a control image: neither work nor new images."""
        live = self.reach.live
        self.pinned = [] if as_is else sorted(".".join(place) for place in chosen if place[0] in live)
        """Seeds that stay the same in every job, since somebody chose them."""
        self._fresh = [] if as_is else [found for found in fresh if found.node in live]
        graph = copy.deepcopy(workflow.graph)
        self.rows = len({tuple(map(repr, row)) for row in zip(*self._table.values(), strict=True)})
        """How many rows of the table differ in their values for this graph."""
        sizes = [found.bounds[1] - found.bounds[0] + 1 for found in self._fresh]
        sizes += [SALT_BOUNDS[1]] if self.salted else []
        self.period = max([*sizes, self.rows], default=1)
        """How many jobs differ before they repeat."""
        self.prefixed: list[str] = []
        self.kept_prefix: list[str] = []
        """Output nodes whose files stay where the graph puts them, as it is not known how they treat a folder."""
        if not as_is and output_folder is not None:
            self._move_outputs(graph, output_folder)
        self.output_folder = output_folder if self.prefixed else None
        self._pieces, self._slots = _cut(graph, self._all_slots(seed))
        self._named = [(f"{node}.{key}", at) for node, key, at in self._slots]
        self._render, self._values = self.render, self.values  # one bound method each for all jobs
        self._extra = json.dumps(workflow.extra["extra_data"]).encode() if "extra_data" in workflow.extra else b""

    def _all_slots(self, seed: int) -> list[Slot]:
        name = self.workflow.name
        slots: list[Slot] = [(*place, _cycled(values)) for place, values in self._table.items()]
        slots += [(one.node, one.key, _sequence(seed, f"{name}/{one.node}.{one.key}", one)) for one in self._fresh]
        # One value for all: nodes that are alike stay alike, and the server runs one of them.
        salt = _sequence(seed, f"{name}/{SALT_INPUT}", Seed(node="", key=SALT_INPUT, bounds=SALT_BOUNDS))
        return [*slots, *((node, SALT_INPUT, salt) for node in self.salted)]

    def _move_outputs(self, graph: Graph, folder: str) -> None:
        """Put every saved file below `folder`: a real server slows down as one folder fills.

        Only ComfyUI's own classes are known to take a folder in their prefix; others may save nothing then.
        """
        for node, body in graph.items():
            prefix = body["inputs"].get(PREFIX_INPUT)
            if not isinstance(prefix, str) or prefix.startswith(("/", "\\")) or ":" in prefix[:2]:
                continue
            if self._info[self.workflow.class_of(node)].core and (node, PREFIX_INPUT) not in self._table:
                body["inputs"][PREFIX_INPUT] = f"{folder}/{prefix}"
                self.prefixed.append(node)
            elif node in self.reach.live:
                self.kept_prefix.append(node)

    def takes(self, column: str) -> bool:
        """Whether a column of the rows is an input of this graph."""
        return _address(self.workflow, column) is not None

    @property
    def varied(self) -> list[str]:
        return [f"{node}.{key}" for node, key, _ in self._slots if key != SALT_INPUT]

    def values(self, index: int) -> dict[str, Any]:
        """`node.input` -> the value that job `index` gets."""
        return {name: at(index) for name, at in self._named}

    def render(self, index: int) -> bytes:
        """The graph of job `index` as JSON."""
        parts = [self._pieces[0]]
        for (_, _, at), piece in zip(self._slots, self._pieces[1:], strict=True):
            value = at(index)
            parts += [b"%d" % value if type(value) is int else json.dumps(value).encode(), piece]
        return b"".join(parts)

    def prompt(self, run_id: str, index: int, *, warmup: bool) -> Prompt:
        return Prompt(
            id=prompt_id(run_id, index),
            index=index,
            workflow=self.workflow.name,
            warmup=warmup,
            graph_of=self._render,
            values_of=self._values,
            extra_data=self._extra,
        )

    def facts(self, overrides: dict[str, Any], *, keep_graph: bool) -> WorkflowFacts:
        """The facts for the manifest: identity and classes, and the graph itself with `keep_graph`."""
        workflow, samplers = self._filled, self.reach.samplers
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
            pinned=self.pinned,
            reloaded=self.reach.reloaded,
            overrides=overrides,
            output_prefix=self.output_folder,
            graph=dict(workflow.graph) if keep_graph else None,
        )


def _address(workflow: Workflow, column: str) -> Place | None:
    try:
        return address(workflow, column)
    except UsageError:
        return None


def _columns(workflow: Workflow, info: ObjectInfo, table: DataTable | None) -> dict[Place, list[Any]]:
    """The columns of a table that are inputs of this graph: the values of their rows, typed."""
    found: dict[Place, list[Any]] = {}
    for column in table.columns if table is not None else ():
        place = _address(workflow, column)
        if place is None or table is None:
            continue
        if place in found:
            raise UsageError(f"{table.source}: two columns name the input {'.'.join(place)}", "leave one out")
        spec = info[workflow.class_of(place[0])].spec(place[1])
        present = workflow.inputs_of(place[0])[place[1]]
        found[place] = []
        for number, value in enumerate(table.column(column)):
            try:
                fit = typed(value, spec, present, workflow.graph, decimal_comma=table.decimal_comma)
            except Unfit as unfit:
                raise unfit.of(f"{table.place(number)}: {column}") from None
            found[place].append(fit)
    return found


def _cycled(values: list[Any]) -> Callable[[int], Any]:
    return lambda index: values[index % len(values)]


def _sequence(run_seed: int, slot: str, seed: Seed) -> Callable[[int], Any]:
    """Distinct values over the whole range: a start and a stride, coprime to the range's size, both from the seed."""
    low, high = seed.bounds
    size = high - low + 1
    digest = hashlib.blake2b(f"{run_seed}/{slot}".encode("utf-8", "surrogatepass"), digest_size=32).digest()
    start = int.from_bytes(digest[:16], "big") % size
    stride = int.from_bytes(digest[16:], "big") % size or 1
    while math.gcd(stride, size) != 1:
        stride += 1
    return lambda index: seed.written(low + (start + index * stride) % size)


def _cut(graph: Graph, slots: list[Slot]) -> tuple[list[bytes], list[Slot]]:
    """The serialised graph cut at the slots, and these in its order. A marker that the graph does not hold, and the
    number of the slot, stand for each value.
    """
    marker = "slot"
    while marker in json.dumps(graph):
        marker += "_"
    marked = copy.deepcopy(graph)
    for number, (node, key, _) in enumerate(slots):
        marked[node]["inputs"][key] = f"{marker}{number}"
    parts = re.split(rf'"{marker}(\d+)"', json.dumps(marked, separators=(",", ":")))
    return [piece.encode() for piece in parts[::2]], [slots[int(number)] for number in parts[1::2]]
