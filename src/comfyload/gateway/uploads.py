"""Uploads where there are several servers: one of them stores it, in its own way and words, and it is kept here."""

from __future__ import annotations

import itertools
import json
import posixpath
import re
from typing import Any

from aiohttp import web

from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import MAX_FILE_BYTES, Reply, Request, TransportError
from comfyload.gateway.files import Files, named
from comfyload.gateway.fleet import Fleet, Member
from comfyload.gateway.forms import dumps, loads
from comfyload.gateway.inputs import FETCH_S, InputFiles, stored_as

UPLOAD_S = 300.0
_REFERENCE = re.compile(
    rb'(?P<head>name="original_ref"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)(?P<text>.*?)(?=\r\n--)', re.DOTALL
)

_FIELD = re.compile(rb'name="(type|subfolder)"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n--')
_FILENAME = re.compile(rb'name="image"; filename="([^"\r\n]*)"')


class Uploads:
    def __init__(self, files: Files, fleet: Fleet, inputs: InputFiles) -> None:
        self._files = files
        self._fleet = fleet
        self._inputs = inputs

    async def take(self, request: web.Request) -> web.Response:
        """Have the home server store an upload, or another if that does not answer, and keep what it stored."""
        body, why = await request.read(), "no server answers"
        for member in self._holders(body):
            try:
                for earlier in self._needed_for(body):
                    await self._inputs.put(member, earlier)
                reply = await member.transport.call(
                    Request(
                        method="POST",
                        path=request.path.lstrip("/").removeprefix("api/"),
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

    async def _keep(self, member: Member, reply: Reply) -> None:
        path = stored_as(reply)
        if path is None:
            return
        kind = str(loads(reply.body).get("type", "input"))
        folder, name = posixpath.split(path)
        where = api_of(member.transport).view_path(name, folder, kind)
        stored = await member.transport.call(
            Request(method="GET", path=where, timeout_s=FETCH_S, file=True, most_bytes=MAX_FILE_BYTES)
        )
        if stored.status == 200:
            key = named(path, kind)
            self._files.keep(key, stored.body)
            member.uploads[key] = self._files.digest(key) or "", key

    def _holders(self, body: bytes) -> list[Member]:
        """The servers to try: those that hold the picture to which a mask belongs, or all, the home server first."""
        reference = _reference_in(body)
        origin, _ = self._files.untagged(str(reference.get("subfolder") or ""))
        if origin is not None:
            found = self._fleet.get(origin)
            return [] if found is None else [found]
        home = self._fleet.home
        members = [*([] if home is None else [home]), *(each for each in self._fleet.joined if each is not home)]
        key = self._picture_in(body)
        return [each for each in members if key in each.uploads] or members

    def _needed_for(self, body: bytes) -> list[str]:
        """Earlier uploads that a server must have first: the picture of a mask, and those that have the same name, so
        that it gives this one another.
        """
        fields = {key.decode(): value.decode(errors="replace") for key, value in _FIELD.findall(body)}
        name = _FILENAME.search(body)
        path = posixpath.join(fields.get("subfolder", ""), name[1].decode(errors="replace") if name is not None else "")
        stem, ending = posixpath.splitext(path)
        kind = fields.get("type", "input")
        numbered = (named(f"{stem} ({number}){ending}", kind) for number in itertools.count(1))
        names = itertools.chain([named(path, kind)], numbered)
        found = list(itertools.takewhile(lambda key: self._files.digest(key) is not None, names))
        picture = self._picture_in(body)
        return found if picture is None or self._files.digest(picture) is None else [*found, picture]

    def _picture_in(self, body: bytes) -> str | None:
        """The upload to which a mask belongs, if it does to one."""
        reference = _reference_in(body)
        path = posixpath.join(str(reference.get("subfolder") or ""), str(reference.get("filename") or ""))
        return named(path, str(reference.get("type") or "output")) if reference else None

    def _untagged(self, body: bytes) -> bytes:
        """The form without the server's mark in the reference to a picture."""
        reference = _reference_in(body)
        origin, folder = self._files.untagged(str(reference.get("subfolder") or ""))
        if origin is None:
            return body
        text = dumps(reference | {"subfolder": folder})
        return _REFERENCE.sub(lambda found: found["head"] + text, body, count=1)


def _reference_in(body: bytes) -> dict[str, Any]:
    """What a form for a mask says of the picture to which it belongs."""
    found = _REFERENCE.search(body)
    try:
        reference = {} if found is None else json.loads(found["text"])
    except ValueError:
        return {}
    return reference if isinstance(reference, dict) else {}
