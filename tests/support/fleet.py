"""A run over several simulated servers in process, on virtual time: prepared, run and judged as any other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from msgspec import structs

from comfyload import clock
from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import prepare
from comfyload.app.run.servers import Connected
from comfyload.app.run.session import Session
from comfyload.app.run.viewer import Viewer
from comfyload.comfy.http import Http
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.judge.summary import Measured, measure
from comfyload.record.gateway_options import ServerTable
from comfyload.record.model import Record
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RunReader, RunWriter
from comfyload.sim import Server
from tests.support.direct import Direct
from tests.support.rig import sleeper

Graph = dict[str, Any]
Script = Callable[[Mapping[str, Server]], Awaitable[None]]


def fleet_options(
    folder: Path,
    names: list[str],
    *,
    graphs: Mapping[str, Graph] | None = None,
    pins: Mapping[str, str] | None = None,
    tables: Mapping[str, dict[str, Any]] | None = None,
    **changes: Any,
) -> RunOptions:
    """Options of a run over servers of these names. `graphs`: by workflow, else one of a second; `pins`: by workflow,
    the server it names; `tables`: by server, what else its table says.
    """
    choices = []
    for name, graph in (graphs or {"job": sleeper(1.0)}).items():
        (folder / f"{name}.json").write_text(json.dumps(graph))
        choices.append(WorkflowChoice(file=str(folder / f"{name}.json"), server=(pins or {}).get(name, "")))
    servers = [ServerTable(name=name, url=f"http://{name}/", **(tables or {}).get(name, {})) for name in names]
    given: dict[str, Any] = {"plan": Plan(load=Closed(concurrency=2 * len(names)), jobs=40, seed=7), "telemetry": False}
    return RunOptions(
        server=servers[0].url, servers=servers, workflows=choices, run_dir=str(folder / "run"), **{**given, **changes}
    )


class NamedDirect(Direct):
    """A transport in process with an address, to a server that lacks a class of nodes if one is named."""

    def __init__(self, server: Server, name: str, lacks: str) -> None:
        super().__init__(server, latency_s=0.001)
        self.name = f"http://{name}/"
        self._lacks = lacks

    async def call(self, request: Request) -> Reply:
        reply = await super().call(request)
        if not self._lacks or not request.path.startswith("object_info"):
            return reply
        classes = {name: known for name, known in json.loads(reply.body).items() if name != self._lacks}
        return structs.replace(reply, body=json.dumps(classes).encode())


def connected(servers: Mapping[str, Server], lacks: Mapping[str, str]) -> list[Connected]:
    """Transports to simulators, named as the options name them. `lacks`: by server, a class that it does not have."""
    return [
        Connected(cast(Http, NamedDirect(server, name, lacks.get(name, ""))), name, [])
        for name, server in servers.items()
    ]


def fleet_run(
    folder: Path,
    servers: Mapping[str, Server],
    *,
    script: Script | None = None,
    lacks: Mapping[str, str] | None = None,
    **changes: Any,
) -> Measured:
    """Run a load over these servers, `script` beside it; returns it judged from its files."""
    options = fleet_options(folder, list(servers), **changes)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for server in servers.values():
                await stack.enter_async_context(server)
            one_by_one = connected(servers, lacks or {})
            prepared = await prepare(options, one_by_one)
            with RunWriter(folder / "run", prepared.manifest) as writer:
                session = Session(prepared, writer, Viewer(), clock.stopwatch(), caps=Caps(options))
                beside = asyncio.ensure_future(script(servers)) if script is not None else None
                await asyncio.wait_for(session.run([one.http for one in one_by_one]), 36_000)
                if beside is not None:
                    await beside

    clock.run_virtual(main())
    return judged(folder / "run")


def judged(path: Path) -> Measured:
    reader = RunReader(path)
    return measure(str(path), reader.manifest, reader.lines(), reader.samples())


def records(path: Path) -> list[Record]:
    return [line for line in RunReader(path).lines() if isinstance(line, Record)]


def jobs_of(run: Measured) -> dict[str, int]:
    """How many counted jobs ended on each server."""
    return {name: row.jobs for name, row in run.summary.servers.items()}


def codes(run: Measured) -> set[str]:
    return {finding.code for finding in run.summary.findings}
