"""The order in which a prompt's nodes run: outputs and what leads to them first, as ComfyUI picks them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from comfyload.sim.catalog import CLASSES
from comfyload.workflow.graph import is_link


class NoSuchSource(Exception):
    """A link that no check has looked at leads to a node, or an output of one, that is not there."""


class CycleFound(Exception):
    """Nothing can run any more, as each node waits for another."""

    def __init__(self, node_id: str) -> None:
        super().__init__("Dependency cycle detected")
        self.node_id = node_id


def run_order(
    graph: dict[str, Any], outputs: list[str], cached: Callable[[str], bool], *, follows_slots: bool = True
) -> Iterator[str]:
    """The nodes that `outputs` need and the cache does not hold, each yielded once its sources were consumed.

    An output is yielded even if it is cached: its result is shown again. `follows_slots`: the number of a cached node's
    output is looked at, too, as servers do since 0.29.

    Raises:
        NoSuchSource: a link leads nowhere.
        CycleFound: no node that is left can run.
    """
    blocking: dict[str, list[str]] = {}  # in the order they were discovered, which decides between equals
    blocked: dict[str, int] = {}
    for output in outputs:
        _discover(graph, output, cached, blocking, blocked)
    if follows_slots:
        _look_at_slots(graph, blocking, cached)
    while blocking:
        ready = [node for node in blocking if not blocked[node]]
        if not ready:
            raise CycleFound(next(iter(blocking)))
        node_id = _pick(graph, ready, blocking)
        yield node_id
        for waiting in blocking.pop(node_id):
            blocked[waiting] -= 1


def _discover(
    graph: dict[str, Any],
    output: str,
    cached: Callable[[str], bool],
    blocking: dict[str, list[str]],
    blocked: dict[str, int],
) -> None:
    stack = [output]
    links = []
    while stack:
        node_id = stack.pop()
        if node_id in blocking:
            continue
        blocking[node_id] = []
        blocked[node_id] = 0
        for value in graph[node_id]["inputs"].values():
            if is_link(value) and value[0] not in graph:
                raise NoSuchSource(value[0])
            if is_link(value) and not cached(value[0]):
                stack.append(value[0])
                links.append((value[0], node_id))
    for source, waiting in dict.fromkeys(links):
        blocking[source].append(waiting)
        blocked[waiting] += 1


def _look_at_slots(graph: dict[str, Any], running: Iterable[str], cached: Callable[[str], bool]) -> None:
    for node_id in running:
        for value in graph[node_id]["inputs"].values():
            there = not is_link(value) or value[1] < len(CLASSES[graph[value[0]]["class_type"]].slots or ())
            if not there and cached(value[0]):
                raise NoSuchSource(f"{value[0]}, output {value[1]}")


def _pick(graph: dict[str, Any], ready: list[str], blocking: dict[str, list[str]]) -> str:
    def shown(node_id: str) -> bool:
        return bool(CLASSES[graph[node_id]["class_type"]].output)

    def leads(node_id: str, links: int) -> bool:
        if links == 0:
            return shown(node_id)
        return any(leads(waiting, links - 1) for waiting in blocking[node_id])

    for links in range(3):
        for node_id in ready:
            if leads(node_id, links):
                return node_id
    return ready[0]
