"""The gateway on a socket: ComfyUI's routes, answered from our own ledger; the rest is passed on to the home server."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from prometheus_client import CONTENT_TYPE_LATEST

from comfyload.comfy.wire.ids import is_uuid
from comfyload.errors import RunFilesError
from comfyload.gateway import forms, paths
from comfyload.gateway.bodies import MOST_BODY, Bodies, Unfit
from comfyload.gateway.connection import cut_off, send
from comfyload.gateway.guard import Denied, Guard
from comfyload.gateway.history import History
from comfyload.gateway.intake import Intake, Posted, Refused
from comfyload.gateway.login import LOGIN, login
from comfyload.gateway.passing import Passing
from comfyload.gateway.service import Gateway
from comfyload.gateway.sockets import ClientSocket, status_frame
from comfyload.gateway.uploads import Uploads

MOST_NAME = 1_000
TENANT: web.RequestKey[str] = web.RequestKey("tenant", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """All routes. `own`: those under `/comfyload/`."""

    def __init__(self, gateway: Gateway, intake: Intake, guard: Guard, passing: Passing) -> None:
        self._gateway = gateway
        self._intake = intake
        self._guard = guard
        self._passing = passing
        self._history = History(gateway)
        self._uploads = Uploads(gateway.files, gateway.fleet, gateway.inputs)
        self._bodies = Bodies()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BODY, middlewares=[self._guarded])
        app.router.add_get("/comfyload/metrics", self._metrics)
        for method, path, handler in self._routes():
            for prefix in ("/api",) if path.startswith("/jobs") else ("", "/api"):
                app.router.add_route(method, prefix + path, handler)
                if method == "GET" and path != "/ws":
                    app.router.add_route("HEAD", prefix + path, handler)
        for method in ("GET", "POST"):
            app.router.add_route(method, LOGIN, self._login)
        app.router.add_route("*", "/{path:.*}", self._rest)
        return app

    def _routes(self) -> list[tuple[str, str, Handler]]:
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
            self._guard.check(request.headers, request.method, request.secure)
            if raw != LOGIN:
                request[TENANT] = self._guard.tenant(request.headers, request.cookies, request.query.get("token"))
        except Denied as denied:
            if denied.status == 401 and request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
                return web.Response(status=303, headers={"Location": LOGIN})
            headers = {"WWW-Authenticate": "Bearer"} if denied.status == 401 else {}
            return web.json_response({"error": denied.why}, status=denied.status, headers=headers)
        try:
            return await handler(request)
        except web.RequestPayloadError:
            return web.Response(status=400, text="400: Bad Request")
        except Unfit as unfit:
            if unfit.status == 503:
                return _json(forms.refusal("queue_full", unfit.why), 503, {"Retry-After": "5"})
            return web.Response(status=unfit.status, text=unfit.why)
        except RunFilesError as error:
            # The disk is full, or gone: nothing is taken that could be lost.
            return _json(
                forms.refusal("not_stored", f"The gateway cannot store it: {error}"), 503, {"Retry-After": "30"}
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            # ComfyUI does not check the shape of what it is sent: it fails on it, in these words.
            return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        return await login(request, self._guard)

    # --- prompts

    async def _get_prompt(self, request: web.Request) -> web.Response:
        remaining = self._gateway.remaining(request[TENANT])
        return _json(forms.dumps({"exec_info": {"queue_remaining": remaining}}))

    async def _post_prompt(self, request: web.Request) -> web.Response:
        async with self._bodies.json_of(request) as body:
            try:
                return _json(await self._intake.submit(_posted(body, request)))
            except Refused as refused:
                return _json(refused.body, refused.status, refused.headers)

    async def _get_queue(self, request: web.Request) -> web.Response:
        return _json(self._history.queue(request[TENANT]))

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

    async def _get_history(self, request: web.Request) -> web.Response:
        limit = int(request.query["max_items"]) if "max_items" in request.query else None
        offset = int(request.query.get("offset", "-1"))
        return _json(self._history.all(request[TENANT], limit, offset))

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
        return await self._passing.view(request)

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        if not self._gateway.files.marked:
            return await self._passing.on(request)
        return await self._uploads.take(request)

    async def _object_info(self, request: web.Request) -> web.StreamResponse:
        name, fleet = request.match_info.get("name", ""), self._gateway.fleet
        await fleet.refresh()
        body = fleet.described(name, self._gateway.files.listed)
        return await self._passing.on(request) if body is None else _json(body)

    async def _system_stats(self, request: web.Request) -> web.Response:
        found = await self._gateway.fleet.stats()
        if found is None:
            return web.Response(status=503, text="no server answers", headers={"Retry-After": "5"})
        return _json(found)

    async def _metrics(self, _: web.Request) -> web.Response:
        kind = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=self._gateway.metrics.text(), headers=kind)

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        """Pass on what is nobody's job: what may be read as one of our own paths is answered for its owner, or not."""
        parts = paths.parts_of(request.raw_path.partition("?")[0]) or []
        names = paths.plain(parts)
        if request.method == "OPTIONS":
            return web.Response()
        if paths.is_own(names):
            return web.Response(status=404 if request.method in ("GET", "HEAD") else 405)
        if "" in parts[:-1]:
            return web.Response(status=404)
        if self._guard.apart and names[:1] and names[0] in paths.OF_EVERYBODY:
            return web.json_response({"error": "it tells of the files and prompts of all tenants"}, status=403)
        return await self._passing.on(request)

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
        socket.push(status_frame(gateway.remaining(tenant), socket.client_id), True)
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


def _posted(body: Any, request: web.Request) -> Posted:
    """What was posted.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it has not the shape of a prompt.
        Refused: ComfyUI refuses it.
    """
    number = float(body["number"]) if "number" in body else None
    if number is not None and not math.isfinite(number):
        raise Refused(400, forms.refusal("invalid_prompt", "number must be finite"))
    if "prompt" not in body:
        raise Refused(400, forms.refusal("no_prompt", "No prompt provided", "No prompt provided"))
    prompt_id = body.get("prompt_id")
    if prompt_id is not None and not is_uuid(prompt_id):
        details = (
            "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
            "omit it to let the server generate one"
        )
        raise Refused(400, forms.refusal("invalid_prompt_id", "prompt_id must be a valid UUID", details))
    graph, extra = body["prompt"], body.get("extra_data") or {}
    client_id = body.get("client_id", extra.get("client_id"))
    targets = body.get("partial_execution_targets")
    if not isinstance(graph, dict) or not all(isinstance(node, dict) for node in graph.values()):
        raise TypeError("not a graph")
    if targets is not None and not isinstance(targets, list):
        raise TypeError("not a list of nodes")
    for node_id, node in graph.items():
        if isinstance(node.get("class_type"), dict | list):
            raise TypeError("not a class")
        if "class_type" in node and not isinstance(node.get("inputs"), dict):
            text = f"Node '#{node_id}' has no inputs. A ComfyUI would stop working on it."
            raise Refused(400, forms.refusal("invalid_prompt", text, f"Node ID '#{node_id}'"))
    return Posted(
        graph=graph,
        tenant=request[TENANT],
        prompt_id=prompt_id,
        client_id=None if client_id is None else _name(client_id, "client_id"),
        extra=dict(extra),
        targets=targets,
        number=number,
        front=bool(body.get("front")),
        key=_key(request.headers.get("Idempotency-Key")),
        deadline_s=_deadline_s(request.headers.get("X-Comfyload-Deadline")),
    )


def _to_remove(body: Any) -> tuple[bool, list[str]]:
    """Whether all is to be removed, and which; a list asks for nothing, as ComfyUI reads it.

    Raises:
        TypeError: ComfyUI would fail on it.
    """
    everything = "clear" in body and body["clear"]
    return bool(everything), [str(each) for each in (body["delete"] if "delete" in body else ())]  # noqa: SIM401


def _name(value: object, what: str) -> str:
    """A name that a client gives itself, as text that can be kept.

    Raises:
        Refused: it is too long.
    """
    text = str(value).encode("utf-8", "backslashreplace").decode()
    if len(text) > MOST_NAME:
        raise Refused(400, forms.refusal("invalid_prompt", f"{what} is longer than {MOST_NAME} letters"))
    return text


def _key(given: str | None) -> str | None:
    return None if given is None else _name(given, "Idempotency-Key")


def _deadline_s(given: str | None) -> float | None:
    """Raises: Refused: it is not a number of seconds."""
    try:
        found = None if given is None else float(given)
    except ValueError:
        found = math.nan
    if found is not None and not found > 0.0:
        raise Refused(400, forms.refusal("invalid_deadline", "X-Comfyload-Deadline is not a number of seconds"))
    return found


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return web.Response(body=body, status=status, headers=kind | (headers or {}))
