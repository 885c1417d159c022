"""Which nodes a server checks for each output, and which it runs: they are not the same."""

from collections.abc import Callable, Iterable, Iterator

from comfyload.workflow.graph import Workflow, closure, is_link


class LedTo:
    """The server's check of an output follows links at inputs that a class declares; its run follows every link.

    `looked_at`, `run`: nodes, each with the outputs that lead to it, in the order of the graph's outputs.
    """

    def __init__(self, workflow: Workflow, outputs: Iterable[str], declares: Callable[[str, str], bool]) -> None:
        graph = workflow.graph
        self._declared = {
            node: [
                value[0]
                for key, value in workflow.inputs_of(node).items()
                if is_link(value) and value[0] in graph and declares(node, key)
            ]
            for node in graph
        }
        self._all = {node: workflow.parents(node) for node in graph}
        self.looked_at = _led_to(self._declared, outputs)
        self.run = _led_to(self._all, outputs)

    def cycles(self) -> Iterator[tuple[list[str], bool]]:
        """Cycles among the nodes, and whether one is hidden: the server's check follows declared links, and only a run
        would meet a cycle with a link at an input that no class declares.
        """
        declared = _cycles({node: self._declared[node] for node in self._declared if node in self.looked_at})
        yield from ((cycle, False) for cycle in declared)
        known = {frozenset(cycle) for cycle in declared}
        for cycle in _cycles({node: self._all[node] for node in self._all if node in self.run}):
            if frozenset(cycle) not in known:
                yield cycle, True


def _led_to(parents: dict[str, list[str]], outputs: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for output in outputs:
        for node in closure([output], parents):
            found.setdefault(node, []).append(output)
    return found


def _cycles(parents: dict[str, list[str]]) -> list[list[str]]:
    """One cycle through each knot of nodes, against the links: each node takes something from the next."""
    left = dict(parents)
    found = []
    while left:
        free = [node for node in left if not any(parent in left for parent in left[node])]
        if free:
            for node in free:
                del left[node]
            continue
        path = [next(iter(left))]
        while (after := next(parent for parent in left[path[-1]] if parent in left)) not in path:
            path.append(after)
        cycle = path[path.index(after) :]
        found.append(cycle)
        for node in cycle:
            del left[node]
    return found
