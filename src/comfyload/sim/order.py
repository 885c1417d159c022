"""The order in which a prompt's nodes run: outputs and what leads to them first, as ComfyUI picks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfyload.sim.cache import is_link
from comfyload.sim.catalog import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["run_order"]


def run_order(graph: dict[str, Any], outputs: list[str], cached: Callable[[str], bool]) -> Iterator[str]:
    """The nodes that `outputs` need and the cache does not hold, each yielded once its sources were consumed.

    An output is yielded even if it is cached: its result is shown again.
    """
    blocking: dict[str, list[str]] = {}  # in the order they were discovered, which decides between equals
    blocked: dict[str, int] = {}
    for output in outputs:
        _discover(graph, output, cached, blocking, blocked)
    while blocking:
        node_id = _pick(graph, [node for node in blocking if not blocked[node]], blocking)
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
            if is_link(value) and not cached(value[0]):
                stack.append(value[0])
                links.append((value[0], node_id))
    for source, waiting in dict.fromkeys(links):
        blocking[source].append(waiting)
        blocked[waiting] += 1


def _pick(graph: dict[str, Any], ready: list[str], blocking: dict[str, list[str]]) -> str:
    def shown(node_id: str) -> bool:
        return CLASSES[graph[node_id]["class_type"]].is_output

    def leads(node_id: str, links: int) -> bool:
        if links == 0:
            return shown(node_id)
        return any(leads(waiting, links - 1) for waiting in blocking[node_id])

    for links in range(3):
        for node_id in ready:
            if leads(node_id, links):
                return node_id
    return ready[0]
