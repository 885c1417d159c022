"""Calls that are passed on to a server as they are: the page, its settings and user data, files."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any
from urllib.parse import unquote_plus, urlencode

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from comfyload.comfy.address import with_credentials
from comfyload.comfy.socket import tls_context
from comfyload.comfy.wire.calls import TransportError
from comfyload.gateway import merged
from comfyload.gateway.files import Files
from comfyload.gateway.fleet import Fleet, Member, ServerConfig
from comfyload.gateway.inputs import InputFiles

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
SAFE = ("GET", "HEAD")

MOST_CACHED, MOST_ASSET = 48 << 20, 8 << 20
_ASSET = re.compile(r"/assets/[^?]*-[A-Za-z0-9_-]{8}\.\w+")
"""A file of the page whose name has the hash of its content: it never changes."""

_DRAWN = re.compile(r"/view\?(?:.*&)?(?:preview|channel)=")
"""A picture that the server makes anew, on its event loop: one at a time."""

_LISTS = re.compile(r"(?:/api)?/(?:models|embeddings|experiment/models)(?:/[^/]+)?|/internal/files/input")


class Unreachable(Exception):
    """The server does not answer; the call was not begun to be answered. `sent`: it may have reached the server."""

    def __init__(self, member: Member, error: Exception) -> None:
        super().__init__(f"{member.name} does not answer: {type(error).__name__}")
        self.sent = not isinstance(error, aiohttp.ClientConnectorError)


class Passing:
    def __init__(self, fleet: Fleet, session: aiohttp.ClientSession, files: Files, inputs: InputFiles) -> None:
        self._fleet = fleet
        self._session = session
        self._files = files
        self._inputs = inputs
        self._assets = _Assets()
        self._drawing = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._tls: dict[str, ssl.SSLContext] = {}

    async def on(self, request: web.Request) -> web.StreamResponse:
        """Pass the call on to the home server, its path as it was written; to another if that one does not answer."""
        path, _, query = request.raw_path.partition("?")
        if (cached := self._assets.answer(request)) is not None:
            return cached
        if request.method == "GET" and len(self._fleet) > 1 and _LISTS.fullmatch(path):
            return await self._lists(request)
        query = "&".join(part for part in query.split("&") if _key(part) != TOKEN)
        return await self._at_home(request, f"{path}?{query}" if query else path)

    async def _at_home(self, request: web.Request, path: str) -> web.StreamResponse:
        text, status = NO_SERVER, 503
        for _ in range(len(self._fleet)):
            home = self._fleet.home
            if home is None:
                break
            try:
                return await self._call(request, home, path)
            except Unreachable as error:
                self._fleet.away(home)
                text, status = str(error), 502
                if error.sent and request.method not in SAFE:
                    break
        return web.Response(status=status, text=text, headers={"Retry-After": "5"})

    async def view(self, request: web.Request) -> web.StreamResponse:
        """A file, from the server whose mark it has; an upload, from the home server."""
        given = {key: value for key, value in request.query.items() if key != TOKEN}
        server, query = self._files.view(given)
        upload = self._files.upload_in(given) if server is None else None
        member = self._fleet.home if server is None else self._fleet.get(server)
        try:
            if member is not None and upload is not None:
                folder, _, name = (await self._inputs.put(member, upload)).rpartition("/")
                query = query | {"filename": name, "subfolder": folder, "type": "input"}
            path = f"/view?{urlencode(query, errors='surrogateescape')}"
            if server is None:
                return await self._at_home(request, path)
            if member is None:
                return web.Response(status=404)
            return await self._call(request, member, path)
        except (Unreachable, TransportError) as error:
            return web.Response(status=502, text=str(error))

    async def view_at(self, request: web.Request, server: str | None, query: Mapping[str, str]) -> web.StreamResponse:
        """A file of that server; None: of the home server."""
        member = self._fleet.home if server is None else self._fleet.get(server)
        if member is None:
            return web.Response(status=404)
        try:
            return await self._call(request, member, f"/view?{urlencode(query, errors='surrogateescape')}")
        except Unreachable as error:
            return web.Response(status=502, text=str(error))

    async def _lists(self, request: web.Request) -> web.StreamResponse:
        """What the page may choose from: the models of all servers; the files of the home server, and the uploads."""
        path = request.rel_url.raw_path
        of_files, home = path.endswith("/files/input"), self._fleet.home
        members = self._fleet.joined if not of_files else [home] if home is not None else []
        answers = await asyncio.gather(*(self._listed(member, path) for member in members))
        each: list[list[Any]] = [found for found in answers if found is not None]
        if not each:
            return await self._at_home(request, path)
        return web.json_response(merged.lists([*each, self._files.listed()] if of_files else each))

    async def _listed(self, member: Member, path: str) -> list[Any] | None:
        headers, url, tls = self._to(member.given, path)
        try:
            async with self._session.get(url, headers=headers, ssl=tls) as reply:
                found = json.loads(await reply.read()) if reply.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return found if isinstance(found, list) else None

    def _to(self, given: ServerConfig, path: str) -> tuple[dict[str, str], URL, ssl.SSLContext | bool]:
        """The headers, the address and the TLS of a call to a server. `path`: as it was written, from its slash on."""
        base, headers = with_credentials(given.url, given.headers)
        query = base.raw_query_string
        path += ("&" if "?" in path else "?") + query if query else ""
        url = URL(str(base.with_query(None)).removesuffix("/") + path, encoded=True)
        if given.ca_file is None and not given.insecure:
            return headers, url, True
        if given.name not in self._tls:
            self._tls[given.name] = tls_context(given.ca_file, given.insecure)
        return headers, url, self._tls[given.name]

    async def _call(self, request: web.Request, member: Member, path: str) -> web.StreamResponse:
        """Pass the call on to this server.

        Raises:
            Unreachable: it does not answer.
        """
        dropped = _dropped(request.headers)
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in dropped)
        headers.popall("Content-Encoding", None)  # its body is unpacked when we read it
        own, url, tls = self._to(member.given, path)
        headers.update(own)
        body = request.content if request.can_read_body else None
        drawn = _DRAWN.search(path) is not None
        asset = request.method == "GET" and "Range" not in request.headers and _ASSET.fullmatch(path) is not None
        answer: web.StreamResponse | None = None
        try:
            async with (
                self._drawing[member.name] if drawn else nullcontext(),
                self._session.request(
                    request.method, url, headers=headers, data=body, ssl=tls, allow_redirects=False
                ) as reply,
            ):
                dropped = _dropped(reply.headers) | {"date", "server", "set-cookie"}
                kept = CIMultiDict(
                    (name, value) for name, value in reply.headers.items() if name.lower() not in dropped
                )
                if asset and reply.status == 200:
                    content = await reply.read()
                    self._assets.keep(path, content, kept)
                    return web.Response(body=content, headers=kept)
                answer = web.StreamResponse(status=reply.status, reason=reply.reason, headers=kept)
                length = reply.headers.get("Content-Length")
                if length is not None:
                    answer.content_length = int(length)
                await answer.prepare(request)
                async for chunk in reply.content.iter_chunked(CHUNK):
                    await answer.write(chunk)
                await answer.write_eof()
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            if answer is None or not answer.prepared:
                raise Unreachable(member, error) from None
            if request.transport is not None:
                request.transport.abort()  # a part of the answer is out: only its breaking off says so
            return answer


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


class _Assets:
    """The newest files of the page whose names have hashes: their content, and the headers of the reply."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[bytes, Mapping[str, str]]] = OrderedDict()
        self._bytes = 0

    def keep(self, path: str, content: bytes, headers: Mapping[str, str]) -> None:
        if len(content) > MOST_ASSET or path in self._kept or "Content-Encoding" in headers:
            return
        self._kept[path] = content, headers
        self._bytes += len(content)
        while self._bytes > MOST_CACHED:
            _, (oldest, _) = self._kept.popitem(last=False)
            self._bytes -= len(oldest)

    def answer(self, request: web.Request) -> web.Response | None:
        """The reply to a request for one of them; None: it is not here."""
        found = self._kept.get(request.rel_url.raw_path)
        if found is None or request.method != "GET" or "Range" in request.headers:
            return None
        content, headers = found
        self._kept.move_to_end(request.rel_url.raw_path)
        tag = headers.get("Etag")
        if tag is not None and request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers=headers)
