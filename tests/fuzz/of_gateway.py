"""What reaches the gateway: calls of clients, messages and histories of servers, names of files, its own store."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from yarl import URL

from comfyload.app.gateway import GatewayOptions, opened
from comfyload.comfy.wire.listed import ended_item, list_jobs
from comfyload.errors import RunFilesError
from comfyload.gateway import forms, paths
from comfyload.gateway.files import Files
from comfyload.gateway.fleet import ServerConfig
from comfyload.gateway.guard import AccessGuard, Denied
from comfyload.gateway.job import ClientJob
from comfyload.gateway.live import EventRelay
from comfyload.gateway.passing import Passing
from comfyload.gateway.recovery import graph_of
from comfyload.gateway.sockets import ClientSocket, Sockets
from comfyload.gateway.store import Row, Store
from comfyload.record.model import Execution, Failure
from comfyload.retry.policy import default
from comfyload.sim import Server
from tests.fuzz.of_input import GRAPH, scratch
from tests.fuzz.target import Target, now
from tests.support.direct import Direct

__all__ = ["TARGETS"]

TOKEN = "open-sesame-of-anna"
TROUBLE = b"500 Internal Server Error\n\nServer got itself in trouble"
MINE, OTHERS = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
_MOST_REQUESTS = 200


class _Nowhere(Passing):
    """Calls that would be passed on: checked, and answered here."""

    async def _call(self, request: web.Request, member: Any, path: str) -> web.StreamResponse:
        raw, _, query = path.partition("?")
        assert not any(name == "token" for name, _ in parse_qsl(query)), path
        names = paths.plain(paths.parts_of(f"/{raw}") or [])
        assert not paths.is_own(names) or names[0] in ("view", "upload", "object_info"), path
        await request.content.read(100)
        return web.Response(text="home")


class _Gateway:
    """A gateway before a server that takes prompts and runs none, made anew now and then."""

    def __init__(self) -> None:
        self._requests = 0
        self._stack: AsyncExitStack | None = None
        self._app: web.Application

    def __call__(self, data: bytes) -> None:
        """First line: method and path; second: a header; the rest is the body."""
        now(self._ask(data))

    async def _ask(self, data: bytes) -> None:
        if self._stack is None or self._requests % _MOST_REQUESTS == 0:
            await self._renew()
        self._requests += 1
        head, _, rest = data.partition(b"\n")
        line, _, body = rest.partition(b"\n")
        method, _, path = head.decode("latin-1").partition(" ")
        name, _, value = line.decode("utf-8", "surrogateescape").partition(": ")
        headers = CIMultiDict({"Host": "localhost", "Authorization": f"Bearer {TOKEN}"})
        if name.replace("-", "").isalnum():
            headers[name] = value
        if not method.isalpha() or not path or not path.isascii() or path.split() != [path]:
            return  # no HTTP: it is refused before us
        try:
            request = make_mocked_request(method, path, headers, payload=_payload(body), app=self._app)
        except ValueError:
            return
        try:
            reply = await self._app._handle(request)
        except web.HTTPException as error:
            reply = error
        assert isinstance(reply, web.Response)
        assert reply.status < 500 or reply.status == 503 or reply.body == TROUBLE, reply.body
        if reply.content_type == "application/json" and reply.body:
            json.loads(bytes(reply.body))  # type: ignore[arg-type]

    async def _renew(self) -> None:
        if self._stack is not None:
            await self._stack.aclose()
        folder = scratch() / "gateway"
        shutil.rmtree(folder, ignore_errors=True)
        self._stack = AsyncExitStack()
        server = await self._stack.enter_async_context(Server())
        options = GatewayOptions(
            servers=[ServerConfig(name=name, url=URL(f"http://{name}/")) for name in ("gpu1", "gpu2")],
            policy=default(60.0), ledger=folder, tokens={"anna": TOKEN, "bob": "b"},
            connect=lambda _: nullcontext(Direct(server)),
        )  # fmt: skip
        gateway, _, front = await self._stack.enter_async_context(opened(options))
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        front._passing = _Nowhere(gateway.fleet, session, gateway.files, gateway.inputs)
        # As `listening` does; and what the parser of forms leaves open when it fails is closed with it.
        for category in (aiohttp.BadContentDispositionHeader, aiohttp.BadContentDispositionParam, ResourceWarning):
            warnings.filterwarnings("ignore", category=category)
        self._app = front.app()
        self._app.freeze()


def _payload(body: bytes) -> aiohttp.StreamReader:
    reader = aiohttp.StreamReader(Mock(_reading_paused=False), 2**16)
    if body:
        reader.feed_data(body)
    reader.feed_eof()
    return reader


def _job(job_id: str = MINE, client_id: str = "c", server: str = "gpu1") -> ClientJob:
    return ClientJob(id=job_id, tenant=client_id, client_id=client_id, due=0.0, created_ms=1, number=0, workflow="w",
               server=server, attempt_id=job_id, began=True)  # fmt: skip


@cache
def _files() -> Files:
    return Files(scratch() / "uploads", lambda: ["gpu1", "gpu2"])


def frames(data: bytes) -> None:
    """Messages, one a line, of a server that has one client's job; another's is on another server."""
    now(_frames(data))


async def _frames(data: bytes) -> None:
    sockets = Sockets()
    live = EventRelay(sockets, lambda output, server, _: _files().tagged(output, server), lambda _: 5, lambda _: None)
    mine, others = ClientSocket("c", "c"), ClientSocket("d", "d")
    mine.with_metadata = True
    for socket in (mine, others):
        sockets.add(socket)
    attempt = live.begin(_job(), "gpu1", MINE)
    live.begin(_job(OTHERS, "d", "gpu2"), "gpu2", OTHERS)
    for line in data.split(b"\n"):
        live.on_frame("gpu1", line, line[:1] != b"\0")
    assert not others.waiting, "what one server says reaches another's client"
    live.greet(mine, [attempt.job])
    entry, _ = forms.entry_of(attempt.job, None, {}, {}, _ended("completed"), 5, 0)
    live.tell_end(attempt.job, attempt.ends, entry)
    assert mine.waiting and sum(map(len, attempt.ends)) <= 32 << 20
    live.forget(MINE)


def _ended(outcome: Any) -> Execution:
    failure = None if outcome == "completed" else Failure(kind="execution", message="m")
    return Execution(outcome=outcome, done=1.0, failure=failure)


def history(data: bytes) -> None:
    """What a server says of a job that has ended, as its client gets it."""
    found = forms.entry_in(data, "p")
    for outcome in ("completed", "failed", "cancelled"):
        job = _job()
        entry, state = forms.entry_of(job, found, GRAPH, {"a": 1}, _ended(outcome), 5, 7)
        entry["outputs"] = _files().tagged(entry["outputs"], "gpu1")
        item = json.loads(forms.dumps(ended_item(entry) | {"comfyload": forms.more_of(job)}))
        assert item["status"] == {"completed": "completed"}.get(outcome, state)
        forms.dumps(forms.without_payload(entry))
        for by in ("created_at", "execution_duration"):
            body, status = list_jobs([item, forms.unended_item(job)], {"sort_by": by})
            assert status == 200 and len(body["jobs"]) == 2
        kind, data_ = entry["status"]["messages"][-1]
        assert isinstance(kind, str) and isinstance(data_, dict)


def names(data: bytes) -> None:
    """Names of files, in paths, queries, graphs and uploads."""
    files = _files()
    for text in (data.decode("utf-8", "replace"), data.decode("latin-1")):
        head, _, rest = text.partition("\n")
        server, path = files.untagged(head)
        assert server in (None, "gpu1", "gpu2") and head.endswith(path)
        files.view({"subfolder": head, "filename": rest})
        files.view({"filename": text, "type": rest})
        output = {"images": [{"filename": rest, "subfolder": head}]}
        tagged = files.tagged(output, "gpu1")["images"][0]["subfolder"]
        assert files.untagged(tagged) == ("gpu1", head)
        graph = {"1": {"class_type": "LoadImage", "inputs": {"image": text, "other": head}}}
        files.inputs_elsewhere(graph), files.named_in(graph), files.results_in(graph), files.full_names(output)
        parts = paths.parts_of(text)
        assert parts is None or not {".", ".."} & set(parts)


def callers(data: bytes) -> None:
    """Host, origin, authorization, cookie: one a line."""
    host, origin, authorization, cookie, *_ = (data.decode("utf-8", "surrogateescape") + "\n" * 4).split("\n")
    headers = {"Host": host, "Origin": origin, "Authorization": authorization}
    for secure in (True, False):
        guard = AccessGuard({"anna": TOKEN}, ["gpu.example"], loopback=secure)
        try:
            guard.check(headers, "POST", secure)
        except Denied as denied:
            assert denied.status in (403, 421)
        else:
            assert host.lower().startswith(("localhost", "127.", "gpu.example", "[")) or not secure
            assert origin in ("", f"http://{host}", f"https://{host}")
        try:
            assert guard.tenant(headers, {"comfyload_token": cookie}, None) == "anna"
            assert TOKEN in authorization + cookie
        except Denied as denied:
            assert denied.status == 401


def heads(data: bytes) -> None:
    """A request as bytes: what the parser takes has one host and one length."""
    now(_heads(data))


async def _heads(data: bytes) -> None:
    parser = HttpRequestParser(Mock(_reading_paused=False), asyncio.get_running_loop(), 2**16)
    for message, _ in parser.feed_data(data)[0]:
        for name in ("Host", "Content-Length", "Transfer-Encoding", "Content-Type"):
            assert len(message.headers.getall(name, [])) <= 1, name
        assert not ("Content-Length" in message.headers and "Transfer-Encoding" in message.headers)


@cache
def _store() -> bytes:
    """A small store, as a file's bytes."""
    path = scratch() / "made.sqlite"
    store = Store(path)
    for number, state in enumerate(("pending", "failed")):
        store.add(
            Row(
                id=(MINE, OTHERS)[number],
                tenant="t",
                client_id="c",
                created_ms=1,
                taken_ms=1,
                number=number,
                workflow="w",
                deadline_s=None,
                key=f"k{number}",
                digest=b"d",
                graph=json.dumps(GRAPH).encode(),
                extra=b"{}",
            )
        )
        if state == "failed":
            store.end(OTHERS, "failed", b"{}", b"{}", attention=True, keep_payload=True)
    store.close()
    return path.read_bytes()


def _seen(path: Path) -> None:
    store = Store(path)
    try:
        store.number("number", 0)
        for row in store.unended():
            store.find(row.id)
            graph_of(store, row)
        store.ended(None), store.ended("t", newest=1), list(store.items("t")), store.find_key("t", "k0")
        store.began(MINE, "gpu1", "http://127.0.0.1:8188/")
        store.end(MINE, "completed", b"{}", b"{}", attention=False, keep_payload=False)
        store.drop(OTHERS)
    finally:
        store.close()


def stored(data: bytes) -> None:
    """The store as any bytes, most of them not a database."""
    path = scratch() / "any.sqlite"
    for other in ("", "-wal", "-shm"):
        Path(f"{path}{other}").unlink(missing_ok=True)
    path.write_bytes(data)
    _seen(path)


_BYTES = ("digest", "graph", "extra", "targets", "node_errors", "item", "entry")


def rows(data: bytes) -> None:
    """A row whose values are of any kind."""
    path = scratch() / "rows.sqlite"
    for other in ("-wal", "-shm"):
        Path(f"{path}{other}").unlink(missing_ok=True)
    path.write_bytes(_store())
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(values, dict):
        return
    database = sqlite3.connect(path, isolation_level=None)
    for name, value in values.items():
        try:
            if name in _BYTES and isinstance(value, str):
                value = value.encode()
            if name in Row.__struct_fields__:
                table = "graphs" if name == "graph" else "jobs"
                database.execute(f"UPDATE {table} SET {name} = ? WHERE seq = 1", (value,))
            else:
                database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
        except (sqlite3.Error, OverflowError, ValueError):
            pass
    database.close()
    _seen(path)


def _lines(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


_POST = {"prompt": GRAPH, "client_id": "c", "prompt_id": MINE, "number": 1, "front": False,
         "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}}, "partial_execution_targets": ["3"]}  # fmt: skip
_FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\nPNG\r\n--b--\r\n'
_DATA = {"prompt_id": MINE, "node": "3", "timestamp": 1767225600000}
_OUTPUT = {"images": [{"filename": "x.png", "subfolder": "t", "type": "output"}], "text": ["x"]}
_FRAMES = [json.dumps({"type": kind, "data": _DATA | more}).encode() for kind, more in (
    ("execution_start", {}), ("execution_cached", {"nodes": ["1"]}), ("executing", {"display_node": "3"}),
    ("progress", {"value": 1, "max": 20}), ("progress_state", {"nodes": {"3": {"state": "running",
    "prompt_id": MINE}}}),
    ("executed", {"output": _OUTPUT}), ("executed", {"output": {"prompt_id": OTHERS}}), ("execution_success", {}),
    ("executing", {"node": None}), ("execution_error", {"exception_message": "m"}), ("executing",
    {"prompt_id": OTHERS}),
)]  # fmt: skip
_HEAD = json.dumps({"prompt_id": MINE, "image_type": "image/png"}).encode()
_PREVIEWS = [b"\0\0\0\1\0\0\0\2PNG", b"\0\0\0\4" + len(_HEAD).to_bytes(4, "big") + _HEAD + b"PNG"]
_ERROR = {"node_id": "3", "node_type": "K", "exception_message": "m", "exception_type": "E", "traceback": ["t"],
          "current_inputs": {"a": ["x"]}, "timestamp": 3}  # fmt: skip
_ENTRY = {"prompt": [0, "p", GRAPH, {"client_id": "c"}, ["3"]], "outputs": {"3": _OUTPUT},
"meta": {"3": {"node_id": "3"}},
          "status": {"status_str": "success", "completed": True, "messages": [
              ["execution_start", {"prompt_id": "p", "timestamp": 1}], ["execution_error", _ERROR],
              ["execution_success", {"prompt_id": "p", "timestamp": 2}]]}}  # fmt: skip

_CALLS: list[bytes] = [
    *(f"{line}\nX-Nothing: x\n".encode() for line in (
        "GET /prompt", "GET /queue", "GET /api/history?max_items=1&offset=0", f"GET /history/{MINE}", "HEAD /features",
        f"GET /api/jobs/{MINE}", "GET /view?filename=x.png&type=output&subfolder=@gpu2/t", "GET /object_info/KSampler",
        "GET /api/jobs?status=pending&limit=1", "GET /system_stats", f"GET /settings?a=1&token={TOKEN}",
        "OPTIONS /prompt",
        "GET //queue", "GET /x/%2e%2e/queue", "GET /userdata/workflows%2Fx.json", "GET /comfyload/login", "GET /ws")),
    b"POST /prompt\nIdempotency-Key: k\n" + json.dumps(_POST).encode(),
    b"POST /prompt\nX-Comfyload-Deadline: 5\n" + json.dumps(_POST).encode(),
    b'POST /queue\nOrigin: http://localhost\n{"delete": ["x"], "clear": true}',
    b'POST /history\nSec-Fetch-Site: cross-site\n{"delete": ["x"]}',
    b'POST /interrupt\nCookie: comfyload_token=x\n{"prompt_id": "x"}',
    b'POST /free\nHost: evil\n{"unload_models": true}',
    b'POST /api/jobs/cancel\nAuthorization: Bearer b\n{"job_ids": ["11111111-1111-4111-8111-111111111111"]}',
    f"POST /api/jobs/{MINE}/cancel\nX-Y: z\n{{}}".encode(),
    b"POST /upload/image\nContent-Type: multipart/form-data; boundary=b\n" + _FORM,
    b"POST /comfyload/login\nContent-Type: application/x-www-form-urlencoded\ntoken=" + TOKEN.encode(),
]  # fmt: skip

_OF_STORE: tuple[type[BaseException], ...] = (RunFilesError,)
_FEEDS: list[tuple[str, str, Callable[[bytes], None], tuple[type[BaseException], ...], list[bytes], bool]] = [
    ("gate_calls", "calls of clients, to every route", _Gateway(), (), _CALLS, True),
    (
        "gate_heads",
        "requests as bytes",
        heads,
        (HttpProcessingError,),
        _lines(
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /prompt HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ),
        False,
    ),
    (
        "gate_callers",
        "hosts, origins and tokens",
        callers,
        (),
        _lines(
            f"localhost:8189\nhttp://localhost:8189\nBearer {TOKEN}\n",
            f"gpu.example\nhttps://gpu.example\n\n{TOKEN}",
            "[::1]:8189\n\nBasic eA==\nx",
            "127.0.0.1\nnull\nbearer x\n",
        ),
        False,
    ),
    (
        "gate_frames",
        "events of a server, to its clients",
        frames,
        (),
        [b"\n".join([*_FRAMES, *_PREVIEWS]), *_FRAMES],
        False,
    ),
    (
        "gate_history",
        "a server's history, to the page's list",
        history,
        (),
        [json.dumps({"p": _ENTRY}).encode()],
        False,
    ),
    (
        "gate_names",
        "names of files and their marks",
        names,
        (),
        _lines(
            "@gpu2/t\nx.png",
            "@gpu1",
            "a/b/../c\nx.png [output]",
            "/api/userdata/a%2Fb.json",
            "x (1).png [input]\n@gpu9/x",
        ),
        False,
    ),
    ("gate_store", "the store as a damaged file", stored, _OF_STORE, [_store()], True),
    (
        "gate_rows",
        "rows of the store",
        rows,
        _OF_STORE,
        [
            json.dumps(
                {
                    "number": 1.5,
                    "client_id": None,
                    "graph": "{}",
                    "state": "pending",
                    "begun": 1,
                    "format": 2,
                    "item": None,
                    "created_ms": 5,
                    "taken_ms": 5,
                    "key": "k",
                    "deadline_s": 1,
                    "tenant": "t",
                    "digest": "x",
                }
            ).encode()
        ],
        True,
    ),
]

TARGETS = [
    Target(name=name, what=what, feed=feed, errors=errors, seeds=seeds, slow=slow)
    for name, what, feed, errors, seeds, slow in _FEEDS
]
