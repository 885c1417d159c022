"""The probe's HTTP routes: who may ask, what a question must look like, and what every answer is."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .rows import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .probe import Probe

__all__ = ["register"]

PREFIX = "/comfyload/v1"
LIMIT, LIMIT_MOST = 1000, 5000
DIGITS = 18

_log = logging.getLogger("comfyload_probe")


class _Refused(Exception):
    """The question cannot be answered; `status` is that of HTTP."""

    def __init__(self, status: int, error: str, hint: str) -> None:
        super().__init__(error)
        self.status, self.error, self.hint = status, error, hint


def register(probe: Probe, routes: Any) -> None:
    """Put the routes into ComfyUI's table, which it reads when its server starts; ComfyUI adds the same under /api."""
    answers: dict[str, Callable[[Probe, web.Request], Awaitable[web.Response]]] = {
        "events": _events,
        "clock": _clock,
        "environment": _environment,
        "metrics": _metrics,
        "overview": _overview,
    }
    for name, answer in answers.items():
        routes.get(f"{PREFIX}/{name}")(_guarded(probe, answer))


def _guarded(
    probe: Probe, answer: Callable[[Probe, web.Request], Awaitable[web.Response]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        try:
            _admit(probe.settings.token, request)
            return await answer(probe, request)
        except _Refused as refused:
            return _refusal(refused.status, refused.error, refused.hint)
        except Exception as error:  # noqa: BLE001 - a bug of ours is one bad answer, and no more
            probe.errors += 1
            _log.exception("a route of the probe failed")
            hint = "ComfyUI's log has the traceback; please report it."
            return _refusal(500, f"the probe failed: {type(error).__name__}", hint)

    return handler


def _admit(token: str | None, request: web.Request) -> None:
    if token is None:
        return
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("X-Comfyload-Token", "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode("utf-8", "surrogateescape")):
        hint = "Send `Authorization: Bearer TOKEN` or `X-Comfyload-Token: TOKEN`, the server's COMFYLOAD_PROBE_TOKEN."
        raise _Refused(401, "the token is wrong or missing", hint)


async def _events(probe: Probe, request: web.Request) -> web.Response:
    after = _number(request, "after", 0, 0, 10**DIGITS - 1)
    limit = _number(request, "limit", LIMIT, 1, LIMIT_MOST)
    boot = _once(request, "boot")
    journal = probe.journal
    if boot is not None and boot != journal.boot:
        after = 0
    lines, last, missed = journal.rows(after, limit)
    head = json.dumps({"schema": SCHEMA, "boot": journal.boot, "next": last, "missed": missed})
    rows = b",".join(line.rstrip() for line in lines)
    return _reply(head[:-1].encode() + b', "rows": [' + rows + b"]}")


async def _clock(probe: Probe, request: web.Request) -> web.Response:
    journal = probe.journal
    mono_s, unix_s = time.perf_counter(), time.time()
    return _json({"schema": SCHEMA, "boot": journal.boot, "mono_s": mono_s, "unix_s": unix_s, "seq": journal.last_seq})


async def _environment(probe: Probe, request: web.Request) -> web.Response:
    # The facts may still be gathered, by a thread that runs git: ComfyUI's loop does not wait for it.
    return _json(await asyncio.get_running_loop().run_in_executor(None, probe.environment))


async def _overview(probe: Probe, request: web.Request) -> web.Response:
    return _json(probe.overview())


async def _metrics(probe: Probe, request: web.Request) -> web.Response:
    try:
        from .metrics import prometheus
    except ImportError as error:
        hint = f"A file of the pack is missing: {error}"
        raise _Refused(503, "there are no metrics in this installation", hint) from None
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=prometheus(probe.snapshot()).encode("utf-8", "backslashreplace"), headers=headers)


def _number(request: web.Request, name: str, default: int, lowest: int, highest: int) -> int:
    said = _once(request, name)
    if said is None:
        return default
    if not (said.isascii() and said.isdigit() and len(said) <= DIGITS and lowest <= int(said) <= highest):
        raise _Refused(400, f"{name} is no whole number from {lowest} to {highest}", f"For example: {name}={default}")
    return int(said)


def _once(request: web.Request, name: str) -> str | None:
    said = request.query.getall(name, [])
    if len(said) > 1:
        raise _Refused(400, f"{name} is given {len(said)} times", "Give it once.")
    return said[0] if said else None


def _refusal(status: int, error: str, hint: str) -> web.Response:
    return _json({"error": error, "hint": hint}, status)


def _json(value: Any, status: int = 200) -> web.Response:
    return _reply(json.dumps(value, default=str).encode(), status)


def _reply(body: bytes, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
    return web.Response(body=body, status=status, headers=headers)
