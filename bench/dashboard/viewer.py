"""Sockets that watch a run as tabs do, in a process of its own: BASE RUN COUNT. A line of standard input, `show` or
`hide`, is for all of them; it ends with its input, and then prints what they got.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress

import aiohttp

WATCHED: tuple[tuple[str, dict[str, object]], ...] = (
    ("run", {}),
    ("jobs", {"order": "newest", "offset": 0, "limit": 100}),
    ("chart", {"chart": "latency", "width": 800}),
    ("chart", {"chart": "flow", "width": 400}),
)


class Viewer:
    """One socket. `gaps`: seconds from one state of the run to the next."""

    def __init__(self) -> None:
        self.states = 0
        self.gaps: list[float] = []
        self._last: float | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def watch(self, session: aiohttp.ClientSession, base: str, run: str) -> None:
        async with session.ws_connect(f"{base}ui/ws", max_msg_size=0) as socket:
            self._socket = socket
            for number, (view, params) in enumerate(WATCHED):
                await socket.send_json({"watch": number, "view": view, "params": {"run": run, **params}})
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT and message.data.startswith('{"watch":0,'):
                    now = time.monotonic()
                    if self._last is not None:
                        self.gaps.append(now - self._last)
                    self._last, self.states = now, self.states + 1

    async def show(self, visible: bool) -> None:
        self._last = None
        if self._socket is not None:
            await self._socket.send_json({"visible": visible})


async def main(base: str, run: str, count: int) -> None:
    viewers = [Viewer() for _ in range(count)]
    fetches: list[float] = []

    async def fetch(session: aiohttp.ClientSession) -> None:
        while True:
            began = time.monotonic()
            async with session.get(f"{base}ui/session") as answer:
                await answer.read()
            fetches.append(time.monotonic() - began)
            await asyncio.sleep(0.5)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.monotonic()
        tasks = [asyncio.create_task(one.watch(session, base, run)) for one in viewers]
        tasks.append(asyncio.create_task(fetch(session)))
        while line := await asyncio.to_thread(sys.stdin.readline):
            for one in viewers:
                await one.show(line.strip() == "show")
        took = time.monotonic() - began
        failed = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
    print(
        json.dumps(
            {
                "lost": len(failed),
                "least": min(one.states for one in viewers) / took,
                "gap": max(max(one.gaps, default=took) for one in viewers),
                "fetch": max(fetches),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
