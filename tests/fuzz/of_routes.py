"""What can be asked: the routes of the simulated server, and those of the instrumentation pack."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_from_bytes

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from comfyload.comfy.wire.calls import Request
from comfyload.record.metrics.log import row_of_line
from comfyload.sim import Server
from comfyload.telemetry.rows import SampleRows
from comfyload_probe import routes, rows
from comfyload_probe.journal import Journal
from tests.fuzz.of_input import GRAPH
from tests.fuzz.target import Target, kept, now

__all__ = ["TARGETS"]

_MOST_REQUESTS = 200
"""Of one server: what is posted is kept, and would slow down what comes after."""


class _Simulated:
    """A simulated server that takes prompts and runs none, made anew now and then."""

    def __init__(self) -> None:
        self._requests = 0
        self._server: Server | None = None

    def __call__(self, data: bytes) -> None:
        """First line: method and path, or what the client says on its WebSocket; the rest is the body."""
        now(self._ask(data))

    async def _ask(self, data: bytes) -> None:
        if self._server is None or self._requests % _MOST_REQUESTS == 0:
            if self._server is not None:
                await self._server.stop()
            self._server = Server()
            self._server.start()
        self._requests += 1
        head, _, body = data.partition(b"\n")
        method, _, path = head.decode("latin-1").partition(" ")
        if method == "SOCKET":
            socket = self._server.connect(path or None)
            socket.receive(body.decode("utf-8", "replace"))
            socket.close()
            return
        content_type = "multipart/form-data; boundary=b" if path.startswith("upload") else "application/json"
        reply = await self._server.call(Request(method=method, path=path, body=body, content_type=content_type))
        assert 200 <= reply.status <= 500 or reply.status == 503
        if reply.content_type == "application/json" and reply.body:
            json.loads(reply.body)


@cache
def _handlers() -> dict[str, Callable[[web.Request], Awaitable[web.Response]]]:
    """The pack's handlers, around a probe of which only what they ask for is there."""
    table = web.RouteTableDef()
    journal = Journal("b", ring_rows=10, buffer_rows=10, file=None)
    probe: Any = SimpleNamespace(
        settings=SimpleNamespace(token="t"), journal=journal, errors=0, overview=dict, environment=dict
    )
    routes.register(probe, table)
    return {route.path.rpartition("/")[2]: route.handler for route in table if isinstance(route, web.RouteDef)}


def pack_routes(data: bytes) -> None:
    """First line: a query; second: a token."""
    query, _, token = data.partition(b"\n")
    headers = CIMultiDict({"Authorization": f"Bearer {token.decode('latin-1')}"})
    for name in ("events", "clock"):
        for given in (headers, CIMultiDict({"X-Comfyload-Token": "t"})):
            path = f"/comfyload/v1/{name}?{quote_from_bytes(query, safe='=&%+;')}"
            request: Any = SimpleNamespace(query=URL(path, encoded=True).query, headers=given)
            reply = now(_handlers()[name](request))
            assert reply.status in (200, 400, 401), f"{reply.status}: {reply.body!r:.200}"
            json.loads(reply.body)  # type: ignore[arg-type]


def pack_rows(data: bytes) -> None:
    """What happened on the server, as a row of the pack; and that row, as we read it."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(fields, dict):
        return
    named = {key: rows.text(value) if key == "prompt_id" else value for key, value in fields.items()}
    _, line = rows.encoded(rows.Entry("sample", 1.0, 1.7e9, named), "b", 1)
    row = row_of_line(line)
    if row is not None:
        kept(*SampleRows().samples(row.raw, 1.0, 1.0))


_POST = {"prompt": GRAPH, "client_id": "c", "prompt_id": "11111111-1111-4111-8111-111111111111", "number": 1,
         "extra_data": {"a": 1}, "front": False, "partial_execution_targets": ["3"]}  # fmt: skip
_FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\nPNG\r\n--b--\r\n'

TARGETS = [
    Target(name="sim", what="the simulator's routes and socket", feed=_Simulated(), seeds=[
        *(f"{line}\n".encode() for line in (
            "GET prompt", "GET queue", "GET history?max_items=1&offset=0", "GET history/x", "HEAD features",
            "GET api/jobs/x", "GET view?filename=x.png&type=output&subfolder=", "GET object_info/KSampler",
            "GET api/jobs?status=pending",
            "GET system_stats", "GET models/checkpoints", "GET ", "GET userdata?dir=a&recurse=true",
            "GET v2/userdata?path=a", "GET userdata/a%2Fb", "DELETE userdata/a", "GET internal/logs",
            "POST userdata/a/move/b?overwrite=false", "GET comfyload/v1/events?after=0&limit=5", "OPTIONS prompt")),
        b"POST prompt\n" + json.dumps(_POST).encode(), b'POST queue\n{"delete": ["x"], "clear": true}',
        b'POST history\n{"delete": ["x"]}', b'POST interrupt\n{"prompt_id": "x"}',
        b'POST free\n{"unload_models": true}', b'POST settings\n{"a": 1}', b"POST userdata/a%2Fb\nx",
        b'PATCH internal/logs/subscribe\n{"clientId": "c", "enabled": true}', b'POST users\n{"username": "a"}',
        b'POST api/jobs/cancel\n{"job_ids": ["11111111-1111-4111-8111-111111111111"]}', b"POST api/jobs/x/cancel\n{}",
        b"POST upload/image\n" + _FORM,
        b'SOCKET c\n{"type": "feature_flags", "data": {"supports_preview_metadata": true}}',
    ]),
    Target(name="pack_routes", what="the pack's routes", feed=pack_routes,
           seeds=[b"after=0&limit=10&boot=b\nt", b"after=5\nt", b"after=1&after=2\nx"]),
    Target(name="pack_rows", what="the pack's rows", feed=pack_rows, errors=(ValueError, TypeError, RecursionError),
           seeds=[json.dumps({"queue_depth": 1, "process": {"rss_bytes": 1, "cpu_s": 1.5}, "prompt_id": "p",
                              "gpus": [{"index": 0, "power_w": 1.5, "throttle": ["x"]}]}).encode()]),
]  # fmt: skip
