"""Who may call the dashboard, and what of a call never reaches a file: hosts, origins, tokens, paths, sizes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comfyload.gateway.guard import COOKIE
from comfyload.record.run import RunWriter
from comfyload.web.answers import MOST_BODY
from comfyload.web.feed import MOST_MESSAGE, MOST_SOCKETS, MOST_WATCHES
from tests.support.dashboard import CSP_OF_PAGE, JSON, UI, UPGRADE, WS, Page, page
from tests.unit.judge_runs import manifest, one_by_one

TOKEN = "t" * 40
PATHS = ("/comfyload/", f"{UI}/session", WS, f"{UI}/static/js/app.js", "/")


def on_page(tmp_path: Path, play: Callable[[Page], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with page(tmp_path, **options) as found:
            await play(found)

    asyncio.run(main())


def run_at(path: Path) -> None:
    records = one_by_one([1.0] * 3)
    with RunWriter(path, manifest(3)) as writer:
        for record in records:
            writer.write_line(record)


def link(place: Path, to: Path) -> None:
    with suppress(OSError):  # Windows lets not everybody make one
        place.symlink_to(to, target_is_directory=to.is_dir())


# --- who calls


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test:8288", "", "localhost.evil.test", "10.0.0.1"])
def test_a_foreign_name_is_refused_everywhere(host: str, tmp_path: Path) -> None:
    """DNS rebinding."""

    async def play(found: Page) -> None:
        for path in PATHS:
            answer = await found.ask(path, f"Host: {host}", *(UPGRADE if path == WS else ()))
            assert answer.status == 421, path
            assert b"dashboard" in answer.body and b"gateway" not in answer.body

    on_page(tmp_path, play)


def test_who_names_us_twice_or_in_another_way_is_refused(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        session, own = f"{UI}/session", found.url.authority
        for line, *headers in (
            (f"GET {session} HTTP/1.1", f"Host: {own}", "Host: evil.test"),
            (f"GET {session} HTTP/1.1", "Host: evil.test", f"Host: {own}"),
            (f"GET {session} HTTP/1.1", "Host: evil.test", f"X-Forwarded-Host: {own}"),
            (f"GET {session} HTTP/1.1",),
            (f"GET {session} HTTP/1.0",),
            (f"GET http://evil.test{session} HTTP/1.1", f"Host: {own}"),
            (f"GET http://{own}{session} HTTP/1.1", "Host: evil.test"),
            *((f"GET {session} HTTP/1.1", f"Host: {odd}") for odd in _ODD_HOSTS),
        ):
            answer = await found.raw("\r\n".join([line, *headers, "", ""]).encode())
            assert answer.status in (400, 421) and found.token.encode() not in answer.body, (line, headers)

    on_page(tmp_path, play)


_ODD_HOSTS = (
    "127.0.0.1@evil.test", "evil.test:80@127.0.0.1", "127.0.0.1,evil.test", "127.0.0.1 evil.test", "127.0.0.1#x",
    "127.1", "0x7f000001", "2130706433", "017700000001", "[::ffff:10.0.0.1]", "loc%61lhost", "localhost:1:2",
    "0.0.0.0", "[::]",
)  # fmt: skip


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "https://127.0.0.1", "http://localhost:1", "file://"])
def test_a_foreign_origin_is_refused_everywhere(origin: str, tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        for path in PATHS:
            assert (await found.ask(path, f"Origin: {origin}", *(UPGRADE if path == WS else ()))).status == 403, path
        answer = await found.act("runs/x/stop", {}, f"Origin: {origin}")
        assert answer.status == 403 and b"another site" in answer.body

    on_page(tmp_path, play)


def test_a_fetch_of_another_site_s_page_is_refused(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        for path in PATHS:
            for mode in ("cors", "no-cors", "websocket"):
                more = ("Sec-Fetch-Site: cross-site", f"Sec-Fetch-Mode: {mode}")
                assert (await found.ask(path, *more, *(UPGRADE if path == WS else ()))).status == 403
        assert (await found.act("runs/x/stop", {}, "Sec-Fetch-Site: cross-site")).status == 403
        link = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
        assert (await found.ask("/comfyload/", *link)).status == 200
        frame = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe")
        assert (await found.ask("/comfyload/", *frame)).status == 403

    on_page(tmp_path, play)


def test_the_socket_has_the_same_guard(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        cookie, bearer = f"Cookie: {COOKIE}={TOKEN}", f"Authorization: Bearer {TOKEN}"
        for more, status in (
            ((), 401), ((bearer,), 101), ((cookie, f"Origin: {found.url.origin()}"), 101),
            ((cookie, "Origin: http://evil.test"), 403), ((cookie, "Origin: null"), 403),
            ((bearer, "Host: evil.test"), 421), ((cookie, "Sec-Fetch-Site: cross-site"), 403),
            ((f"Cookie: {COOKIE}={TOKEN}x",), 401),
        ):  # fmt: skip
            assert (await found.ask(WS, *UPGRADE, *more)).status == status, more
        assert (await found.ask(WS, bearer)).status == 400

    on_page(tmp_path, play, token=TOKEN)


def test_without_the_token_nothing_is_said(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        for path in (*PATHS, f"{UI}/runs/x/page", "/nothing", f"{UI}/archive"):
            for more in ((), ("Authorization: Bearer wrong",), (f"Authorization: Bearer {TOKEN}x",), ("Cookie: a=b",),
                         (f"Cookie: {COOKIE}=", f"Authorization: Basic {TOKEN}")):  # fmt: skip
                answer = await found.ask(path, *more)
                assert answer.status == 401 and TOKEN.encode() not in answer.body
                assert answer.headers["www-authenticate"] == "bearer"
        assert (await found.act("runs/x/stop", {})).status == 401
        browser = await found.ask("/comfyload/", "Accept: text/html")
        assert browser.status == 303 and browser.headers["location"] == "/comfyload/login?to=/comfyload/"
        assert (await found.ask("/comfyload/", f"Authorization: Bearer {TOKEN}")).status == 200

    on_page(tmp_path, play, token=TOKEN)


def test_a_browser_logs_in_once_and_no_script_reads_the_cookie(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        kind = "Content-Type: application/x-www-form-urlencoded"
        login = "/comfyload/login?to=/comfyload/"
        form = await found.ask(login)
        assert form.status == 200 and b"<form" in form.body and "frame-ancestors" in form.headers[
            "content-security-policy"]  # fmt: skip
        for wrong in (b"token=no", b"", b"token=" + b"x" * 100_000, b"token=%ff%fe"):
            refused = await found.ask(login, kind, method="POST", body=wrong)
            assert refused.status == 401 and "set-cookie" not in refused.headers
            assert b"dashboard" in refused.body
        foreign = await found.ask(
            login, kind, "Origin: http://evil.test", method="POST", body=f"token={TOKEN}".encode()
        )
        assert foreign.status == 403 and "set-cookie" not in foreign.headers
        let_in = await found.ask(login, kind, method="POST", body=f"token={TOKEN}".encode())
        assert let_in.status == 303 and let_in.headers["location"] == "/comfyload/"
        cookie = let_in.headers["set-cookie"]
        assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie and "secure" not in cookie
        assert (await found.ask(f"{UI}/session", f"Cookie: {cookie.partition(';')[0]}")).status == 200
        for to in ("http://evil.test/", "//evil.test", "/comfyload/../x", "/comfyload/x"):
            answer = await found.ask(f"/comfyload/login?to={to}", kind, method="POST", body=f"token={TOKEN}".encode())
            assert answer.status in (303, 400) and answer.headers.get("location", "/") == "/"

    on_page(tmp_path, play, token=TOKEN)


def test_the_token_of_an_action_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compared = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return given == known

    async def play(found: Page) -> None:
        monkeypatch.setattr("hmac.compare_digest", compare)
        assert (await found.act("runs/x/stop", {})).status == 404
        assert compared == [(found.token.encode(), found.token.encode())]

    on_page(tmp_path, play)


def test_an_action_needs_the_token_of_our_own_page(tmp_path: Path) -> None:
    """A form of another site sends no header and no JSON, whatever cookie the browser adds."""

    async def play(found: Page) -> None:
        post = {"method": "POST", "body": b"{}"}
        for path in _actions(found):
            token = f"X-Comfyload-Token: {found.token}"
            for more in (
                (),
                (JSON,),
                (JSON, "X-Comfyload-Token: "),
                (JSON, f"{token}x"),
                (JSON, "X-Comfyload-Token: ü"),
            ):
                answer = await found.ask(path, *more, **post)  # type: ignore[arg-type]
                assert answer.status == 403, (path, more)
                assert found.token.encode() not in answer.body
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
                answer = await found.ask(path, token, f"Content-Type: {kind}", **post)  # type: ignore[arg-type]
                assert answer.status == 415, path

    on_page(tmp_path, play)


def _actions(found: Page) -> list[str]:
    """Every address that does something, with something in place of its parts."""
    posts = [path for method, path, _ in found.dashboard.routes() if method not in ("GET", "HEAD")]
    assert len(posts) > 8
    return [path.replace("{", "").replace("}", "") for path in posts]


def test_every_handler_is_guarded(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        for method, path, handler in found.dashboard.routes():
            assert handler.__code__.co_filename.endswith("answers.py"), (method, path)

    on_page(tmp_path, play)


def test_one_who_is_no_operator_sees_nothing(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        found.dashboard._may = lambda _: False
        from comfyload.app.gateway_port import listening
        from comfyload.web.server import app_of

        async with listening(app_of(found.dashboard, found.dashboard._options), "127.0.0.1", 0, None) as url:
            other = Page(found.url.with_port(int(url.rpartition(":")[2])), found.dashboard, found.session, tmp_path)
            for path in ("/comfyload/", f"{UI}/session", f"{UI}/runs/x/page"):
                assert (await other.ask(path)).status == 403, path
            assert (await other.ask(WS, *UPGRADE)).status == 403

    on_page(tmp_path, play)


# --- what is said with each answer


def test_every_answer_has_the_policy(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        tries = [("GET", path) for path in (*PATHS, f"{UI}/nothing", "/x/../y", f"{UI}/runs/x/page", "/comfyload")]
        for method, path in [*tries, ("DELETE", "/"), ("POST", f"{UI}/runs/x/stop"), ("OPTIONS", "/comfyload/")]:
            answer = await found.ask(path, method=method, body=b"" if method == "POST" else None)
            assert answer.headers["content-security-policy"] == CSP_OF_PAGE, (method, path)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "deny"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in answer.headers
        socket = await found.ask(WS, *UPGRADE)
        assert socket.status == 101 and socket.headers["content-security-policy"] == CSP_OF_PAGE

    on_page(tmp_path, play)


def test_what_a_tab_has_already_is_not_sent_again(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        for path in ("/comfyload/", f"{UI}/static/js/app.js", f"{UI}/start"):
            first = await found.ask(path)
            tag = first.headers["etag"]
            second = await found.ask(path, f"If-None-Match: {tag}")
            assert first.status == 200 and first.body and second.status == 304 and second.body == b""
            assert second.headers["etag"] == tag and second.headers["content-security-policy"] == CSP_OF_PAGE
            assert (await found.ask(path, 'If-None-Match: "other"')).status == 200
        packed = await found.ask(f"{UI}/static/js/app.js", "Accept-Encoding: gzip")
        assert packed.headers["content-encoding"] == "gzip" and len(packed.body) < 200
        assert packed.headers["content-type"] == "text/javascript; charset=utf-8"
        assert (await found.ask(f"{UI}/session")).headers["cache-control"] == "no-store"

    on_page(tmp_path, play)


# --- paths


ODD = (
    "..", "%2e%2e", "..%2f..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..", "%252e%252e", "x%2F..%2F..%2Fsecret",
    "%2Fetc%2Fpasswd", "//etc/passwd", "%00", "a%00b", "C:%5Cx", "x%2F%2Fy", ".", "%2e", "secret", "out", "out%2Finner",
    "one%2F..%2Ftwo", "one%2F", "one%5C", "ONE", "%6fne%2f", "..;%2fone", "%c0%ae%c0%ae", "%uff0e", "one%20",
)  # fmt: skip


@pytest.mark.long
def test_no_path_leads_out_of_the_folder_of_runs(tmp_path: Path) -> None:
    """Ids are looked up, never joined to a path: `..`, encoded forms, links and other spellings find nothing."""
    run_at(tmp_path / "runs" / "one")
    run_at(tmp_path / "runs" / "deep" / "er")
    run_at(tmp_path / "secret")
    link(tmp_path / "runs" / "out", tmp_path / "secret")

    async def play(found: Page) -> None:
        async with found.tab() as tab:
            listed = await tab.watch(1, "runs")
            assert {run["id"] for run in listed["data"]["runs"]} == {"one", "deep/er"}
            for odd in (*ODD, "../secret", "/etc/passwd", "\\..\\x", "one/../../secret", "out", "", "x" * 5000):
                for view in ("run", "jobs", "chart"):
                    seen = await tab.watch(2, view, run=odd, chart="latency")
                    assert "there is no run" in seen["error"], (view, odd)
            for other in (None, 5, ["one"], {"id": "one"}, True):
                assert "there is no run" in (await tab.watch(2, "run", run=other))["error"]
        for odd in ODD:
            for path in (f"{UI}/runs/{odd}/page", f"{UI}/runs/{odd}/charts/latency.svg", f"{UI}/runs/{odd}/jobs.csv",
                         f"{UI}/static/{odd}", f"{UI}/static/js/{odd}", f"{UI}/archive/{odd}/page",
                         f"{UI}/plans/{odd}", f"{UI}/starts/{odd}"):  # fmt: skip
                answer = await found.ask(path)
                assert answer.status in (400, 404), (path, answer.status)
            for action in ("stop", "again", "label"):
                answer = await found.act(f"runs/{odd}/{action}", {"jobs": "failed", "label": "x"})
                assert answer.status in (400, 404), (odd, action, answer.status)
        for path in (f"{UI}/runs/one/page", f"{UI}/runs/deep%2Fer/page", f"{UI}/runs/deep%2fer/page"):
            assert (await found.ask(path)).status == 200, path

    on_page(tmp_path, play)


def test_files_of_the_page_are_those_that_were_there_at_the_start(tmp_path: Path) -> None:
    static = tmp_path / "static"
    static.mkdir()
    (tmp_path / "secret.js").write_text("secret", encoding="utf-8")
    link(static / "link.js", tmp_path / "secret.js")
    (static / "odd.py").write_text("secret", encoding="utf-8")

    async def play(found: Page) -> None:
        (static / "later.js").write_text("later", encoding="utf-8")
        for name in ("link.js", "later.js", "odd.py", "../secret.js", "%2e%2e%2fsecret.js", "js", "js/", "", "js//a.js",
                     "js%2Fapp.js/", "/js/app.js", "INDEX.HTML"):  # fmt: skip
            answer = await found.ask(f"{UI}/static/{name}")
            assert answer.status in (400, 404) and b"secret" not in answer.body, name
        assert (await found.ask(f"{UI}/static/js/app.js")).status == 200

    on_page(tmp_path, play)


# --- sizes


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        lines = (JSON, f"X-Comfyload-Token: {found.token}", f"Host: {found.url.authority}")
        head = "\r\n".join([f"POST {UI}/runs/x/again HTTP/1.1", *lines, f"Content-Length: {MOST_BODY + 1}", "", ""])
        assert (await found.raw(head.encode())).status == 413
        chunked = "\r\n".join([f"POST {UI}/runs/x/again HTTP/1.1", *lines, "Transfer-Encoding: chunked", "", ""])
        assert (await found.raw(chunked.encode())).status == 411
        long = await found.ask(f"{UI}/runs/{'x' * 20_000}/page")
        assert long.status == 400

    on_page(tmp_path, play)


def test_a_frame_that_is_too_large_ends_its_socket(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        async with found.tab() as tab:
            assert "data" in await tab.watch(1, "runs")
            await tab.socket.send_str('"' + "x" * (MOST_MESSAGE + 10) + '"')
            while (message := await tab.socket.receive(10)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            assert tab.socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        async with found.tab() as tab:
            await tab.socket.send_bytes(b"\0" * 10)
            assert (await tab.socket.receive(10)).type is aiohttp.WSMsgType.CLOSE

    on_page(tmp_path, play)


def test_there_are_so_many_sockets_and_so_many_watches(tmp_path: Path) -> None:
    async def play(found: Page) -> None:
        sockets = [await found.session.ws_connect(found.url.with_path(WS)) for _ in range(MOST_SOCKETS)]
        refused = await found.ask(WS, *UPGRADE)
        assert refused.status == 503 and b"tabs are open" in refused.body
        assert (await found.ask(f"{UI}/session")).status == 200, "and the others still work"
        await sockets[0].close()
        await sockets[1].close()
        async with found.tab() as tab:
            for number in range(MOST_WATCHES):
                await tab.say(watch=number, view="runs", params={"n": number})
            await tab.say(watch=MOST_WATCHES, view="runs", params={})
            seen: dict[int, Any] = {}
            while len(seen) <= MOST_WATCHES:
                frame = await tab.next()
                seen[frame["watch"]] = frame
            assert "at most" in seen[MOST_WATCHES]["error"] and all("data" in seen[n] for n in range(MOST_WATCHES))
        for socket in sockets[2:]:
            await socket.close()
        await asyncio.sleep(0.1)
        assert not found.dashboard.feed._open and not found.dashboard.feed._topics

    on_page(tmp_path, play)


def test_what_comes_from_outside_is_text_in_json(tmp_path: Path) -> None:
    run_at(tmp_path / "runs" / "<img src=x onerror=alert(1)>")

    async def play(found: Page) -> None:
        async with found.tab() as tab:
            (run,) = (await tab.watch(1, "runs"))["data"]["runs"]
            assert run["id"] == "<img src=x onerror=alert(1)>"
        answer = await found.ask(f"{UI}/runs/%3Cscript%3E/page")
        assert answer.status == 404 and answer.headers["content-type"].startswith("application/json")

    if os.name == "posix":
        on_page(tmp_path, play)
