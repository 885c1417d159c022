"""How the dashboard answers over HTTP: JSON with an ETag, and errors in words with a hint."""

import json
from functools import wraps
from typing import Any

from aiohttp import web

from comfyload.errors import ComfyloadError
from comfyload.gateway.http import OWN, Handler
from comfyload.web.worker import Answer, Busy, Compute, Worker

UI = f"{OWN}ui"
_MOST_BODY = 64 << 10
_AGAIN_S = 2
"""After how long one who was refused for want of room may ask again."""


class Unanswered(Exception):
    """The answer to a request that cannot be done."""

    def __init__(self, status: int, error: str, hint: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.hint = hint


def answered(handler: Handler) -> Handler:
    """The handler, whose errors are answers too."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Unanswered as problem:
            return _error(problem.status, problem.error, problem.hint)
        except ComfyloadError as error:
            return _error(422, error.message, error.hint)
        except Busy:
            response = _error(503, "too much is being computed at this moment", f"try again in {_AGAIN_S} s")
            response.headers["Retry-After"] = str(_AGAIN_S)
            return response

    return answer


async def tagged(request: web.Request, worker: Worker, compute: Compute, *arguments: Any) -> web.Response:
    """What the worker computes; nothing but 304 if the tab has it already."""
    tag = worker.tag(compute, *arguments)
    if has(request, tag):
        return not_modified(tag)
    answer = await worker.answer(compute, *arguments)
    response = send(answer)
    if answer.status == 200:
        response.etag = tag
    return response


def send(answer: Answer) -> web.Response:
    """The answer as it goes out. Whoever keeps it asks each time whether it is still so."""
    headers = {"Content-Type": answer.kind, "Cache-Control": "private, no-cache"}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def has(request: web.Request, tag: str) -> bool:
    """Whether the tab has what this tag stands for."""
    return any(known.value in (tag, "*") for known in request.if_none_match or ())


def not_modified(tag: str) -> web.Response:
    """It is still so."""
    response = web.Response(status=304, headers={"Cache-Control": "private, no-cache"})
    response.etag = tag
    return response


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent.

    Raises:
        Unanswered: it is none.
    """
    content = await request.read()  # whoever let the call in may have read it already
    if len(content) > _MOST_BODY:
        raise Unanswered(400, f"the body is larger than {_MOST_BODY >> 10} KiB")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unanswered(400, "the body is not a JSON object")
    return found


def _error(status: int, error: str, hint: str) -> web.Response:
    return web.json_response({"error": error, "hint": hint}, status=status)
