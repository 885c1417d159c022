"""A server that speaks enough of ComfyUI to be measured through: jobs end at once or after a while, and each message
carries the instant at which it was sent, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

FACTS = {"system": {"os": "linux", "comfyui_version": "0.33.0", "argv": ["main.py"]}, "devices": []}
CLASSES: dict[str, Any] = {
    "EmptyImage": {"input": {"required": {}}, "output": ["IMAGE"], "output_node": False, "name": "EmptyImage"},
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True, "name": "SaveImage",
    },
}  # fmt: skip


def _answering(body: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body)

    return answer


class Fake:
    """One worker. `events`: messages of a job beside its start and end; `seconds`: how long it takes."""

    def __init__(self, events: int, seconds: float) -> None:
        self._events = events
        self._seconds = seconds
        self._queue: deque[tuple[str, str, dict[str, Any]]] = deque()
        self._history: dict[str, bytes] = {}
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._running = ""
        self._something = asyncio.Event()
        self._number = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=100 << 20)
        for prefix in ("", "/api"):
            app.router.add_get(f"{prefix}/system_stats", _answering(FACTS))
            app.router.add_get(f"{prefix}/features", _answering({}))
            app.router.add_get(f"{prefix}/object_info", _answering(CLASSES))
            app.router.add_get(f"{prefix}/prompt", self._count)
            app.router.add_post(f"{prefix}/prompt", self._post)
            app.router.add_get(f"{prefix}/history/{{id}}", self._entry)
            app.router.add_post(f"{prefix}/queue", _answering({}))
            app.router.add_get(f"{prefix}/ws", self._socket)
        app.router.add_get("/api/jobs/{id}", self._job)
        return app

    @property
    def _remaining(self) -> int:
        return len(self._queue) + bool(self._running)

    async def _count(self, _: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": self._remaining}})

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt_id = body.get("prompt_id") or str(uuid.uuid4())
        self._number += 1
        self._queue.append((prompt_id, str(body.get("client_id")), body))
        self._something.set()
        return web.json_response({"prompt_id": prompt_id, "number": self._number, "node_errors": {}})

    async def _entry(self, request: web.Request) -> web.Response:
        found = self._history.get(request.match_info["id"], b"{}")
        return web.Response(body=found, content_type="application/json")

    async def _job(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        if prompt_id in self._history:
            status = "completed"
        elif prompt_id == self._running:
            status = "in_progress"
        elif any(prompt_id == waiting for waiting, _, _ in self._queue):
            status = "pending"
        else:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response({"id": prompt_id, "status": status})

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId", "")
        self._sockets[client_id] = socket
        status = {"status": {"exec_info": {"queue_remaining": self._remaining}}, "sid": client_id}
        await socket.send_json({"type": "status", "data": status})
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                break
        self._sockets.pop(client_id, None)
        return socket

    async def work(self) -> None:
        while True:
            while not self._queue:
                self._something.clear()
                await self._something.wait()
            prompt_id, client_id, body = self._queue.popleft()
            self._running = prompt_id
            now = int(time.time() * 1000)
            extra = {**body.get("extra_data", {}), "client_id": client_id, "create_time": now}
            messages = []
            for kind in ("execution_start", "execution_cached"):
                messages.append([kind, {"prompt_id": prompt_id, "timestamp": now}])
                await self._send(client_id, kind, {"prompt_id": prompt_id, "timestamp": now})
            for step in range(self._events):
                if self._seconds:
                    await asyncio.sleep(self._seconds / self._events)
                progress = {"value": step, "max": self._events, "prompt_id": prompt_id, "node": "2"}
                await self._send(client_id, "progress", progress)
            end = {"prompt_id": prompt_id, "timestamp": int(time.time() * 1000)}
            messages.append(["execution_success", end])
            outputs = {"2": {"images": [{"filename": "x_00001_.png", "subfolder": "", "type": "output"}]}}
            row = [0, prompt_id, body["prompt"], extra, ["2"]]
            status = {"status_str": "success", "completed": True, "messages": messages}
            entry = {"prompt": row, "outputs": outputs, "status": status, "meta": {}}
            self._history[prompt_id] = json.dumps({prompt_id: entry}).encode()
            if len(self._history) > 2000:
                del self._history[next(iter(self._history))]
            self._running = ""
            await self._send(client_id, "execution_success", end)
            await self._send(client_id, "executing", {"node": None, "prompt_id": prompt_id})

    async def _send(self, client_id: str, kind: str, data: dict[str, Any]) -> None:
        socket = self._sockets.get(client_id)
        if socket is not None and not socket.closed:
            await socket.send_json({"type": kind, "data": {**data, "sent_ns": time.monotonic_ns()}})


async def main(count: int, events: int, seconds: float) -> None:
    tasks = []
    for _ in range(count):
        fake = Fake(events, seconds)
        runner = web.AppRunner(fake.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        tasks.append(asyncio.create_task(fake.work()))
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
