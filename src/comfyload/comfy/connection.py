"""One connection of HTTP/1.1: a request goes out, its reply is parsed as it arrives, and only then the next.

httptools reads heads and chunks. The rest of a body whose length is known goes past it, out of the socket's buffer.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from comfyload.comfy.incoming import Broken, Incoming

SCRATCH_BYTES = 1 << 18
"""Of the buffer into which all sockets read, one at a time."""

MOST_HEAD_BYTES = 1 << 16
"""Of the heads of a reply and its trailers. Each byte of a body allows for `FRAMING` bytes more, of chunks' heads."""

FRAMING = 16
MOST_INTERIM = 50
"""Interim replies (100, 102, 103) before the reply itself. Servers send one or two."""

BODILESS = (204, 304)


class HttpConnection(asyncio.BufferedProtocol):
    """`answered`: a byte of the reply came. `idle_since`: when it was last used, by the loop's clock."""

    def __init__(self, scratch: memoryview) -> None:
        self._scratch = scratch
        self._loop = asyncio.get_running_loop()
        self._parser = _parser(self)
        self._transport: asyncio.Transport
        self._incoming: Incoming | None = None
        self._done: asyncio.Future[None]
        self._expiry: asyncio.TimerHandle | None = None
        self._deadline = self._last_byte = 0.0
        self._headers: dict[bytes, bytes] = {}
        self._in_body = self._to_the_end = False
        self._parsed = self._body_bytes = self._past_parser = self._interim = 0
        self._reusable, self._aborted = True, False
        self.answered = False
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether another request may go out on it."""
        return self._reusable and not self._transport.is_closing()

    async def exchange(self, request: Sequence[bytes], incoming: Incoming, deadline: float) -> None:
        """Send a request and read its reply into `incoming` by `deadline`, an instant of the loop's clock. After an
        error the connection is closed.

        Raises:
            Broken: no whole reply came.
            TimeoutError: it is late, or stood still for `incoming.idle_s`.
        """
        loop = self._loop
        self._incoming, self._done = incoming, loop.create_future()
        self._in_body = self._to_the_end = self.answered = False
        self._parsed = self._body_bytes = self._past_parser = self._interim = 0
        self._headers = {}
        self._deadline, self._last_byte = deadline, loop.time()
        self._watch_from(self._last_byte)
        try:
            self._transport.writelines(request)
            await self._done
        except BaseException:
            self.abort()
            incoming.drop()
            raise
        finally:
            self._incoming = None
        self.idle_since = loop.time()
        if not self._reusable or self._transport.get_write_buffer_size():
            self.abort()

    def abort(self) -> None:
        """Close it at once."""
        self._reusable, self._aborted = False, True
        self._transport.abort()
        if self._expiry is not None:
            self._expiry.cancel()

    # Called by the loop:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no class of asyncio's

    def get_buffer(self, _hint: int) -> memoryview:
        return self._scratch

    def buffer_updated(self, size: int) -> None:
        incoming = self._incoming
        if incoming is None or self._done.done():  # nobody asked for it: it would be mistaken for the next reply
            self.abort()
            return
        self.answered = True
        data = self._scratch[:size]
        if incoming.idle_s is not None:
            self._last_byte = self._loop.time()
        if self._past_parser:
            self._feed_past_parser(data)
            return
        self._parsed += size
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._fail(Broken("another protocol than HTTP"))
        except HttpParserError as error:
            self._fail(Broken(f"not HTTP: {error}"))
        if self._parsed - self._body_bytes > MOST_HEAD_BYTES + FRAMING * self._body_bytes:
            self._fail(Broken(f"more than {MOST_HEAD_BYTES >> 10} KiB of headers"))
        elif self._in_body and incoming.length is not None:
            self._past_parser = incoming.length - self._body_bytes
            self._parser = _parser(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._reusable = False
        if self._in_body and self._to_the_end and error is None:
            self._finish()
        else:
            closed = "closed by us" if self._aborted else "the server closed it"
            why = closed if error is None else _reason(error)
            lost = Broken(f"{why} amid its reply" if self.answered else why)
            lost.__cause__ = error
            self._fail(lost)
        del self._parser  # which holds this connection: nobody collects such a pair soon during a run

    # Called by the parser:

    def on_message_begin(self) -> None:
        if self._done.done():
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._incoming is None or self._done.done():
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            if self._interim > MOST_INTERIM:
                self._fail(Broken(f"more than {MOST_INTERIM} interim replies"))
            return
        try:
            self._incoming.begin(status, self._headers)
        except Broken as error:
            self._fail(error)
            return
        self._in_body = True
        self._to_the_end = b"content-length" not in self._headers and b"transfer-encoding" not in self._headers
        self._reusable = self._parser.should_keep_alive()
        if self._incoming.bodiless or status in BODILESS:
            self._reusable = self._reusable and not self._incoming.bodiless  # the parser waits for a body
            self._finish()

    def on_body(self, data: bytes) -> None:
        if self._in_body:
            self._body_bytes += len(data)
            self._feed(data)

    def on_message_complete(self) -> None:
        if self._in_body:
            self._finish()
        elif not self._done.done():
            self._headers = {}  # of an interim reply

    def _feed_past_parser(self, data: memoryview) -> None:
        left = self._past_parser - len(data)
        if left < 0:
            self._reusable = False
            data = data[:left]
        self._past_parser = max(0, left)
        self._feed(data)
        if left <= 0 and self._in_body:
            self._finish()

    def _feed(self, data: bytes | memoryview) -> None:
        assert self._incoming is not None
        try:
            self._incoming.feed(data)
        except Broken as error:
            self._fail(error)

    def _finish(self) -> None:
        assert self._incoming is not None
        self._in_body = False
        try:
            self._incoming.end()
        except Broken as error:
            self._fail(error)
        else:
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        """End the exchange under way."""
        self._in_body = False
        if self._incoming is not None and not self._done.done():
            self._incoming.drop()
            error.__traceback__ = error.__context__ = None  # its frames hold what was read, and errors may be kept
            self._done.set_exception(error)
            self.abort()

    def _watch_from(self, now: float) -> None:
        """Look in time whether the exchange is late. The timer of an exchange before is kept if it is early enough."""
        assert self._incoming is not None
        idle_s, due = self._incoming.idle_s, self._deadline
        if idle_s is not None:
            due = min(due, self._last_byte + idle_s)
        if self._expiry is not None:
            if now < self._expiry.when() <= due:
                return
            self._expiry.cancel()
        self._expiry = self._loop.call_at(due, self._watch)

    def _watch(self) -> None:
        """End the exchange if it is late or stands still."""
        self._expiry = None
        if self._incoming is None:
            return
        now, idle_s = self._loop.time(), self._incoming.idle_s
        if now >= self._deadline or (idle_s is not None and now >= self._last_byte + idle_s):
            self._fail(TimeoutError())
        else:
            self._watch_from(now)


def _parser(connection: HttpConnection) -> HttpResponseParser:
    """As lenient as other clients are: with the heads that some custom nodes and proxies write."""
    parser = HttpResponseParser(connection)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".").lower()
