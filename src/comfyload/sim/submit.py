"""What happens to a posted prompt before it waits in the queue."""

import uuid
from typing import Any

from comfyload.comfy.wire.calls import Reply
from comfyload.comfy.wire.ids import is_uuid
from comfyload.sim.queue import Item
from comfyload.sim.reply import json_reply
from comfyload.sim.state import State
from comfyload.sim.validation import error_of, validate

_SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


def submit(state: State, body: Any) -> Reply:
    """Answer `POST /prompt`.

    Raises:
        TypeError, ValueError, KeyError, AttributeError: a body of another shape (a real server answers 500).
    """
    state.say("got prompt")
    if "number" in body:
        number = float(body["number"])
    else:
        number = state.number
        if "front" in body and body["front"]:  # noqa: RUF019 - the body may be a list, which has no get
            number = -number
        state.number += 1  # also spent on a prompt that is then refused
    if "prompt" not in body:
        return _refused("no_prompt", "No prompt provided", "No prompt provided")
    prompt_id = _prompt_id(state, body)
    if prompt_id is None:
        details = (
            "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
            "omit it to let the server generate one"
        )
        return _refused("invalid_prompt_id", "prompt_id must be a valid UUID", details)
    graph = body["prompt"]
    missing = "missing_node_type" if state.settings.since(0, 12) else "invalid_prompt"
    named = state.settings.since(0, 20)
    verdict = validate(graph, state.files.holds, body.get("partial_execution_targets"), missing, cycles_named=named)
    if verdict.error is not None:
        return json_reply({"error": verdict.error, "node_errors": verdict.node_errors}, 400)
    extra_data = body.get("extra_data", {})
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    for secret in _SECRETS:
        extra_data.pop(secret, None)
    if state.settings.since(0, 3, 69):
        extra_data["create_time"] = state.clock.stamp()
    item = Item(number, prompt_id, graph, extra_data, verdict.outputs, state.clock.now())
    depth = state.queue.remaining
    state.queue.put(item)
    if state.probe is not None:
        state.probe.queued(item, depth)
    state.posts[prompt_id] += 1
    return json_reply({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})


def _prompt_id(state: State, body: dict[str, Any]) -> str | None:
    """The id the prompt gets; None if the client's own is refused."""
    settings, wanted = state.settings, body.get("prompt_id")
    if settings.since(0, 25) and wanted is not None:
        return wanted if is_uuid(wanted) else None
    if settings.since(0, 3, 45) and not settings.since(0, 25) and "prompt_id" in body:
        return str(wanted)
    return str(uuid.uuid4())


def _refused(kind: str, message: str, details: str) -> Reply:
    return json_reply({"error": error_of(kind, message, details), "node_errors": {}}, 400)
