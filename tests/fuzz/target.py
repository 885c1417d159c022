"""What is fuzzed: a function of bytes, the errors that are its own, and inputs to begin with."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.calls import Download, OnFrame, Reply, Request
from comfyload.record.codec import decode, encode
from comfyload.record.model import LogLine, Record, RetryLine, Sample, Sent

__all__ = ["Answers", "Target", "kept", "now", "plain", "texts"]

T = TypeVar("T")


class Target(Struct, frozen=True, kw_only=True):
    """`feed` decodes its input and uses what comes of it; it may raise `errors` and nothing else.

    `slow`: one input takes more than a millisecond, so that a million take long. `most_s` is processor time for one
    input, `most_bytes` memory of the process; charts are drawn by a browser's engine, which takes more of both.
    """

    name: str
    what: str
    feed: Callable[[bytes], None]
    errors: tuple[type[BaseException], ...] = ()
    seeds: list[bytes] = []
    slow: bool = False
    most_s: float = 1.0
    most_bytes: int = 300 << 20


STATUSES = (*[200] * 12, 400, 404, 401, 403, 413, 429, 500, 502, 301, 204, 530)


def plain(body: bytes) -> bytes:
    """The body with spaces behind it, so that it is answered as a ComfyUI answers."""
    while zlib.crc32(body) % 4 == 0:
        body += b" "
    return body


class Answers:
    """A transport that gives the same answer to every call; its status and type follow from the body alone."""

    name = "http://server.test/"

    def __init__(self, body: bytes, frames: list[str | bytes] | None = None) -> None:
        self.body, self.frames = body, frames or []
        drawn = zlib.crc32(body)
        odd = drawn % 4 == 0
        self.status = STATUSES[drawn // 4 % len(STATUSES)] if odd else 200
        said = body[:60].decode("latin-1")
        headers = {"date": "Mon, 23 Nov 2026 12:00:00 GMT", "retry-after": said, "location": said}
        self.reply = Reply(
            status=self.status,
            body=body,
            content_type=("application/json", "text/html", "")[drawn // 128 % 3] if odd else "application/json",
            headers=headers if odd else {},
        )

    async def call(self, request: Request) -> Reply:
        return self.reply

    async def download(self, path: str, timeout_s: float) -> Download:
        return Download(status=self.status, head=self.body[:16], bytes=len(self.body), expected=None)

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        for frame in self.frames:
            on_frame(frame if isinstance(frame, bytes) else frame.encode(), isinstance(frame, str))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def now(awaitable: Awaitable[T]) -> T:
    """What the call gives, on a loop that is kept: a new one each time costs more than what is tested."""

    async def wait() -> T:
        return await awaitable

    return _loop().run_until_complete(wait())


def texts(data: bytes) -> Iterator[str]:
    """The input as text, as a terminal, a file's name and a lenient decoder would give it."""
    yield data.decode("utf-8", "replace")
    try:
        data.decode()
    except UnicodeDecodeError:
        yield data.decode("utf-8", "surrogateescape")


_LINES = msgspec.json.Decoder(Sent | Record)
_OTHERS: dict[type, Any] = {kind: msgspec.json.Decoder(kind) for kind in (Sample, LogLine, RetryLine)}


def kept(*values: Record | Sent | Sample | LogLine | RetryLine) -> None:
    """What is written into a journal can be read, and is what was written."""
    for value in values:
        written = encode(value)
        read = decode(written, _OTHERS.get(type(value), _LINES))
        assert encode(read) == written, f"written {written[:300]!r}, read {read!r:.300}"
