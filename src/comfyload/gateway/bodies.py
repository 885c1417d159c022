"""What clients send, read within bounds: of one body, of all together, of how long one may take, of what it holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from comfyload.record.codec import within_levels

MOST_BODY = 100 << 20
"""As a ComfyUI's."""

MOST_TOGETHER = 128 << 20
"""Of all that are held at one time, as they come and as what Python makes of them; a larger one is held alone."""

MOST_TEXT = 256 << 20
"""Of what Python makes of one body: four bytes a letter if one letter needs them."""

MOST_VALUES = 1_500_000
"""Values of one body, by its commas and brackets; each takes some hundred bytes. A graph of 100,000 nodes has fewer."""

IDLE_S = 60.0
"""How long a client may send nothing in the midst of a body."""


class UnfitBody(Exception):
    """The body is not taken: with which status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Bodies:
    """`held`: bytes that the bodies under way take."""

    def __init__(self) -> None:
        self.held = 0

    @asynccontextmanager
    async def json_of(self, request: web.Request, empty: str | None = None) -> AsyncIterator[Any]:
        """The body as JSON, to be used within the block. `empty`: what an empty one stands for.

        Raises:
            UnfitBody: it is too large, too slow, or there is no room for it now.
            ValueError: it is not JSON, or too deep.
        """
        charged = 0
        try:
            text = bytearray()  # one block, where many small ones would leave the heap in pieces
            async for part in self._parts(request):
                charged += len(part)
                self._charge(len(part), charged)
                text += part
            text += b"" if text else (empty or "").encode()
            more = len(text) * (4 if b"\\u" in text or not text.isascii() else 1)
            if more > MOST_TEXT:
                raise UnfitBody(413, f"More than {MOST_TEXT >> 20} MiB of text in one request")
            charged += more
            self._charge(more, charged)
            letters = text.decode(json.detect_encoding(text), "surrogatepass")
            del text
            values = [_value_of(letters)]
            del letters
            yield values.pop()  # only who uses it holds it
        finally:
            self.held -= charged

    def _charge(self, more: int, of_this: int) -> None:
        self.held += more
        if self.held > MOST_TOGETHER and self.held > of_this:
            raise UnfitBody(503, "Too many large requests at one time. Try again in 5 s.")

    async def _parts(self, request: web.Request) -> AsyncIterator[bytes]:
        text, size = f"Maximum request body size {MOST_BODY} exceeded.", 0
        if (request.content_length or 0) > MOST_BODY:
            raise UnfitBody(413, text)
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    part = await request.content.readany()
            except TimeoutError:
                raise UnfitBody(408, "The request took too long") from None
            if not part:
                return
            size += len(part)
            if size > MOST_BODY:
                raise UnfitBody(413, text)
            yield part


def _value_of(text: str) -> Any:
    """The JSON value, as ComfyUI reads it.

    Raises:
        UnfitBody: it holds too much.
        ValueError: it is not JSON, or too deep.
    """
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise UnfitBody(413, f"More than {MOST_VALUES} values in one request")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("too many levels of JSON") from None
    if not within_levels(found):
        raise ValueError("too many levels of JSON")
    return found
