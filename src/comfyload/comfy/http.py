"""The transport over sockets: aiohttp, one session and one WebSocket per server, headers on both.

Nothing secret leaves this file: errors name the server by its redacted address and never quote a header. Our headers
go to the server's own origin only: redirects are followed for files only, and then without our headers. Sizes are
checked while reading: a body that is too large is not read to its end.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from typing import Any

import aiohttp
from yarl import URL

from comfyload.comfy.address import read_url, redacted, redirected, with_credentials
from comfyload.comfy.interim import bounded
from comfyload.comfy.own_fault import OURS, own_fault
from comfyload.comfy.wire.calls import (
    MAX_BODY_BYTES,
    MAX_DOWNLOAD_BYTES,
    MAX_FILE_BYTES,
    MAX_MESSAGE_BYTES,
    Download,
    Reply,
    Request,
    TransportError,
)
from comfyload.errors import UsageError
from comfyload.hidden import without_hidden

MAX_CONNECTIONS = 64
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
HEAD_BYTES = 16
IDLE_S = 30.0
"""How long a download may go without a byte."""
PING_SECONDS = 30.0
"""How often the socket is pinged. ComfyUI never pings, and its loop may freeze for seconds without being dead."""


class Http:
    """A `Transport` over HTTP/1.1 and WebSocket."""

    def __init__(
        self, url: URL, session: aiohttp.ClientSession, headers: Mapping[str, str], connect_s: float | None = None
    ) -> None:
        self._base = url
        self._connect_s = connect_s
        self._session = session
        self._headers = headers
        self._sizes: dict[object, int] = {}
        """Bytes read so far of each body under way."""
        self.name = redacted(url)

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
    ) -> AsyncIterator[Http]:
        """Open a session; no connection is made before the first call. `connect_s` limits each; None: as the call.

        Raises:
            UsageError: `ca_file` cannot be read, or credentials are in both the address and the headers.
        """
        url, headers = with_credentials(url, headers)
        tls: ssl.SSLContext | bool = not insecure
        if ca_file is not None:
            try:
                tls = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise UsageError(f"--ca-file {ca_file}: {error.strerror or error}", "give a PEM file") from None
        watched = aiohttp.TraceConfig()
        watched.on_request_redirect.append(partial(_stay, redacted(url)))
        session = aiohttp.ClientSession(
            trace_configs=[watched],
            connector=bounded(aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=tls, keepalive_timeout=60)),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        async with session:
            yield cls(url, session, headers, connect_s)

    async def call(self, request: Request) -> Reply:
        try:
            async with await self._respond(request) as response:
                body = await self._read(response, request)
                if response.status < 300:
                    return Reply(status=response.status, body=body, content_type=response.content_type)
                # Its text is shown, and it may repeat what it was sent.
                return Reply(
                    status=response.status,
                    body=without_hidden(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"),
                    content_type=response.content_type,
                    headers={k.lower(): without_hidden(v) for k, v in response.headers.items()},
                )
        except FAULTS as error:
            raise self._error(error) from None

    async def download(self, path: str, timeout_s: float) -> Download:
        size, head = 0, b""
        try:
            async with await self._respond(
                Request(method="GET", path=path, timeout_s=timeout_s, file=True)
            ) as response:
                async for chunk in response.content.iter_any():
                    head = head if len(head) >= HEAD_BYTES else head + bytes(chunk[:HEAD_BYTES])
                    size += len(chunk)
                    if size > MAX_DOWNLOAD_BYTES:
                        raise self._too_large(response, MAX_DOWNLOAD_BYTES)
                coded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
                return Download(
                    status=response.status,
                    head=head[:HEAD_BYTES],
                    bytes=size,
                    expected=None if coded else response.content_length,
                    content_type=response.content_type,
                )
        except FAULTS as error:
            raise self._error(error) from None

    @asynccontextmanager
    async def events(self, client_id: str) -> AsyncIterator[AsyncIterator[str | bytes]]:
        """Without compression, which costs the server; with pings of our own."""
        url = self._url("ws").update_query(clientId=client_id)
        try:
            socket = await self._session.ws_connect(
                url,
                headers=self._headers,
                heartbeat=PING_SECONDS,
                compress=0,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except FAULTS as error:
            raise self._error(error) from None
        async with socket:
            yield self._frames(socket)

    async def _respond(self, request: Request) -> aiohttp.ClientResponse:
        """The head of the reply. For a file redirects are followed, to other origins without our headers."""
        if self._session.closed:
            raise TransportError(f"{self.name}: the connection is closed", sent=False)
        url, headers = self._url(request.path), dict(self._headers)
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        if request.file:
            headers["Accept-Encoding"] = "identity"
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._session.request(
                request.method,
                url,
                data=request.body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(
                    total=request.timeout_s, sock_connect=self._connect_s, sock_read=IDLE_S if request.file else None
                ),
                allow_redirects=False,
            )
            target = _target(response) if request.file and request.method == "GET" else None
            if target is None:
                return response
            response.release()
            if target.origin() != self._base.origin():
                headers = {"Accept-Encoding": "identity"}
            url = target
        raise TransportError(f"{self.name}: more than {MAX_REDIRECTS} redirects, one to the next", sent=True)

    async def _read(self, response: aiohttp.ClientResponse, request: Request) -> bytes:
        """The body, unpacked. If all bodies under way exceed the bound together, the largest is abandoned."""
        limit = MAX_FILE_BYTES if request.file else MAX_BODY_BYTES
        most = limit if request.file else min(request.most_bytes, limit)
        if (response.content_length or 0) > most and response.method != "HEAD":
            raise self._too_large(response, most)
        body, sizes = BytesIO(), self._sizes  # what a BytesIO holds is handed on without a copy
        sizes[response] = 0
        try:
            async for chunk in response.content.iter_any():
                sizes[response] = size = sizes[response] + len(chunk)
                total = sum(sizes.values())
                if size > most or (total > limit and size * len(sizes) >= total):
                    raise self._too_large(response, most if size > most else limit)
                body.write(chunk)
        finally:
            del sizes[response]
        return body.getvalue()

    def _too_large(self, response: aiohttp.ClientResponse, limit: int) -> TransportError:
        response.close()
        text = f"{self.name}: a reply larger than {limit >> 20} MiB was not read"
        return TransportError(text, sent=True, vain=True)

    async def _frames(self, socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[str | bytes]:
        try:
            async for message in socket:
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    yield message.data
        except FAULTS as error:
            raise self._error(error) from None

    def _url(self, path: str) -> URL:
        """The absolute address of a route. Paths come percent-encoded; a query of the base address is on every call."""
        url = self._base.join(URL(path, encoded=True))
        return url.extend_query(self._base.query) if self._base.query else url

    def _error(self, error: BaseException) -> TransportError:
        """The fault as a TransportError; `sent`: whether the request can have reached the server."""
        if fault := own_fault(error):
            return TransportError(f"{OURS}{fault}", sent=not isinstance(error, aiohttp.ClientConnectorError), ours=True)
        if isinstance(error, aiohttp.ClientConnectorError):
            tls = "TLS failed: " if isinstance(error, aiohttp.ClientSSLError) else ""
            return TransportError(f"{self.name}: {tls}{_reason(error)}", sent=False)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return TransportError(f"{self.name}: no connection in time", sent=False)
        if isinstance(error, aiohttp.WSServerHandshakeError):
            return TransportError(f"{self.name}: the WebSocket was refused with HTTP {error.status}", sent=True)
        if isinstance(error, TimeoutError):
            return TransportError(f"{self.name}: no reply in time", sent=True)
        if isinstance(error, aiohttp.InvalidURL):
            return TransportError(f"{self.name}: not an address that can be called", sent=False)
        return TransportError(f"{self.name}: the connection broke ({type(error).__name__})", sent=True)


FAULTS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""The errors of a call; aiohttp raises a ValueError for some malformed replies."""


def _target(response: aiohttp.ClientResponse) -> URL | None:
    """Where the reply redirects to; None if it does not, or to no http address. Credentials in it are not used."""
    location = response.headers.get("Location")
    if response.status not in REDIRECTS or not location:
        return None
    try:
        target = read_url(str(response.url.join(read_url(location)))).with_user(None)
    except ValueError:
        return None
    return target if target.scheme in ("http", "https") and target.host else None


async def _stay(name: str, _session: object, _context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
    """Stop aiohttp before it follows a redirect of a WebSocket's handshake, which it does with all headers."""
    where, _ = redirected(params.url.with_query(None), "ws", params.response.headers.get("Location", ""))
    params.response.close()
    raise TransportError(f"{name}: the WebSocket is redirected to {where}", sent=True)


def _reason(error: Any) -> str:
    """The system's own text for a failed connection; asyncio wraps it in the address, which is named already."""
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(cause, ssl.SSLError | socket.gaierror):
        return os.strerror(number).lower()
    text = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or str(cause)
    return str(text).rstrip(".").lower() or type(error).__name__
