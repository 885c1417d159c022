"""Bounds interim replies (100, 102, 103), which aiohttp reads for as long as a server sends them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

MOST = 50
"""Interim replies before the reply itself. Servers send one or two."""


class _Bounded(ResponseHandler):
    """A connection that is closed once more than `MOST` interim replies came on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = 0

    def data_received(self, data: bytes) -> None:
        if self._interim <= MOST:
            super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        code = data[0].code
        self._interim = self._interim + 1 if 100 <= code < 200 and code != 101 else 0
        if self._interim <= MOST:
            super().feed_data(data, size)
            return
        self.set_exception(aiohttp.ClientPayloadError(f"more than {MOST} interim replies"))
        if self.transport is not None:
            self.transport.close()


def bounded(connector: aiohttp.TCPConnector) -> aiohttp.TCPConnector:
    """The connector, made to bound the interim replies on its connections."""
    connector._factory = partial(_Bounded, loop=asyncio.get_running_loop())  # type: ignore[assignment]
    return connector
