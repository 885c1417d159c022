"""The servers behind the gateway: which answer, what each can run, and which one is home to the page."""

from __future__ import annotations

import asyncio
import itertools
import math
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct
from yarl import URL

from comfyload.comfy.address import redacted
from comfyload.comfy.api import api_of
from comfyload.comfy.identify import identify
from comfyload.comfy.socket import tls_context
from comfyload.comfy.wire.calls import Transport, TransportError
from comfyload.comfy.wire.lenient import decode_json
from comfyload.errors import ServerUnreachable, UsageError
from comfyload.gateway import forms, merged
from comfyload.gateway.tap import Listener, Tap
from comfyload.record.model import Server
from comfyload.retry.client import RetryingClient
from comfyload.tasks import end_tasks
from comfyload.workflow.object_info import ObjectInfo

TRY_AGAIN_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts to reach a server that has not answered yet; the last is repeated."""

JOIN_S = 15.0
CLASSES_S = 10.0
"""How long a server's classes are believed when a client asks; each look holds its event loop for 0.2 s or more."""

AWAY_S = 10.0
"""How long a server that did not answer a call of the page is not its home."""

LEAVE_S = 3600.0
STATS_S = 2.0


class ServerConfig(Struct, frozen=True, kw_only=True):
    """A server as it was configured. `headers` go with every call to it."""

    name: str
    url: URL
    headers: Mapping[str, str] = {}
    ca_file: str | None = None
    insecure: bool = False


Connect = Callable[[ServerConfig], AbstractAsyncContextManager[Transport]]
"""Opens the transport to a server."""


@dataclass(eq=False)
class Member:
    """One server. `facts` None: it has not answered yet, and `why` says what is wrong."""

    given: ServerConfig
    transport: Transport
    tap: Tap
    stack: AsyncExitStack
    facts: Server | None = None
    why: str = "it has not answered yet"
    drained: bool = False
    leaving: bool = False
    tls: ssl.SSLContext | bool = True
    """How the page's calls to it check its certificate; True: by the system's authorities."""
    skew_ms: int = 0
    """What is added to a stamp of its clock to make it one of ours."""
    uploads: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Files that were put there from here: by name, their digest and what they are called there."""
    classes: Mapping[str, Any] = field(default_factory=dict)
    classes_at: float = -1e9
    away_until: float = -math.inf
    joining: asyncio.Task[None] | None = None
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it has answered, or failed to."""

    @property
    def name(self) -> str:
        return self.given.name

    @property
    def address(self) -> str:
        return redacted(self.given.url)


class Fleet:
    """All servers, by name, in the order given. `on_change` is called when one joins or leaves."""

    def __init__(
        self, client: RetryingClient, listener: Listener, *, connect: Connect, on_change: Callable[[], None]
    ) -> None:
        self._client = client
        self._listener = listener
        self._connect = connect
        self._on_change = on_change
        self._members: dict[str, Member] = {}
        self._home = ""
        self._merged: ObjectInfo | None = None
        self._union: dict[str, Any] = {}
        self._described: dict[bytes, dict[str, Any]] = {}
        self._next: dict[str, ServerConfig] = {}
        """Servers that take the place of one that leaves, by its name."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._stats: tuple[float, bytes | None] = (-math.inf, None)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> list[Member]:
        return list(self._members.values())

    @property
    def joined(self) -> list[Member]:
        """Those that have answered."""
        return [member for member in self._members.values() if member.facts is not None]

    @property
    def several(self) -> bool:
        """Whether files of one server must be distinguished from another's."""
        return len(self._members) > 1

    def get(self, name: str) -> Member | None:
        return self._members.get(name)

    def at(self, address: str) -> Member | None:
        """The server of that address, as records name it."""
        return next((member for member in self._members.values() if member.address == address), None)

    async def add(self, given: ServerConfig) -> None:
        """Use a server as soon as it answers.

        Raises:
            UsageError: there is one of that name, or its address or its files are not valid.
        """
        other = self._members.get(given.name) or self.at(redacted(given.url))
        if other is not None:
            what = "leaves, and has not left yet" if other.leaving else "is there already"
            raise UsageError(f"{other.name}, {other.address}, {what}", "give each server once, with a name of its own")
        stack = AsyncExitStack()
        transport = await stack.enter_async_context(self._connect(given))
        member = Member(given, transport, Tap(transport, given.name, self._listener), stack)
        if given.ca_file is not None or given.insecure:
            member.tls = tls_context(given.ca_file, given.insecure)
        self._members[given.name] = member
        member.joining = asyncio.create_task(self._join(member))

    async def put(self, given: ServerConfig) -> bool:
        """Use a server, in place of one of its name or address once that has left; False: it is there as it is."""
        member = self._members.get(given.name) or self.at(redacted(given.url))
        if member is None:
            await self.add(given)
        elif member.given == given and not member.leaving:
            return False
        else:
            self.leave(member.name)
            self._next[member.name] = given
        return True

    async def settle(self, within_s: float) -> None:
        """Wait until each server has answered or failed to once, at most so long."""
        waits = [asyncio.ensure_future(member.tried.wait()) for member in self.members]
        if waits:
            await asyncio.wait(waits, timeout=within_s)
        await end_tasks(waits)

    async def joining(self, name: str, within_s: float) -> None:
        """Wait until the server of that name has joined, at most so long."""
        member = self._members.get(name)
        if member is not None and member.joining is not None and within_s > 0.0:
            await asyncio.wait([member.joining], timeout=within_s)

    def drain(self, name: str, drained: bool = True) -> bool:
        """Give the server no more jobs, or jobs again; False: there is no such server, or it leaves."""
        member = self._members.get(name)
        if member is None or (member.leaving and not drained):
            return False
        member.drained = drained
        self._client.drain(member.address, drained)
        self._on_change()
        return True

    def leave(self, name: str, jobs: Awaitable[object] | None = None) -> bool:
        """Use the server no more once its jobs have ended, and give it none; False: there is no such server.

        `jobs`: awaits the end of others that are still to be looked for there.
        """
        self._next = {before: given for before, given in self._next.items() if name not in (before, given.name)}
        member = self._members.get(name)
        if member is not None and not member.leaving:
            member.leaving = True
            self.drain(name)
            task = asyncio.create_task(self._remove(member, jobs))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        return member is not None

    async def _remove(self, member: Member, jobs: Awaitable[object] | None) -> None:
        if jobs is not None:
            await jobs
        if member.joining is not None:
            await end_tasks([member.joining])
        while not await self._client.leave(member.address, LEAVE_S):
            pass
        del self._members[member.name]
        self._merged = None
        await member.stack.aclose()
        self._on_change()
        following = self._next.pop(member.name, None)
        if following is not None:
            await self.add(following)

    async def close(self) -> None:
        await end_tasks(list(self._leaving))
        for member in self.members:
            if member.joining is not None:
                member.joining.cancel()
            await member.stack.aclose()

    async def _join(self, member: Member) -> None:
        for pause in itertools.chain(TRY_AGAIN_S, itertools.repeat(TRY_AGAIN_S[-1])):
            try:
                async with asyncio.timeout(JOIN_S):
                    facts = await identify(member.tap, member.address, [])
            except ServerUnreachable as error:
                member.why = str(error)
            except TimeoutError:
                member.why = f"{member.address} did not answer in time"
            else:
                await self._client.join(member.tap, facts)
                member.facts, member.why = facts, ""
                if member.drained:
                    self._client.drain(member.address)
                await self.read_classes(member)
                member.tried.set()
                self._on_change()
                return
            member.tried.set()
            await asyncio.sleep(pause)

    # --- what each can run

    async def read_classes(self, member: Member) -> None:
        """Read which node classes it has, unless that was done not long ago."""
        if time.monotonic() - member.classes_at < CLASSES_S:
            return
        member.classes_at = time.monotonic()
        try:
            reply = await api_of(member.transport).node_classes()
            known = self._described.get(reply.body)
            if known is None and reply.status == 200:
                known = self._described[reply.body] = decode_json(reply.body, dict[str, Any])
        except (TransportError, msgspec.MsgspecError):
            return
        if known is not None and member.classes is not known:
            member.classes = known  # servers that are alike share it: it may take tens of megabytes
            used = {id(each.classes) for each in self.members}
            self._described = {body: classes for body, classes in self._described.items() if id(classes) in used}
            self._merged = None

    async def refresh(self) -> None:
        """Read the classes again of servers whose classes were not read of late."""
        await asyncio.gather(*map(self.read_classes, self.joined))

    @property
    def info(self) -> ObjectInfo:
        """The classes of all servers."""
        if self._merged is None:
            self._union = merged.classes({member.name: member.classes for member in self.joined})
            self._merged = ObjectInfo(self._union)
        return self._merged

    @property
    def version(self) -> tuple[int, int, int] | None:
        """The newest among the servers."""
        versions = [member.facts.version for member in self.joined if member.facts is not None]
        return max((version for version in versions if version is not None), default=None)

    def described(self, name: str, uploads: Sequence[str]) -> bytes | None:
        """As `/object_info` describes all classes, or one, with these uploads; None: none are known yet."""
        if not self.info:
            return None
        if name:
            found = {name: self._union[name]} if name in self._union else {}
            return forms.dumps(merged.with_uploads(found, uploads))
        if not uploads:
            bodies = [body for body, classes in self._described.items() if classes == self._union]
            if bodies:
                return bodies[0]
        return forms.dumps(merged.with_uploads(self._union, uploads))

    def lacking(self, classes: set[str]) -> dict[str, list[str]]:
        """Servers that lack some of these classes, and which; one whose classes are not known lacks none."""
        found: dict[str, list[str]] = {}
        for member in self.joined:
            missing = sorted(classes - member.classes.keys()) if member.classes else []
            if missing:
                found[member.name] = missing
        return found

    # --- the page's server

    @property
    def home(self) -> Member | None:
        """The server that serves the page: the same as long as it answers."""
        found = self._members.get(self._home)
        if found is None or found.facts is None or not self._answers(found):
            working = [member for member in self.joined if self._answers(member)]
            found = next(iter(working or self.joined), None)
            self._home = "" if found is None else found.name
        return found

    def away(self, member: Member) -> None:
        """The server did not answer a call of the page: another becomes its home."""
        member.away_until = time.monotonic() + AWAY_S

    def _answers(self, member: Member) -> bool:
        return time.monotonic() >= member.away_until and self._client.works(member.address)

    async def free(self) -> None:
        """Have every server unload its models once it is idle."""
        await asyncio.gather(*(api_of(member.transport).free() for member in self.joined))

    async def stats(self) -> bytes | None:
        """The facts of the home server, with the devices of all, no older than two seconds; None: none answers."""
        at, found = self._stats
        if time.monotonic() - at < STATS_S:
            return found
        replies = await asyncio.gather(*map(_stats, self.joined))
        stats = [each for each in replies if each is not None]
        body = None
        if stats:
            devices = [device for each in stats for device in _list_in(each, "devices")]
            body = forms.dumps(stats[0] | {"devices": devices})
        self._stats = time.monotonic(), body
        return body

    def features(self) -> dict[str, Any]:
        """What all servers can do."""
        each = [member.facts.features or {} for member in self.joined if member.facts is not None]
        return _both(each) if each else {}


def free_name(taken: Collection[str]) -> str:
    """A name for a server that has none: gpu1, gpu2, …"""
    return next(name for name in map("gpu{}".format, itertools.count(1)) if name not in taken)


def _list_in(stats: dict[str, Any], name: str) -> list[Any]:
    found = stats.get(name)
    return found if isinstance(found, list) else []


async def _stats(member: Member) -> dict[str, Any] | None:
    try:
        reply = await api_of(member.transport).stats()
        return decode_json(reply.body, dict[str, Any]) if reply.status == 200 else None
    except (TransportError, msgspec.MsgspecError):
        return None


def _both(each: Sequence[Any]) -> dict[str, Any]:
    """The flags that all have: true where all are, the least of numbers."""
    found: dict[str, Any] = {}
    for key in each[0]:
        values: list[Any] = [flags.get(key) for flags in each]
        if all(isinstance(value, bool) for value in values):
            found[key] = all(values)
        elif all(isinstance(value, int | float) for value in values):
            found[key] = min(values)
        elif all(isinstance(value, dict) for value in values):
            found[key] = _both(values)
        elif all(value == values[0] for value in values):
            found[key] = values[0]
    return found
