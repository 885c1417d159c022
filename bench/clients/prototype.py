"""The goal: ordinary coroutines over httptools, picows and msgspec on uvloop, with a tool's records and histograms.

The graph is encoded once and each job's seed and ids are put into it; messages are decoded into structs; a job's events
are numbers in an array; an image is counted as it is read into one buffer that all connections share.
"""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import httptools
import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.clients.given import Given, given, seeded

MOST_CONNECTIONS = 64
COUNTED = 64 << 10
"""A body of more bytes is counted, not kept."""
SEED, PROMPT_ID, CLIENT_ID = 111222333444555, "prompt-id-to-be-replaced", "client-id-to-be-replaced"
now = time.monotonic_ns


class Data(msgspec.Struct, gc=False):
    prompt_id: str = ""
    node: str | msgspec.UnsetType | None = msgspec.UNSET


class Message(msgspec.Struct, gc=False):
    type: str
    data: Data


class Answer(msgspec.Struct, gc=False):
    prompt_id: str


class Line(msgspec.Struct, gc=False):
    prompt_id: str
    seed: int
    sent_ns: int
    replied_ns: int
    done_ns: int
    ended_ns: int
    events: list[int]


class Job:
    __slots__ = ("ended", "events")

    def __init__(self, ended: asyncio.Future[int]) -> None:
        self.ended, self.events = ended, array("q")


class Histogram:
    """Counts of microseconds in steps of at most 1 %."""

    def __init__(self) -> None:
        self.counts = [0] * (64 << 7)

    def add(self, ns: int) -> None:
        value = ns // 1000
        shift = max(0, value.bit_length() - 8)
        self.counts[(shift << 7) + (value >> shift)] += 1


class Connection(asyncio.BufferedProtocol):
    """One request at a time over a connection that is kept."""

    scratch = memoryview(bytearray(256 << 10))

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reply: asyncio.Future[bytes] | None = None
        self._body: list[bytes] = []
        self._length = self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def request(self, data: bytes) -> asyncio.Future[bytes]:
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._reply

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        if not self._left:
            self._parser.feed_data(self.scratch[:nbytes])
            return
        self._left -= nbytes
        if not self._left:
            self._parser = httptools.HttpResponseParser(self)
            self.on_message_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-length":
            self._length = int(value)

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            raise ConnectionError("a refusal")
        if self._length > COUNTED:
            self._left = self._length

    def on_body(self, body: bytes) -> None:
        if self._left:
            self._left -= len(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(exc or ConnectionError("the server hung up"))


class Pool:
    """Connections to one server, opened as they are needed."""

    def __init__(self, server: str) -> None:
        self.host, _, port = server.removeprefix("http://").partition(":")
        self._port, self._opened = int(port), 0
        self._free = deque[Connection]()
        self._waiting = deque[asyncio.Future[Connection]]()

    async def request(self, made: Callable[[], bytes]) -> bytes:
        """The body of the reply; the request is made once there is a connection for it, and is not kept."""
        loop = asyncio.get_running_loop()
        if self._free:
            connection = self._free.pop()
        elif self._opened < MOST_CONNECTIONS:
            self._opened += 1
            _, connection = await loop.create_connection(Connection, self.host, self._port)
        else:
            self._waiting.append(loop.create_future())
            connection = await self._waiting[-1]
        reply = await connection.request(made())
        if self._waiting:
            self._waiting.popleft().set_result(connection)
        else:
            self._free.append(connection)
        return reply


class Socket(WSListener):
    """One WebSocket: each message goes to its job."""

    decode = msgspec.json.Decoder(Message).decode

    def __init__(self, jobs: dict[str, Job], kinds: dict[str, int]) -> None:
        self._jobs, self._kinds = jobs, kinds

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        message = self.decode(frame.get_payload_as_memoryview())
        job = self._jobs.get(message.data.prompt_id)
        if job is None:
            return
        at = now()
        job.events.append(self._kinds.setdefault(message.type, len(self._kinds)))
        job.events.append(at)
        if message.data.node is None and message.type == "executing":
            job.ended.set_result(at)


class Load:
    """The jobs of a run, and what is kept of them."""

    def __init__(self, words: Given, out: BinaryIO) -> None:
        self._pool, self._out, self._fetch = Pool(words.server), out, words.fetch
        graph = words.graph
        seeded(graph)["seed"] = SEED
        template = {"client_id": CLIENT_ID, "prompt_id": PROMPT_ID, "prompt": graph}
        pieces = msgspec.json.encode(template).decode()
        self._start, pieces = pieces.split(CLIENT_ID)
        self._between, pieces = pieces.split(PROMPT_ID)
        self._middle, self._rest = pieces.split(str(SEED))
        self._host = f"Host: {self._pool.host}\r\n"
        self._headers = f"{self._host}Content-Type: application/json\r\n"
        self.jobs: dict[str, Job] = {}
        self._histograms = [Histogram() for _ in range(5)]
        self._encode = msgspec.json.Encoder().encode_into
        self._lines = bytearray()

    async def user(self, seeds: Iterator[int], client_id: str) -> None:
        for seed in seeds:
            await self._job(SEED + seed, client_id)

    async def _job(self, seed: int, client_id: str) -> None:
        prompt_id = str(uuid.uuid4())
        job = self.jobs[prompt_id] = Job(asyncio.get_running_loop().create_future())
        sent = now()
        reply = await self._pool.request(lambda: self._post(client_id, prompt_id, seed))
        replied = now()
        if msgspec.json.decode(reply, type=Answer).prompt_id != prompt_id:
            raise ConnectionError("the server chose another id")
        done = await job.ended
        entry = await self._get(f"/history/{prompt_id}")
        if b'"completed": true' not in entry[-4096:]:
            raise ConnectionError("a job is not in the history")
        if self._fetch:
            await self._get(f"/view?filename={prompt_id}")
        ended = now()
        self._keep(Line(prompt_id, seed, sent, replied, done, ended, list(job.events)))
        del self.jobs[prompt_id]

    def _post(self, client_id: str, prompt_id: str, seed: int) -> bytes:
        body = f"{self._start}{client_id}{self._between}{prompt_id}{self._middle}{seed}{self._rest}".encode()
        return f"POST /prompt HTTP/1.1\r\n{self._headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def _get(self, path: str) -> bytes:
        return await self._pool.request(lambda: f"GET {path} HTTP/1.1\r\n{self._host}\r\n".encode())

    def _keep(self, line: Line) -> None:
        first = line.events[1]
        spans = (line.replied_ns, first, line.done_ns, line.ended_ns)
        for histogram, at in zip(self._histograms, spans, strict=False):
            histogram.add(at - line.sent_ns)
        self._histograms[-1].add(line.done_ns - first)
        self._encode(line, self._lines, -1)
        self._lines += b"\n"
        if len(self._lines) > 64 << 10:
            self.flush()

    def flush(self) -> None:
        self._out.write(self._lines)
        self._lines.clear()


async def run(words: Given) -> None:
    with words.out.open("wb", buffering=0) as out:
        load, kinds = Load(words, out), dict[str, int]()
        ids = [uuid.uuid4().hex for _ in range(words.sockets)]
        opened = [await ws_connect(lambda: Socket(load.jobs, kinds), words.events + name) for name in ids]
        seeds = iter(range(words.jobs))
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        await asyncio.gather(*(load.user(seeds, ids[rank % len(ids)]) for rank in range(words.in_flight)))
        load.flush()
        for transport, _ in opened:
            transport.disconnect()


if __name__ == "__main__":
    uvloop.run(run(given()))
