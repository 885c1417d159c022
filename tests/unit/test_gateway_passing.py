"""Calls that the gateway passes on to a server: what the server is sent, and what the page gets back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

from comfyload.comfy.http import Http
from comfyload.gateway.files import Files
from comfyload.gateway.fleet import Member, ServerConfig
from comfyload.gateway.inputs import InputFiles
from comfyload.gateway.passing import Passing

ASSET = b"export const page = 1;"


@dataclass
class Upstream:
    """A server that notes what it is sent."""

    name: str
    heard: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    together: int = 0
    most_together: int = 0
    breaks_off: bool = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.heard.append((request.method, request.raw_path, dict(request.headers), body))
        if "preview=" in request.raw_path:
            self.together += 1
            self.most_together = max(self.most_together, self.together)
            await asyncio.sleep(0.02)
            self.together -= 1
        if self.breaks_off:
            reply = web.StreamResponse(headers={"Content-Length": "1000"})
            await reply.prepare(request)
            await reply.write(b"half")
            assert request.transport is not None
            request.transport.abort()
            return reply
        if request.path.startswith("/assets/"):
            headers = {"Etag": '"1"', "Content-Type": "text/javascript", "Cache-Control": "no-store"}
            return web.Response(body=ASSET, headers=headers)
        if request.path in ("/api/models", "/api/embeddings", "/experiment/models"):
            return web.json_response(
                [{"name": self.name}, {"name": "both"}] if "exp" in request.path else [self.name, "both"]
            )
        if "Range" in request.headers:
            return web.Response(status=206, body=b"bcd", headers={"Content-Range": "bytes 1-3/9", "Etag": '"2"'})
        if request.headers.get("If-None-Match") == '"2"':
            return web.Response(status=304, headers={"Etag": '"2"'})
        return web.json_response({"from": self.name}, headers={"X-Own": "yes", "Set-Cookie": "a=b"})


@dataclass
class Behind:
    """As many servers, the first of which is home as long as it answers."""

    members: list[Member]
    gone: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def joined(self) -> list[Member]:
        return self.members

    @property
    def home(self) -> Member | None:
        return next((member for member in self.members if member.name not in self.gone), None)

    def get(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)

    def away(self, member: Member) -> None:
        self.gone.add(member.name)


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def listening(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Look = Callable[[aiohttp.ClientSession, str, list[Upstream], Behind], Awaitable[None]]


def over(
    folder: Path, count: int, look: Look, *, dead: int = 0, path: str = "", headers: dict[str, str] | None = None
) -> None:
    """Call a `Passing` over so many servers, the first `dead` of which do not listen."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            ups, members = [Upstream(f"gpu{number}") for number in range(1, count + 1)], []
            for number, up in enumerate(ups):
                if number < dead:
                    url = f"http://127.0.0.1:{free_port()}"
                else:
                    url = await stack.enter_async_context(listening(up.answer))
                settings = ServerConfig(name=up.name, url=URL(f"{url}/{path}"), headers=headers or {})
                http = await stack.enter_async_context(Http.connect(settings.url, settings.headers))
                members.append(Member(settings, http, None, AsyncExitStack()))  # type: ignore[arg-type]
            fleet = Behind(members)
            session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
            files = Files(folder / "uploads", lambda: [up.name for up in ups])
            passing = Passing(fleet, session, files, InputFiles(files, fleet.get))  # type: ignore[arg-type]

            async def front(request: web.Request) -> web.StreamResponse:
                if request.path.endswith("/view"):
                    return await passing.view(request)
                return await passing.on(request)

            base = await stack.enter_async_context(listening(front))
            client = await stack.enter_async_context(aiohttp.ClientSession())
            await look(client, base, ups, fleet)

    asyncio.run(main())


def test_the_path_goes_on_as_it_was_written(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, ups: list[Upstream], _: Behind) -> None:
        for path in ("/api/userdata/workflows%2Fa%20b.json?overwrite=true&x=%2F", "//prompt", "/a%7Eb/%C3%A4?q=a+b"):
            async with client.post(URL(base + path, encoded=True), data=b"x" * 100_000) as reply:
                assert reply.status == 200
            method, heard, _headers, body = ups[0].heard[-1]
            assert (method, heard, len(body)) == ("POST", path, 100_000)

    over(tmp_path, 1, look)


def test_what_a_browser_adds_stays_here_and_the_server_s_own_headers_go(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, ups: list[Upstream], _: Behind) -> None:
        of_browser = {
            "Origin": base, "Referer": base, "Cookie": "comfyload_token=s3cret", "Authorization": "Bearer s3cret",
            "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Comfy-User": "me", "Accept": "text/css",
        }  # fmt: skip
        async with client.get(base + "/api/settings", headers=of_browser) as reply:
            assert reply.headers["X-Own"] == "yes"
        _method, path, headers, _body = ups[0].heard[-1]
        assert path == "/base/api/settings?token=abc"
        kept = {name.lower(): value for name, value in headers.items()}
        assert not {"origin", "referer", "cookie", "sec-fetch-site", "sec-fetch-mode"} & kept.keys()
        assert (kept["comfy-user"], kept["accept"], kept["authorization"]) == ("me", "text/css", "Bearer ours")

    over(tmp_path, 1, look, path="base/?token=abc", headers={"Authorization": "Bearer ours"})


def test_another_server_is_the_home_when_it_does_not_answer(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, ups: list[Upstream], fleet: Behind) -> None:
        async with client.post(base + "/api/settings/x", data=b"[1]") as reply:
            assert (await reply.json()) == {"from": "gpu2"}, "what was not sent may go to another"
        assert fleet.gone == {"gpu1"} and ups[1].heard[-1][3] == b"[1]"
        fleet.gone.clear()
        async with client.get(base + "/") as reply:
            assert (await reply.json()) == {"from": "gpu2"}

    over(tmp_path, 2, look, dead=1)


def test_without_any_server_the_page_is_told_so(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, _ups: list[Upstream], _: Behind) -> None:
        async with client.get(base + "/") as reply:
            assert reply.status == 502 and "gpu2 does not answer" in await reply.text()
        async with client.get(base + "/") as reply:
            assert reply.status == 503

    over(tmp_path, 2, look, dead=2)


def test_an_answer_that_breaks_off_breaks_off_here(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, ups: list[Upstream], fleet: Behind) -> None:
        ups[0].breaks_off = True
        try:
            async with client.get(base + "/big") as reply:
                await reply.read()
        except aiohttp.ClientPayloadError:
            assert fleet.gone == set() and len(ups[0].heard) == 1
        else:
            raise AssertionError("half a file was given out as a whole one")

    over(tmp_path, 1, look)


def test_a_hashed_file_of_the_page_is_asked_for_once(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, ups: list[Upstream], _: Behind) -> None:
        for _again in range(3):
            async with client.get(base + "/assets/index-vtow2bzT.js") as reply:
                assert await reply.read() == ASSET
                assert (reply.headers["Etag"], reply.headers["Content-Type"]) == ('"1"', "text/javascript")
        async with client.get(base + "/assets/index-vtow2bzT.js", headers={"If-None-Match": '"1"'}) as reply:
            assert reply.status == 304
        assert len(ups[0].heard) == 1
        for path in ("/assets/favicon.ico", "/index.html"):
            for _again in range(2):
                async with client.get(base + path) as reply:
                    assert reply.status == 200
        assert len(ups[0].heard) == 5

    over(tmp_path, 1, look)


def test_parts_and_tags_pass(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, ups: list[Upstream], _: Behind) -> None:
        view = base + "/view?filename=x.png&subfolder=@gpu2/tr&type=output"
        async with client.get(view, headers={"Range": "bytes=1-3"}) as reply:
            assert (reply.status, reply.headers["Content-Range"], await reply.read()) == (206, "bytes 1-3/9", b"bcd")
        async with client.get(view, headers={"If-None-Match": '"2"'}) as reply:
            assert reply.status == 304
        async with client.head(view) as reply:
            assert reply.status == 200 and int(reply.headers["Content-Length"]) > 0
        assert not ups[0].heard
        assert [heard[1] for heard in ups[1].heard] == ["/view?filename=x.png&subfolder=tr&type=output"] * 3

    over(tmp_path, 2, look)


def test_pictures_are_made_anew_one_at_a_time(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, ups: list[Upstream], _: Behind) -> None:
        async def get(number: int) -> int:
            async with client.get(f"{base}/api/view?filename={number}.png&preview=webp;60") as reply:
                await reply.read()
                return reply.status

        assert await asyncio.gather(*map(get, range(8))) == [200] * 8
        assert ups[0].most_together == 1

    over(tmp_path, 1, look)


def test_lists_of_models_are_those_of_all_servers(tmp_path: Path) -> None:
    async def look(client: aiohttp.ClientSession, base: str, ups: list[Upstream], _: Behind) -> None:
        for path in ("/api/models", "/api/embeddings"):
            async with client.get(base + path) as reply:
                assert await reply.json() == ["gpu1", "both", "gpu2"]
        async with client.get(base + "/experiment/models") as reply:
            assert [item["name"] for item in await reply.json()] == ["gpu1", "both", "gpu2"]

    over(tmp_path, 2, look)
