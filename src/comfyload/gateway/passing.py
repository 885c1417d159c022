"""Calls that are passed on to a server as they are: the page, its settings and user data, files."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_plus, urlencode

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from comfyload.gateway.fleet import Fleet, Member

HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade",
}  # fmt: skip
OF_THE_BROWSER = {"origin", "referer", "cookie", "authorization", "host", "content-length"}
"""ComfyUI refuses what comes from a page of another address; and our tokens are not for it."""

SHOWN_AS = "sec-fetch-dest"
"""Says what the browser wants a file for: a drawing is served as one only where an image is wanted."""
OF_OTHERS = {"forwarded", "x-real-ip", "x-original-url", "x-rewrite-url", "x-http-method-override"}
"""What a proxy tells a server; from a client it would be a lie. So are all that begin with `x-forwarded-`."""

TOKEN = "token"
"""The parameter of a query by which a client may show its token; it goes no further."""

CHUNK = 1 << 16
NO_SERVER = "no server answers"


class Passing:
    def __init__(self, fleet: Fleet, session: aiohttp.ClientSession) -> None:
        self._fleet = fleet
        self._session = session

    async def on(self, request: web.Request) -> web.StreamResponse:
        """Pass the call on to the home server, its path as it was written."""
        home = self._fleet.home
        if home is None:
            return web.Response(status=503, text=NO_SERVER, headers={"Retry-After": "5"})
        path, _, query = request.raw_path.partition("?")
        query = "&".join(part for part in query.split("&") if _key(part) != TOKEN)
        path = path.removeprefix("/")
        return await self._call(request, home, f"{path}?{query}" if query else path)

    async def view(self, request: web.Request, server: str, query: Mapping[str, str]) -> web.StreamResponse:
        member = self._fleet.get(server)
        if member is None:
            return web.Response(status=404)
        query = {key: value for key, value in query.items() if key != TOKEN}
        return await self._call(request, member, f"view?{urlencode(query, errors='surrogateescape')}")

    async def _call(self, request: web.Request, member: Member, path: str) -> web.StreamResponse:
        dropped = _dropped(request.headers)
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in dropped)
        headers.popall("Content-Encoding", None)  # its body is unpacked when we read it
        headers.update(member.given.headers)
        base = str(member.given.url)
        url = URL(base + ("" if base.endswith("/") else "/") + path, encoded=True)
        body = request.content if request.can_read_body else None
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as reply:
                dropped = _dropped(reply.headers) | {"date", "server", "set-cookie"}
                kept = CIMultiDict(
                    (name, value) for name, value in reply.headers.items() if name.lower() not in dropped
                )
                length = reply.headers.get("Content-Length")
                answer = web.StreamResponse(status=reply.status, reason=reply.reason, headers=kept)
                if length is not None:
                    answer.content_length = int(length)
                await answer.prepare(request)
                async for chunk in reply.content.iter_chunked(CHUNK):
                    await answer.write(chunk)
                await answer.write_eof()
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            text = f"{member.name} does not answer: {type(error).__name__}"
            return web.Response(status=502, text=text)


def _dropped(headers: Mapping[str, str]) -> set[str]:
    """Names of headers, in lower case, that are between two neighbours, or that must not be passed on."""
    named = {
        each.strip().lower()
        for name, value in headers.items()
        if name.lower() == "connection"
        for each in value.split(",")
    }
    others = {name for name in map(str.lower, headers) if name.startswith(("sec-", "x-forwarded-"))}
    return (HOP_BY_HOP | OF_THE_BROWSER | OF_OTHERS | named | others) - {SHOWN_AS}


def _key(part: str) -> str:
    """The name of one part of a query, as any server may read it."""
    return unquote_plus(part.partition("=")[0])
