"""The transport over sockets: aiohttp, one session and one WebSocket per server, headers on both.

Nothing secret leaves this file: errors name the server by its redacted address and never quote a header.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from comfyload.comfy.wire import Download, Reply, Request, TransportError
from comfyload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["Http", "parse_headers", "parse_server", "redacted"]

MAX_CONNECTIONS = 64
MAX_BODY_BYTES = 256 * 1024 * 1024
PING_SECONDS = 30.0
"""How often the socket is pinged. ComfyUI never pings, and its loop may freeze for seconds without being dead."""


def parse_server(text: str) -> URL:
    """The server's base address with a trailing slash: `127.0.0.1:8188`, `https://host/comfy/`, `http://[::1]:8188`.

    Raises:
        UsageError: it is no http(s) address.
    """
    try:
        url = URL(text if "://" in text else f"http://{text}")
        valid = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"--server {text!r} is no http address", "write it as http://127.0.0.1:8188")
    if url.path.rstrip("/").endswith("/prompt"):
        url = url.parent
    return url.with_fragment(None) if url.path.endswith("/") else url.with_path(url.path + "/").with_query(url.query)


def redacted(url: URL) -> str:
    """The address without user, password and the values of its query."""
    shown = url.with_user(None)
    return str(shown.with_query(dict.fromkeys(shown.query, "***")) if shown.query else shown)


def parse_headers(settings: list[str]) -> dict[str, str]:
    """`NAME=VALUE` and `NAME=env:VAR` settings.

    Raises:
        UsageError: one has no name or value, or names a variable that is not set. The value is never quoted.
    """
    headers: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.strip()
        if not equals or not name or not all(letter.isalnum() or letter in "!#$%&'*+-.^_`|~" for letter in name):
            raise UsageError("a --header is not NAME=VALUE", "as in --header Authorization=env:COMFY_TOKEN")
        if value.startswith("env:"):
            variable = value.removeprefix("env:")
            if variable not in os.environ:
                raise UsageError(f"--header {name}: the environment has no {variable}", f"export {variable} first")
            value = os.environ[variable]
        if any(ord(letter) < 32 for letter in value):
            raise UsageError(f"--header {name}: its value holds a control character", "check for a trailing newline")
        headers[name] = value
    return headers


class Http:
    """A `Transport` over HTTP/1.1 and WebSocket."""

    def __init__(
        self, url: URL, session: aiohttp.ClientSession, tls: ssl.SSLContext | bool, connect_s: float | None = None
    ) -> None:
        self._base = url
        self._connect_s = connect_s
        self._session = session
        self._tls = tls
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
            UsageError: `ca_file` cannot be read.
        """
        tls: ssl.SSLContext | bool = not insecure
        if ca_file is not None:
            try:
                tls = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise UsageError(f"--ca-file {ca_file}: {error.strerror or error}", "give a PEM file") from None
        session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=tls, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        async with session:
            yield cls(url, session, tls, connect_s)

    async def call(self, request: Request) -> Reply:
        """One exchange.

        Raises:
            TransportError: no whole reply came.
        """
        headers = {"Content-Type": request.content_type} if request.body is not None else None
        try:
            async with self._session.request(
                request.method,
                self._url(request.path),
                data=request.body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=request.timeout_s, sock_connect=self._connect_s),
                allow_redirects=request.method == "GET",
            ) as response:
                body = await _read(response)
                return Reply(
                    status=response.status,
                    body=body,
                    content_type=response.content_type,
                    headers={k.lower(): v for k, v in response.headers.items()} if response.status >= 400 else {},
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._error(error) from None

    async def download(self, path: str, timeout_s: float) -> Download:
        """GET `path` as a stream; nothing is kept but its first bytes.

        Raises:
            TransportError: the reply broke off.
        """
        size, head = 0, b""
        try:
            async with self._session.get(
                self._url(path), timeout=aiohttp.ClientTimeout(total=timeout_s), headers={"Accept-Encoding": "identity"}
            ) as response:
                async for chunk in response.content.iter_any():
                    head += bytes(chunk[: 16 - len(head)])
                    size += len(chunk)
                return Download(
                    status=response.status,
                    head=head,
                    bytes=size,
                    expected=response.content_length,
                    content_type=response.content_type,
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._error(error) from None

    @asynccontextmanager
    async def events(self, client_id: str) -> AsyncIterator[AsyncIterator[str | bytes]]:
        """The WebSocket: compression off (it costs the server), pings of ours, frames up to 256 MiB.

        Raises:
            TransportError: the server did not open it.
        """
        url = self._url("ws").update_query(clientId=client_id)
        try:
            socket = await self._session.ws_connect(
                url,
                heartbeat=PING_SECONDS,
                compress=0,
                max_msg_size=MAX_BODY_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._error(error) from None
        async with socket:
            yield _frames(socket)

    def _url(self, path: str) -> URL:
        """Absolute address of a route. Paths come percent-encoded; a query of the base address goes on every call."""
        url = self._base.join(URL(path, encoded=True))
        return url.extend_query(self._base.query) if self._base.query else url

    def _error(self, error: BaseException) -> TransportError:
        """The same fault in our words; `sent` says whether the request can have reached the server."""
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            return TransportError(f"{self.name}: TLS failed: {_reason(error)}", sent=False)
        if isinstance(error, aiohttp.ClientConnectorError):
            return TransportError(f"{self.name}: {_reason(error)}", sent=False)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return TransportError(f"{self.name}: no connection in time", sent=False)
        if isinstance(error, aiohttp.WSServerHandshakeError):
            return TransportError(f"{self.name}: the WebSocket was refused with HTTP {error.status}", sent=True)
        if isinstance(error, TimeoutError):
            return TransportError(f"{self.name}: no reply in time", sent=True)
        if isinstance(error, aiohttp.InvalidURL):
            return TransportError(f"{self.name}: not an address that can be called", sent=False)
        return TransportError(f"{self.name}: the connection broke ({type(error).__name__})", sent=True)


async def _frames(socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[str | bytes]:
    async for message in socket:
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            yield message.data


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, up to a bound that keeps a runaway server from filling our memory."""
    if (response.content_length or 0) > MAX_BODY_BYTES:
        raise aiohttp.ClientPayloadError("larger than 256 MiB")
    body = await response.read()
    if len(body) > MAX_BODY_BYTES:
        raise aiohttp.ClientPayloadError("larger than 256 MiB")
    return body


def _reason(error: Any) -> str:
    """The system's own words for a failed connection: asyncio wraps them in the address, which is named already."""
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(cause, ssl.SSLError | socket.gaierror):
        return os.strerror(number).lower()
    text = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or str(cause)
    return str(text).rstrip(".").lower() or type(error).__name__
