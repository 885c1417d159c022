"""Knows which nodes run in each job: what lies downstream of what varies, and where a salt must make up for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from comfyload.workflow.graph import Workflow, is_link
from comfyload.workflow.object_info import ObjectInfo
from comfyload.workflow.seeds import takes_seed

__all__ = ["Reach"]


class Reach:
    """What of a graph works in each job, given what varies.

    live: the nodes that feed an output, and outputs; the server runs no others.
    salted: nodes to give a salt: samplers that nothing varied reaches and nobody fixed, or, where nothing moves at all,
        where the work begins. Nodes downstream of which nothing loads come first.
    runs: all nodes that run in each job, salt included.
    samplers: samplers that are to run in each job.
    constant: outputs that show the same in every job, beside others that do not.
    reloaded: nodes among `runs` that load or patch a model.
    """

    def __init__(
        self,
        workflow: Workflow,
        info: ObjectInfo,
        outputs: list[str],
        *,
        moving: Collection[str],
        chosen: Collection[str],
    ) -> None:
        """`moving`: nodes with an input that varies; `chosen`: nodes with a seed that somebody fixed."""
        self._children: dict[str, list[str]] = {node: [] for node in workflow.graph}
        for node in workflow.graph:
            for parent in workflow.parents(node):
                self._children.setdefault(parent, []).append(node)
        self._above: dict[str, set[str]] = {}
        self.live = {above for output in outputs for above in (*self._before(workflow, output), output)}
        loads = {node for node in self.live if info[workflow.class_of(node)].loads}
        samplers = {node for node in self.live if info[workflow.class_of(node)].sampler}
        moved, fixed = self._below(moving), self._below(chosen)
        still = {node for node in samplers | _seeded(workflow, info, self.live) if node not in moved | fixed}
        self.salted = sorted(node for node in still if not self._before(workflow, node) & still)
        if not self.salted and not moved & set(outputs):
            self.salted = self._beginnings(workflow, loads, [out for out in outputs if out not in fixed])
        self.runs = (moved | self._below(self.salted)) & self.live
        idle = [output for output in outputs if output not in self.runs]
        self.constant = idle if len(idle) < len(outputs) else []
        self.samplers = samplers & self.runs if self.runs else samplers
        self.reloaded = sorted(loads & self.runs)

    def _below(self, nodes: Iterable[str]) -> set[str]:
        """These nodes and all that depend on them."""
        found: set[str] = set()
        todo = list(nodes)
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo.extend(self._children.get(node, ()))
        return found

    def _before(self, workflow: Workflow, node: str) -> set[str]:
        if node not in self._above:
            self._above[node] = workflow.ancestors(node)
        return self._above[node]

    def _beginnings(self, workflow: Workflow, loads: set[str], outputs: list[str]) -> list[str]:
        """Where the work of the outputs begins: nodes that load nothing, with no other such node before them."""
        work = self.live - loads
        spared = {node for node in work if not self._below([node]) & loads}
        targets: set[str] = set()
        for output in outputs:
            own = self._before(workflow, output) & work
            # Where all work but the output's own goes through a loader, there is no sparing it.
            begins = own & spared if own & spared - {output} else own
            targets |= {node for node in begins if not self._before(workflow, node) & begins} or {output}
        return sorted(targets)


def _seeded(workflow: Workflow, info: ObjectInfo, live: set[str]) -> set[str]:
    """Nodes that take a seed: what they make is random, whatever they are called."""
    return {
        node
        for node in live
        for key, value in workflow.inputs_of(node).items()
        if takes_seed(workflow, info, node, key) and (is_link(value) or _declared_integer(workflow, info, node, key))
    }


def _declared_integer(workflow: Workflow, info: ObjectInfo, node: str, key: str) -> bool:
    spec = info[workflow.class_of(node)].spec(key)
    return spec is not None and spec.kind == "INT"
