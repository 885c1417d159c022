"""Who may call the gateway and what of a call goes further: hosts, origins, tokens, headers and paths."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from comfyload.gateway.guard import COOKIE, AccessGuard, Denied
from comfyload.gateway.paths import is_own, parts_of, plain
from tests.support.gateway_port import port

TOKENS = {"anna": "a" * 32, "bob": 'b"; \\ü' + "b" * 26}
LOCAL = "127.0.0.1:8189"


def guard(*hosts: str, loopback: bool = True, tokens: dict[str, str] | None = None) -> AccessGuard:
    return AccessGuard(tokens, hosts, loopback=loopback)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8189", "localhost", "LOCALHOST:1", "[::1]:8189", "127.1.2.3", "gpu.lan:80", "GPU.LAN", "gpu.lan."],
)
def test_the_gateway_is_called_by_its_names(host: str) -> None:
    guard("gpu.lan").check({"Host": host}, "GET", False)


@pytest.mark.parametrize(
    "host",
    ["", "evil.test", "evil.test:8189", "127.0.0.1.evil.test", "10.0.0.1", "localhost.evil.test", "[", "[::1", "[::g]",
     "a@127.0.0.1", "127.0.0.1@evil.test", "evil.test#@localhost", "localhost/evil", "localhost, evil.test",
     "2130706433", "127.0.0.1:8189:1", "localhost:999999", "localhost\t", "ⅼocalhost", "\udcff"],
)  # fmt: skip
def test_a_page_whose_name_was_made_to_point_here_is_refused(host: str) -> None:
    """DNS rebinding."""
    with pytest.raises(Denied) as denied:
        guard("gpu.lan").check({"Host": host}, "GET", False)
    assert denied.value.status == 421


def test_any_address_of_the_machine_will_do_where_it_listens_on_all() -> None:
    guard(loopback=False).check({"Host": "10.0.0.1:8189"}, "GET", False)
    with pytest.raises(Denied):
        guard(loopback=False).check({"Host": "evil.test"}, "GET", False)


@pytest.mark.parametrize(
    "origin",
    ["http://evil.test", "null", f"https://{LOCAL}", "http://localhost:8189", "http://127.0.0.1", "http://127.0.0.1:81890",
     f"http://{LOCAL}.evil.test", f"http://{LOCAL}/", "file://", "http://127.0.0.1:8188"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_site_s_page_is_refused_by_its_origin(origin: str, method: str) -> None:
    with pytest.raises(Denied) as denied:
        guard().check({"Host": LOCAL, "Origin": origin}, method, False)
    assert denied.value.status == 403


@pytest.mark.parametrize(
    ("headers", "method", "allowed"),
    [
        ({"Origin": f"http://{LOCAL}"}, "POST", True),
        ({"Sec-Fetch-Site": "same-origin"}, "POST", True),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, "GET", True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, "GET", True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, "GET", False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, "POST", False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, "GET", False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "websocket"}, "GET", False),
        ({"Sec-Fetch-Site": "cross-site"}, "GET", False),
    ],
)
def test_what_a_browser_says_of_the_caller_counts(headers: dict[str, str], method: str, allowed: bool) -> None:
    try:
        guard().check({"Host": LOCAL, **headers}, method, False)
    except Denied:
        assert not allowed
    else:
        assert allowed


def test_a_proxy_that_speaks_tls_before_us_is_believed_for_names_that_are_allowed() -> None:
    guard("gpu.example").check({"Host": "gpu.example", "Origin": "https://gpu.example"}, "POST", False)
    for headers in ({"Host": "gpu.example", "Origin": "https://other.example"},
                    {"Host": LOCAL, "Origin": "https://gpu.example", "X-Forwarded-Host": "gpu.example"},
                    {"Host": LOCAL, "Origin": f"https://{LOCAL}", "X-Forwarded-Proto": "https"}):  # fmt: skip
        with pytest.raises(Denied):
            guard("gpu.example").check(headers, "POST", False)


def test_a_token_names_its_tenant_wherever_it_stands() -> None:
    checked = guard(tokens=TOKENS)
    for tenant, token in TOKENS.items():
        assert checked.tenant({"Authorization": f"Bearer {token}"}, {}, None) == tenant
        assert checked.tenant({"Authorization": "Basic eDp5"}, {COOKIE: token}, None) == tenant
        assert checked.tenant({}, {COOKIE: "stale"}, token) == tenant
    for wrong in ("", "a" * 31, "a" * 33, "A" * 32, "\udcff", "\ud800", "é", "b" * 5000):
        for headers, cookies, query in (({"Authorization": f"Bearer {wrong}"}, {}, None), ({}, {COOKIE: wrong}, None),
                                        ({}, {}, wrong), ({"Authorization": wrong}, {}, None)):  # fmt: skip
            with pytest.raises(Denied) as denied:
                checked.tenant(headers, cookies, query)
            assert denied.value.status == 401
            assert not wrong or wrong not in denied.value.why


def test_each_token_is_compared_whole_and_always(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append((known, given))
        return known == given

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert guard(tokens=TOKENS).tenant_of(TOKENS["anna"]) == "anna"
    assert [pair[0].decode() for pair in compared] == list(TOKENS.values())


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/queue", True), ("//queue", True), ("/queue/", True), ("/api//queue", True), ("/api/api/queue", True),
        ("/%71ueue", True), ("/%2571ueue", True), ("/x%2F..", None), ("/queue;x=1", True), ("/%2Fqueue", True),
        ("/\\queue", True), ("/%5Cqueue", True), ("/queue%20", True), ("/api/jobs/x", True), ("/history/a/b", True),
        ("/upload/image/", True), ("/upload//mask", True), ("/upload/video", False), ("/view_metadata/loras", False),
        ("/./queue", None), ("/x/../queue", None), ("/x/%2e%2e/queue", None), ("/x/%2E./queue", None),
        ("/x/%252e%252e/queue", None), ("/x\\..\\queue", None), ("/x/%5c..%5cqueue", None), ("/%25252525252e", None),
        ("http://evil.test/queue", None), ("*", None), ("", None), ("/a%00b", None), ("/a%0d%0aX: y", None),
        ("/userdata/workflows%2Fx.json", False), ("/userdata/a..b%2F100%25.json", False), ("/", False), ("/api", False),
        ("/userdata/queue", False), ("/assets/index-%C3%BC.js", False),
    ],
)  # fmt: skip
def test_a_path_is_read_as_anybody_may_read_it(path: str, own: bool | None) -> None:
    parts = parts_of(path)
    assert (None if parts is None else is_own(plain(parts))) is own


def test_paths_go_on_as_they_were_written_or_not_at_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path) as gate:
            for path in ("/", "/api/userdata/workflows%2Fa%20b.json?x=%2F&y=1", "/assets/index-%C3%BC.js", "/a%25b"):
                assert (await gate.ask(path)).status == 200
                assert gate.home.lines.pop() == f"GET {path}"
            assert (await gate.ask("/ü?n=ü")).status == 400
            for path, status in {
                "//queue": 404, "/queue/": 404, "/api//queue": 404, "/api/api/history": 404, "/jobs": 404,
                "/queue;x": 404, "/%2Fqueue": 404, "/x//y": 404, "/interrupt": 404, "/%252e%252e/queue": 400,
                "/../queue": 400, "/x/%2e%2e/queue": 400, "/x%2f..%2fqueue": 400, "/x\\..\\queue": 400, "/%00": 400,
                f"http://{gate.url.authority}/queue": 400, "http://evil.test/": 400,
            }.items():  # fmt: skip
                assert (await gate.ask(path)).status == status, path
            for method in ("PUT", "DELETE", "PATCH", "PURGE"):
                assert (await gate.ask("/queue", method=method, body=b"")).status in (400, 405), method
            for method, target in {"TRACE": "/", "CONNECT": "evil.test:80"}.items():
                assert (await gate.ask(target, method=method)).status in (400, 405)
            assert (await gate.ask("*", method="OPTIONS")).status == 400
            for path in ("/queue", "/api/history", "/api/jobs", "/prompt"):
                assert (await gate.ask(path, method="HEAD")).status == 200
            assert gate.home.lines == [], "nothing reached a server"

    asyncio.run(main())


def test_what_can_be_read_in_two_ways_is_not_taken(tmp_path: Path) -> None:
    """Smuggled requests, and headers that stand twice."""

    async def main() -> None:
        async with port(tmp_path) as gate:
            host = f"Host: {gate.url.authority}"
            smuggled = "0\r\n\r\nGET /queue HTTP/1.1\r\n\r\n"
            for lines in (
                ["POST /x HTTP/1.1", host, "Content-Length: 4", "Transfer-Encoding: chunked", "", smuggled],
                ["POST /x HTTP/1.1", host, "Content-Length: 4", "Content-Length: 5", "", "abcd"],
                ["POST /x HTTP/1.1", host, "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "", smuggled],
                ["POST /x HTTP/1.1", host, "Transfer-Encoding: xchunked", "", smuggled],
                ["POST /x HTTP/1.1", host, "Content-Length: +4", "", "abcd"],
                ["GET / HTTP/1.1", host, "Host: evil.test", "", ""],
                ["GET / HTTP/1.1", "Host: evil.test", host, "", ""],
                ["GET / HTTP/1.1", "", ""],
                ["GET / HTTP/1.1", host, "X : y", "", ""],
                ["GET / HTTP/1.1", host, "X: a\nb", "", ""],
                ["GET / HTTP/1.1", host, " folded", "", ""],
                ["GET /\x00 HTTP/1.1", host, "", ""],
            ):
                assert (await gate.raw("\r\n".join(lines).encode())).status in (400, 421), lines
            assert gate.home.lines == []

    asyncio.run(main())


def test_headers_are_for_one_neighbour(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a client sends of itself, of proxies and of secrets stays here; what the server is to have is ours."""

    async def main() -> None:
        async with port(tmp_path, tokens={"anna": TOKENS["anna"]}) as gate:
            token = TOKENS["anna"]
            await gate.ask(
                f"/settings?a=1&token={token}&%74oken={token}&b=2", "Cookie: comfyload_token=x; other=y",
                f"Referer: http://{gate.url.authority}/?token={token}", f"Origin: {gate.url.origin()}",
                "Sec-Fetch-Site: same-origin", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil.test",
                "Forwarded: a", "X-Real-IP: 1.2.3.4", "Connection: X-Secret, close", "X-Secret: s", "TE: trailers",
                "X-Kept: k",
                f"Authorization: Bearer {token}", "Proxy-Authorization: p",
            )  # fmt: skip
            (line,), (headers,) = gate.home.lines, gate.home.headers
            assert line == "GET /settings?a=1&b=2"
            assert headers["Authorization"] == "Bearer upstream" and headers["X-Kept"] == "k"
            assert headers["Host"] != gate.url.authority
            assert token not in str(dict(headers))
            lower = {name.lower() for name in headers}
            assert lower.isdisjoint(
                ("cookie", "referer", "origin", "sec-fetch-site", "x-forwarded-for", "x-forwarded-host", "forwarded",
                 "x-real-ip", "x-secret", "te", "proxy-authorization")
            )  # fmt: skip
            for path in ("/view?filename=x.png&token=", "/settings?token="):
                await gate.ask(path + token)
            assert not any(token in line for line in gate.home.lines)
            await gate.raw(f"GET /?token={token} HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n".encode())
            assert token not in caplog.text

    with caplog.at_level(0):
        asyncio.run(main())
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not any(TOKENS["anna"].encode() in path.read_bytes() for path in written)


def test_a_redirect_of_a_server_is_passed_on_and_not_followed(tmp_path: Path) -> None:
    from aiohttp import web

    async def main() -> None:
        async with port(tmp_path) as gate:
            gate.home.answer = web.Response(
                status=302,
                headers={"Location": "http://evil.test/steal", "Set-Cookie": "comfyload_token=theirs", "X-Kept": "k"},
            )
            answer = await gate.ask("/settings")
            assert answer.status == 302 and answer.headers["location"] == "http://evil.test/steal"
            assert "set-cookie" not in answer.headers and answer.headers["x-kept"] == "k"
            assert gate.home.lines == ["GET /settings"]

    asyncio.run(main())


def test_a_browser_logs_in_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path, tokens=TOKENS) as gate:
            page = await gate.ask("/", "Accept: text/html")
            assert page.status == 303 and page.headers["location"] == "/comfyload/login"
            assert (await gate.ask("/")).status == 401
            form = await gate.ask("/comfyload/login")
            assert form.status == 200 and b"<form" in form.body
            assert "frame-ancestors 'none'" in form.headers["content-security-policy"]
            kind = "Content-Type: application/x-www-form-urlencoded"
            for wrong in (b"token=no", b"", b"token=" + b"x" * 100_000, b"token=%ff%fe"):
                refused = await gate.ask("/comfyload/login", kind, method="POST", body=wrong)
                assert refused.status == 401 and "set-cookie" not in refused.headers
            foreign = await gate.ask(
                "/comfyload/login", kind, "Origin: http://evil.test", method="POST", body=b"token=x"
            )
            assert foreign.status == 403
            assert (await gate.ask("/comfyload/login", "Host: evil.test")).status == 421
            for tenant, token in TOKENS.items():
                async with gate.session.post(
                    gate.url / "comfyload/login", data={"token": token}, allow_redirects=False
                ) as reply:
                    assert reply.status == 303
                    cookie = reply.headers["Set-Cookie"]
                assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie, tenant
                value = cookie.partition(";")[0] if tenant == "anna" else cookie.partition("; HttpOnly")[0]
                assert (await gate.ask("/queue", f"Cookie: {value}")).status == 200, cookie
            gate.session.cookie_jar.clear()
            behind = await gate.ask("/comfyload/login", kind, "Origin: https://gpu.example", "Host: gpu.example",
                                    method="POST", body=b"token=" + TOKENS["anna"].encode())  # fmt: skip
            assert behind.status == 421, "not a name of this gateway"
            assert gate.home.lines == []

    asyncio.run(main())


def test_the_cookie_is_secure_behind_a_proxy_with_tls(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path, tokens=TOKENS, allowed_hosts=["gpu.example"]) as gate:
            answer = await gate.ask(
                "/comfyload/login", "Host: gpu.example", "Origin: https://gpu.example",
                "Content-Type: application/x-www-form-urlencoded", method="POST",
                body=b"token=" + TOKENS["anna"].encode(),
            )  # fmt: skip
            assert answer.status == 303 and "secure" in answer.headers["set-cookie"]

    asyncio.run(main())


def test_the_socket_has_the_same_guard(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path, tokens=TOKENS) as gate:
            opening = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
            bearer = f"Authorization: Bearer {TOKENS['anna']}"
            cookie = f"Cookie: {COOKIE}={TOKENS['anna']}"
            for more, status in (
                ((), 401), ((cookie, "Origin: http://evil.test"), 403), ((cookie, "Origin: null"), 403),
                ((bearer, "Host: evil.test"), 421), ((cookie, "Sec-Fetch-Site: cross-site"), 403), ((bearer,), 101),
                ((cookie, f"Origin: {gate.url.origin()}"), 101),
            ):  # fmt: skip
                assert (await gate.ask("/ws?clientId=x", *opening, *more)).status == status, more
            assert (await gate.ask(f"/ws?token={TOKENS['anna']}", *opening)).status == 101
            assert (await gate.ask("/ws", bearer)).status == 400

    asyncio.run(main())


def test_one_of_several_tenants_is_not_told_of_everybody(tmp_path: Path) -> None:
    async def main() -> None:
        paths = (
            "/internal/logs",
            "/internal/files/output",
            "/api/assets",
            "/api/tags",
            "/comfyload/v1/events",
            "//internal/logs",
        )
        async with port(tmp_path / "several", tokens=TOKENS) as gate:
            for path in paths:
                bearer = f"Authorization: Bearer {TOKENS['anna']}"
                assert (await gate.ask(path, bearer)).status in (403, 404), path
            assert gate.home.lines == []
        async with port(tmp_path / "alone") as gate:
            assert (await gate.ask("/internal/logs")).status == 200

    asyncio.run(main())
