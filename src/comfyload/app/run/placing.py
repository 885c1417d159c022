"""Which servers of a run can get the jobs of which workflow, found out before the first job."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from comfyload.app.run.inputs import Inputs
from comfyload.app.run.options import RunOptions
from comfyload.app.run.preflight import Beforehand
from comfyload.app.run.servers import Connected
from comfyload.comfy.examine import Described, fetch_object_info
from comfyload.comfy.identify import identify
from comfyload.comfy.upload import upload_image
from comfyload.errors import UsageError
from comfyload.record.model import Observation, Server
from comfyload.retry.dispatch import Dispatching
from comfyload.words import count
from comfyload.workflow import ObjectInfo
from comfyload.workflow.preflight import PreflightFailed


async def identify_all(options: RunOptions, connected: Sequence[Connected]) -> list[Server]:
    """The facts of each server.

    Raises:
        ServerUnreachable: one does not answer.
        UsageError: one is busy, or does not report what the options need.
    """
    one_by_one = (identify(one.http, one.http.name, one.headers, one.name) for one in connected)
    servers = await asyncio.gather(*one_by_one)
    others_warm_up = options.shard is not None and options.plan.warmup > 0
    for server in servers:
        who = f"the server {server.name}" if server.name else "the server"
        if server.queue_at_start and not options.allow_shared and not others_warm_up:
            raise UsageError(
                f"{who} is busy: {count(server.queue_at_start, 'prompt')} of others in its queue",
                "wait, or remove those of a killed run with comfyload cleanup; --allow-shared marks the run as invalid",
            )
        if options.plan.max_server_queue is not None and server.queue_at_start is None:
            raise UsageError(f"{who} does not report how long its queue is", "leave --max-server-queue out")
    return servers


async def describe_all(connected: Sequence[Connected], inputs: Inputs) -> list[Described]:
    """What each server says of the classes in the workflows."""
    return await asyncio.gather(*(fetch_object_info(one.http, inputs.classes()) for one in connected))


def together(described: Sequence[Described]) -> ObjectInfo:
    """The classes of all servers; of one that several have, the first one's words count."""
    return ObjectInfo({name: known for one in reversed(described) for name, known in one.classes.items()})


def with_packs(servers: Sequence[Server], described: Sequence[Described]) -> list[Server]:
    """The servers with the packs that they have their classes from."""
    pairs = zip(servers, described, strict=True)
    return [
        structs.replace(server, packs=ObjectInfo(one.classes).packs() if one.classes else None) for server, one in pairs
    ]


async def upload_to_all(connected: Sequence[Connected], file: Path) -> str:
    """Upload an input image to every server; returns what it is called there.

    Raises:
        UsageError: it is not called the same on all of them, so that no graph can name it.
    """
    stored = await asyncio.gather(*(upload_image(one.http, file) for one in connected))
    if len(set(stored)) > 1:
        names = ", ".join(f"{one.name}: {name}" for one, name in zip(connected, stored, strict=True))
        raise UsageError(f"{file.name} has not the same name on all servers ({names})", "rename the file")
    return stored[0]


class Placing:
    """What each server would do with the jobs. `not_on`: by workflow, the addresses of servers that get none of its
    jobs.
    """

    def __init__(
        self,
        options: RunOptions,
        inputs: Inputs,
        info: ObjectInfo,
        described: Sequence[Described],
        servers: Sequence[Server],
    ) -> None:
        self._options = options
        self._servers = servers
        self._names = [workflow.name for workflow in inputs.workflows]
        pairs = zip(described, servers, strict=True)
        self._beforehand = [Beforehand(options, inputs, info, one, server) for one, server in pairs]
        self._refused: list[Observation] = []
        self.not_on: dict[str, set[str]] = {}

    async def look(self, connected: Sequence[Connected]) -> None:
        """Ask all servers.

        Raises:
            PreflightFailed: no server that may get a workflow's jobs would run them.
            UsageError: a workflow names no server that is there.
        """
        pairs = zip(self._beforehand, connected, strict=True)
        await asyncio.gather(*(beforehand.look(one.http) for beforehand, one in pairs))
        if len(self._servers) == 1:
            self._beforehand[0].refuse()
            return
        for name, chosen in zip(self._names, self._options.workflows, strict=True):
            allowed = self._allowed(name, chosen.server)
            fit = [place for place in allowed if name not in self._beforehand[place].refused()]
            if not fit:
                found = {f"{self._servers[at].name}: {name}": self._beforehand[at].refused()[name] for at in allowed}
                raise PreflightFailed(found, droppable=False)
            for place in allowed:
                if place not in fit:
                    self._note(place, name)
            self.not_on[name] = {one.url for place, one in enumerate(self._servers) if place not in fit}

    def dispatching(self) -> Dispatching | None:
        """The rule by which jobs go to the servers; None: there is but one."""
        if len(self._servers) == 1:
            return None
        pairs = zip(self._servers, self._options.servers, strict=True)
        weights = {server.url: table.weight for server, table in pairs}
        return Dispatching(rule=self._options.dispatch, weights=weights, not_on=self.not_on)

    def observations(self) -> list[Observation]:
        """What a reader of the run should know of the servers' answers."""
        found: dict[str, Observation] = {}
        for beforehand in self._beforehand:
            found |= {one.text: one for one in beforehand.observations()}
        return [*self._refused, *found.values()]

    def _allowed(self, name: str, chosen: str) -> list[int]:
        """The places of the servers that the workflow may go to."""
        if self._options.dispatch != "pinned":
            return list(range(len(self._servers)))
        tables, wanted = self._options.servers, chosen or name
        pairs = enumerate(zip(self._servers, tables, strict=True))
        found = [place for place, (server, table) in pairs if wanted == server.name or wanted in table.tags]
        if not found:
            names = ", ".join(server.name for server in self._servers)
            if chosen:
                raise UsageError(f"{name}: no server has the name or the tag {chosen!r}", f"there are {names}")
            hint = f"write --workflow FILE@SERVER, or give a server the tag {name!r} in --servers FILE"
            raise UsageError(f"--dispatch pinned: {name} names no server", hint)
        return found

    def _note(self, place: int, name: str) -> None:
        """The server gets no job of the workflow, and why."""
        server = self._servers[place].name
        problems = self._beforehand[place].refused()[name].problems
        why = problems[0].text() if problems else "it would not run it"
        text = f"{server} gets no jobs of {name}: {why}"
        self._refused.append(Observation(t=0.0, code="preflight", text=text, server=server))
