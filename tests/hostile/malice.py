"""The ways in which one reply can be malicious, each fit for any route."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from tests.hostile.server import Act, Call

__all__ = ["BODIES", "CONTROLS", "WIRE", "deep"]

MIB = 1 << 20
FLOOD_MIB = 320
"""More than any bound allows, and an end, so that a client that reads on is found by its memory."""
CONTROLS = "é\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e\x00\r\n[/b][red]<b>&\u2028"
HUGE = "1" + "0" * 400
DIGITS = "7" * 5000
DRIP_S = 1.0


def deep(levels: int = 1000, kind: str = "[") -> str:
    """JSON so many levels deep."""
    return "[" * levels + "]" * levels if kind == "[" else '{"a":' * levels + "1" + "}" * levels


def _leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with every leaf changed; keys stay."""
    if isinstance(value, dict):
        return {key: _leaves(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_leaves(inner, change) for inner in value]
    return change(value)


def _text(value: Any, marks: dict[str, str]) -> bytes:
    """JSON in which marked strings are replaced by raw text that is no value of Python's."""
    out = json.dumps(value)
    for mark, raw in marks.items():
        out = out.replace(json.dumps(mark), raw)
    return out.encode("utf-8", "surrogatepass")


def _numbers(raw: str) -> Callable[[Any], bytes]:
    def changed(good: Any) -> bytes:
        return _text(_leaves(good, lambda v: "@@N" if _is_number(v) else v), {"@@N": raw})

    return changed


def _all(raw: str) -> Callable[[Any], bytes]:
    return lambda good: _text(_leaves(good, lambda _: "@@V"), {"@@V": raw})


def _strings(change: Callable[[str], str]) -> Callable[[Any], bytes]:
    return lambda good: json.dumps(_leaves(good, lambda v: change(v) if isinstance(v, str) else v)).encode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fields(values: Any) -> Callable[[Any], bytes]:
    """Every field of the top object, and of the objects within it, is this one value in turn."""

    def changed(good: Any) -> bytes:
        def one(value: Any, depth: int) -> Any:
            if isinstance(value, dict) and depth:
                return {key: one(inner, depth - 1) for key, inner in value.items()}
            return values

        return json.dumps(one(good, 2)).encode()

    return changed


def _latin1(good: Any) -> bytes:
    changed = json.dumps(_leaves(good, lambda v: f"{v}caf@@E" if isinstance(v, str) else v))
    return changed.encode().replace(b"@@E", b"\xe9")


def _many(good: Any) -> bytes:
    """The reply with 200,000 more of whatever is in it."""
    if isinstance(good, dict) and good:
        key, value = next(iter(good.items()))
        one = json.dumps(value)
        return (json.dumps(good)[:-1] + "".join(f',"{key}{n}":{one}' for n in range(20_000)) + "}").encode()
    return b"[" + b",".join([b"{}"] * 200_000) + b"]"


def _padded(good: Any, filling: bytes) -> bytes:
    """The reply with 40 MiB of values in front that no client asked for."""
    body = json.dumps(good).encode()
    pad = filling * (40 * MIB // len(filling))
    return b'{"pad":[' + pad[:-1] + b"]," + body[1:] if body.startswith(b"{") else body


BODIES: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "null": ("null in place of the whole", lambda _: b"null"),
    "number": ("a number in place of the whole", lambda _: b"7"),
    "list": ("a list in place of the whole", lambda _: b"[1,2,{}]"),
    "string": ("a text in place of the whole", lambda _: b'"ok"'),
    "nothing": ("an empty body", lambda _: b""),
    "cut": ("JSON that breaks off", lambda good: json.dumps(good).encode()[:-3]),
    "page": ("a web page with status 200", lambda _: b"<!DOCTYPE html><html><title>Sign in</title></html>"),
    "fields_null": ("null in every field", _fields(None)),
    "fields_list": ("a list in every field", _fields([[1], {"a": None}])),
    "fields_object": ("an object in every field", _fields({"x": {"y": []}})),
    "fields_text": ("a text in every field", _fields("x")),
    "fields_true": ("true in every field", _fields(True)),
    "leaves_number": ("a number in every leaf", _all("-7.5")),
    "nan": ("NaN for every number", _numbers("NaN")),
    "infinity": ("Infinity for every number", _numbers("-Infinity")),
    "huge": ("10^400 for every number", _numbers(HUGE)),
    "exponent": ("1e999 for every number", _numbers("1e999")),
    "digits": ("5,000 digits for every number", _numbers(DIGITS)),
    "wide": ("2^64 + 1 for every number", _numbers(str(2**64 + 1))),
    "negative": ("a huge negative for every number", _numbers("-1e300")),
    "latin1": ("bytes that are no UTF-8 in every text", _latin1),
    "surrogate": ("half a pair in every text", _strings(lambda v: v + "\ud83d\udce9")),
    "halves": ("half a pair alone in every text", _strings(lambda v: v + "\udce9")),
    "controls": ("escape sequences in every text", _strings(lambda v: v + CONTROLS)),
    "long": ("100,000 letters in every text", _strings(lambda v: v + "x" * 100_000)),
    "deep": ("a thousand levels in every leaf", _all(deep())),
    "deep_objects": ("a hundred thousand levels of objects", lambda _: deep(100_000, "{").encode()),
    "deep_middle": ("two hundred levels in every leaf", _all(deep(200, "{"))),
    "many": ("twenty thousand more fields", _many),
    "pad_objects": ("40 MiB of empty objects before it", partial(_padded, filling=b"{},")),
    "pad_numbers": ("40 MiB of small numbers before it", partial(_padded, filling=b"1.5,")),
    "pad_wide": (
        "40 MiB of text beyond the BMP before it",
        partial(_padded, filling=b'"\xf0\x9f\xa6\x8a\xf0\x9f\xa6\x8a",'),
    ),
}
"""By name: what it is, and the body that it makes of a good reply."""


def body(make: Callable[[Any], bytes]) -> Act:
    async def act(call: Call) -> None:
        await call.reply(200, make(call.good()))

    return act


def status(number: int, content: bytes = b"no", kind: str = "text/plain", **headers: str) -> Act:
    async def act(call: Call) -> None:
        await call.reply(number, content, kind, **headers)

    return act


def raw(data: bytes, linger_s: float = 0.0) -> Act:
    async def act(call: Call) -> None:
        await call.raw(data)
        await asyncio.sleep(linger_s)

    return act


async def silent(call: Call) -> None:
    """Take the request and say nothing."""
    await call.reader.read(1)


async def reset(call: Call) -> None:
    """Cut the connection off."""
    call.writer.transport.abort()


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def half(call: Call) -> None:
    await call.raw(OK + b'Content-Length: 5000\r\n\r\n{"a":')
    await call.reader.read(1)


async def half_reset(call: Call) -> None:
    await call.raw(OK + b'Content-Length: 5000\r\n\r\n{"a":')
    call.writer.transport.abort()


async def drip(call: Call) -> None:
    await call.raw(OK + b"Content-Length: 5000\r\n\r\n{")
    while True:
        await call.raw(b" ")
        await asyncio.sleep(DRIP_S)


async def drip_head(call: Call) -> None:
    await call.raw(b"HTTP/1.1 200 OK\r\nX-A: ")
    while True:
        await call.raw(b"a")
        await asyncio.sleep(DRIP_S)


async def flood(call: Call, head: bytes, chunk: bytes, times: int = FLOOD_MIB) -> None:
    await call.raw(head)
    for _ in range(times):
        await call.raw(chunk)
        await asyncio.sleep(0)  # others are to be served meanwhile


def endless(head: bytes, chunk: bytes) -> Act:
    return partial(flood, head=head, chunk=chunk)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@cache
def gzipped() -> bytes:
    """A gibibyte in a mebibyte."""
    return gzip.compress(b" " * (64 * MIB), 6) * 16


@cache
def deflated() -> bytes:
    squeezer = zlib.compressobj(6)
    return b"".join(squeezer.compress(b"[" * MIB) for _ in range(400)) + squeezer.flush()


async def gzip_bomb(call: Call) -> None:
    packed = gzipped()
    await call.raw(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)


async def deflate_bomb(call: Call) -> None:
    packed = deflated()
    await call.raw(OK + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)


async def continues(call: Call) -> None:
    """Interim replies without an end."""
    for _ in range(3000):
        await call.raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    await asyncio.sleep(3)


async def twice(call: Call) -> None:
    """Two replies to one request, the second one alien."""
    await call.behave()
    await call.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalien")


async def headers_without_end(call: Call) -> None:
    await flood(call, b"HTTP/1.1 200 OK\r\n", b"".join(b"X-%d: %b\r\n" % (n, b"a" * 1000) for n in range(1000)), 300)


LONG = b"a" * (2 * MIB)

WIRE: dict[str, tuple[str, Act]] = {
    "endless_body": ("a body without length that never ends", endless(OK + b"Connection: close\r\n\r\n", b" " * MIB)),
    "endless_length": (
        "a body as long as its huge Content-Length",
        endless(OK + b"Content-Length: 99999999999\r\n\r\n", b" " * MIB),
    ),
    "endless_chunked": ("chunks without end", endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", _chunk(b" " * MIB))),
    "huge_chunk": (
        "one chunk of 16 exabytes",
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", b" " * MIB),
    ),
    "tiny_chunks": (
        "millions of chunks of one byte",
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 2_000),
    ),
    "gzip_bomb": ("a gibibyte of blanks, packed", gzip_bomb),
    "deflate_bomb": ("400 MiB of brackets, packed", deflate_bomb),
    "bad_gzip": ("gzip that is none", raw(OK + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!")),
    "unknown_coding": ("a coding nobody knows", raw(OK + b"Content-Encoding: pied\r\nContent-Length: 2\r\n\r\n{}")),
    "endless_headers": ("headers without end", headers_without_end),
    "huge_header": ("a header of two mebibytes", raw(OK + b"X: " + LONG + b"\r\nContent-Length: 2\r\n\r\n{}")),
    "many_headers": (
        "ten thousand headers",
        raw(OK + b"".join(b"X-%d: 1\r\n" % n for n in range(10_000)) + b"Content-Length: 2\r\n\r\n{}"),
    ),
    "folded_header": ("a header in several lines", raw(OK + b"X: a\r\n b\r\n\tc\r\nContent-Length: 2\r\n\r\n{}")),
    "odd_header": (
        "control characters in a header",
        raw(OK + b"X\x01: \x1b[2J\xff\x00\r\nContent-Length: 2\r\n\r\n{}"),
    ),
    "bad_type": (
        "a Content-Type that is none",
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: \xff;;=/charset=\xe9\r\nContent-Length: 2\r\n\r\n{}"),
    ),
    "bad_charset": (
        "a charset nobody knows",
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=klingon\r\nContent-Length: 2\r\n\r\n{}"),
    ),
    "huge_status_line": ("a status line of two mebibytes", raw(b"HTTP/1.1 200 " + LONG + b"\r\n\r\n")),
    "bad_chunk_size": (
        "a chunk size that is no number",
        raw(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n"),
    ),
    "negative_chunk": ("a negative chunk size", raw(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n0\r\n\r\n")),
    "bad_length": ("a Content-Length that is no number", raw(OK + b"Content-Length: many\r\n\r\n{}")),
    "negative_length": ("a negative Content-Length", raw(OK + b"Content-Length: -1\r\n\r\n{}")),
    "two_lengths": ("two lengths that differ", raw(OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}   ")),
    "length_and_chunks": (
        "both a length and chunks",
        raw(OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    ),
    "short": ("fewer bytes than promised, then the end", raw(OK + b"Content-Length: 500\r\n\r\n{}")),
    "more": ("more bytes than promised", raw(OK + b"Content-Length: 2\r\n\r\n{}{}{}{}")),
    "half_then_silence": ("half a reply, then silence", half),
    "half_then_reset": ("half a reply, then a reset", half_reset),
    "silence": ("no reply at all", silent),
    "reset": ("a reset in place of a reply", reset),
    "closed": ("the end of the connection in place of a reply", raw(b"")),
    "drip": ("a body of one byte a second", drip),
    "drip_head": ("a head of one byte a second", drip_head),
    "http09": ("a body without a head", raw(b'{"exec_info":{"queue_remaining":0}}')),
    "http2": ("the preface of HTTP/2", raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")),
    "binary": ("bytes that are no HTTP", raw(bytes(range(256)) * 64)),
    "ssh": ("the greeting of another protocol", raw(b"SSH-2.0-OpenSSH_9.6\r\n")),
    "continues": ("interim replies without end", continues),
    "switching": (
        "101 to a plain request",
        raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 0.2),
    ),
    "two_replies": ("two replies at once", twice),
    "status_0": ("status 0", raw(b"HTTP/1.1 0 X\r\nContent-Length: 2\r\n\r\n{}")),
    "status_999": ("status 999", raw(b"HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\n{}")),
    "status_text": ("a status that is no number", raw(b"HTTP/1.1 abc X\r\nContent-Length: 2\r\n\r\n{}")),
}
"""By name: what it is, and the act."""

STATUSES = (
    201,
    202,
    204,
    206,
    300,
    301,
    302,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    407,
    408,
    409,
    410,
    413,
    418,
    421,
    425,
    429,
    431,
    451,
    500,
    501,
    502,
    503,
    504,
    507,
    511,
    520,
    522,
    525,
    530,
    599,
)
