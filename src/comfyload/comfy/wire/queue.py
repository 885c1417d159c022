"""`GET /queue`, `GET /prompt` and `/api/jobs/{id}`: what waits and runs, and where one prompt is."""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.lenient import ROOMY_VALUES, decode_json, lenient, weigh
from comfyload.comfy.wire.messages import ExecInfo
from comfyload.record.codec import converted

PromptState = Literal["pending", "running", "finished", "failed", "cancelled", "absent", "unknown"]
"""Where a prompt is on the server; `unknown`: the server did not say."""


class _Queue(Struct, gc=False):
    queue_running: list[msgspec.Raw] | None = None
    queue_pending: list[msgspec.Raw] | None = None


def place_in_queue(body: bytes, prompt_id: str) -> Literal["running", "pending"] | None:
    """Where a `GET /queue` reply holds the prompt; None: nowhere.

    Graphs stay unread: to make values of every waiting one would hold the event loop, which measures.

    Raises:
        msgspec.MsgspecError: the body is not a queue.
    """
    running, pending = _rows(body)
    if any(_part(row, 1) == prompt_id for row in running):
        return "running"
    return "pending" if any(_part(row, 1) == prompt_id for row in pending) else None


def decode_queue(body: bytes) -> tuple[list[tuple[Any, Any]], list[tuple[Any, Any]]]:
    """Id and extra data of each prompt that runs, and of each that waits; graphs stay unread, rows without an id out.

    Raises:
        msgspec.MsgspecError: the body is not a queue.
    """
    weigh(body, ROOMY_VALUES)
    running, pending = ([(_part(row, 1), _part(row, 3)) for row in rows] for rows in _rows(body))
    return [row for row in running if row[0] is not None], [row for row in pending if row[0] is not None]


def _rows(body: bytes) -> tuple[list[Any], list[Any]]:
    """The rows of what runs and of what waits, unread where the body is as it should be."""
    try:
        queue = msgspec.json.decode(body, type=_Queue)
        running, pending = queue.queue_running, queue.queue_pending
    except (ValueError, RecursionError):  # a NaN in another client's graph, or bytes that are not text
        plain = converted(lenient(body), dict[str, Any])
        running, pending = plain.get("queue_running"), plain.get("queue_pending")
    if not isinstance(running, list) and not isinstance(pending, list):
        raise msgspec.ValidationError("it is not a queue")
    return running if isinstance(running, list) else [], pending if isinstance(pending, list) else []


def _part(row: Any, place: int) -> Any:
    """One member of a row; None where it has none, or the row cannot be read."""
    try:
        parts = msgspec.json.decode(row, type=list[msgspec.Raw]) if isinstance(row, msgspec.Raw) else row
        part = parts[place] if isinstance(parts, list) else None
        return decode_json(bytes(part), Any) if isinstance(part, msgspec.Raw) else part
    except (ValueError, RecursionError, IndexError):
        return None


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
