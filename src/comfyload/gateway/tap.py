"""Between a client and its server: hears the events, the histories and the answers to prompts that pass."""

import re
from collections.abc import Callable
from typing import Protocol

from comfyload.comfy.wire.calls import Download, OnFrame, Reply, Request, Transport

HELLO = b'{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'
"""Sent first on each event stream, so that previews say which prompt they belong to."""

_IDS = re.compile(rb',"client_id":"[0-9a-f-]{36}","prompt_id":"([0-9a-f-]{36})"')
"""As `ComfyApi.submit` writes them. A graph and its `extra_data`, which `forms.dumps` writes, have a space behind each
colon, and in their texts a backslash before each quotation mark.
"""


class Listener(Protocol):
    """Who hears it. Prompts are named by the id of the attempt."""

    def on_frame(self, server: str, frame: bytes, is_text: bool) -> None:
        """A message of the event stream, before the client gets it."""

    async def before_post(self, server: str, prompt_id: str, body: bytes) -> bytes:
        """A prompt is about to be posted: the body to post."""

    def on_answer(self, prompt_id: str, reply: Reply) -> None:
        """The answer to a prompt that was posted."""

    def on_history(self, prompt_id: str, body: bytes) -> None:
        """The server's history of a prompt."""


class Tap:
    """A `Transport` to the server of that name."""

    def __init__(self, inner: Transport, server: str, listener: Listener) -> None:
        self._inner = inner
        self._server = server
        self._listener = listener

    async def call(self, request: Request) -> Reply:
        if request.method == "POST" and request.path == "prompt":
            return await self._post(request)
        reply = await self._inner.call(request)
        if request.path.startswith("history/") and reply.status == 200 and len(reply.body) > len("{}"):
            self._listener.on_history(request.path.removeprefix("history/"), reply.body)
        return reply

    async def download(self, path: str, timeout_s: float) -> Download:
        return await self._inner.download(path, timeout_s)

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        listener: Callable[[str, bytes, bool], None] = self._listener.on_frame

        def both(frame: bytes, is_text: bool) -> None:
            listener(self._server, frame, is_text)
            on_frame(frame, is_text)

        await self._inner.events(client_id, both)

    async def _post(self, request: Request) -> Reply:
        body = request.body or b""
        found = _IDS.search(body)
        prompt_id = "" if found is None else found[1].decode()
        body = await self._listener.before_post(self._server, prompt_id, body)
        reply = await self._inner.call(
            Request(method="POST", path="prompt", body=body, timeout_s=request.timeout_s, most_bytes=request.most_bytes)
        )
        self._listener.on_answer(prompt_id, reply)
        return reply
