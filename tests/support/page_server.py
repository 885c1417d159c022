"""A stand-in for the dashboard's server: speaks its socket and answers its addresses, with made-up runs of any size.

`python -m tests.support.page_server PORT` serves it to look at. Runs: `live` goes on, `many` has 100,000 jobs, `one`
has one, `none` has none yet, `broken` cannot be read.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

import comfyload.web
from tests.support.page_answers import ANSWERS, PAGE, gateway_jobs, servers
from tests.support.page_jobs import Jobs, job_of

STATIC = Path(comfyload.web.__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
TICK_S = 0.25
PICTURE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" fill="#4c8dff"/></svg>'
)


class Fake:
    """`empty`: no run at all. `posts`: what the page asked to be done."""

    def __init__(self, *, empty: bool = False, many: int = 100_000) -> None:
        self.began = time.monotonic() - 95.0
        self.empty = empty
        self.posts: list[tuple[str, Any]] = []
        self.sockets: set[web.WebSocketResponse] = set()
        self.jobs = {
            "live": Jobs(count=5_000, every_s=0.4, load="1 new job every 0.4 s"),
            "20261127/many-10": Jobs(count=many, every_s=0.05, load="20 jobs/s"),
            "one": Jobs(count=1, every_s=1.0, load="1 job"),
            "none": Jobs(count=0, every_s=1.0, load="4 in flight"),
        }

    def now_of(self, run: str) -> float:
        if run == "live":
            return time.monotonic() - self.began
        return 0.0 if run == "none" else self.jobs[run].count * self.jobs[run].every_s + 60.0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._home)
        app.router.add_get("/comfyload/", self._index)
        app.router.add_get("/comfyload/ui/ws", self._socket)
        app.router.add_static("/comfyload/ui/static/", STATIC)
        app.router.add_get("/comfyload/ui/session", self._session)
        app.router.add_get("/comfyload/ui/{rest:.+}", self._get)
        app.router.add_post("/comfyload/ui/{rest:.+}", self._post)
        app.on_response_prepare.append(_with_policy)
        return app

    async def _home(self, _: web.Request) -> web.Response:
        raise web.HTTPFound("/comfyload/")

    async def _index(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html")

    async def _session(self, _: web.Request) -> web.Response:
        return web.json_response({"token": "made-up", "kind": "ui", "version": "0.0"})

    async def _get(self, request: web.Request) -> web.Response:
        rest = request.match_info["rest"]
        if "/outputs/" in rest or rest.endswith(".svg"):
            return web.Response(body=PICTURE, content_type="image/svg+xml")
        if rest.endswith("/page"):
            if "broken" in rest:
                return web.json_response({"error": "manifest.json is damaged", "hint": "line 3"}, status=422)
            return web.json_response(
                {"id": rest, "label": "", "running": False, "page": PAGE, "charts": PAGE["charts"]}
            )
        for start, answer in ANSWERS.items():
            if rest.startswith(start):
                return web.json_response(answer)
        return web.json_response({"error": "there is no such thing", "hint": ""}, status=404)

    async def _post(self, request: web.Request) -> web.Response:
        rest, body = request.match_info["rest"], await request.json()
        assert request.headers["X-Comfyload-Token"] == "made-up"
        self.posts.append((rest, body))
        return web.json_response(ANSWERS.get(rest, {"run": "live"}))

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.add(socket)
        watches: dict[int, tuple[str, dict[str, Any]]] = {}
        sent: dict[int, bytes] = {}
        teller = asyncio.ensure_future(self._tell(socket, watches, sent))
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                said = json.loads(message.data)
                if "watch" in said:
                    watches[said["watch"]] = (said["view"], said.get("params", {}))
                    sent.pop(said["watch"], None)
                    await self._tell_one(socket, said["watch"], watches, sent)
                elif "unwatch" in said:
                    watches.pop(said["unwatch"], None)
                    sent.pop(said["unwatch"], None)
        finally:
            teller.cancel()
            self.sockets.discard(socket)
        return socket

    async def _tell(self, socket: web.WebSocketResponse, watches: dict[int, Any], sent: dict[int, bytes]) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for watch in list(watches):
                await self._tell_one(socket, watch, watches, sent)

    async def _tell_one(self, socket: web.WebSocketResponse, watch: int, watches: dict[int, Any], sent: Any) -> None:
        if watch not in watches:
            return
        view, params = watches[watch]
        try:
            data = self._data(view, params)
        except KeyError:
            data = None
        if isinstance(data, tuple):
            packed = _framed(watch, *data)
            if sent.get(watch) != packed[-400:]:
                sent[watch] = packed[-400:]
                await socket.send_bytes(packed)
            return
        body = {"error": "there is no such run"} if data is None else {"data": data}
        text = json.dumps(body)
        if sent.get(watch) != text.encode():
            sent[watch] = text.encode()
            await socket.send_str(json.dumps({"watch": watch, "seq": 1, **body}))

    def _data(self, view: str, params: dict[str, Any]) -> Any:
        if view == "runs":
            return self._runs()
        if view == "servers":
            return servers()
        if view == "gateway":
            return gateway_jobs(str(params.get("state", "")))
        run = params["run"]
        jobs, now_s = self.jobs[run], self.now_of(run)
        if view == "run":
            return jobs.run(run, now_s, params, running=run in ("live", "none"))
        if view == "jobs":
            return jobs.rows(now_s, params)
        if view == "job":
            return job_of(jobs, now_s, int(params["index"]))
        if view == "chart":
            return jobs.chart(now_s, params)
        raise KeyError(view)

    def _runs(self) -> dict[str, Any]:
        if self.empty:
            return {"runs": [], "total": 0, "folder": "runs", "unread": None}
        found = [jobs.entry(run, self.now_of(run), running=run in ("live", "none")) for run, jobs in self.jobs.items()]
        found.append({**found[1], "id": "broken", "name": "broken", "state": "crashed", "spark": []})
        found += [
            {
                **found[1],
                "id": f"old/{n}",
                "name": f"2026-11-{n:02}-nightly",
                "started_utc": f"2026-11-{n:02}T02:00:00Z",
            }
            for n in range(26, 1, -1)
        ]
        unread = {"count": 2, "folder": "old/torn", "why": "manifest.json is damaged: Input data was truncated"}
        return {"runs": found, "total": len(found), "folder": "runs", "unread": unread}


async def _with_policy(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers["Content-Security-Policy"] = POLICY
    answer.headers["Cache-Control"] = "no-cache"


def _framed(watch: int, head: dict[str, Any], columns: list[array[float]]) -> bytes:
    text = json.dumps({"watch": watch, "seq": 1, **head}).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + b"".join(column.tobytes() for column in columns)


if __name__ == "__main__":
    web.run_app(Fake(empty="--empty" in sys.argv).app(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
