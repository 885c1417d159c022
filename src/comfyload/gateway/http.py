"""The gateway on a socket: ComfyUI's routes, answered from our own ledger; the rest is passed on to the home server."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST

from comfyload.comfy.wire.ids import is_uuid
from comfyload.errors import RunFilesError
from comfyload.gateway import forms, paths
from comfyload.gateway.bodies import MOST_BODY, Bodies, UnfitBody
from comfyload.gateway.connection import cut_off, send
from comfyload.gateway.guard import AccessGuard, Denied
from comfyload.gateway.history import History
from comfyload.gateway.intake import Intake, PromptRefused
from comfyload.gateway.login import LOGIN, admitted, login, refusal
from comfyload.gateway.metrics import Metrics
from comfyload.gateway.passing import Passing
from comfyload.gateway.posted import posted_in
from comfyload.gateway.service import Gateway
from comfyload.gateway.sockets import ClientSocket, status_frame
from comfyload.gateway.tenant_files import TenantFiles
from comfyload.gateway.uploads import Uploads

OWN = "/comfyload/"
AT_ONCE = 1 << 20
JSON = "application/json; charset=utf-8"
TENANT: Any = getattr(web, "RequestKey", lambda name, _: name)("tenant", str)
"""Of a request: whose it is. Before aiohttp 3.14 the keys of requests are names."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]

UNGUARDED = (f"{OWN}livez", f"{OWN}readyz")
"""What a supervisor may ask without a token."""

PROTECTED = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On everything of ours; a page of ours has a policy of its own instead."""


class Front:
    """All routes. `own`: those under `/comfyload/`."""

    def __init__(
        self, gateway: Gateway, intake: Intake, guard: AccessGuard, passing: Passing, own: Sequence[Route] = ()
    ) -> None:
        self._gateway = gateway
        self._intake = intake
        self._guard = guard
        self._passing = passing
        self._history = History(gateway)
        self.metrics = Metrics(gateway)
        self._uploads = Uploads(gateway.files, gateway.fleet, gateway.inputs)
        owns = gateway.store.owns
        self._tenant_files = TenantFiles(gateway.files, gateway.fleet, gateway.inputs, passing, owns)
        self._bodies = Bodies()
        self._own = own

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BODY, middlewares=[self._guarded])
        app.router.add_get(f"{OWN}metrics", self._metrics)
        for method, path, handler in self._routes():
            for prefix in ("/api",) if path.startswith("/jobs") else ("", "/api"):
                app.router.add_route(method, prefix + path, handler)
                if method == "GET" and path != "/ws":
                    app.router.add_route("HEAD", prefix + path, handler)
        for method in ("GET", "POST"):
            app.router.add_route(method, LOGIN, self._login)
        for method, path, handler in self._own:
            app.router.add_route(method, path, handler)
        app.router.add_route("*", OWN + "{path:.*}", _nothing_there)
        app.router.add_route("*", "/{path:.*}", self._rest)
        app.on_response_prepare.append(_protect)
        return app

    def _routes(self) -> list[Route]:
        return [
            ("GET", "/ws", self._socket),
            ("GET", "/prompt", self._get_prompt),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("GET", "/history", self._get_history),
            ("POST", "/history", self._post_history),
            ("GET", "/history/{id}", self._get_entry),
            ("POST", "/interrupt", self._interrupt),
            ("POST", "/free", self._free),
            ("GET", "/jobs", self._get_jobs),
            ("POST", "/jobs/cancel", self._cancel_many),
            ("GET", "/jobs/{id}", self._get_job),
            ("POST", "/jobs/{id}/cancel", self._cancel_one),
            ("GET", "/view", self._view),
            ("POST", "/upload/image", self._upload),
            ("POST", "/upload/mask", self._upload),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{name}", self._object_info),
            ("GET", "/system_stats", self._system_stats),
        ]

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        raw = request.raw_path.partition("?")[0]
        parts = paths.parts_of(raw)
        if request.method in ("CONNECT", "TRACE"):
            return web.Response(status=405)
        if parts is None:
            return web.Response(status=400, text="400: Bad Request")
        try:
            request[TENANT] = admitted(request, self._guard)
        except Denied as denied:
            if denied.status == 401 and (request.path in UNGUARDED or raw == LOGIN):
                return await handler(request)
            return refusal(request, denied)
        try:
            return await handler(request)
        except web.RequestPayloadError:
            return web.Response(status=400, text="400: Bad Request")
        except UnfitBody as unfit:
            if unfit.status == 503:
                return _json(forms.refusal("queue_full", unfit.why), 503, {"Retry-After": "5"})
            return web.Response(status=unfit.status, text=unfit.why)
        except RunFilesError as error:
            # The disk is full, or gone: nothing is taken that could be lost.
            return _json(
                forms.refusal("not_stored", f"The gateway cannot store it: {error}"), 503, {"Retry-After": "30"}
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, HttpProcessingError):
            # ComfyUI does not check the shape of what it is sent: it fails on it, in these words.
            return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        return await login(request, self._guard)

    # --- prompts

    async def _get_prompt(self, request: web.Request) -> web.Response:
        remaining = self._gateway.lengths[request[TENANT]]
        return _json(forms.dumps({"exec_info": {"queue_remaining": remaining}}))

    async def _post_prompt(self, request: web.Request) -> web.Response:
        async with self._bodies.json_of(request) as body:
            try:
                taken = self._intake.submit(posted_in(body, request.headers, request[TENANT]))
                del body  # it may be large, and is let go as soon as it is on disk
                return _json(await taken)
            except PromptRefused as refused:
                return _json(refused.body, refused.status, refused.headers)

    async def _get_queue(self, request: web.Request) -> web.StreamResponse:
        return await _in_parts(request, self._history.queue(request[TENANT]))

    async def _post_queue(self, request: web.Request) -> web.Response:
        (everything, ids), tenant = _to_remove(await self._read(request)), request[TENANT]
        if everything:
            ids += [job.id for job in self._gateway.jobs.values() if job.tenant == tenant]
        for job_id in ids:
            job = self._gateway.jobs.get(job_id)
            if job is not None and not job.began:
                await self._gateway.cancel(job_id, tenant)
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        """Without an id: the caller's only job that runs. Never everybody's, whatever ComfyUI does."""
        try:
            body = await self._read(request, "{}")
        except ValueError:
            body = {}
        prompt_id, tenant = body.get("prompt_id"), request[TENANT]
        if prompt_id is None:
            running = [job.id for job in self._gateway.jobs.values() if job.tenant == tenant and job.began]
            if len(running) > 1:
                text = "Several of your jobs run: say which, with prompt_id"
                return _json(forms.refusal("several_running", text), 400)
            prompt_id = running[0] if running else ""
        await self._gateway.cancel(str(prompt_id), tenant, only_running=True)
        return web.Response()

    async def _free(self, request: web.Request) -> web.Response:
        body = await self._read(request)
        if body.get("unload_models") or body.get("free_memory"):
            await self._gateway.fleet.free()
        return web.Response()

    # --- what has become of them

    async def _get_history(self, request: web.Request) -> web.StreamResponse:
        limit = int(request.query["max_items"]) if "max_items" in request.query else None
        offset = int(request.query.get("offset", "-1"))
        return await _in_parts(request, self._history.all(request[TENANT], limit, offset))

    async def _get_entry(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        entry = self._history.entry(job_id, request[TENANT])
        return _json(b"{}" if entry is None else b"{%b: %b}" % (forms.dumps(job_id), entry))

    async def _post_history(self, request: web.Request) -> web.Response:
        everything, ids = _to_remove(await self._read(request))
        self._history.forget(request[TENANT], None if everything else ids)
        return web.Response()

    async def _get_jobs(self, request: web.Request) -> web.Response:
        found, status = self._history.listed(request[TENANT], dict(request.query))
        return _json(forms.dumps(found), status)

    async def _get_job(self, request: web.Request) -> web.Response:
        found = self._history.job(request.match_info["id"], request[TENANT])
        return _json(forms.dumps(found or {"error": "Job not found"}), 200 if found else 404)

    async def _cancel_one(self, request: web.Request) -> web.Response:
        done = await self._gateway.cancel(request.match_info["id"], request[TENANT])
        return _json(forms.dumps({"cancelled": done}))

    async def _cancel_many(self, request: web.Request) -> web.Response:
        try:
            body = await self._read(request)
        except ValueError:
            return _json(forms.dumps({"error": "Request body must be valid JSON"}), 400)
        ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(ids, list):
            return _json(forms.dumps({"error": "job_ids must be a list"}), 400)
        wrong = [found if isinstance(found, str) else repr(found) for found in ids if not is_uuid(found)]
        if wrong:
            return _json(forms.dumps({"error": "job_ids contains invalid id(s)", "invalid_ids": wrong}), 400)
        done = [await self._gateway.cancel(job_id, request[TENANT]) for job_id in ids]
        return _json(forms.dumps({"cancelled": any(done)}))

    # --- files, facts, and the rest

    async def _view(self, request: web.Request) -> web.StreamResponse:
        if self._gateway.files.apart:
            return await self._tenant_files.view(request, request[TENANT])
        return await self._passing.view(request)

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        if self._gateway.files.apart:
            return await self._tenant_files.upload(request, request[TENANT])
        return await (self._uploads.take(request) if self._gateway.files.marked else self._passing.on(request))

    async def _object_info(self, request: web.Request) -> web.StreamResponse:
        name, fleet = request.match_info.get("name", ""), self._gateway.fleet
        await fleet.refresh()
        body = fleet.described(name, self._gateway.files.listed(request[TENANT]))
        return await self._passing.on(request) if body is None else _json(body)

    async def _system_stats(self, request: web.Request) -> web.Response:
        found = await self._gateway.fleet.stats()
        if found is None:
            return web.Response(status=503, text="no server answers", headers={"Retry-After": "5"})
        return _json(found)

    async def _metrics(self, _: web.Request) -> web.Response:
        kind = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=self.metrics.text(), headers=kind)

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        """Pass on what is nobody's job: what may be read as one of our own paths is answered for its owner, or not."""
        parts = paths.parts_of(request.raw_path.partition("?")[0]) or []
        names = paths.plain(parts)
        if request.method == "OPTIONS":
            return web.Response()
        if paths.is_own(names):
            return self._nothing_there(request.method, "/" + "/".join(names))
        if "" in parts[:-1]:
            return web.Response(status=404)
        if self._guard.apart and names[:1] and names[0] in paths.OF_EVERYBODY:
            return web.json_response({"error": "it tells of the files and prompts of all tenants"}, status=403)
        return await self._passing.on(request)

    def _nothing_there(self, method: str, path: str) -> web.Response:
        """What ComfyUI answers where it has no such route; whatever the path, it looks for a file of the page there."""
        if method in ("GET", "HEAD"):
            return web.Response(status=404, headers={"Content-Type": "application/octet-stream"})
        there = {how for how, route, _ in self._routes() if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), path)}
        allowed = ",".join(sorted(there | {"GET", "HEAD"}))
        return web.Response(status=405, text="405: Method Not Allowed", headers={"Allow": allowed})

    async def _read(self, request: web.Request, empty: str | None = None) -> Any:
        """A small body as JSON."""
        async with self._bodies.json_of(request, empty) as body:
            return body

    # --- events

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text='No WebSocket UPGRADE hdr: None\n Can "Upgrade" only to "WebSocket".')
        gateway, tenant = self._gateway, request[TENANT]
        connection = web.WebSocketResponse(max_msg_size=4 << 20, heartbeat=30.0)
        await connection.prepare(request)
        socket = ClientSocket(request.query.get("clientId") or uuid.uuid4().hex, tenant)
        socket.push(status_frame(gateway.lengths[tenant], socket.client_id), True)
        own = [job for job in gateway.jobs.values() if job.began and job.tenant == tenant]
        gateway.live.greet(socket, [job for job in own if job.client_id == socket.client_id])
        gateway.sockets.add(socket)
        sender = asyncio.create_task(send(socket, connection))
        cutter = asyncio.create_task(cut_off(socket, sender, request.transport))
        first = True
        try:
            async for message in connection:
                if message.type is WSMsgType.TEXT and first:
                    first = not self._negotiated(socket, message.data)
        finally:
            gateway.sockets.remove(socket)
            socket.close(WSCloseCode.GOING_AWAY)
            sender.cancel()
            cutter.cancel()
        return connection

    def _negotiated(self, socket: ClientSocket, text: str) -> bool:
        """Answer a client that says what it can do."""
        try:
            message = json.loads(text)
            flags = (message.get("data") or {}) if message.get("type") == "feature_flags" else None
            if flags is None:
                return True
            socket.with_metadata = bool(flags.get("supports_preview_metadata"))
        except (ValueError, AttributeError, RecursionError):
            return False
        socket.push(forms.dumps({"type": "feature_flags", "data": self._gateway.fleet.features()}), True)
        return True


async def _protect(request: web.Request, response: web.StreamResponse) -> None:
    if request.path.startswith(OWN):
        for name, value in PROTECTED.items():
            response.headers.setdefault(name, value)


async def _nothing_there(_: web.Request) -> web.Response:
    return web.json_response({"error": "there is nothing of that name"}, status=404)


async def _in_parts(request: web.Request, parts: Iterable[bytes]) -> web.StreamResponse:
    """JSON that may be larger than what is to be held at one time."""
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": JSON})
    left, first, size = iter(parts), list[bytes](), 0
    for part in left:
        first.append(part)
        size += len(part)
        if size > AT_ONCE:
            break
    else:
        return _json(b"".join(first))
    answer = web.StreamResponse(headers={"Content-Type": JSON})
    await answer.prepare(request)
    await answer.write(b"".join(first))
    first.clear()
    for part in left:
        await answer.write(part)
        await asyncio.sleep(0)
    await answer.write_eof()
    return answer


def _to_remove(body: Any) -> tuple[bool, list[str]]:
    """Whether all is to be removed, and which; a list asks for nothing, as ComfyUI reads it.

    Raises:
        TypeError: ComfyUI would fail on it.
    """
    everything = "clear" in body and body["clear"]
    return bool(everything), [str(each) for each in (body["delete"] if "delete" in body else ())]  # noqa: SIM401


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": JSON} | (headers or {}))
