"""Input files on their way to the server that needs them: uploads, which are kept here, and files of other servers."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.gateway import forms
from comfyload.gateway.files import Files, parts_of
from comfyload.gateway.fleet import Member

FETCH_S = 60.0


class InputFiles:
    """`member`: the server of a name."""

    def __init__(self, files: Files, member: Callable[[str], Member | None]) -> None:
        self._files = files
        self._member = member

    async def collect(self, graph: dict[str, Any], tenant: str) -> frozenset[str]:
        """Copy here what a graph names of the servers' own files, so that it runs on any of them.

        Returns the names of servers that do not answer: the graph can run only there, later.
        """
        elsewhere, pinned = self._files.inputs_elsewhere(graph), set[str]()
        needed = self._files.named_in(graph, tenant) if elsewhere else ()
        self._files.hold(needed, tenant)  # none of them gives way to another
        try:
            for name in elsewhere:
                server, path = self._files.untagged(name)
                member = None if server is None else self._member(server)
                if member is None:
                    continue
                folder, base, kind = parts_of(path)
                where = api_of(member.transport).view_path(base, folder, kind)
                try:
                    found = await member.transport.call(Request(method="GET", path=where, file=True, timeout_s=FETCH_S))
                except TransportError:
                    pinned.add(member.name)
                    continue
                if found.status == 200:  # else the server that gets the job says that there is no such file
                    self._files.keep(name, found.body, tenant)
        finally:
            self._files.release(needed, tenant)
        return frozenset(pinned)

    async def put_all(self, member: Member, names: tuple[str, ...], body: bytes, tenant: str) -> bytes:
        """Put the files that a prompt names onto the server; the prompt with the names that they have there.

        Raises:
            TransportError: the server does not answer; the prompt was not sent.
        """
        there = {name: await self.put(member, name, tenant) for name in names}
        return renamed(body, {old: new for old, new in there.items() if old != new})

    async def put(self, member: Member, name: str, tenant: str = "") -> str:
        """Put a file that is kept here onto the server, unless that was done before; how it is called there."""
        server, path = self._files.untagged(name)
        if server == member.name:
            return path
        digest, place = self._files.digest(name, tenant), self._files.place(name, tenant)
        known = member.uploads.get(place)
        if known is not None and known[0] == digest:
            return known[1]
        content = self._files.content(name, tenant)
        if content is None:
            return name if known is None else known[1]
        folder, base, _ = parts_of(place)
        reply = await api_of(member.transport).upload(base, content, folder)
        stored = stored_as(reply)
        if stored is None:
            return name
        member.uploads[place] = digest or "", stored
        return stored


def stored_as(reply: Reply) -> str | None:
    """The name under which a server stored an upload; None: it did not."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        answer = json.loads(reply.body)
        return posixpath.join(answer["subfolder"], answer["name"]) if reply.status == 200 else None
    return None


def renamed(body: bytes, names: dict[str, str]) -> bytes:
    """A prompt in which input files are called otherwise."""
    if not names:
        return body
    message = forms.loads(body)
    names |= {f"{old} [input]": new for old, new in names.items()}
    for node in message["prompt"].values():
        inputs = node.get("inputs")
        for key, value in inputs.items() if isinstance(inputs, dict) else ():
            if isinstance(value, str) and value in names:
                inputs[key] = names[value]
    return forms.dumps(message)
