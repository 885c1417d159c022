"""`GET /queue`, `GET /prompt` and `/api/jobs/{id}`: what waits and runs, and where one prompt is."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.lenient import ROOMY_VALUES, decode_json, lenient, strict
from comfyload.comfy.wire.messages import ExecInfo
from comfyload.record.codec import converted

__all__ = [
    "decode_job_status",
    "decode_queue",
    "decode_queue_remaining",
    "place_in_queue",
]


class _Queue(Struct, gc=False):
    queue_running: list[msgspec.Raw] = []
    queue_pending: list[msgspec.Raw] = []


def place_in_queue(body: bytes, prompt_id: str) -> Literal["running", "pending"] | None:
    """Where a `GET /queue` reply holds the prompt; None: nowhere.

    It is found by its id alone: to read every waiting graph would hold the event loop, which measures.

    Raises:
        msgspec.MsgspecError: the body is no queue.
    """
    starts = {body.find(b'"queue_running"'): "running", body.find(b'"queue_pending"'): "pending"}
    starts.pop(-1, None)
    if not starts or not body.lstrip().startswith(b"{"):
        raise msgspec.ValidationError("it is no queue")
    plain, escaped = json.dumps(prompt_id, ensure_ascii=False), json.dumps(prompt_id)
    either = b"|".join(re.escape(one.encode("utf-8", "surrogatepass")) for one in (plain, escaped))
    row = re.search(rb"\[\s*[-+.\w]+\s*,\s*(?:%b)" % either, body)
    found = -1 if row is None else row.start()
    before = [start for start in starts if start < found]
    return starts[max(before)] if before else None  # type: ignore[return-value]


def decode_queue(body: bytes) -> tuple[list[list[Any]], list[list[Any]]]:
    """The rows of what runs and of what waits in `GET /queue`, as `[number, id, None, extra_data]`: without the graphs.

    Rows that are none are left out.

    Raises:
        msgspec.MsgspecError: the body is no queue.
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
        msgspec.MsgspecError: the body tells none.
    """
    return decode_json(body, _Job).status


class _PromptInfo(Struct, gc=False):
    exec_info: ExecInfo = ExecInfo()


def decode_queue_remaining(body: bytes) -> int | None:
    """Running plus pending prompts, from `GET /prompt`; None if the reply is none of ComfyUI's."""
    try:
        return decode_json(body, _PromptInfo).exec_info.queue_remaining
    except msgspec.MsgspecError:
        return None
