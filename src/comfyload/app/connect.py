"""`comfyload.connect`: run workflows on ComfyUI servers from a program, with retries by a policy."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from comfyload.clock import stopwatch
from comfyload.comfy.address import parse_headers, parse_server, with_credentials
from comfyload.comfy.examine import refuse_deadly
from comfyload.comfy.http import Http
from comfyload.comfy.identify import identify
from comfyload.comfy.view import view_path
from comfyload.comfy.wire import Request, TransportError
from comfyload.errors import ComfyloadError, ServerUnreachable, UsageError, WorkflowError
from comfyload.record.model import Execution, Prompt
from comfyload.retry.client import RetryingClient
from comfyload.retry.policy import Policy, decode, default
from comfyload.tasks import end_tasks
from comfyload.text_files import read_bytes, read_text
from comfyload.workflow import Workflow, parse
from comfyload.workflow.graph import address
from comfyload.workflow.seeds import find_seeds

if TYPE_CHECKING:
    from comfyload.comfy.transport import Transport

__all__ = ["AsyncComfy", "Comfy", "Connection", "connect"]

T = TypeVar("T")
Graph = Mapping[str, Any]
DOWNLOAD_TRIES = 4
ASK_AGAIN_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses before a server that did not answer is asked again; from then on the last."""


def connect(
    servers: str | Sequence[str],
    policy: Policy | str | Path | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    ca_file: str | None = None,
    insecure: bool = False,
) -> Connection:
    """A connection to one ComfyUI or several, to be entered with `with` or `async with`.

    `policy`: a Policy, or the path of a `retry.json`; None: a cautious one without a deadline. `headers` go with every
    call; a value `env:NAME` is read from the environment. Nothing is sent before it is entered.

    Raises:
        UsageError: an address, a header or the policy cannot be right.
    """
    return Connection(servers, policy, headers=headers, ca_file=ca_file, insecure=insecure)


class Connection:
    """`with` gives a `Comfy`, whose methods wait; `async with` gives an `AsyncComfy`, whose methods are awaited.

    Entering raises ServerUnreachable if no server answers as a ComfyUI. Of several, those that do not are left out
    until they do. Leaving takes off the servers what has not ended.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        policy: Policy | str | Path | None,
        *,
        headers: Mapping[str, str] | None,
        ca_file: str | None,
        insecure: bool,
    ) -> None:
        addresses = [servers] if isinstance(servers, str) else list(servers)
        if not addresses:
            raise UsageError("no server is given", "name at least one, as http://127.0.0.1:8188")
        self._urls = list(dict.fromkeys(parse_server(address) for address in addresses))
        self._headers = parse_headers([f"{name}={value}" for name, value in (headers or {}).items()])
        for url in self._urls:
            with_credentials(url, self._headers)
        self._policy = _policy(policy)
        self._ca_file = ca_file
        self._insecure = insecure
        self._stack = AsyncExitStack()
        self._thread: _Loop | None = None

    async def __aenter__(self) -> AsyncComfy:
        async with AsyncExitStack() as stack:
            transports: list[Http] = [
                await stack.enter_async_context(
                    Http.connect(
                        url,
                        self._headers,
                        ca_file=self._ca_file,
                        insecure=self._insecure,
                        connect_s=self._policy.connect_s,
                    )
                )
                for url in self._urls
            ]
            comfy = await _open(stack, [(transport, transport.name) for transport in transports], self._policy)
            self._stack = stack.pop_all()
        return comfy

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def __enter__(self) -> Comfy:
        self._thread = _Loop()
        try:
            return Comfy(self._thread.run(self.__aenter__()), self._thread)
        except BaseException:
            self._thread.close()
            raise

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            try:
                self._thread.run(self.__aexit__())
            finally:
                self._thread.close()


class AsyncComfy:
    """Runs workflows; any number at once. `left_out`: servers that have not answered yet, and why."""

    def __init__(self, client: RetryingClient, transports: Mapping[str, Transport], left_out: dict[str, str]) -> None:
        self._client = client
        self._transports = transports
        self._numbers = itertools.count()
        self.left_out = left_out

    async def run(
        self,
        workflow: Graph | str | Path,
        *,
        seed: int | None = None,
        set: Mapping[str, object] | None = None,
        deadline_s: float | None = None,
    ) -> Execution:
        """Run a workflow to its end, and tell what happened; how a job fails is told by the value, not raised.

        `workflow`: a graph in API format, JSON text of one, or a path. `seed`: for every seed that a run would vary.
        `set`: values by `NODE.INPUT`, NODE being an id or a title. `deadline_s`: from now, over all attempts; None: the
        policy's.

        Raises:
            UsageError: the workflow is none, or has no such input or seed, or would kill the server's worker.
        """
        if deadline_s is not None and not deadline_s > 0.0:
            raise UsageError("deadline_s is not positive", "give seconds, or nothing")
        graph = changed(read(workflow), seed, set or {})
        await refuse_deadly(next(iter(self._transports.values())), graph)
        return await self._client.run(_prompt(graph, next(self._numbers)), deadline_s=deadline_s)

    async def fetch(self, execution: Execution) -> list[tuple[str, bytes]]:
        """The files that a job made: each with its `type/subfolder/name`.

        Raises:
            ComfyloadError: one could not be had, after several tries.
        """
        transport = self._transport_of(execution)
        files = dict.fromkeys(file for output in execution.outputs for file in output.files)
        return [(file, await _download(transport, file)) for file in files]

    def _transport_of(self, execution: Execution) -> Transport:
        if execution.attempts:
            return self._transports[execution.attempts[-1].server]
        return next(iter(self._transports.values()))


class Comfy:
    """`AsyncComfy` for programs without an event loop; its methods may be called from several threads at once."""

    def __init__(self, comfy: AsyncComfy, loop: _Loop) -> None:
        self._comfy = comfy
        self._loop = loop
        self.left_out = comfy.left_out

    def run(
        self,
        workflow: Graph | str | Path,
        *,
        seed: int | None = None,
        set: Mapping[str, object] | None = None,
        deadline_s: float | None = None,
    ) -> Execution:
        """As `AsyncComfy.run`; Ctrl-C takes the job off the server."""
        return self._loop.run(self._comfy.run(workflow, seed=seed, set=set, deadline_s=deadline_s))

    def fetch(self, execution: Execution) -> list[tuple[str, bytes]]:
        """As `AsyncComfy.fetch`."""
        return self._loop.run(self._comfy.fetch(execution))


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="comfyload", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(_end_the_rest())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


async def _end_the_rest() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def _open(stack: AsyncExitStack, servers: Sequence[tuple[Transport, str]], policy: Policy) -> AsyncComfy:
    """Ask the servers who they are, open a client to those that answer, and go on asking the others."""
    found, missing, error = [], [], None
    for transport, name in servers:
        try:
            found.append((transport, await identify(transport, name, [])))
        except ServerUnreachable as unreachable:
            missing.append((transport, name, str(unreachable)))
            error = error or unreachable
    if error is not None and not found:
        raise error
    client = await stack.enter_async_context(RetryingClient.open(found, policy, stopwatch(), rng=Random()))
    transports = {facts.url: transport for transport, facts in found}
    comfy = AsyncComfy(client, transports, {name: why for _, name, why in missing})

    async def join(transport: Transport, name: str) -> None:
        for pause in itertools.chain(ASK_AGAIN_S, itertools.repeat(ASK_AGAIN_S[-1])):
            await asyncio.sleep(pause)
            with suppress(ServerUnreachable):
                facts = await identify(transport, name, [])
                transports[facts.url] = transport
                await client.join(transport, facts)
                del comfy.left_out[name]
                return

    later = [asyncio.create_task(join(transport, name)) for transport, name, _ in missing]
    stack.push_async_callback(end_tasks, later)
    return comfy


def read(workflow: Graph | str | Path) -> Workflow:
    """A workflow however it is given.

    Raises:
        WorkflowError: it is none.
    """
    if isinstance(workflow, Mapping):
        try:
            text = json.dumps(workflow)
        except (TypeError, ValueError) as error:
            raise WorkflowError(f"the workflow cannot be written as JSON: {error}", "give plain values") from None
        return _named(text.encode())
    if isinstance(workflow, str) and workflow.lstrip().startswith("{"):
        return _named(workflow.encode("utf-8", "surrogatepass"))
    path = Path(workflow)
    return parse(read_bytes(path, WorkflowError, "give a workflow file"), path.stem, str(path))


def changed(workflow: Workflow, seed: int | None, values: Mapping[str, object]) -> Workflow:
    """A copy with other seeds and values.

    Raises:
        UsageError: it has no such input, or no seed.
    """
    graph = json.loads(json.dumps(workflow.graph))
    copy = Workflow(workflow.name, graph, workflow.extra)
    if seed is not None:
        seeds = find_seeds(copy)
        if not seeds:
            raise UsageError("the workflow has no seed to set", "leave seed out, or name an input with set")
        for found in seeds:
            copy.inputs_of(found.node)[found.key] = found.written(seed)
    for target, value in values.items():
        node, key = address(copy, target)
        try:
            copy.inputs_of(node)[key] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{target} cannot be written as JSON: {error}", "give a plain value") from None
    return copy


def _named(text: bytes) -> Workflow:
    """A graph without a file is named after its contents, so that jobs of the same graph are known as such."""
    workflow = parse(text, "workflow", "the workflow")
    return Workflow(f"workflow-{workflow.sha256[:8]}", workflow.graph, workflow.extra)


def _prompt(workflow: Workflow, index: int) -> Prompt:
    body = json.dumps(workflow.graph).encode()
    extra = workflow.extra.get("extra_data")
    return Prompt(
        id=str(uuid.uuid4()),
        index=index,
        workflow=workflow.name,
        warmup=False,
        values={},
        graph=lambda: body,
        extra_data=json.dumps(extra).encode() if extra else b"",
    )


def _policy(policy: Policy | str | Path | None) -> Policy:
    if policy is None:
        return default()
    if isinstance(policy, Policy):
        return policy
    return decode(read_text(str(policy)).encode())


async def _download(transport: Transport, file: str) -> bytes:
    kind, _, path = file.partition("/")
    subfolder, _, name = path.rpartition("/")
    request = Request(method="GET", path=view_path(name, subfolder, kind), timeout_s=300, file=True)
    problem = ""
    for attempt in range(DOWNLOAD_TRIES):
        if attempt:
            await asyncio.sleep(0.5 * 2**attempt)
        try:
            reply = await transport.call(request)
        except TransportError as error:
            problem = str(error)
            continue
        if reply.status == 200:
            return reply.body
        problem = f"HTTP {reply.status}"
        if reply.status < 500:
            break
    raise ComfyloadError(f"{file} could not be downloaded: {problem}", "is the file still on the server?")
