"""What stands between us and a ComfyUI: guards, gateways, redirects, endless bodies; over sockets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from comfyload.app.doctor import doctor, exit_code
from comfyload.app.library.connect import connect
from comfyload.app.run.options import RunOptions
from comfyload.comfy import http as transport_file
from comfyload.comfy import websocket as websocket_file
from comfyload.comfy.address import parse_headers, parse_server
from comfyload.comfy.http import Http
from comfyload.comfy.identify import identify
from comfyload.comfy.incoming import Incoming
from comfyload.comfy.wire.calls import Request, TransportError
from comfyload.errors import ServerUnreachable, UsageError
from comfyload.sim import Server
from tests.support.rig import sleeper
from tests.support.servers import answering, in_thread

CLOUDFLARE = "<html><head><title>Attention Required! | Cloudflare</title></head><body>Error <b>1020</b></body></html>"


def ignore(_frame: bytes, _is_text: bool) -> None:
    """A listener that is not interested."""


def with_server(url: str, use: Callable[[Http], Awaitable[Any]], *headers: str) -> Any:
    async def main() -> Any:
        async with Http.connect(parse_server(url), parse_headers(list(headers))) as transport:
            return await asyncio.wait_for(use(transport), 20)

    return asyncio.run(main())


def refusal(url: str) -> ServerUnreachable:
    """What a run, doctor and connect() say of the server; nothing but GETs goes to it."""
    with pytest.raises(ServerUnreachable) as caught:
        with_server(url, lambda transport: identify(transport, transport.name, []))
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return caught.value


def replying(**reply: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        assert request.method == "GET"
        return web.Response(**reply)

    return handler


@pytest.mark.parametrize(
    ("reply", "message", "hint"),
    [
        ({"status": 403, "text": "error code: 1010"}, 'refuses us with HTTP 403: "error code: 1010"', "User-Agent="),
        ({"status": 403, "text": CLOUDFLARE, "content_type": "text/html"}, "(error code: 1020)", "have it allowed"),
        ({"status": 403, "text": '{"error":{"message":"no seat"}}'}, 'HTTP 403: "no seat"', "give credentials"),
        ({"status": 401, "text": "no", "headers": {"WWW-Authenticate": 'Basic realm="x"'}}, '401: "no"', "USER:PASS"),
        ({"status": 401}, "refuses us with HTTP 401", "give credentials"),
        ({"status": 407}, "refuses us with HTTP 407", "Proxy-Authorization"),
        (
            {"status": 429, "text": "Too many requests", "headers": {"Retry-After": "30"}},
            'answers HTTP 429, too many requests: "Too many requests"',
            "try again after 30 s",
        ),
        ({"status": 429}, "answers HTTP 429", "wait a while"),
        (
            {"status": 530, "text": "error code: 1033"},
            'answers 530 (its server or tunnel is gone): "error code: 1033"',
            "is ComfyUI running behind it?",
        ),
        ({"status": 522}, "answers 522 (its server does not answer)", "is ComfyUI running"),
        (
            {"status": 503, "text": "<html><title>503 Busy</title>", "content_type": "text/html"},
            'the gateway at http://127.0.0.1:PORT answers 503: "503 Busy"',
            "is ComfyUI running",
        ),
        ({"status": 599, "text": "x"}, "answers HTTP 599", "is ComfyUI running"),
        ({"status": 500, "text": "boom"}, "HTTP 500, and has no queue", "is this the address"),
        (
            {"status": 200, "text": "<!DOCTYPE html><title>Hotel \x1b[2J wifi</title>", "content_type": "text/html"},
            r'answers with a web page (HTTP 200): "Hotel \u001b[2J wifi", not as a ComfyUI',
            "/system_stats",
        ),
        ({"status": 200, "text": '{"status":"ok"}'}, "is not what a ComfyUI answers", "is this the address"),
        ({"status": 200, "text": '{"system":{"status":"up"}}'}, "none of its facts is in it", "is this the address"),
        ({"status": 204}, "has no /system_stats (HTTP 204)", "is this the address"),
        ({"status": 404, "text": "404: Not Found"}, 'HTTP 404): "404: Not Found"', "is this the address"),
    ],
)
def test_who_answers_in_place_of_a_comfyui(reply: dict[str, Any], message: str, hint: str) -> None:
    with answering(replying(**reply)) as url:
        said = refusal(url)
        assert message.replace("PORT", url.rpartition(":")[2]) in said.message
        assert hint in said.hint
        with pytest.raises(ServerUnreachable), connect(url):
            pass


def test_a_server_that_cannot_tell_about_itself_but_has_a_queue_is_one() -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/prompt":
            return web.json_response({"exec_info": {"queue_remaining": 0}})
        return web.Response(status=500, text="no GPU")

    with answering(handler) as url:
        server = with_server(url, lambda transport: identify(transport, transport.name, []))
        assert server.comfyui_version is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_server_that_redirects_is_named_and_nothing_is_sent_there(status: int) -> None:
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    with answering(elsewhere) as other:
        there = f"{other}/comfy{{}}?key=SECRET"

        async def handler(request: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": there.format(request.path)})

        with answering(handler) as url:
            said = refusal(url)
            assert said.message == f"{url} redirects to {other}/comfy/"
            assert said.hint == "give that address"
            with pytest.raises(ServerUnreachable, match="redirects to"), connect(url):
                pass
            checks = asyncio.run(doctor(RunOptions(server=url)))
            assert exit_code(checks) == 4
            assert (checks[0].found, checks[0].advice) == (said.message, "give that address")
    assert not seen


def test_a_login_is_told_from_another_address() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "https://sso.example/login?state=SECRET"})

    with answering(handler) as url:
        said = refusal(url)
        assert said.message == f"{url} redirects /system_stats to https://sso.example/login"
        assert "credentials" in said.hint


SECRETS = ["X-API-Key=SECRETKEY", "CF-Access-Client-Secret=S", "Cookie=a=SECRET", "Authorization=Bearer SECRET"]
NAMES = ("X-API-Key", "CF-Access-Client-Secret", "Cookie", "Authorization")


def test_headers_of_ours_stay_at_the_server_when_a_file_lies_elsewhere() -> None:
    seen: list[tuple[str, list[str | None]]] = []

    def note(request: web.Request) -> None:
        seen.append((request.path, [request.headers.get(name) for name in NAMES]))

    async def elsewhere(request: web.Request) -> web.Response:
        note(request)
        return web.Response(body=b"\x89PNG\r\n\x1a\n" + b"x" * 1000)

    with answering(elsewhere) as other:

        async def handler(request: web.Request) -> web.Response:
            note(request)
            target = "/here" if request.path == "/view" else f"{other}/signed?key=1"
            return web.Response(status=302, headers={"Location": target})

        with answering(handler) as url:
            got = with_server(url, lambda transport: transport.download("view?filename=a.png", 10), *SECRETS)
            assert (got.status, got.bytes, got.expected, got.head[:4]) == (200, 1008, 1008, b"\x89PNG")
            file = Request(method="GET", path="view?filename=a.png", file=True)
            assert len(with_server(url, lambda transport: transport.call(file), *SECRETS).body) == 1008
    ours = ["SECRETKEY", "S", "a=SECRET", "Bearer SECRET"]
    assert seen == [("/view", ours), ("/here", ours), ("/signed", [None] * 4)] * 2


def test_no_other_call_and_no_handshake_follows_a_redirect() -> None:
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    with answering(elsewhere) as other:

        async def handler(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{other}{request.path}?key=SECRET"})

        async def all_ways(transport: Http) -> str:
            for method, path in (("GET", "prompt"), ("POST", "prompt"), ("HEAD", "view?filename=a.png")):
                body = b"{}" if method == "POST" else None
                assert (await transport.call(Request(method=method, path=path, body=body))).status == 307
            with pytest.raises(TransportError) as caught:
                await transport.events("me", ignore)
            return str(caught.value)

        with answering(handler) as url:
            said = with_server(url, all_ways, *SECRETS)
            assert said == f"{url}: the WebSocket is redirected to {other}/"
    assert not seen


def test_redirects_without_end_are_given_up() -> None:
    requests: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request.path)
        return web.Response(status=302, headers={"Location": f"/again{len(requests)}"})

    with answering(handler) as url, pytest.raises(TransportError, match="more than 5 redirects"):
        with_server(url, lambda transport: transport.download("view?filename=a.png", 10))
    assert len(requests) == 6


def test_bodies_read_at_one_time_share_the_bound_and_the_small_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_file, "MAX_BODY_BYTES", 1 << 20)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        endless = request.path == "/endless"
        for _ in range(1000 if endless else 10):
            await response.write(bytes(1 << 14))
            await asyncio.sleep(0.001)
        return response

    async def both(transport: Http) -> list[Any]:
        calls = [Request(method="GET", path=path) for path in ("endless", "endless", "small", "endless")]
        found = list(await asyncio.gather(*(transport.call(call) for call in calls), return_exceptions=True))
        assert (transport._bodies.count, transport._bodies.total) == (0, 0)
        return found

    with answering(handler) as url:
        first, second, small, last = with_server(url, both)
    assert all(isinstance(one, TransportError) for one in (first, second, last))
    assert len(small.body) == 10 << 14


@pytest.mark.parametrize("coded", [False, True])
def test_a_body_without_end_is_read_to_its_bound_only(coded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_file, "MAX_BODY_BYTES", 1 << 20)
    sent = 0
    piece = gzip.compress(bytes(64 << 20)) if coded else bytes(1 << 16)

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"} if coded else {})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(piece)
            sent += len(piece)
        return response

    read = 0
    plain = Incoming._take

    def counted(incoming: Incoming, data: bytes | memoryview) -> None:
        nonlocal read
        read += len(data)
        plain(incoming, data)

    monkeypatch.setattr(Incoming, "_take", counted)
    with answering(handler) as url, pytest.raises(TransportError, match="larger than 1 MiB was not read"):
        with_server(url, lambda transport: transport.call(Request(method="GET", path="history/x")))
    assert (1 << 20) < read < (4 << 20)
    assert sent < 8 << 20


def test_a_message_without_end_closes_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_file, "MAX_MESSAGE_BYTES", 1 << 16)

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("hello")
        await asyncio.sleep(0.05)  # read apart: of what is read together, picows drops what stands before an error
        await socket.send_str("x" * (1 << 20))
        await socket.receive(timeout=5)
        return socket

    async def frames(transport: Http) -> list[Any]:
        heard: list[Any] = []
        with pytest.raises(TransportError, match="exceeding max allowed size"):
            await transport.events("me", lambda frame, is_text: heard.append((frame, is_text)))
        return heard

    with answering(handler) as url:
        assert with_server(url, frames) == [(b"hello", True)]


def test_credentials_of_the_address_reach_the_server_and_its_socket() -> None:
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        if request.path != "/ws":
            return web.Response()
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async def all_ways(transport: Http) -> None:
        await transport.call(Request(method="GET", path="prompt"))
        await transport.download("view?filename=x", 5)
        await transport.events("me", ignore)

    with answering(handler) as url:
        with_server(url.replace("http://", "http://user:p%E2%82%ACss@"), all_ways)
        with pytest.raises(UsageError, match="give one of them"):
            with_server(url.replace("http://", "http://user:x@"), all_ways, "Authorization=Bearer abc")
    assert seen == ["Basic dXNlcjpw4oKsc3M="] * 3


def test_the_history_of_a_large_graph_is_read_beyond_the_bound_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the graph, with up to three bytes for each."""
    monkeypatch.setattr(transport_file, "MAX_BODY_BYTES", 1 << 17)
    graph = {**sleeper(0.1), "9": {"class_type": "PrimitiveString", "inputs": {"value": "ü" * 200_000}}}
    with in_thread(Server) as (url, _), connect(url) as comfy:
        assert comfy.run(graph, deadline_s=20.0).outcome == "completed"
