"""`GET /queue`, `GET /prompt` and `/api/jobs/{id}`: what waits and runs, and where one prompt is."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.lenient import ROOMY_VALUES, decode_json, lenient, strict
from comfyload.comfy.wire.messages import ExecInfo
from comfyload.record.codec import converted

PromptState = Literal["pending", "running", "finished", "failed", "cancelled", "absent", "unknown"]
"""Where a prompt is on the server; `unknown`: the server did not say."""


class _Queue(Struct, gc=False):
    queue_running: list[msgspec.Raw] = []
    queue_pending: list[msgspec.Raw] = []


def place_in_queue(body: bytes, prompt_id: str) -> Literal["running", "pending"] | None:
    """Where a `GET /queue` reply holds the prompt; None: nowhere.

    Graphs stay unread: to make values of every waiting one would hold the event loop, which measures.

    Raises:
        msgspec.MsgspecError: the body is not a queue.
    """
    running, pending = _rows(body)
    if any(_id(row) == prompt_id for row in running):
        return "running"
    return "pending" if any(_id(row) == prompt_id for row in pending) else None


def _rows(body: bytes) -> tuple[list[Any], list[Any]]:
    """The rows of what runs and of what waits, unread where the body is as it should be."""
    try:
        plain: dict[str, Any] = msgspec.json.decode(body, type=dict[str, list[msgspec.Raw]])
    except (ValueError, RecursionError):  # a NaN in another client's graph, or bytes that are not text
        plain = converted(lenient(body), dict[str, Any])
    if not ("queue_running" in plain or "queue_pending" in plain):
        raise msgspec.ValidationError("it is not a queue")
    running, pending = (plain.get(key) for key in ("queue_running", "queue_pending"))
    return running if isinstance(running, list) else [], pending if isinstance(pending, list) else []


def _id(row: Any) -> Any:
    """The id of a row; None where it has none."""
    try:
        members = msgspec.json.decode(row, type=list[msgspec.Raw]) if isinstance(row, msgspec.Raw) else row
        if not isinstance(members, list) or len(members) < 2:
            return None
        return decode_json(bytes(members[1]), Any) if isinstance(members[1], msgspec.Raw) else members[1]
    except (ValueError, RecursionError):
        return None


def decode_queue(body: bytes) -> tuple[list[list[Any]], list[list[Any]]]:
    """The rows of what runs and of what waits in `GET /queue`, as `[number, id, None, extra_data]`: without the graphs.

    Invalid rows are left out.

    Raises:
        msgspec.MsgspecError: the body is not a queue.
    """
    try:
        queue = strict(body, _Queue, ROOMY_VALUES)
        return [_row(item) for item in queue.queue_running], [_row(item) for item in queue.queue_pending]
    except msgspec.MsgspecError:
        plain = converted(lenient(body), dict[str, list[Any]])
    running, pending = (plain.get(key, []) for key in ("queue_running", "queue_pending"))
    return [row for row in running if isinstance(row, list)], [row for row in pending if isinstance(row, list)]


def _row(item: msgspec.Raw) -> list[Any]:
    number, prompt_id, _, extra, *_ = [*strict(item, list[msgspec.Raw]), *[msgspec.Raw(b"null")] * 4]
    return [decode_json(bytes(part), Any) for part in (number, prompt_id)] + [None, decode_json(bytes(extra), Any)]


class _Job(Struct, gc=False):
    status: str = ""


def decode_job_status(body: bytes) -> str:
    """`status` of an `/api/jobs/{id}` reply: pending, in_progress, completed, failed or cancelled.

    Raises:
        msgspec.MsgspecError: the body has none.
    """
    return decode_json(body, _Job).status


class _PromptInfo(Struct, gc=False):
    exec_info: ExecInfo = ExecInfo()


def decode_queue_remaining(body: bytes) -> int | None:
    """Running plus pending prompts, from `GET /prompt`; None: the reply is not ComfyUI's."""
    try:
        return decode_json(body, _PromptInfo).exec_info.queue_remaining
    except msgspec.MsgspecError:
        return None
