"""`comfyload.connect`: run workflows on ComfyUI servers from a program, with retries by a policy."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from random import Random

from comfyload.app.library.async_comfy import SLACK_S, AsyncComfy
from comfyload.app.library.given import Graph
from comfyload.app.library.loop_thread import LoopThread, NoAnswer
from comfyload.clock import stopwatch
from comfyload.comfy.address import parse_headers, parse_server, with_credentials
from comfyload.comfy.http import Http
from comfyload.errors import UsageError
from comfyload.record.job_events import JobEvent
from comfyload.record.model import Execution, Failure
from comfyload.record.policy import Policy
from comfyload.retry.client import RetryingClient
from comfyload.retry.policy import decode, default
from comfyload.text_files import read_text

__all__ = ["AsyncComfy", "Comfy", "Connection", "connect"]

LEAVE_S = 20.0
"""How long leaving a connection may take, whatever may still be on the servers then."""
CANCEL_S = 0.2


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
        UsageError: an address, a header or the policy is not valid.
    """
    urls = dict.fromkeys(map(parse_server, [servers] if isinstance(servers, str) else servers))
    if not urls:
        raise UsageError("no server is given", "name at least one, as http://127.0.0.1:8188")
    parsed = parse_headers([f"{name}={value}" for name, value in (headers or {}).items()])
    for url in urls:
        with_credentials(url, parsed)
    chosen = _policy(policy)
    opens = [
        partial(Http.connect, url, parsed, ca_file=ca_file, insecure=insecure, connect_s=chosen.connect_s)
        for url in urls
    ]
    return Connection(opens, chosen, wait=policy is not None)


class Connection:
    """`with` gives a `Comfy`, whose methods wait; `async with` gives an `AsyncComfy`, whose methods are awaited.

    Servers that do not answer are left out until they do. If none does, entering raises ServerUnreachable; with a
    policy it does so only if each is not a ComfyUI or refuses us, since `run` waits for a server until its deadline.
    Leaving removes jobs that have not ended from the servers; in a process forked since, it does nothing.
    """

    def __init__(
        self, opens: Sequence[Callable[[], AbstractAsyncContextManager[Http]]], policy: Policy, *, wait: bool
    ) -> None:
        self._opens = opens
        self._policy = policy
        self._wait = wait
        self._stack = AsyncExitStack()
        self._thread: LoopThread | None = None
        self._pid = 0

    async def __aenter__(self) -> AsyncComfy:
        self._pid = os.getpid()
        async with AsyncExitStack() as stack:
            transports = [await stack.enter_async_context(opened()) for opened in self._opens]
            clock = stopwatch()
            client = await stack.enter_async_context(RetryingClient.open([], self._policy, clock, rng=Random()))
            comfy = AsyncComfy(client, self._policy, clock)
            stack.push_async_callback(comfy.leave)
            await comfy.enter({transport.name: transport for transport in transports}, wait=self._wait)
            self._stack = comfy.kept_open_by = stack.pop_all()
        return comfy

    async def __aexit__(self, *_: object) -> None:
        if os.getpid() != self._pid:
            return
        leaving = asyncio.ensure_future(self._stack.aclose())
        try:
            await asyncio.wait([leaving], timeout=LEAVE_S)
            if not leaving.done():
                logging.getLogger("comfyload").warning(
                    "no answer within %g s of leaving: our jobs may still be on the servers", LEAVE_S
                )
        finally:
            while not leaving.done():  # each step of clearing up calls the servers again
                leaving.cancel()
                await asyncio.wait([leaving], timeout=CANCEL_S)
        if not leaving.cancelled():
            leaving.result()

    def __enter__(self) -> Comfy:
        self._pid = os.getpid()
        self._thread = LoopThread()
        try:
            return Comfy(self._thread.run(self.__aenter__()), self._thread)
        except BaseException:
            self._thread.close(LEAVE_S)
            raise

    def __exit__(self, *_: object) -> None:
        if self._thread is not None and os.getpid() == self._pid:
            try:
                self._thread.run(self.__aexit__(), LEAVE_S + 5 * SLACK_S)
            finally:
                self._thread.close(SLACK_S)


class Comfy:
    """`AsyncComfy` for programs without an event loop; its methods may be called from several threads at once."""

    def __init__(self, comfy: AsyncComfy, thread: LoopThread) -> None:
        self._comfy = comfy
        self._thread = thread
        self.left_out = comfy.left_out

    def run(
        self,
        workflow: Graph | str | Path,
        *,
        seed: int | None = None,
        set: Mapping[str, object] | None = None,
        deadline_s: float | None = None,
        key: str | None = None,
        on_event: Callable[[JobEvent], object] | None = None,
    ) -> Execution:
        """As `AsyncComfy.run`; Ctrl-C removes the job from the server.

        `on_event` is called on the connection's own thread, which all its jobs share: a slow one delays them all. A
        deadline holds even if it never returns, with twice the slack.
        """
        limit_s = self._comfy.limit_s(deadline_s)
        call = self._comfy.run(workflow, seed=seed, set=set, deadline_s=deadline_s, key=key, on_event=on_event)
        try:
            return self._thread.run(call, None if limit_s is None else limit_s + 2 * SLACK_S)
        except NoAnswer as error:
            late = Failure(kind="timeout", message=f"not done by its deadline: {error.message}")
            return Execution(outcome="timed_out", failure=late, server_state_after="unknown")

    def fetch(
        self, execution: Execution, *, previews: bool = False, deadline_s: float | None = None
    ) -> list[tuple[str, bytes]]:
        """As `AsyncComfy.fetch`."""
        limit_s = self._comfy.limit_s(deadline_s)
        call = self._comfy.fetch(execution, previews=previews, deadline_s=deadline_s)
        return self._thread.run(call, None if limit_s is None else limit_s + 2 * SLACK_S)


def _policy(policy: Policy | str | Path | None) -> Policy:
    if policy is None:
        return default()
    if isinstance(policy, Policy):
        return policy
    return decode(read_text(str(policy)).encode())
