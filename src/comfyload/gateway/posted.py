"""A prompt as clients post it, which may be anything: what ComfyUI would refuse, fail on or die of is not taken."""

from __future__ import annotations

import math
from typing import Any

from comfyload.comfy.wire.ids import is_uuid
from comfyload.gateway import forms
from comfyload.gateway.guard import Headers
from comfyload.gateway.intake import Posted, PromptRefused

MOST_NAME = 1_000


def posted_in(body: Any, headers: Headers, tenant: str) -> Posted:
    """What was posted.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it has not the shape of a prompt.
        PromptRefused: ComfyUI refuses it.
    """
    number = float(body["number"]) if "number" in body else None
    if number is not None and not math.isfinite(number):
        raise PromptRefused(400, forms.refusal("invalid_prompt", "number must be finite"))
    if "prompt" not in body:
        raise PromptRefused(400, forms.refusal("no_prompt", "No prompt provided", "No prompt provided"))
    prompt_id = body.get("prompt_id")
    if prompt_id is not None and not is_uuid(prompt_id):
        details = (
            "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
            "omit it to let the server generate one"
        )
        raise PromptRefused(400, forms.refusal("invalid_prompt_id", "prompt_id must be a valid UUID", details))
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
            raise PromptRefused(400, forms.refusal("invalid_prompt", text, f"Node ID '#{node_id}'"))
    return Posted(
        graph=graph,
        tenant=tenant,
        prompt_id=prompt_id,
        client_id=None if client_id is None else _name(client_id, "client_id"),
        extra=dict(extra),
        targets=targets,
        number=number,
        front=bool(body.get("front")),
        key=_key(_header(headers, "Idempotency-Key")),
        deadline_s=_deadline_s(_header(headers, "X-Comfyload-Deadline")),
    )


def _name(value: object, what: str) -> str:
    """A name that a client gives itself, as text that can be kept.

    Raises:
        PromptRefused: it is too long.
    """
    text = str(value).encode("utf-8", "backslashreplace").decode()
    if len(text) > MOST_NAME:
        raise PromptRefused(400, forms.refusal("invalid_prompt", f"{what} is longer than {MOST_NAME} letters"))
    return text


def _key(given: str | None) -> str | None:
    return None if given is None else _name(given, "Idempotency-Key")


def _deadline_s(given: str | None) -> float | None:
    """Raises: PromptRefused: it is not a number of seconds."""
    try:
        found = None if given is None else float(given)
    except ValueError:
        found = math.nan
    if found is not None and not found > 0.0:
        raise PromptRefused(400, forms.refusal("invalid_deadline", "X-Comfyload-Deadline is not a number of seconds"))
    return found


def _header(headers: Headers, name: str) -> str | None:
    return headers.get(name, "") or None
