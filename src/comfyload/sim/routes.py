"""The HTTP side of the simulated server: which call is answered how, with ComfyUI's bodies and status codes."""

import json
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct, structs

from comfyload.comfy.wire.calls import Reply, Request
from comfyload.comfy.wire.ids import is_uuid
from comfyload.sim import content, downloads
from comfyload.sim.catalog import MODEL_FOLDERS
from comfyload.sim.files import KINDS
from comfyload.sim.jobs import find_job, list_jobs
from comfyload.sim.page import extensions, front_page, static_file
from comfyload.sim.reply import MISSING, NOT_FOUND, SERVER_ERROR, empty, json_reply, text
from comfyload.sim.state import State
from comfyload.sim.submit import submit


class Call(Struct, frozen=True):
    """A request that found its route: `names` are the parts of the path that its `{...}` stand for."""

    request: Request
    query: dict[str, str]
    names: tuple[str, ...] = ()

    @property
    def tail(self) -> str:
        return self.names[0]

    def json(self) -> Any:
        """The body, parsed as leniently as Python does.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.request.body or b"")


def answer(state: State, request: Request) -> Reply:
    """The server's reply to `request`."""
    path, _, query = request.path.partition("?")
    parts = tuple(unquote(part) for part in path.split("/"))
    found, names = _route(state, parts)
    state.calls[f"{request.method} /{found or path}"] += 1
    method = "GET" if request.method == "HEAD" else request.method
    if method == "OPTIONS":
        return empty(200)
    methods = {} if found is None else _ROUTES[found]
    try:
        if method in methods:
            # Of a name that comes twice, the first counts.
            fields = dict(reversed(parse_qsl(query, keep_blank_values=True)))
            reply = methods[method](state, Call(request, fields, names))
        elif parts[0] == "internal":  # an application of its own
            return _not_allowed(methods) if methods else NOT_FOUND
        elif method == "GET":
            reply = static_file(state.settings.frontend, unquote(path))
        else:
            return _not_allowed({*methods, "GET"})  # the static files take GET
    except (ValueError, TypeError, KeyError, AttributeError):
        # A real server does not check the shape of what it is sent: it fails on it.
        return SERVER_ERROR
    if request.method == "HEAD":
        headers = {**reply.headers, "Content-Length": str(len(reply.body))}
        kind = "" if reply is MISSING else reply.content_type
        return Reply(status=reply.status, body=b"", content_type=kind, headers=headers)
    return reply


def _route(state: State, parts: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The route's name in the table, and what its `{...}` are; None for no route.

    Every route is there with `api/` before it, too, but for those that only the page asks for.
    """
    found, names = _lookup(parts)
    if found is None and parts[0] == "api" and parts[1:2] != ("internal",):
        found, names = _lookup(parts[1:])
    known = found is not None and state.settings.since(*_SINCE.get(found, (0,)))
    return (found, names) if known else (None, ())


def _lookup(parts: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    fixed = _FIXED.get(parts)
    if fixed is not None:
        return fixed, ()
    for template in _TEMPLATES.get(len(parts), ()):
        if all(part if wanted[0] == "{" else part == wanted for wanted, part in zip(template, parts, strict=True)):
            names = tuple(part for wanted, part in zip(template, parts, strict=True) if wanted[0] == "{")
            return "/".join(template), names
    return None, ()


def _not_allowed(methods: Collection[str]) -> Reply:
    allowed = {*methods, *(("HEAD",) if "GET" in methods else ())}
    return structs.replace(text(405, "405: Method Not Allowed"), headers={"Allow": ",".join(sorted(allowed))})


def _get_queue(state: State, _: Call) -> Reply:
    running = [state.queue.running.row()] if state.queue.running else []
    return json_reply({"queue_running": running, "queue_pending": [item.row() for item in state.queue.pending]})


def _remove(call: Call, clear: Callable[[], None], delete: Callable[[str], object]) -> Reply:
    body = call.json()
    # The body may be a list, which has no get.
    if "clear" in body and body["clear"]:  # noqa: RUF019
        clear()
    if "delete" in body:
        for prompt_id in body["delete"]:
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
    job = find_job(state.queue, call.names[0] if call.names else "cancel", state.clock.now())
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
    return MISSING if state.probe is None else state.probe.reply(call.tail, call.query)


def _follow_log(state: State, call: Call) -> Reply:
    body = call.json()
    change = state.log.readers.add if body["enabled"] else state.log.readers.discard
    change(body["clientId"])
    return empty(200)


def _raw_log(state: State, _: Call) -> Reply:
    return json_reply({"entries": state.log.entries(), "size": {"cols": 80, "rows": 24}})


def _folder(state: State, call: Call) -> Reply:
    if call.tail not in KINDS:
        return json_reply({"error": "Invalid directory type"}, 400)
    return json_reply([f"{name} [{call.tail}]" for name in state.files.newest(call.tail)])


def _no_assets(_state: State, _: Call) -> Reply:
    message = "Assets system is disabled. Start the server with --enable-assets to use this feature."
    return json_reply({"error": {"code": "SERVICE_DISABLED", "message": message, "details": {}}}, 503)


def _asset(state: State, call: Call) -> Reply:
    return _no_assets(state, call) if is_uuid(call.tail.lower()) else MISSING


def _save_settings(state: State, call: Call) -> Reply:
    new = call.json()
    return state.user.save_settings({call.tail: new} if call.names else new, state.clock.stamp())


def _write_userdata(state: State, call: Call) -> Reply:
    return state.user.write(call.tail, call.query, call.request.body or b"", state.clock.stamp())


def _nothing(_state: State, _: Call) -> Reply:
    return json_reply({})


Methods = dict[str, Callable[[State, Call], Reply]]

_ROUTES: dict[str, Methods] = {
    "": {"GET": lambda state, _: front_page(state.settings.frontend)},
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
    "api/jobs/cancel": {"GET": _job, "POST": _cancel_many},
    "api/jobs/{id}": {"GET": _job},
    "api/jobs/{id}/cancel": {"POST": lambda state, call: json_reply({"cancelled": _cancel(state, call.tail)})},
    "comfyload/v1/{id}": {"GET": _probe},
    "view": {"GET": lambda state, call: downloads.view(state, call.request, call.query)},
    "upload/image": {"POST": lambda state, call: downloads.upload_image(state, call.request)},
    "upload/mask": {"POST": lambda state, call: downloads.upload_mask(state, call.request)},
    "object_info": {"GET": lambda state, call: content.object_info(state, "")},
    "object_info/{id}": {"GET": lambda state, call: content.object_info(state, call.tail)},
    "system_stats": {"GET": lambda state, _: json_reply(content.system_stats(state))},
    "features": {"GET": lambda state, _: json_reply(state.sockets.features)},
    "embeddings": {"GET": lambda _state, _: json_reply([])},
    "extensions": {"GET": lambda state, _: json_reply(extensions(state.settings.frontend))},
    "models": {"GET": lambda _state, _: json_reply(list(MODEL_FOLDERS))},
    "models/{folder}": {"GET": lambda _, call: content.models(call.tail)},
    "experiment/models": {"GET": lambda _state, _: json_reply(content.model_folders())},
    "experiment/models/{folder}": {"GET": lambda _, call: content.model_files(call.tail)},
    "internal/logs": {"GET": lambda state, _: json_reply(state.log.text())},
    "internal/logs/raw": {"GET": _raw_log},
    "internal/logs/subscribe": {"PATCH": _follow_log},
    "internal/folder_paths": {"GET": lambda _state, _: json_reply(content.folder_paths())},
    "internal/files/{kind}": {"GET": _folder},
    "users": {"GET": lambda state, _: state.user.users(), "POST": lambda state, call: state.user.add_user(call.json())},
    "settings": {"GET": lambda state, _: json_reply(state.user.settings()), "POST": _save_settings},
    "settings/{id}": {
        "GET": lambda state, call: json_reply(state.user.settings().get(call.tail)),
        "POST": _save_settings,
    },
    "userdata": {"GET": lambda state, call: state.user.listing(call.query)},
    "v2/userdata": {"GET": lambda state, call: state.user.tree(call.query)},
    "userdata/{file}": {
        "GET": lambda state, call: state.user.read(call.tail),
        "POST": _write_userdata,
        "DELETE": lambda state, call: state.user.delete(call.tail),
    },
    "userdata/{file}/move/{dest}": {
        "POST": lambda state, call: state.user.move(call.names[0], call.names[1], call.query)
    },
    # What custom nodes bring, and there are none.
    "i18n": {"GET": _nothing},
    "workflow_templates": {"GET": _nothing},
    "global_subgraphs": {"GET": _nothing},
    "global_subgraphs/{id}": {"GET": lambda _state, _: json_reply(None)},
    "node_replacements": {"GET": _nothing},
    "api/assets": {"GET": _no_assets, "POST": _no_assets},
    "api/assets/from-hash": {"POST": _no_assets},
    "api/assets/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), _asset),
    "api/assets/{id}/content": {"GET": _asset},
    "api/assets/{id}/tags": dict.fromkeys(("POST", "DELETE"), _asset),
    "api/assets/tags/refine": {"GET": _no_assets},
    "api/assets/seed": {"POST": _no_assets},
    "api/assets/seed/status": {"GET": _no_assets},
    "api/assets/seed/cancel": {"POST": _no_assets},
    "api/assets/prune": {"POST": _no_assets},
    "api/tags": {"GET": _no_assets},
}
_SINCE = {"api/jobs": (0, 6), "api/jobs/{id}": (0, 6), "api/jobs/cancel": (0, 26), "api/jobs/{id}/cancel": (0, 26)}
_FIXED = {tuple(name.split("/")): name for name in _ROUTES if "{" not in name}
_TEMPLATES: dict[int, list[tuple[str, ...]]] = {}
for _parts in (tuple(name.split("/")) for name in _ROUTES if "{" in name):
    _TEMPLATES.setdefault(len(_parts), []).append(_parts)
