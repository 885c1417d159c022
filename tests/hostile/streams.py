"""The ways in which an event stream can be malicious."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from tests.hostile.malice import CONTROLS, DIGITS, HUGE, MIB, deep
from tests.hostile.server import Act, Call, Job, Socket, accepted, frame, good_end, good_events, text

__all__ = ["GREETINGS", "HANDSHAKES", "JOBS"]


async def _greeting(socket: Socket) -> None:
    await socket.tell("status", status={"exec_info": {"queue_remaining": 0}}, sid=socket.client_id)


def greeted(*frames: bytes) -> Callable[[Socket], Awaitable[None]]:
    """A proper greeting, and then these bytes."""

    async def greet(socket: Socket) -> None:
        await _greeting(socket)
        for one in frames:
            await socket.send(one)

    return greet


def flooded(one: bytes, times: int, head: bytes = b"") -> Callable[[Socket], Awaitable[None]]:
    async def greet(socket: Socket) -> None:
        await _greeting(socket)
        await socket.send(head)
        for _ in range(times):
            await socket.send(one)

    return greet


async def mute(_socket: Socket) -> None:
    """Not a word."""


def _status(number: str) -> bytes:
    return text(f'{{"type":"status","data":{{"status":{{"exec_info":{{"queue_remaining":{number}}}}}}}}}')


def _unknown(number: int, size: int) -> bytes:
    data = {"prompt_id": f"other-{number}", "node": "1", "pad": "x" * size}
    return text(json.dumps({"type": "executing", "data": data}))


async def many_strangers(socket: Socket) -> None:
    """Events of prompts that nobody knows, each large."""
    await _greeting(socket)
    for number in range(1000):
        await socket.send(_unknown(number, 300_000))


async def alternating(socket: Socket) -> None:
    """The length of the queue changes a hundred thousand times a second."""
    await _greeting(socket)
    block = b"".join(_status(str(n % 2)) for n in range(2000))
    for _ in range(300):
        await socket.send(block)


GREETINGS: dict[str, tuple[str, Callable[[Socket], Awaitable[None]]]] = {
    "mute": ("an open stream without a word", mute),
    "no_json": ("text that is no JSON", greeted(text("hello"), text("{"), text("[1,"), text(""))),
    "odd_json": (
        "JSON that is no message",
        greeted(
            *(
                text(t)
                for t in ("null", "1", "[]", '"x"', "{}", '{"type":5}', '{"type":null,"data":[]}', '{"type":"status"}')
            )
        ),
    ),
    "wrong_data": (
        "messages whose data is no object",
        greeted(*(text(json.dumps({"type": "executing", "data": d})) for d in (None, 1, "x", [], [1], True))),
    ),
    "wrong_status": (
        "a status of other types",
        greeted(
            *(
                text(json.dumps({"type": "status", "data": {"status": d}}))
                for d in (
                    None,
                    1,
                    "x",
                    [],
                    {"exec_info": 3},
                    {"exec_info": {"queue_remaining": "x"}},
                    {"exec_info": {"queue_remaining": [1]}},
                )
            )
        ),
    ),
    "queue_nan": ("a queue of NaN", greeted(_status("NaN"), _status("Infinity"), _status("true"))),
    "queue_huge": (
        "a queue of 10^400",
        greeted(_status(HUGE), _status(DIGITS), _status("1e400"), _status("-5"), _status(str(2**63))),
    ),
    "deep": (
        "a thousand levels of JSON",
        greeted(text(deep()), text(deep(100_000, "{")), text(f'{{"type":"status","data":{deep(900)}}}')),
    ),
    "latin1": ("text frames that are no UTF-8", greeted(text(b'{"type":"status","data":{"x":"\xe9\xff"}}'))),
    "halves": ("half a pair in text", greeted(text('{"type":"st\\udce9","data":{"prompt_id":"\\ud83d"}}'))),
    "controls": (
        "escape sequences in a type",
        greeted(text(json.dumps({"type": CONTROLS, "data": {"prompt_id": CONTROLS}}))),
    ),
    "endless_fragments": (
        "a message of fragments without end",
        flooded(frame(0, b" " * MIB, fin=False), 400, frame(1, b"{", fin=False)),
    ),
    "tiny_fragments": (
        "a message of millions of empty fragments",
        flooded(frame(0, b"", fin=False) * 20_000, 200, frame(1, b"{", fin=False)),
    ),
    "huge_length": ("a frame that claims 2^62 bytes", greeted(frame(1, b"x", size=2**62))),
    "long_length": ("a frame that claims 2^63 bytes and more", greeted(frame(1, b"x", size=2**64 - 1))),
    "large_message": ("messages of 60 MiB", flooded(text(b'{"type":"x","data":"' + b"y" * (60 * MIB) + b'"}'), 4)),
    "large_objects": (
        "a message of 30 MiB of empty objects",
        greeted(text(b'{"type":"status","data":{"status":{"exec_info":[' + b"{}," * (10 * MIB) + b"{}]}}}")),
    ),
    "large_binary": (
        "a picture of 200 MiB",
        flooded(frame(2, b"\0\0\0\1" * (MIB // 4), fin=False), 10, frame(2, b"\0\0\0\1", fin=False)),
    ),
    "reserved_opcode": ("a frame of a kind that is not there", greeted(frame(3, b"x"), frame(11, b"y"))),
    "reserved_bits": ("reserved bits are set", greeted(frame(1, b"{}", rsv=7))),
    "compressed": ("a compressed frame that nobody agreed to", greeted(frame(1, b"\x12\x34", rsv=4))),
    "masked": ("masked frames from a server", greeted(frame(1, b"{}", masked=True))),
    "continued_nothing": ("a continuation of nothing", greeted(frame(0, b"x"))),
    "interleaved": ("a message within a message", greeted(frame(1, b"{", fin=False), frame(1, b"{}"))),
    "fragmented_ping": ("a ping in fragments", greeted(frame(9, b"x", fin=False))),
    "long_ping": ("a ping of 60 KiB", greeted(frame(9, b"x" * 60_000))),
    "ping_flood": ("a hundred thousand pings", flooded(frame(9, b"p" * 100) * 1000, 100)),
    "pong_flood": ("a hundred thousand pongs", flooded(frame(10, b"p" * 100) * 1000, 100)),
    "close_1000": ("closed as agreed", greeted(frame(8, b"\x03\xe8bye"))),
    "close_1009": ("closed: too large", greeted(frame(8, b"\x03\xf1"))),
    "close_bad_code": ("closed with a code that is none", greeted(frame(8, b"\x00\x01x"))),
    "close_short": ("closed with half a code", greeted(frame(8, b"\x03"))),
    "close_latin1": ("closed with words that are no UTF-8", greeted(frame(8, b"\x03\xe8\xff\xe9"))),
    "close_controls": ("closed with escape sequences", greeted(frame(8, b"\x03\xe8" + CONTROLS.encode()[:100]))),
    "binary_kinds": (
        "binary messages of every kind, cut short",
        greeted(
            *(
                frame(2, bytes([0, 0, 0, kind])[:size] + b"x" * (size - 4))
                for kind in range(8)
                for size in (0, 1, 3, 4, 5, 8, 12)
            )
        ),
    ),
    "http_again": ("HTTP in the middle of the stream", greeted(b"HTTP/1.1 500 X\r\n\r\n")),
    "noise": ("noise", greeted(bytes(range(255, -1, -1)) * 100)),
    "status_flood": ("six hundred thousand status messages", alternating),
    "strangers": ("300 MB of events of unknown prompts", many_strangers),
    "junk_flood": ("a hundred thousand texts that are no JSON", flooded(text("junk") * 1000, 100)),
}
"""By name: what it is, and what is sent as soon as a stream opens."""


def _closed(answer: Callable[[Call], bytes]) -> Act:
    async def act(call: Call) -> None:
        await call.raw(answer(call))
        await asyncio.sleep(0.2)

    return act


async def _endless_after(call: Call) -> None:
    await call.raw(accepted(call))
    for _ in range(300):
        await call.raw(b"\x81\x7f" + b"\0" * 8 * (MIB // 8))


HANDSHAKES: dict[str, tuple[str, Act]] = {
    "bad_accept": (
        "a wrong answer to the challenge",
        _closed(lambda call: accepted(call, b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
    ),
    "no_accept": (
        "no answer to the challenge",
        _closed(lambda _: b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    ),
    "odd_extension": (
        "an extension nobody asked for",
        _closed(
            lambda call: (
                accepted(call)[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n\r\n"
            )
        ),
    ),
    "odd_protocol": (
        "a protocol nobody asked for",
        _closed(lambda call: accepted(call)[:-2] + b"Sec-WebSocket-Protocol: \xff\x01\r\n\r\n"),
    ),
    "odd_upgrade": (
        "an upgrade to something else",
        _closed(lambda _: b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
    ),
    "endless_frames": ("zeros without end", _endless_after),
}
"""By name: what it is, and how the stream is opened."""


def _events(*messages: tuple[str, dict[str, Any]], end: bool = True) -> Callable[[Socket, Job], Awaitable[None]]:
    """These messages of the job; in texts, ID stands for its id."""

    async def job(socket: Socket, of: Job) -> None:
        for kind, data in messages:
            await socket.tell(kind, **{"prompt_id": of.prompt_id, **data})
        if end:
            await socket.tell("executing", prompt_id=of.prompt_id, node=None)

    return job


def _texts(*frames: str, then: bool = True) -> Callable[[Socket, Job], Awaitable[None]]:
    """Raw messages in which @ID stands for the job's id; then what a ComfyUI tells."""

    async def job(socket: Socket, of: Job) -> None:
        for one in frames:
            await socket.send(text(one.replace("@ID", of.prompt_id)))
        if then:
            await good_events(socket, of)
            await good_end(socket, of)

    return job


async def _node_flood(socket: Socket, of: Job, *, wide: int = 200) -> None:
    for start in range(0, 60_000, 1000):
        block = (
            json.dumps({"type": "executing", "data": {"node": f"n{start + n}" + "x" * wide, "prompt_id": of.prompt_id}})
            for n in range(1000)
        )
        await socket.send(b"".join(text(one) for one in block))
    await good_end(socket, of)


async def _states_flood(socket: Socket, of: Job) -> None:
    for round_ in range(20):
        nodes = ",".join(f'"{round_}-{n}":{{"state":"running"}}' for n in range(10_000))
        await socket.send(
            text(f'{{"type":"progress_state","data":{{"prompt_id":"{of.prompt_id}","nodes":{{{nodes}}}}}}}')
        )
    await good_end(socket, of)


async def _cached_flood(socket: Socket, of: Job) -> None:
    nodes = ",".join(f'"{n}"' for n in range(400_000))
    await socket.send(text(f'{{"type":"execution_cached","data":{{"prompt_id":"{of.prompt_id}","nodes":[{nodes}]}}}}'))
    await good_events(socket, of)
    await good_end(socket, of)


async def _progress_flood(socket: Socket, of: Job) -> None:
    one = text(json.dumps({"type": "progress", "data": {"value": 1, "max": 2, "prompt_id": of.prompt_id, "node": "2"}}))
    for _ in range(200):
        await socket.send(one * 1000)
    await good_events(socket, of)
    await good_end(socket, of)


async def _preview_flood(socket: Socket, of: Job) -> None:
    await socket.tell("execution_start", prompt_id=of.prompt_id, timestamp=of.start_ms)
    for _ in range(100):
        await socket.send(frame(2, b"\0\0\0\1\0\0\0\2" + b"p" * MIB))
    await good_events(socket, of)
    await good_end(socket, of)


async def _twice(socket: Socket, of: Job) -> None:
    for _ in range(3):
        await good_events(socket, of)
        await good_end(socket, of)


async def _long_error(socket: Socket, of: Job) -> None:
    await socket.tell(
        "execution_error", prompt_id=of.prompt_id, timestamp=of.start_ms, exception_message="x" * 30 * MIB
    )
    await good_end(socket, of)


def _stamps(raw: str) -> Callable[[Socket, Job], Awaitable[None]]:
    return _texts(
        f'{{"type":"execution_start","data":{{"prompt_id":"@ID","timestamp":{raw}}}}}',
        f'{{"type":"execution_success","data":{{"prompt_id":"@ID","timestamp":{raw}}}}}',
        '{"type":"executing","data":{"prompt_id":"@ID","node":null}}',
        then=False,
    )


def _wrong(kind: str) -> Callable[[Socket, Job], Awaitable[None]]:
    """A message with every field of every wrong type."""
    values = [
        "null",
        "1",
        "-1.5",
        "NaN",
        HUGE,
        '"x"',
        "[]",
        '[["x"],{}]',
        "{}",
        '{"a":{"state":[]}}',
        "true",
        deep(300),
    ]
    fields = ("node", "nodes", "timestamp", "display_node", "node_id", "exception_message", "exception_type", "sid")
    return _texts(
        *(
            f'{{"type":"{kind}","data":{{"prompt_id":"@ID","{key}":{value}}}}}'
            for key in fields
            for value in values
            if (kind, key, value) != ("executing", "node", "null")
        )
    )


JOBS: dict[str, tuple[str, Callable[[Socket, Job], Awaitable[None]]]] = {
    "none": ("no event of any job", _events(end=False)),
    "only_end": ("an end without a beginning", _events()),
    "backwards": (
        "events in the order of time's reverse",
        _events(
            ("execution_success", {"timestamp": 5}),
            ("executed", {"node": "3"}),
            ("executing", {"node": "2"}),
            ("execution_cached", {"nodes": []}),
            ("execution_start", {"timestamp": 9}),
        ),
    ),
    "thrice": ("everything three times", _twice),
    "never_ends": (
        "all but the end",
        _events(("execution_start", {"timestamp": 5}), ("executing", {"node": "2"}), end=False),
    ),
    "stamps_nan": ("stamps of NaN", _stamps("NaN")),
    "stamps_huge": ("stamps of 10^400", _stamps(HUGE)),
    "stamps_wide": ("stamps of 2^62", _stamps(str(2**62 - 1))),
    "stamps_negative": ("stamps of -2^61", _stamps(str(-(2**61)))),
    "stamps_text": ("stamps that are text", _stamps('"yesterday"')),
    "stamps_zero": ("stamps of 0", _stamps("0")),
    "wrong_executing": ("executing with every wrong type", _wrong("executing")),
    "wrong_cached": ("execution_cached with every wrong type", _wrong("execution_cached")),
    "wrong_states": ("progress_state with every wrong type", _wrong("progress_state")),
    "wrong_start": ("execution_start with every wrong type", _wrong("execution_start")),
    "wrong_executed": ("executed with every wrong type", _wrong("executed")),
    "wrong_progress": ("progress with every wrong type", _wrong("progress")),
    "wrong_unknown": ("a kind nobody knows with every wrong type", _wrong("unknown_kind")),
    "odd_nodes": (
        "node ids of escape sequences",
        _events(
            ("executing", {"node": CONTROLS}),
            ("execution_cached", {"nodes": [CONTROLS]}),
            ("progress_state", {"nodes": {CONTROLS: {"state": "running"}}}),
        ),
    ),
    "half_nodes": (
        "node ids of half a pair",
        _texts(
            '{"type":"executing","data":{"prompt_id":"@ID","node":"a\\udce9"}}',
            '{"type":"execution_cached","data":{"prompt_id":"@ID","nodes":["\\ud83d"]}}',
        ),
    ),
    "node_flood": ("sixty thousand node ids", partial(_node_flood, wide=20)),
    "node_flood_long": ("sixty thousand long node ids", _node_flood),
    "states_flood": ("two hundred thousand states", _states_flood),
    "cached_flood": ("four hundred thousand cached nodes", _cached_flood),
    "progress_flood": ("two hundred thousand progress messages", _progress_flood),
    "preview_flood": ("a hundred pictures of a mebibyte", _preview_flood),
    "long_error": ("an error of 30 MiB of words", _long_error),
}
"""By name: what it is, and what is told of each job."""
