"""How the dashboard answers: what is refused in words, headers on everything, and what is unchanged not sent again."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from functools import wraps

from aiohttp import web

from comfyload.errors import ComfyloadError
from comfyload.record.codec import encode

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]
"""Method, path and what answers, as in the gateway."""

PAGE = "/comfyload/"
UI = f"{PAGE}ui"

TOKEN_HEADER = "X-Comfyload-Token"
"""What a page of ours sends with an action: no other site's page can read it, nor send it."""

MOST_BODY = 32 << 20
"""Of a call: a workflow with pictures in it."""

BODY_S = 60.0
"""How long a body may take to come."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer, unless it has its own."""

FAULT = "an error in comfyload"
_LOG = logging.getLogger("comfyload.web")


class Refused(Exception):
    """The answer to a call that cannot be done: with which status, why, and what to do."""

    def __init__(self, status: int, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.hint = hint


def refused(error: Exception) -> Refused:
    """The error in words for the page; a defect of ours is logged, and only named."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ComfyloadError):
        return Refused(422, error.message, error.hint)
    _LOG.error("a view of the dashboard failed", exc_info=error)
    return Refused(500, f"{FAULT}: {type(error).__name__}", "the terminal of the dashboard has the traceback")


def answer(value: object, status: int = 200) -> web.Response:
    """The value as JSON."""
    return web.Response(body=encode(value), status=status, content_type="application/json", charset="utf-8")


def guarded(handler: Handler, token: str, may: Callable[[web.Request], bool]) -> Handler:
    """The handler with all that holds for each: who may call, the token of an action, the headers, errors in words.

    `token`: of this process, which only our own page knows. `may`: whether the caller may see all.
    """

    @wraps(handler)
    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            if not may(request):
                raise Refused(403, "only an operator sees the dashboard", "operator = true of a [[tenant]] in --config")
            if request.method not in ("GET", "HEAD"):
                await _check_action(request, token)
            found = await handler(request)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - one call's error must not end the others' page
            why = refused(error)
            found = answer({"error": why.why, "hint": why.hint}, why.status)
        return _tagged(request, found)

    return answered


async def _check_action(request: web.Request, token: str) -> None:
    """Only our own page acts: its token is known to no other, and a form of another site cannot send JSON.

    Raises:
        Refused: it is not our page, or its body is not one that is read.
    """
    given = request.headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(given.encode("utf-8", "backslashreplace"), token.encode()):
        raise Refused(403, "the page is of an earlier start of the dashboard", "load it again")
    if request.content_type != "application/json":
        raise Refused(415, "an action is sent as JSON")
    if request.content_length is None:
        raise Refused(411, "the length of the body is missing")
    if request.content_length > MOST_BODY:
        raise Refused(413, f"more than {MOST_BODY >> 20} MiB in one call")
    try:
        async with asyncio.timeout(BODY_S):
            await request.read()  # it keeps what it has read
    except TimeoutError:
        raise Refused(408, "the body took too long") from None


def _tagged(request: web.Request, found: web.StreamResponse) -> web.StreamResponse:
    """The answer with our headers and its tag; 304 where the caller has it already."""
    for name, value in HEADERS.items():
        found.headers.setdefault(name, value)
    if request.method != "GET" or found.status != 200 or not isinstance(found, web.Response):
        return found
    if isinstance(found.body, bytes) and found.etag is None:
        found.etag = hashlib.blake2b(found.body, digest_size=12).hexdigest()
    if found.etag is not None and any(tag.value == found.etag.value for tag in request.if_none_match or ()):
        headers = {name: found.headers[name] for name in (*HEADERS, "ETag") if name in found.headers}
        return web.Response(status=304, headers=headers)
    return found
