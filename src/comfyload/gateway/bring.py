"""Uploads on their way to the server that gets a job with them."""

from __future__ import annotations

import posixpath
from contextlib import suppress

from comfyload.comfy.api import api_of
from comfyload.gateway import forms
from comfyload.gateway.files import Files
from comfyload.gateway.fleet import Member


async def bring(files: Files, member: Member, name: str, tenant: str) -> str:
    """Put an upload onto the server, unless it was put there already; how it is called there.

    Raises:
        TransportError: the server does not answer; the job was not sent.
    """
    digest, content = files.digest(name, tenant), files.content(name, tenant)
    place = files.place(name, tenant)
    known = member.uploads.get(place)
    if content is None or (known is not None and known[0] == digest):
        return name if known is None else known[1]
    folder, base = posixpath.split(place)
    reply = await api_of(member.transport).upload(base, content, folder)
    stored = place
    if reply.status == 200:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            answer = forms.loads(reply.body)
            stored = posixpath.join(answer["subfolder"], answer["name"])
    member.uploads[place] = digest or "", stored
    return stored


def renamed(body: bytes, old: str, new: str) -> bytes:
    """A prompt in which an input file is called otherwise."""
    if old == new:
        return body
    message = forms.loads(body)
    for node in message["prompt"].values():
        inputs = node.get("inputs")
        for key, value in inputs.items() if isinstance(inputs, dict) else ():
            if value in (old, f"{old} [input]"):
                inputs[key] = new
    return forms.dumps(message)
