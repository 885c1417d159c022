"""A server that resets event streams as they open: no number of a socket is closed twice, under either loop."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

import pytest
from yarl import URL

from comfyload.comfy import websocket
from comfyload.comfy.incoming import Broken
from comfyload.comfy.socket import NotConnected, open_socket

TIMES = 300
RESET = struct.pack("ii", 1, 0)


def _loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    if sys.platform == "win32":
        return [asyncio.new_event_loop]
    import uvloop

    return [asyncio.new_event_loop, uvloop.new_event_loop]


def _reset_each(listening: socket.socket) -> None:
    """Accept connections and reset them, each a little later than the one before."""
    with suppress(OSError):  # it was closed
        for number in range(10 * TIMES):
            accepted, _ = listening.accept()
            time.sleep(number % 20 * 1e-4)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            accepted.close()


@pytest.mark.parametrize("loop", _loops())
def test_a_socket_whose_server_resets_it_is_let_go_of(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[socket.socket] = []

    async def remembered(url: URL) -> socket.socket:
        opened.append(await open_socket(url))
        return opened[-1]

    async def listen_often(url: URL) -> None:
        for _ in range(TIMES):
            with suppress(Broken, NotConnected):
                await websocket.listen(url, {}, None, lambda *_: None)

    monkeypatch.setattr(websocket, "open_socket", remembered)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        threading.Thread(target=_reset_each, args=[listening], daemon=True).start()
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(listen_often(URL(f"http://127.0.0.1:{listening.getsockname()[1]}/ws")))
    assert len(opened) > TIMES / 2
    assert [one.fileno() for one in opened] == [-1] * len(opened)
