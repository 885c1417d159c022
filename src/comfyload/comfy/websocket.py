"""The WebSocket of a server's events, by picows: each message goes to a callback as soon as it is read."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from ssl import SSLContext

import picows
from yarl import URL

from comfyload.comfy.incoming import Broken
from comfyload.comfy.socket import NotConnected, host_of, open_socket
from comfyload.comfy.wire.calls import MAX_MESSAGE_BYTES, OnFrame

PING_SECONDS = 30.0
"""After so long without a byte the server is pinged. ComfyUI never pings, and its loop may freeze for seconds without
being dead."""

PONG_SECONDS = 15.0
HANDSHAKE_SECONDS = 60.0
MOST_PARTS = 10_000
"""Of one message. Servers send messages whole."""

_TEXT, _BINARY, _GOES_ON = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION

_log = logging.getLogger(__name__)  # what picows logs is raised as well
_log.addHandler(logging.NullHandler())
_log.propagate = False


class SocketRefused(Exception):
    """The handshake was answered with another status than 101. `location`: where it redirects to; "": nowhere."""

    def __init__(self, status: int, location: str) -> None:
        super().__init__(f"HTTP {status}")
        self.location = location


async def listen(
    url: URL, headers: Mapping[str, str], tls: SSLContext | None, on_frame: OnFrame, hello: bytes = b""
) -> None:
    """Open the socket and hand each message to `on_frame`, until the server closes it. Redirects are not followed.

    `hello`: a text that is sent first.

    Raises:
        NotConnected: there is no connection.
        SocketRefused: the server did not open the socket.
        Broken: what came is not a WebSocket, or a message is too large.
    """
    connected = await open_socket(url)
    listener = _Listener(on_frame, hello)
    handed_over = False

    def hand_over(_: object) -> socket.socket:
        nonlocal handed_over
        connected.getpeername()  # raises if it is closed already, so that nobody connects it again
        handed_over = True
        return connected

    opening = asyncio.ensure_future(
        picows.ws_connect(
            lambda: listener,
            str(url.with_scheme("wss" if url.scheme == "https" else "ws")),
            ssl_context=tls,
            extra_headers=headers,
            socket_factory=hand_over,
            server_hostname=host_of(url) if url.scheme == "https" else None,
            max_redirects=0,
            max_frame_size=MAX_MESSAGE_BYTES,
            websocket_handshake_timeout=HANDSHAKE_SECONDS,
            enable_auto_ping=True,
            auto_ping_idle_timeout=PING_SECONDS,
            auto_ping_reply_timeout=PONG_SECONDS,
            logger_name=_log,
            use_aiofastnet=False,
        )
    )
    try:
        transport, _ = await asyncio.shield(opening)
        await transport.wait_disconnected()
    except picows.WSHandshakeError as error:
        raise _refusal(error) from None
    except picows.WSError as error:
        raise Broken(f"not a WebSocket: {error.args[-1]}") from None
    except OSError as error:
        raise NotConnected(error) from error
    finally:
        if not opening.done():
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)  # the attempt ends, as if the server had closed it
        await asyncio.gather(opening, return_exceptions=True)
        await listener.end()
        # uvloop closes what it was handed, but does not always say so to the socket: it would close its number later,
        # which is another connection's by then.
        if handed_over and not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
            connected.detach()
        else:
            connected.close()
    if not listener.opened:
        raise Broken("the server closed it")


class _Listener(picows.WSListener):
    """Joins the parts of a message. `opened`: whether the socket was ever open."""

    def __init__(self, on_frame: OnFrame, hello: bytes) -> None:
        self._on_frame = on_frame
        self._hello = hello
        self._parts: bytearray | None = None
        self._count = 0
        self._is_text = False
        self._transport: picows.WSTransport | None = None
        self._closed = asyncio.get_running_loop().create_future()

    @property
    def opened(self) -> bool:
        return self._transport is not None

    async def end(self) -> None:
        """Close the socket at once, and wait until it is closed."""
        if self._transport is not None:
            self._transport.underlying_transport.abort()
            await self._closed
            with suppress(Exception):  # it was raised, or nobody waits for it any more
                await self._transport.wait_disconnected()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        if self._hello:
            transport.send(_TEXT, self._hello)

    def on_ws_disconnected(self, _transport: picows.WSTransport) -> None:
        self._closed.set_result(None)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        if transport.is_close_frame_sent:  # picows goes on reading after an error
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise Broken("not a WebSocket: an extension was used that we did not ask for")
        if kind is _TEXT and frame.fin and self._parts is None:
            self._on_frame(frame.get_payload_as_bytes(), True)
        elif kind in (_TEXT, _BINARY, _GOES_ON):
            self._join(kind, frame.get_payload_as_bytes(), frame.fin)
        elif kind is picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()

    def _join(self, kind: picows.WSMsgType, payload: bytes, is_last: bool) -> None:
        """Take a part of a message that comes in several."""
        if (kind is _GOES_ON) != (self._parts is not None):
            raise Broken("not a WebSocket: the parts of two messages are mixed")
        if self._parts is None:
            self._parts, self._count, self._is_text = bytearray(), 0, kind is _TEXT
        self._parts += payload
        self._count += 1
        if self._count > MOST_PARTS:
            raise Broken(f"a message in more than {MOST_PARTS} parts")
        if len(self._parts) > MAX_MESSAGE_BYTES:
            raise Broken(f"a message larger than {MAX_MESSAGE_BYTES >> 20} MiB")
        if is_last:
            whole, self._parts = bytes(self._parts), None
            self._on_frame(whole, self._is_text)


def _refusal(error: picows.WSHandshakeError) -> Exception:
    """A status that Python does not know, such as 530, is only in the head itself."""
    head = (error.raw_header or b"").split(b"\r\n", 1)[0].split(b" ")
    if len(head) < 2 or not head[0].startswith(b"HTTP/") or not (head[1].isdigit() and len(head[1]) == 3):
        return Broken("not HTTP")
    status = int(head[1])
    if status == 101:
        return Broken(f"not a WebSocket: {error}")
    headers = error.response.headers if error.response is not None else {}
    return SocketRefused(status, headers.get("Location", "") if 300 <= status < 400 else "")
