"""Input files where there are several servers: an upload is kept here, and put onto the server that needs it."""

from __future__ import annotations

import json
import posixpath
import re
from typing import Any

from aiohttp import web

from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import MAX_FILE_BYTES, Reply, Request, TransportError
from comfyload.gateway.files import Files, annotated, key_of
from comfyload.gateway.fleet import Fleet, Member
from comfyload.gateway.forms import dumps, loads

UPLOAD_S, FETCH_S = 300.0, 60.0
_REFERENCE = re.compile(
    rb'(?P<head>name="original_ref"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)(?P<text>.*?)(?=\r\n--)', re.DOTALL
)


class Inputs:
    def __init__(self, files: Files, fleet: Fleet) -> None:
        self._files = files
        self._fleet = fleet

    async def take(self, request: web.Request) -> web.Response:
        """Have a server store an upload, in its own way and words, and keep what it stored.

        It is the home server, on which the page looks for its inputs; if that does not answer, another.
        """
        body, why = await request.read(), "no server answers"
        for member in await self._holders(body):
            try:
                reply = await member.transport.call(
                    Request(
                        method="POST",
                        path=request.rel_url.raw_path.lstrip("/").removeprefix("api/"),
                        body=self._untagged(body),
                        content_type=request.headers.get("Content-Type", "application/octet-stream"),
                        timeout_s=UPLOAD_S,
                    )
                )
                if reply.status == 200:
                    await self._keep(member, reply)
            except TransportError as error:
                why = f"{member.name} does not answer: {error}"
                continue
            headers = {"Content-Type": reply.content_type} if reply.content_type else {}
            return web.Response(status=reply.status, body=reply.body, headers=headers)
        return web.Response(status=503, text=why, headers={"Retry-After": "5"})

    async def bring(self, member: Member, value: str) -> str:
        """Put the file that an input names onto the server, unless it is there; how the input names it there.

        Raises:
            TransportError: one of the servers does not answer.
        """
        path, kind = annotated(value)
        origin, name = self._files.untagged(path)
        if origin is None:
            return await self._put(member, key_of(path, kind or "input"), value)
        if origin == member.name:
            return value.replace(path, name)
        holder = self._fleet.get(origin)
        reply = None if holder is None else await _fetched(holder, name, kind or "input")
        if reply is None or reply.status != 200:
            return value
        return await _upload(member, path, reply.body) or value

    async def ready_to_view(self, query: dict[str, str]) -> None:
        """Put an upload onto the home server, if that is another one since."""
        name, kind = annotated(query.get("filename", ""))
        kind = kind or query.get("type", "output")
        key = key_of(posixpath.join(query.get("subfolder", ""), posixpath.basename(name)), kind)
        home = self._fleet.home
        if home is not None and key in self._files and key not in home.uploads and kind == "input":
            await self._put(home, key, name)

    async def _put(self, member: Member, key: str, value: str) -> str:
        digest, there = self._files.digest(key), member.uploads.get(key)
        if there is not None and there[0] == digest:
            return there[1] or value
        content = self._files.content(key)
        if content is None:
            return value
        kind, _, path = key.partition("/")
        stored = await _upload(member, path, content)
        if stored is None:
            return value
        as_it_is = kind == "input" and stored == path
        member.uploads[key] = digest or "", "" if as_it_is else stored
        return value if as_it_is else stored

    async def _keep(self, member: Member, reply: Reply) -> None:
        """Keep what the server has just stored."""
        try:
            said: dict[str, Any] = loads(reply.body)
            path, kind = posixpath.join(said.get("subfolder") or "", said["name"]), str(said.get("type", "input"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        stored = await _fetched(member, path, kind)
        if stored.status == 200:
            key = self._files.keep(path, kind, stored.body)
            member.uploads[key] = self._files.digest(key) or "", ""

    async def _holders(self, body: bytes) -> list[Member]:
        """The servers to try: the one that holds the picture to which a mask belongs, or all, the home server first."""
        reference = _reference_in(body)
        origin, folder = self._files.untagged(str(reference.get("subfolder") or ""))
        if origin is not None:
            found = self._fleet.get(origin)
            return [] if found is None else [found]
        home = self._fleet.home
        members = [*([] if home is None else [home]), *(each for each in self._fleet.joined if each is not home)]
        name = annotated(str(reference.get("filename") or ""))[0]
        key = key_of(posixpath.join(folder, name), str(reference.get("type") or "output"))
        return [each for each in members if key in each.uploads] or members

    def _untagged(self, body: bytes) -> bytes:
        """The form without the server's mark in the reference to a picture."""
        reference = _reference_in(body)
        origin, folder = self._files.untagged(str(reference.get("subfolder") or ""))
        if origin is None:
            return body
        text = dumps(reference | {"subfolder": folder})
        return _REFERENCE.sub(lambda found: found["head"] + text, body, count=1)


def renamed(body: bytes, old: str, new: str) -> bytes:
    """A prompt in which an input file is called otherwise."""
    if old == new:
        return body
    message = loads(body)
    for node in message["prompt"].values():
        for key, value in node.get("inputs", {}).items():
            if value == old:
                node["inputs"][key] = new
    return dumps(message)


async def _upload(member: Member, path: str, content: bytes) -> str | None:
    """Put a file among the server's inputs; how an input names it there; None: the server does not take it."""
    folder, name = posixpath.split(path)
    reply = await api_of(member.transport).upload(name, content, folder)
    try:
        said = loads(reply.body) if reply.status == 200 else {}
        return str(posixpath.join(said["subfolder"], said["name"]))
    except (ValueError, KeyError, TypeError):
        return None


async def _fetched(member: Member, path: str, kind: str) -> Reply:
    folder, name = posixpath.split(path)
    where = api_of(member.transport).view_path(name, folder, kind)
    return await member.transport.call(
        Request(method="GET", path=where, timeout_s=FETCH_S, file=True, most_bytes=MAX_FILE_BYTES)
    )


def _reference_in(body: bytes) -> dict[str, Any]:
    """What a form for a mask says of the picture to which it belongs."""
    found = _REFERENCE.search(body)
    try:
        reference = {} if found is None else json.loads(found["text"])
    except ValueError:
        return {}
    return reference if isinstance(reference, dict) else {}
