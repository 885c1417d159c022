"""The HTTP side of the simulated server: which call is answered how, with ComfyUI's bodies and status codes."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from comfyload.comfy.wire.calls import Reply, Request
from comfyload.sim import content, downloads
from comfyload.sim.jobs import find_job, list_jobs
from comfyload.sim.reply import NOT_FOUND, SERVER_ERROR, empty, is_uuid, json_reply, text
from comfyload.sim.state import State
from comfyload.sim.submit import submit


class Call(Struct, frozen=True):
    """A request that found its route: `tail` is the part of the path that a `{...}` stands for."""

    request: Request
    query: dict[str, str]
    tail: str = ""

    def json(self) -> Any:
        """The body, parsed as leniently as Python does.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.request.body or b"")


def answer(state: State, request: Request) -> Reply:
    """The server's reply to `request`."""
    path, _, query = request.path.partition("?")
    path = path.strip("/")
    in_api = path.startswith("api/")
    parts = [unquote(part) for part in path.removeprefix("api/").split("/")]
    found, tail = _route(state, parts, in_api)
    state.calls[f"{request.method} /{found or path}"] += 1
    method = "GET" if request.method == "HEAD" else request.method
    if method == "OPTIONS":
        return empty(200)
    methods = _ROUTES.get(found, {})
    if method not in methods:
        # A GET falls through to the static files, whose 404 it gets; they allow no other method.
        return NOT_FOUND if method == "GET" else text(405, "405: Method Not Allowed")
    try:
        reply = methods[method](state, Call(request, dict(parse_qsl(query, keep_blank_values=True)), tail))
    except (ValueError, TypeError, KeyError, AttributeError):
        # A real server does not check the shape of what it is sent: it fails on it.
        return SERVER_ERROR
    if request.method == "HEAD":
        headers = {**reply.headers, "Content-Length": str(len(reply.body))}
        return Reply(status=reply.status, body=b"", content_type=reply.content_type, headers=headers)
    return reply


def _route(state: State, parts: list[str], in_api: bool) -> tuple[str, str]:
    """The route's name in the table, and what its `{...}` is; an unknown name for none."""
    if parts[0] == "jobs":
        if not in_api or not state.settings.since(0, 6):
            return "", ""
        if parts[-1] == "cancel" and not state.settings.since(0, 26):
            return "", ""
        if len(parts) == 3 and parts[2] == "cancel":
            return "api/jobs/{id}/cancel", parts[1]
        if parts[1:] and parts[1] != "cancel":
            return ("api/jobs/{id}", parts[1]) if len(parts) == 2 else ("", "")
        return "/".join(["api", *parts]), ""
    if len(parts) == 3 and parts[:2] == ["comfyload", "v1"] and state.probe is not None:
        return "comfyload/v1/{id}", parts[2]
    if len(parts) == 2 and f"{parts[0]}/{{id}}" in _ROUTES:
        return f"{parts[0]}/{{id}}", parts[1]
    return "/".join(parts), ""


def _get_queue(state: State, _: Call) -> Reply:
    running = [state.queue.running.row()] if state.queue.running else []
    return json_reply({"queue_running": running, "queue_pending": [item.row() for item in state.queue.pending]})


def _remove(call: Call, clear: Callable[[], None], delete: Callable[[str], object]) -> Reply:
    body = call.json()
    if body.get("clear"):
        clear()
    for prompt_id in body.get("delete", []):
        delete(prompt_id)
    return empty(200)


def _get_history(state: State, call: Call) -> Reply:
    limit = int(call.query["max_items"]) if "max_items" in call.query else None
    offset = int(call.query.get("offset", "-1"))
    return json_reply(state.queue.history(state.clock.now(), limit, offset))


def _get_entry(state: State, call: Call) -> Reply:
    entry = state.queue.entry(call.tail, state.clock.now())
    return json_reply({} if entry is None else {call.tail: entry})


def _interrupt(state: State, call: Call) -> Reply:
    try:
        body = call.json()
    except ValueError:
        body = {}
    prompt_id = body.get("prompt_id")
    if prompt_id and state.settings.since(0, 3, 57):
        _interrupt_if_running(state, prompt_id)
    else:
        state.interrupted = True
    return empty(200)


def _interrupt_if_running(state: State, prompt_id: str) -> bool:
    running = state.queue.running
    if running is None or running.prompt_id != prompt_id:
        return False
    state.interrupted = True
    return True


def _free(state: State, call: Call) -> Reply:
    body = call.json()
    wanted = {name for name in ("unload_models", "free_memory") if body.get(name)}
    if wanted:
        state.flags |= wanted
        state.queue.wake()
    return empty(200)


def _job(state: State, call: Call) -> Reply:
    job = find_job(state.queue, call.tail, state.clock.now())
    return json_reply({"error": "Job not found"}, 404) if job is None else json_reply(job)


def _cancel(state: State, job_id: str) -> bool:
    if state.queue.entry(job_id, state.clock.now()) is not None:
        return False
    return _interrupt_if_running(state, job_id) or state.queue.delete(job_id)


def _cancel_many(state: State, call: Call) -> Reply:
    try:
        body = call.json()
    except ValueError:
        return json_reply({"error": "Request body must be valid JSON"}, 400)
    ids = body.get("job_ids") if isinstance(body, dict) else None
    if not isinstance(ids, list):
        return json_reply({"error": "job_ids must be a list"}, 400)
    wrong = [found if isinstance(found, str) else repr(found) for found in ids if not is_uuid(found)]
    if wrong:
        return json_reply({"error": "job_ids contains invalid id(s)", "invalid_ids": wrong}, 400)
    return json_reply({"cancelled": sum(_cancel(state, job_id) for job_id in ids) > 0})


def _probe(state: State, call: Call) -> Reply:
    return NOT_FOUND if state.probe is None else state.probe.reply(call.tail, call.query)


_ROUTES: dict[str, dict[str, Callable[[State, Call], Reply]]] = {
    "prompt": {
        "GET": lambda state, _: json_reply(state.status()),
        "POST": lambda state, call: submit(state, call.json()),
    },
    "queue": {"GET": _get_queue, "POST": lambda state, call: _remove(call, state.queue.clear, state.queue.delete)},
    "history": {
        "GET": _get_history,
        "POST": lambda state, call: _remove(call, state.queue.forget_all, state.queue.forget),
    },
    "history/{id}": {"GET": _get_entry},
    "interrupt": {"POST": _interrupt},
    "free": {"POST": _free},
    "api/jobs": {"GET": lambda state, call: json_reply(*list_jobs(state.queue, call.query, state.clock.now()))},
    "api/jobs/{id}": {"GET": _job},
    "api/jobs/{id}/cancel": {"POST": lambda state, call: json_reply({"cancelled": _cancel(state, call.tail)})},
    "api/jobs/cancel": {"POST": _cancel_many},
    "comfyload/v1/{id}": {"GET": _probe},
    "view": {"GET": lambda state, call: downloads.view(state, call.request, call.query)},
    "upload/image": {"POST": lambda state, call: downloads.upload_image(state, call.request)},
    "upload/mask": {"POST": lambda state, call: downloads.upload_mask(state, call.request)},
    "object_info": {"GET": lambda state, call: content.object_info(state, call.tail)},
    "object_info/{id}": {"GET": lambda state, call: content.object_info(state, call.tail)},
    "system_stats": {"GET": lambda state, _: json_reply(content.system_stats(state))},
    "features": {"GET": lambda state, _: json_reply(state.sockets.features)},
    "embeddings": {"GET": lambda _state, _: json_reply([])},
    "extensions": {"GET": lambda _state, _: json_reply([])},
    "models": {"GET": lambda _, call: content.models(call.tail)},
    "models/{id}": {"GET": lambda _, call: content.models(call.tail)},
}
