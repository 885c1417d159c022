"""HTTP/1.1 as it comes over real sockets: in one piece, in two, byte by byte; whole, cut short, hostile."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
from yarl import URL

from comfyload.comfy.connection import MOST_HEAD_BYTES, MOST_INTERIM
from comfyload.comfy.connections import MAX_CONNECTIONS
from comfyload.comfy.http import Http
from comfyload.comfy.wire.calls import Download, Reply, Request, TransportError

OK = b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\n"
PACKED = gzip.compress(b"hello " * 1000)
BARE = zlib.compress(b"hello " * 1000)[2:-4]
GET = Request(method="GET", path="history/x")
POST = Request(method="POST", path="prompt", body=b"{}")


class Server:
    """Answers the n-th request of a connection with the n-th text, written in pieces; then it closes, or waits."""

    def __init__(self, *replies: bytes, pieces: Callable[[bytes], list[bytes]] = lambda text: [text]) -> None:
        self.replies = replies
        self.pieces = pieces
        self.closes = True
        self.requests: list[bytes] = []
        self.connections = 0
        self.handlers: list[asyncio.Task[Any] | None] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.handlers.append(asyncio.current_task())
        try:
            for reply in self.replies:
                self.requests.append(await _request(reader))
                for piece in self.pieces(reply):
                    writer.write(piece)
                    await asyncio.sleep(0)
                    await writer.drain()
            if not self.closes:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + (await reader.readexactly(int(length[0][15:])) if length else b"")


def with_server(
    server: Server, use: Callable[[Http], Awaitable[Any]], *, headers: dict[str, str] | None = None, **address: Any
) -> Any:
    """What `use` gives. `address`: parts of the address that differ from http://127.0.0.1/."""

    async def main() -> Any:
        host = address.pop("host", "127.0.0.1")
        async with await asyncio.start_server(server.handle, host, 0) as listening:
            url = URL.build(scheme="http", host=host, port=listening.sockets[0].getsockname()[1], path="/")
            async with Http.connect(url.join(URL(address.pop("base", "/"))), headers or {}, **address) as http:
                try:
                    return await asyncio.wait_for(use(http), 20)
                finally:
                    await http._connections.close()
                    await asyncio.gather(*[handler for handler in server.handlers if handler is not None])

    return asyncio.run(main())


def given(pieces: list[bytes]) -> Callable[[bytes], list[bytes]]:
    """However the text is, it is written in these pieces."""
    return lambda _: pieces


def called(server: Server, request: Request = GET) -> Any:
    return with_server(server, lambda http: http.call(request))


def broken(server: Server, request: Request = GET) -> TransportError:
    with pytest.raises(TransportError) as caught:
        called(server, request)
    return caught.value


REPLIES = {
    "a body of known length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello"),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\nZ: z\r\n\r\n", b"hello"),
    "until it closes": (OK + b"\r\nhello", b"hello"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
    "gzip": (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED, b"hello " * 1000),
    "deflate": (
        OK + b"Content-Encoding: DEFLATE\r\n\r\n" + zlib.compress(b"hello " * 1000),
        b"hello " * 1000,
    ),
    "deflate without its head": (OK + b"Content-Encoding: deflate\r\n\r\n" + BARE, b"hello " * 1000),
    "gzip in chunks": (
        OK + b"Content-Encoding: x-gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED),
        b"hello " * 1000,
    ),
    "identity": (OK + b"Content-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    "interim replies": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 9\r\n\r\n" + OK
        + b"Content-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "lines that end in LF": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"hello"),
    "bytes in a header": (OK + b"X: \xff\xe4\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
}  # fmt: skip


def cut(text: bytes) -> Iterator[list[bytes]]:
    """In one piece, byte by byte, and in two at some places."""
    yield [text]
    yield [bytes([byte]) for byte in text[:400]] + [text[400:]]
    for at in {1, 9, len(text) // 3, len(text) // 2, text.find(b"\r\n\r\n") + 2, len(text) - 1}:
        yield [text[:at], text[at:]]


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_is_read_however_it_is_framed_and_cut(name: str) -> None:
    text, body = REPLIES[name]
    for pieces in cut(text):
        reply: Reply = called(Server(text, pieces=given(pieces)))
        assert (reply.status, reply.body) == (200, body)
        if text.startswith(OK):
            assert reply.content_type == "application/json"
    assert REPLIES.keys() and called(Server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).content_type == (
        "application/octet-stream"
    )


@pytest.mark.parametrize("status", [204, 304])
def test_a_reply_without_a_body_leaves_the_connection_open(status: int) -> None:
    server = Server(b"HTTP/1.1 %d X\r\n\r\n" % status, OK + b"Content-Length: 2\r\n\r\n{}")
    server.closes = False

    async def both(http: Http) -> list[Reply]:
        return [await http.call(GET), await http.call(GET)]

    first, second = with_server(server, both)
    assert (first.status, first.body, second.body, server.connections) == (status, b"", b"{}", 1)


def test_the_reply_to_a_head_has_no_body_whatever_its_length() -> None:
    server = Server(OK + b"Content-Length: 1000\r\n\r\n")
    server.closes = False
    assert called(server, Request(method="HEAD", path="view?filename=x")).status == 200


def test_a_refusal_has_its_headers_and_its_text() -> None:
    reply = called(Server(b"HTTP/1.1 429 Slow\r\nRETRY-after: 30\r\nContent-Length: 4\r\n\r\nbusy"))
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (429, b"busy", "30")


BROKEN = {
    "nothing": (b"", "the server closed it)"),
    "half a head": (OK[:20], "the server closed it amid its reply"),
    "half a body": (OK + b"Content-Length: 10\r\n\r\nhello", "the server closed it amid its reply"),
    "half a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello", "the server closed it amid its reply"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
    "another protocol": (b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "another protocol"),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "not HTTP"),
    "a length that is none": (OK + b"Content-Length: five\r\n\r\nhello", "not HTTP"),
    "a chunk that is none": (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "not HTTP"),
    "a coding we know not": (OK + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\nx", "coded as br"),
    "no gzip": (OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", "cannot be unpacked"),
    "half a gzip": (OK + b"Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + PACKED[:20], "cannot be unpacked"),
    "headers without end": (OK + b"X: %b\r\n" % (b"y" * 100) * 1000, "64 KiB of headers"),
    "one header without end": (OK + b"X: " + b"y" * 100_000, "64 KiB of headers"),
    "trailers without end": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: " + b"y" * 2 * MOST_HEAD_BYTES,
        "64 KiB of headers",
    ),
    "interim replies without end": (b"HTTP/1.1 100 X\r\n\r\n" * (MOST_INTERIM + 1), "more than 50 interim replies"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_reply_is_said(name: str) -> None:
    text, why = BROKEN[name]
    for pieces in ([text], [text[: len(text) // 2], text[len(text) // 2 :]]):
        error = broken(Server(text, pieces=given(pieces)), POST)
        assert error.sent and why in str(error), str(error)


def test_connections_are_used_again() -> None:
    server = Server(*[OK + b"Content-Length: 2\r\n\r\n{}"] * 5)
    server.closes = False

    async def all_five(http: Http) -> None:
        for _ in range(5):
            assert (await http.call(POST)).status == 200

    with_server(server, all_five)
    assert server.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbefore",
        OK + b"Content-Length: 2\r\n\r\n{}HTTP/1",
        OK + b"Content-Length: 2\r\n\r\n{}",
    ],
    ids=["closed", "HTTP/1.0", "a reply too many", "half a reply too many", "a reply on its own, later"],
)
def test_a_connection_that_cannot_be_trusted_is_not_used_again(reply: bytes) -> None:
    server = Server(reply, OK + b"Content-Length: 5\r\n\r\nwrong")
    late = server.handle

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reply.endswith(b"{}") and b"close" not in reply and b"1.0" not in reply:
            server.connections += 1
            server.handlers.append(asyncio.current_task())
            server.requests.append(await _request(reader))
            writer.write(reply)
            await asyncio.sleep(0.02)
            writer.write(OK + b"Content-Length: 5\r\n\r\nalone")
            with suppress(ConnectionError):
                await reader.read()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        else:
            await late(reader, writer)

    server.handle = handle  # type: ignore[method-assign]
    server.closes = False

    async def twice(http: Http) -> list[bytes]:
        first = await http.call(GET)
        await asyncio.sleep(0.1)
        return [first.body, (await http.call(GET)).body]

    assert with_server(server, twice) == [b"{}", b"{}"]
    assert server.connections == 2


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
def test_a_connection_that_was_closed_meanwhile_costs_a_get_nothing_and_a_post_is_not_sent_twice(
    request_: Request,
) -> None:
    """The server closes as the second request arrives, which may have been read: only a GET goes out again."""
    server = Server(OK + b"Content-Length: 2\r\n\r\n{}", b"")

    async def twice(http: Http) -> Any:
        await http.call(GET)
        return await http.call(request_)

    if request_ is GET:
        assert with_server(server, twice).body == b"{}"
        assert len(server.requests) == 3
    else:
        with pytest.raises(TransportError) as caught:
            with_server(server, twice)
        assert caught.value.sent and len(server.requests) == 2


def test_a_connection_closed_while_it_was_idle_is_not_used() -> None:
    server = Server(OK + b"Content-Length: 2\r\n\r\n{}")

    async def twice(http: Http) -> None:
        await http.call(GET)
        await asyncio.sleep(0.05)
        assert (await http.call(POST)).status == 200

    with_server(server, twice)
    assert server.connections == 2


def test_more_calls_than_connections_wait_their_turn() -> None:
    server = Server(*[OK + b"Content-Length: 2\r\n\r\n{}"] * 1000)
    server.closes = False

    async def many(http: Http) -> list[Reply]:
        return list(await asyncio.gather(*(http.call(POST) for _ in range(5 * MAX_CONNECTIONS))))

    assert len(with_server(server, many)) == 5 * MAX_CONNECTIONS
    assert server.connections <= MAX_CONNECTIONS


def test_a_call_that_finds_no_connection_in_time_was_not_sent() -> None:
    server = Server(b"")
    server.closes = False

    async def many(http: Http) -> TransportError:
        kept = [asyncio.create_task(http.call(POST)) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(0.2)
        with pytest.raises(TransportError) as caught:
            await http.call(Request(method="POST", path="prompt", body=b"{}", timeout_s=0.05))
        for task in kept:
            task.cancel()
        await asyncio.gather(*kept, return_exceptions=True)
        assert not http._connections._open and http._bodies.total == http._bodies.count == 0
        return caught.value

    error = with_server(server, many)
    assert not error.sent and str(error).endswith("no connection in time")


def test_a_late_reply_and_a_body_that_stands_still_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyload.comfy.http.IDLE_S", 0.1)
    server = Server(OK + b"Content-Length: 10\r\n\r\nhello")
    server.closes = False

    async def both(http: Http) -> Sequence[Any]:
        late = Request(method="GET", path="x", timeout_s=0.05)
        began = asyncio.get_running_loop().time()
        found = await asyncio.gather(http.call(late), http.download("view?x", 30.0), return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 5.0
        return found

    for error in with_server(server, both):
        assert isinstance(error, TransportError) and error.sent and "no reply in time" in str(error)


def test_a_file_is_read_past_the_parser_and_thrown_away_but_for_its_first_bytes() -> None:
    content = bytes(range(256)) * 8000
    text = OK + b"Content-Length: %d\r\n\r\n" % len(content) + content
    in_pieces = [text[at : at + 100_000] for at in range(0, len(text), 100_000)]
    server = Server(text, text, pieces=lambda _: in_pieces)
    server.closes = False

    async def both(http: Http) -> tuple[Download, Reply]:
        return await http.download("view?x", 5.0), await http.call(Request(method="GET", path="view?x", file=True))

    thrown, kept = with_server(server, both)
    assert (thrown.bytes, thrown.expected, thrown.head) == (len(content), len(content), content[:16])
    assert kept.body == content and server.connections == 1
    assert b"Accept-Encoding: identity\r\n" in server.requests[0]


def test_bytes_behind_a_long_body_are_not_the_next_reply() -> None:
    text = (
        OK + b"Content-Length: 300000\r\n\r\n" + bytes(300_000) + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
    )
    server = Server(text, OK + b"Content-Length: 5\r\n\r\nwrong", pieces=lambda text: [text[:100], text[100:]])
    server.closes = False

    async def twice(http: Http) -> list[int]:
        return [len((await http.call(GET)).body) for _ in range(2)]

    assert with_server(server, twice) == [300_000, 300_000]
    assert server.connections == 2


def test_what_goes_out_is_one_head_with_our_headers_in_it() -> None:
    server = Server(OK + b"Content-Length: 2\r\n\r\n{}")
    mine = {"Authorization": "Bearer ä", "user-agent": "me/1", "Content-Length": "7", "X": "y"}
    path = "history/a%20b?max_items=1"
    with_server(
        server, lambda http: http.call(Request(method="GET", path=path)), headers=mine, base="/comfy/?token=a%26b"
    )
    line, *lines = server.requests[0].decode().split("\r\n")
    assert line == "GET /comfy/history/a%20b?max_items=1&token=a%26b HTTP/1.1"
    names = [header.partition(":")[0].lower() for header in lines if header]
    assert sorted(names) == sorted({"host", "accept", "accept-encoding", "authorization", "user-agent", "x"})
    assert "Authorization: Bearer ä" in lines and "user-agent: me/1" in lines


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python was built without IPv6")
def test_an_address_of_ipv6_is_called_and_named_in_brackets() -> None:
    with contextmanager(_ipv6)():
        server = Server(OK + b"Content-Length: 2\r\n\r\n{}")
        assert with_server(server, lambda http: http.call(GET), host="::1").body == b"{}"
        assert b"\r\nHost: [::1]:" in server.requests[0]


def _ipv6() -> Iterator[None]:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    yield


def test_times_of_a_reply_do_not_run_backwards() -> None:
    """Replies on one connection come in the order of their requests."""
    server = Server(*[OK + b"Content-Length: 1\r\n\r\n%d" % number for number in range(10)])
    server.closes = False

    async def one_by_one(http: Http) -> list[int]:
        return [int((await http.call(GET)).body) for _ in range(10)]

    found = with_server(server, one_by_one)
    assert all(later == before + 1 for before, later in pairwise(found))
