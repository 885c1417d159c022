"""The transport over sockets: connections of HTTP/1.1, one WebSocket per server, headers on both.

Nothing secret leaves this file: errors name the server by its redacted address and never quote a header. Our headers
go to the server's own origin only: redirects are followed for files only, and then without our headers. Sizes are
checked while reading: a body that is too large is not read to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from yarl import URL

from comfyload.comfy.address import read_url, redacted, redirected, with_credentials
from comfyload.comfy.connection import SCRATCH_BYTES, HttpConnection
from comfyload.comfy.connections import Connections, NoConnection
from comfyload.comfy.incoming import BodiesUnderWay, Broken, Incoming, TooLarge
from comfyload.comfy.own_fault import OURS, nothing_listens, own_fault
from comfyload.comfy.socket import NotConnected, open_connection, tls_context
from comfyload.comfy.websocket import SocketRefused, listen
from comfyload.comfy.wire.calls import (
    MAX_BODY_BYTES,
    MAX_DOWNLOAD_BYTES,
    MAX_FILE_BYTES,
    Download,
    OnFrame,
    Reply,
    Request,
    TransportError,
)
from comfyload.errors import UsageError
from comfyload.hidden import without_hidden

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
HEAD_BYTES = 16
IDLE_S = 30.0
"""How long a download may go without a byte."""

_OURS_TO_WRITE = ("accept-encoding", "content-length", "content-type", "transfer-encoding")
_PACKED, _AS_IT_IS = b"Accept-Encoding: gzip, deflate\r\n", b"Accept-Encoding: identity\r\n"


class Http:
    """A `Transport` over HTTP/1.1 and WebSocket. `connect_s` limits each connection; None: only the call does. `hello`:
    the first text that is sent on each WebSocket.
    """

    def __init__(
        self,
        url: URL,
        headers: Mapping[str, str],
        *,
        ca_file: str | None = None,
        insecure: bool = False,
        connect_s: float | None = None,
        hello: bytes = b"",
    ) -> None:
        self.name = redacted(url)
        self._url = url
        self._headers = _completed(headers)
        self._path, self._query = url.raw_path.encode(), url.raw_query_string.encode()
        self._lines = _lines(url, self._headers)
        self._new_tls = partial(tls_context, ca_file, insecure)
        self._tls = self._new_tls() if url.scheme == "https" or ca_file is not None else None
        self._hello = hello
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._bodies = BodiesUnderWay()
        self._loop = asyncio.get_running_loop()
        self._connections = Connections(partial(self._connect, url), connect_s)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: URL,
        headers: Mapping[str, str],
        *,
        ca_file: str | None = None,
        insecure: bool = False,
        connect_s: float | None = None,
        hello: bytes = b"",
    ) -> AsyncIterator[Http]:
        """Open the transport; no connection is made before the first call.

        Raises:
            UsageError: `ca_file` cannot be read, or credentials are in both the address and the headers.
        """
        url, headers = with_credentials(url, headers)
        try:
            http = cls(url, headers, ca_file=ca_file, insecure=insecure, connect_s=connect_s, hello=hello)
        except OSError as error:
            raise UsageError(f"--ca-file {ca_file}: {error.strerror or error}", "give a PEM file") from None
        try:
            yield http
        finally:
            await http._connections.close()

    async def call(self, request: Request) -> Reply:
        if request.file:
            most = MAX_FILE_BYTES
            reply = await self._file(request, lambda: Incoming(self._bodies, most=most, together=most, idle_s=IDLE_S))
        else:
            bodiless = request.method == "HEAD"
            most, together = request.most_bytes + request.echo_bytes, MAX_BODY_BYTES + request.echo_bytes
            reply = Incoming(self._bodies, most=most, together=together, bodiless=bodiless)
            await self._exchange(request, reply)
        if reply.status < 300:
            return Reply(status=reply.status, body=reply.body, content_type=reply.content_type)
        # Its text is shown, and it may repeat what it was sent.
        return Reply(
            status=reply.status,
            body=without_hidden(reply.body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"),
            content_type=reply.content_type,
            headers={name.decode("latin-1"): without_hidden(reply.header(name)) for name in reply.headers},
        )

    async def download(self, path: str, timeout_s: float) -> Download:
        most = MAX_DOWNLOAD_BYTES
        reply = await self._file(
            Request(method="GET", path=path, timeout_s=timeout_s, file=True),
            lambda: Incoming(self._bodies, most=most, together=most, kept=HEAD_BYTES, idle_s=IDLE_S),
        )
        return Download(
            status=reply.status,
            head=reply.body,
            bytes=reply.size,
            expected=None if reply.coded else reply.length,
            content_type=reply.content_type,
        )

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        """Without compression, which costs the server; with pings of our own."""
        url = self._url.join(URL("ws")).update_query(clientId=client_id).extend_query(self._url.query)
        try:
            await listen(url, self._headers, self._tls, on_frame, self._hello)
        except SocketRefused as refused:
            where = f"is redirected to {redirected(self._url, 'ws', refused.location)[0]}"
            text = where if refused.location else f"was refused with {refused}"
            raise TransportError(f"{self.name}: the WebSocket {text}", sent=True) from None
        except FAULTS as error:
            raise self._error(error) from None

    async def _file(self, request: Request, new: Callable[[], Incoming]) -> Incoming:
        """The reply to a request for a file. Redirects are followed, to other origins without our headers.

        Raises:
            TransportError: there is none.
        """
        deadline = asyncio.get_running_loop().time() + request.timeout_s
        url, reply = self._url.join(URL(request.path, encoded=True)), new()
        await self._exchange(request, reply)
        for _ in range(MAX_REDIRECTS):
            target = _target(url, reply)
            if target is None:
                return reply
            url, reply = target, new()
            await self._fetch(url, reply, deadline)
        if _target(url, reply) is None:
            return reply
        raise TransportError(f"{self.name}: more than {MAX_REDIRECTS} redirects, one to the next", sent=True)

    async def _exchange(self, request: Request, reply: Incoming) -> None:
        """Send a request to the server. What is not a POST goes out again if an old connection turns out closed.

        Raises:
            TransportError: there is no reply.
        """
        deadline = self._loop.time() + request.timeout_s
        try:
            data = self._bytes_of(request)
            while True:
                connection = self._connections.unused() or await self._connections.take(deadline)
                was_used = connection.idle_since > 0.0
                try:
                    await connection.exchange(data, reply, deadline)
                    return
                except Broken:
                    if not was_used or connection.answered or request.method == "POST":
                        raise
                finally:
                    self._connections.give_back(connection)
        except FAULTS as error:
            raise self._error(error) from None

    async def _fetch(self, url: URL, reply: Incoming, deadline: float) -> None:
        """GET a file from where a redirect led to, over a connection of its own.

        Raises:
            TransportError: there is no reply.
        """
        headers = self._headers if url.origin() == self._url.origin() else _completed({})
        request = b"GET %b HTTP/1.1\r\n%b%b\r\n" % (url.raw_path_qs.encode(), _lines(url, headers), _AS_IT_IS)
        try:
            connection = await self._connect(url)
            try:
                await connection.exchange([request], reply, deadline)
            finally:
                connection.abort()
        except FAULTS as error:
            raise self._error(error) from None

    async def _connect(self, url: URL) -> HttpConnection:
        if url.scheme == "https" and self._tls is None:
            self._tls = self._new_tls()
        return await open_connection(
            url, self._tls if url.scheme == "https" else None, partial(HttpConnection, self._scratch)
        )

    def _bytes_of(self, request: Request) -> list[bytes]:
        """The request as it is written: its head, and its body."""
        path = request.path.encode("ascii")
        if self._query:
            path = b"%b%b%b" % (path, b"&" if b"?" in path else b"?", self._query)
        coding = _AS_IT_IS if request.file else _PACKED
        head = (request.method.encode(), b" ", self._path, path, b" HTTP/1.1\r\n", self._lines, coding)
        if request.body is None:
            return [b"".join((*head, b"\r\n"))]
        kind, size = request.content_type.encode(), len(request.body)
        return [b"".join((*head, b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, size))), request.body]

    def _error(self, error: Exception) -> TransportError:
        """The fault as a TransportError; `sent`: whether the request can have reached the server."""
        sent = not isinstance(error, NotConnected | NoConnection | UnicodeError)
        if fault := own_fault(error):
            return TransportError(f"{OURS}{fault}", sent=sent, ours=True)
        if isinstance(error, NotConnected | NoConnection):
            return TransportError(f"{self.name}: {error}", sent=sent, refused=nothing_listens(error))
        if isinstance(error, UnicodeError):
            return TransportError(f"{self.name}: not an address that can be called", sent=sent)
        if isinstance(error, TooLarge):
            text = f"{self.name}: a reply larger than {error.limit >> 20} MiB was not read"
            return TransportError(text, sent=sent, vain=True)
        if isinstance(error, TimeoutError):
            return TransportError(f"{self.name}: no reply in time", sent=sent)
        return TransportError(f"{self.name}: the connection broke ({error})", sent=sent)


FAULTS = (Broken, NoConnection, NotConnected, TimeoutError, UnicodeError)


def _completed(headers: Mapping[str, str]) -> dict[str, str]:
    """The user's headers, and those that every client sends."""
    names = {name.lower() for name in headers}
    ours = {"User-Agent": f"comfyload/{version('comfyload')}", "Accept": "*/*"}
    return {name: value for name, value in ours.items() if name.lower() not in names} | dict(headers)


def _lines(url: URL, headers: Mapping[str, str]) -> bytes:
    """The headers of a request, but for those of its body and of how the reply may be coded."""
    lines = {} if any(name.lower() == "host" for name in headers) else {"Host": url.host_port_subcomponent}
    lines |= {name: value for name, value in headers.items() if name.lower() not in _OURS_TO_WRITE}
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()


def _target(url: URL, reply: Incoming) -> URL | None:
    """Where the reply redirects to; None if it does not, or to no http address. Credentials in it are not used."""
    location = reply.header(b"location")
    if reply.status not in REDIRECTS or not location:
        return None
    try:
        target = read_url(str(url.join(read_url(location)))).with_user(None)
    except ValueError:
        return None
    return target if target.scheme in ("http", "https") and target.host else None
