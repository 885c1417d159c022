"""A ComfyUI on raw sockets that can send any bytes: it behaves, but for the routes that a scenario takes over.

The first segment of a path is a key, `SCENARIO~COMMAND`, so that many clients meet their own server behind one port.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Act", "Call", "Gone", "Hostile", "Job", "Scenario", "Socket", "World", "frame", "serve", "text"]

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
JOB_S = 0.02
MOST_OPEN_S = 200.0
"""How long one connection may last, whatever a scenario sends on it."""

Gone = (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class Job:
    """One prompt that was posted."""

    def __init__(self, prompt_id: str, client_id: str, number: int, graph: Any) -> None:
        self.prompt_id, self.client_id, self.number, self.graph = prompt_id, client_id, number, graph
        self.outputs: dict[str, Any] = {}
        self.done = False
        self.start_ms = self.end_ms = 0


class Socket:
    """One event stream, with the hand that writes to it."""

    def __init__(self, writer: asyncio.StreamWriter, client_id: str) -> None:
        self.writer, self.client_id = writer, client_id
        self.alive = True

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def tell(self, kind: str, **data: Any) -> None:
        await self.send(text(json.dumps({"type": kind, "data": data})))


@dataclass
class Call:
    """One request, and how it can be answered."""

    method: str
    route: str
    rest: str
    query: str
    headers: dict[str, str]
    body: bytes
    world: World
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, status: int, body: bytes, kind: str = "application/json", **more: str) -> None:
        """A well-formed reply."""
        head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
        await self.raw("\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body)

    def good(self) -> Any:
        """What a ComfyUI would answer here, as plain values; None where it answers with no JSON."""
        return self.world.answer(self)

    async def behave(self) -> None:
        """Answer as a ComfyUI does."""
        if self.route == "view":
            found = PNG if self.method != "HEAD" else b""
            await self.reply(200, found, "image/png")
            return
        answer = self.good()
        if answer is None:
            await self.reply(404, b"404: Not Found", "text/plain")
        elif self.route == "job" and answer.get("error"):
            await self.reply(404, json.dumps(answer).encode())
        else:
            await self.reply(200, json.dumps(answer).encode())


Act = Callable[[Call], Awaitable[None]]
"""Answers one call as it likes; the connection is closed after it unless it is `Call.behave`."""

OnSocket = Callable[[Socket], Awaitable[None]]
OnJob = Callable[[Socket, Job], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way to be hostile. `codes`: by command, the exit codes that are right; a missing command is not run.

    `says`: what the output of `run` holds (any of these). `unreadable`: a finding must name what could not be read.
    `bound_s`: how long any command may take.
    """

    name: str
    what: str
    acts: dict[str, Act] = field(default_factory=dict)
    greet: OnSocket | None = None
    job: OnJob | None = None
    codes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    unreadable: bool = False
    bound_s: float = 90.0
    arguments: tuple[str, ...] = ()


class World:
    """What one client has made of its server."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.jobs: dict[str, Job] = {}
        self.sockets: dict[str, Socket] = {}
        self.queue: asyncio.Queue[Job] = asyncio.Queue()
        self.worker: asyncio.Task[None] | None = None
        self.requests: list[str] = []

    def answer(self, call: Call) -> Any:
        """The good reply as JSON values."""
        name = f"_{call.route}"
        return getattr(self, name)(call) if hasattr(self, name) else None

    def _system_stats(self, _call: Call) -> Any:
        return {
            "system": {
                "os": "linux",
                "ram_total": 2**35,
                "ram_free": 2**34,
                "comfyui_version": "0.33.0",
                "python_version": "3.12.3",
                "pytorch_version": "2.8.0+cu128",
                "embedded_python": False,
                "argv": ["main.py", "--listen"],
            },
            "devices": [
                {
                    "name": "cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync",
                    "type": "cuda",
                    "index": 0,
                    "vram_total": 2**34,
                    "vram_free": 2**33,
                    "torch_vram_total": 2**32,
                    "torch_vram_free": 2**31,
                }
            ],
        }

    def _features(self, _call: Call) -> Any:
        return {"supports_preview_metadata": True, "max_upload_size": 104857600}

    def _prompt(self, call: Call) -> Any:
        if call.method == "GET":
            return {"exec_info": {"queue_remaining": sum(not job.done for job in self.jobs.values())}}
        posted = json.loads(call.body)
        job = self.jobs.get(posted["prompt_id"])
        if job is None:
            job = Job(posted["prompt_id"], posted.get("client_id", ""), len(self.jobs), posted["prompt"])
            self.jobs[job.prompt_id] = job
            self.queue.put_nowait(job)
            self.worker = self.worker or asyncio.ensure_future(self._work())
        return {"prompt_id": job.prompt_id, "number": job.number, "node_errors": {}}

    def _queue(self, call: Call) -> Any:
        if call.method == "POST":
            return {}
        rows = [[j.number, j.prompt_id, j.graph, {"client_id": j.client_id}, ["3"]] for j in self._left()]
        return {"queue_running": rows[:1], "queue_pending": rows[1:]}

    def _left(self) -> list[Job]:
        return [job for job in self.jobs.values() if not job.done]

    def _interrupt(self, _call: Call) -> Any:
        return {}

    def _free(self, _call: Call) -> Any:
        return {}

    def _upload(self, _call: Call) -> Any:
        return {"name": "in.png", "subfolder": "", "type": "input"}

    def _history(self, call: Call) -> Any:
        job = self.jobs.get(call.rest)
        if job is None or not job.done:
            return {}
        extra = {"client_id": job.client_id, "create_time": job.start_ms - 5}
        messages = [
            ["execution_start", {"prompt_id": job.prompt_id, "timestamp": job.start_ms}],
            ["execution_cached", {"prompt_id": job.prompt_id, "nodes": [], "timestamp": job.start_ms}],
            ["execution_success", {"prompt_id": job.prompt_id, "timestamp": job.end_ms}],
        ]
        return {
            job.prompt_id: {
                "prompt": [job.number, job.prompt_id, job.graph, extra, ["3"]],
                "outputs": job.outputs,
                "status": {"status_str": "success", "completed": True, "messages": messages},
                "meta": {},
            }
        }

    def _job(self, call: Call) -> Any:
        job = self.jobs.get(call.rest)
        if call.method == "POST":
            return {"cancelled": True}
        if job is None:
            return {"error": "Job not found"}
        return {"id": job.prompt_id, "status": "completed" if job.done else "in_progress"}

    def _object_info(self, call: Call) -> Any:
        described = {
            "EmptyImage": _class(
                "EmptyImage",
                ["IMAGE"],
                width=["INT", {"default": 512, "min": 1, "max": 16384}],
                height=["INT", {"default": 512, "min": 1, "max": 16384}],
                batch_size=["INT", {"default": 1, "min": 1, "max": 4096}],
                color=["INT", {"default": 0, "min": 0, "max": 0xFFFFFF}],
            ),
            "SimSleep": _class(
                "SimSleep",
                ["IMAGE"],
                image=["IMAGE"],
                seconds=["FLOAT", {"default": 0.1, "min": 0, "max": 60}],
                seed=["INT", {"default": 0, "min": 0, "max": 2**63}],
            ),
            "SaveImage": _class(
                "SaveImage", [], output=True, images=["IMAGE"], filename_prefix=["STRING", {"default": "ComfyUI"}]
            ),
        }
        return {name: one for name, one in described.items() if not call.rest or name == call.rest}

    def _node_replacements(self, _call: Call) -> Any:
        return {}

    def _probe_clock(self, _call: Call) -> Any:
        return {"boot": "b1", "mono_s": time.monotonic(), "seq": 3, "wall_ms": int(time.time() * 1000)}

    def _probe_events(self, call: Call) -> Any:
        after = int(call.query.partition("after=")[2].partition("&")[0] or 0)
        rows = [_probe_row(seq) for seq in range(after + 1, after + 3)] if after < 20 else []
        return {"boot": "b1", "next": after + len(rows), "rows": rows, "missed": 0}

    def _probe_environment(self, _call: Call) -> Any:
        return {"facts": {"comfyui.commit": {"value": "abc", "source": "git"}, "gpu.0.model": {"value": "RTX"}}}

    async def _work(self) -> None:
        while True:
            job = await self.queue.get()
            socket = self.sockets.get(job.client_id)
            job.start_ms = int(time.time() * 1000)
            job.outputs = {"3": {"images": [{"filename": f"a{job.number}.png", "subfolder": "", "type": "output"}]}}
            try:
                if socket is not None and self.scenario.job is not None:
                    await self.scenario.job(socket, job)
                elif socket is not None:
                    await good_events(socket, job)
            except Gone:
                pass
            finish(job)
            if socket is not None and self.scenario.job is None:
                with suppress(Gone):
                    await good_end(socket, job)


def _class(name: str, types: list[str], *, output: bool = False, **inputs: Any) -> Any:
    return {
        "input": {"required": inputs},
        "output": types,
        "output_is_list": [False for _ in types],
        "output_name": types,
        "name": name,
        "display_name": name,
        "category": "t",
        "output_node": output,
        "python_module": "nodes" if name != "SimSleep" else "custom_nodes.sim",
    }


def _probe_row(seq: int) -> Any:
    if seq % 2:
        return {"event": "prompt.started", "seq": seq, "boot": "b1", "mono_s": time.monotonic(), "prompt_id": "p"}
    gpus = [{"index": 0, "utilisation_percent": 50, "vram_used_bytes": 2**30, "vram_total_bytes": 2**34}]
    row = {"event": "sample", "seq": seq, "boot": "b1", "mono_s": time.monotonic(), "queue_depth": 1, "gpus": gpus}
    return row | {"process": {"rss_bytes": 2**30, "cpu_s": 1.5}}


def finish(job: Job) -> None:
    job.end_ms = max(job.start_ms + 1, int(time.time() * 1000))
    job.done = True


async def good_events(socket: Socket, job: Job) -> None:
    """What a ComfyUI tells of a job while it runs."""
    job_id = {"prompt_id": job.prompt_id}
    await socket.tell("execution_start", **job_id, timestamp=job.start_ms)
    await socket.tell("execution_cached", **job_id, nodes=[], timestamp=job.start_ms)
    for node in ("1", "2", "3"):
        await socket.tell("executing", **job_id, node=node, display_node=node)
        states = {node: {"state": "running", "node_id": node, "display_node_id": node, "value": 0, "max": 1}}
        await socket.tell("progress_state", **job_id, nodes=states)
        await asyncio.sleep(JOB_S / 3)
    await socket.tell("executed", **job_id, node="3", display_node="3", output=job.outputs["3"])


async def good_end(socket: Socket, job: Job) -> None:
    job_id = {"prompt_id": job.prompt_id}
    await socket.tell("execution_success", **job_id, timestamp=job.end_ms)
    await socket.tell("status", status={"exec_info": {"queue_remaining": 0}})
    await socket.tell("executing", **job_id, node=None)


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = False, size: int = -1
) -> bytes:
    """A WebSocket frame, true or not: `size` is the length that it claims."""
    claimed = len(payload) if size < 0 else size
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if claimed < 126:
        head += bytes([bit | claimed])
    elif claimed < 2**16:
        head += bytes([bit | 126]) + struct.pack(">H", claimed)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", claimed)
    return head + (b"\0\0\0\0" if masked else b"") + payload


def text(words: str | bytes) -> bytes:
    return frame(1, words if isinstance(words, bytes) else words.encode("utf-8", "surrogatepass"))


class Hostile:
    """The listener. `scenarios` by name."""

    def __init__(self, scenarios: dict[str, Scenario]) -> None:
        self.scenarios = scenarios
        self.worlds: dict[str, World] = {}
        self.elsewhere: list[str] = []
        """What came to the port that redirects lead to."""
        self.other = ""

    def world(self, key: str) -> World | None:
        if key not in self.worlds:
            scenario = self.scenarios.get(key.partition("~")[0])
            if scenario is None:
                return None
            self.worlds[key] = World(scenario)
        return self.worlds[key]

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(MOST_OPEN_S):
                while await self._one(reader, writer):
                    pass
        except (*Gone, OSError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines) if k}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path, _, query = target.lstrip("/").partition("?")
        key, _, route = path.partition("/")
        world = self.world(key)
        if world is None:
            self.elsewhere.append(head)
            writer.write(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
            return True
        name, rest = route_of(route)
        world.requests.append(head)
        call = Call(method, name, rest, query, headers, body, world, writer, reader)
        act = world.scenario.acts.get(f"{method} {name}") or world.scenario.acts.get(name)
        act = act or world.scenario.acts.get("*")
        if act is not None:
            await act(call)
            return False
        if name == "ws":
            await self._stream(call)
            return False
        await call.behave()
        return True

    async def _stream(self, call: Call) -> None:
        client_id = call.query.partition("clientId=")[2].partition("&")[0] or str(uuid.uuid4())
        await call.raw(accepted(call))
        socket = Socket(call.writer, client_id)
        call.world.sockets[client_id] = socket
        try:
            if call.world.scenario.greet is not None:
                await call.world.scenario.greet(socket)
            else:
                await socket.tell("status", status={"exec_info": {"queue_remaining": 0}}, sid=client_id)
            while await call.reader.read(4096):
                pass
        finally:
            call.world.sockets.pop(client_id, None)


def accepted(call: Call, key: bytes | None = None) -> bytes:
    """The reply that opens a WebSocket; `key` replaces the right answer to its challenge."""
    nonce = call.headers.get("sec-websocket-key", "").encode()
    right = base64.b64encode(hashlib.sha1(nonce + GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + (right if key is None else key) + b"\r\n\r\n"
    )


ROUTES = (
    ("comfyload/v1/", "probe_"),
    ("object_info", "object_info"),
    ("history/", "history"),
    ("api/jobs/", "job"),
    ("upload/image", "upload"),
    ("internal/logs", "logs"),
)


def route_of(path: str) -> tuple[str, str]:
    """The name of a route, and what follows it in the path."""
    for prefix, name in ROUTES:
        if path.startswith(prefix):
            rest = path[len(prefix) :].strip("/")
            if name == "probe_":
                return f"probe_{rest.partition('/')[0]}", ""
            return name, rest.removesuffix("/cancel")
    return path.strip("/").replace("/", "_"), ""


async def serve(hostile: Hostile) -> tuple[asyncio.Server, str]:
    """Listen on a free port of loopback; the address."""
    server = await asyncio.start_server(hostile.client, "127.0.0.1", 0, limit=1 << 20)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def requests_of(worlds: dict[str, World]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key, world in worlds.items():
        found[key] += world.requests
    return found
