"""Which nodes run in each job: those downstream of what varies, and those that need a salt."""

from collections.abc import Collection

from comfyload.workflow.graph import Workflow, closure, is_link
from comfyload.workflow.object_info import ObjectInfo
from comfyload.workflow.seeds import takes_seed


class Reach:
    """The parts of a graph that run in each job, given what varies.

    live: the nodes that feed an output, and outputs; the server runs no others.
    salted: nodes that get a salt: samplers that no variation reaches and nobody fixed, or, where nothing varies, the
        nodes where the work begins. Nodes downstream of which nothing loads come first.
    runs: all nodes that run in each job, salt included.
    samplers: samplers that must run in each job.
    constant: outputs that are the same in every job, while others are not.
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
        self._parents = {node: workflow.parents(node) for node in workflow.graph}
        self._children: dict[str, list[str]] = {}
        for node, parents in self._parents.items():
            for parent in parents:
                self._children.setdefault(parent, []).append(node)
        self.live = closure(outputs, self._parents)
        loads = {node for node in self.live if info[workflow.class_of(node)].loads}
        samplers = {node for node in self.live if info[workflow.class_of(node)].sampler}
        moved, fixed = closure(moving, self._children), closure(chosen, self._children)
        self.salted = sorted(self._first(samplers | _seeded(workflow, info, self.live), but=moved | fixed))
        if not self.salted and not moved & set(outputs):
            self.salted = self._beginnings(loads, [output for output in outputs if output not in fixed])
        self.runs = (moved | closure(self.salted, self._children)) & self.live
        idle = [output for output in outputs if output not in self.runs]
        self.constant = idle if len(idle) < len(outputs) else []
        self.samplers = samplers & self.runs if self.runs else samplers
        self.reloaded = sorted(loads & self.runs)

    def _first(self, nodes: Collection[str], but: Collection[str] = ()) -> set[str]:
        """Those of the nodes that depend on no other of them."""
        candidates = {node for node in nodes if node not in but}
        after = closure((child for node in candidates for child in self._children.get(node, ())), self._children)
        return candidates - after

    def _beginnings(self, loads: set[str], outputs: list[str]) -> list[str]:
        """Where the work of the outputs begins: nodes that load nothing, with no other such node before them."""
        work = self.live - loads
        spared = work - closure(loads, self._parents)
        targets: set[str] = set()
        for output in outputs:
            own = closure([output], self._parents) & work
            # Where all work but the output's own goes through a loader, it cannot be spared.
            targets |= self._first(own & spared if own & spared - {output} else own) or {output}
        return sorted(targets)


def _seeded(workflow: Workflow, info: ObjectInfo, live: set[str]) -> set[str]:
    """Nodes that take a seed: their outputs are random, whatever their names are."""
    return {
        node
        for node in live
        for key, value in workflow.inputs_of(node).items()
        if takes_seed(workflow, info, node, key)
        and (is_link(value) or ((spec := info[workflow.class_of(node)].spec(key)) is not None and spec.kind == "INT"))
    }
