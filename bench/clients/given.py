"""What every client is given on its command line, in this order."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Given(NamedTuple):
    """`jobs` jobs in a closed loop, one line of JSON of each to `out`; `fetch`: and one image of each, not kept.

    `sockets`: WebSockets to share the jobs among; a client with one for each user takes no notice of it.
    """

    server: str
    workflow: Path
    jobs: int
    in_flight: int
    out: Path
    sockets: int
    fetch: bool

    @property
    def graph(self) -> dict[str, Any]:
        graph: dict[str, Any] = json.loads(self.workflow.read_bytes())
        return graph

    @property
    def events(self) -> str:
        """The address of the server's WebSocket, to which a client's id is added."""
        return self.server.replace("http", "ws", 1) + "/ws?clientId="


def given() -> Given:
    server, workflow, jobs, in_flight, out, sockets, fetch = sys.argv[1:]
    return Given(server, Path(workflow), int(jobs), int(in_flight), Path(out), int(sockets), fetch == "1")


def seeded(graph: dict[str, Any]) -> dict[str, Any]:
    """The inputs of the node that has a seed."""
    inputs: dict[str, Any] = next(node["inputs"] for node in graph.values() if "seed" in node["inputs"])
    return inputs
