"""ComfyUI's words on the wire, typed and decoded leniently: unknown fields and message types never fail.

A real server emits bare `NaN`, custom nodes add message types, and versions rename fields. What we need is declared
here; everything else is skipped unread. Decoders raise `msgspec.MsgspecError` and nothing else, whatever the bytes
are, and what they give can be written and read again: no number is wider than 64 bits, nothing is nested deeply.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Collection, Iterable
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from comfyload.comfy.lenient import ROOMY_VALUES, as_raw, decode_json, lenient, members, raw_list, strict, weigh
from comfyload.record.bounds import MOST_COUNT, Count
from comfyload.record.codec import converted

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_DOWNLOAD_BYTES",
    "MAX_FACTS_BYTES",
    "MAX_FILE_BYTES",
    "MAX_MESSAGE_BYTES",
    "Data",
    "Download",
    "HistoryEntry",
    "Message",
    "NodeState",
    "Reply",
    "Request",
    "TransportError",
    "decode_history",
    "decode_job_status",
    "decode_message",
    "decode_messages",
    "decode_modules",
    "decode_queue",
    "decode_queue_remaining",
    "decode_some",
    "finite",
    "place_in_queue",
    "whole_ms",
]

T = TypeVar("T")

MAX_BODY_BYTES = 48 << 20
"""What the replies that are read at one time may be together, unpacked. The largest we know is the queue, which holds
every waiting graph."""

MAX_FACTS_BYTES = 1 << 20
"""What a reply may be whose facts are kept in the run directory."""

MAX_MESSAGE_BYTES = 32 << 20
"""What a message of the event stream may be: a picture, if a node sends its output that way."""

MAX_FILE_BYTES = 128 << 20
"""What files may be together that are kept in memory at one time."""

MAX_DOWNLOAD_BYTES = 2 << 30
"""What a file may be that is read and thrown away."""


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """One HTTP call. `path` is relative to the server's base (`prompt`, `history/ID`), with its query.

    `file`: what is asked for is a file, which may be larger than an answer, and may lie elsewhere by a redirect.
    `most_bytes`: a larger answer is not read to its end.
    """

    method: str
    path: str
    body: bytes | None = None
    content_type: str = "application/json"
    timeout_s: float = 30.0
    file: bool = False
    most_bytes: int = MAX_BODY_BYTES


class Reply(Struct, frozen=True, kw_only=True, gc=False):
    """The answer, whole. `body` is the decoded (uncompressed) entity."""

    status: int
    body: bytes
    content_type: str = ""
    headers: dict[str, str] = {}


class Download(Struct, frozen=True, kw_only=True, gc=False):
    """An entity read to its end and thrown away: `head` is its first 16 bytes, `expected` its Content-Length."""

    status: int
    head: bytes
    bytes: int
    expected: int | None
    content_type: str = ""


class TransportError(Exception):
    """No reply. `sent` False: the request certainly never reached the server; True: it may have.

    `ours`: it is the fault of the machine that asks, and says nothing of the server. `vain`: what came is too much,
    or cannot be read, so that to ask again is in vain.
    """

    def __init__(self, message: str, *, sent: bool, ours: bool = False, vain: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.ours = ours
        self.vain = vain


class NodeState(Struct, gc=False):
    """One node in a `progress_state` message."""

    state: str = ""
    display_node_id: str | None = None


class _ExecInfo(Struct, frozen=True, gc=False):
    queue_remaining: Count | None = None


class _Status(Struct, frozen=True, gc=False):
    exec_info: _ExecInfo = _ExecInfo()


class Data(Struct, frozen=True, gc=False):
    """The fields of a message's `data` that matter; absent ones are None.

    `nodes` is a list of ids in `execution_cached` and an object of states in `progress_state`; it stays raw until
    asked for. `value` and `max` of a `progress` are whatever its node said.
    """

    prompt_id: str | None = None
    node: str | None = None
    display_node: str | None = None
    timestamp: float | None = None
    nodes: msgspec.Raw = msgspec.Raw(b"")
    status: _Status | None = None
    sid: str | None = None
    node_id: str | None = None
    node_type: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None
    value: Any = None
    max: Any = None

    @property
    def queue_remaining(self) -> int | None:
        return self.status.exec_info.queue_remaining if self.status else None

    def cached_nodes(self) -> list[str]:
        """The ids of an `execution_cached` message.

        Raises:
            msgspec.MsgspecError: they are no list of ids.
        """
        found = decode_json(bytes(self.nodes), list[str | int]) if self.nodes else []
        return [str(node) for node in found]

    def node_states(self) -> dict[str, NodeState]:
        """The states of a `progress_state` message, by node id.

        Raises:
            msgspec.MsgspecError: they are none.
        """
        return decode_json(bytes(self.nodes), dict[str, NodeState]) if self.nodes else {}


class Message(Struct, frozen=True, gc=False):
    """One text frame of the WebSocket, or one entry of a history's `messages`."""

    type: str
    data: Data = Data()


class HistoryEntry(Struct, gc=False):
    """One finished prompt as the server remembers it. `create_ms` is None before ComfyUI 0.3.69.

    `unread`: what of the entry could not be read.
    """

    messages: list[Message]
    outputs: dict[str, dict[str, Any]]
    create_ms: int | None
    number: float | None
    unread: list[str] = []


class _RawEntry(Struct, gc=False):
    prompt: msgspec.Raw = msgspec.Raw(b"[]")
    outputs: msgspec.Raw = msgspec.Raw(b"{}")
    status: msgspec.Raw = msgspec.Raw(b"{}")


class _ExtraData(Struct, gc=False):
    create_time: float | None = None


class _Queue(Struct, gc=False):
    queue_running: list[msgspec.Raw] = []
    queue_pending: list[msgspec.Raw] = []


class _Class(Struct, gc=False):
    python_module: Any = None


NO_LIST = msgspec.Raw(b"[]")
_message = msgspec.json.Decoder(Message, strict=False)


def decode_message(text: str | bytes) -> Message | None:
    """One WebSocket text frame; None if it is none of ComfyUI's (a custom node may send anything), or too large."""
    try:
        weigh(text)
        return _message.decode(text)
    except (ValueError, RecursionError):
        try:
            return _coerce(lenient(text))
        except msgspec.MsgspecError:
            return None


def decode_messages(raw: Iterable[msgspec.Raw]) -> list[Message]:
    """The `[type, data]` pairs of a history entry's status; pairs that are none are skipped."""
    found = []
    for item in raw:
        try:
            pair = lenient(bytes(item))
        except msgspec.MsgspecError:
            continue
        if isinstance(pair, list) and len(pair) == 2:
            message = _coerce({"type": pair[0], "data": pair[1]})
            if message is not None:
                found.append(message)
    return found


def decode_history(body: bytes, prompt_id: str) -> HistoryEntry | None:
    """The entry of `prompt_id` in a `/history/{id}` reply; None when the server does not have it.

    Raises:
        msgspec.MsgspecError: the body is not a history.
    """
    entry = _entry(body, prompt_id)
    if entry is None:
        return None
    unread: list[str] = []

    def listed(name: str, raw: msgspec.Raw) -> list[msgspec.Raw]:
        try:
            return raw_list(raw)
        except msgspec.MsgspecError as error:
            unread.append(f"its {name} ({error})")
            return []

    def part(name: str, raw: msgspec.Raw, shape: type[T], none: T) -> T:
        try:
            return decode_json(bytes(raw), shape)
        except msgspec.MsgspecError as error:
            unread.append(f"its {name} ({error})")
            return none

    def status_messages(raw: msgspec.Raw) -> msgspec.Raw:
        """A status's `status_str` can lie, its messages do not. A server without a status says null."""
        try:
            return members(raw).get("messages", NO_LIST) if bytes(raw).strip() != b"null" else NO_LIST
        except msgspec.MsgspecError as error:
            unread.append(f"its status ({error})")
            return NO_LIST

    prompt = listed("prompt", entry.prompt)
    extra = part("extra_data", prompt[3], _ExtraData, _ExtraData()) if len(prompt) > 3 else _ExtraData()
    number = part("number", prompt[0], float, math.nan) if prompt else math.nan
    outputs = part("outputs", entry.outputs, dict[str, Any], {})
    told = listed("messages", status_messages(entry.status))
    messages = decode_messages(told)
    if len(messages) < len(told):
        unread.append(f"{len(told) - len(messages)} of its messages")
    kept = {node: output for node, output in outputs.items() if isinstance(output, dict)}
    if len(kept) < len(outputs):
        unread.append(f"{len(outputs) - len(kept)} of its outputs")
    return HistoryEntry(
        messages=messages,
        outputs=kept,
        create_ms=whole_ms(extra.create_time),
        number=number if math.isfinite(number) else None,
        unread=unread,
    )


def finite(value: object) -> float | None:
    """A number that JSON can hold; None for anything else: truth, text, NaN, and what no float of ours holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def _entry(body: bytes, prompt_id: str) -> _RawEntry | None:
    try:
        return strict(body, dict[str, _RawEntry]).get(prompt_id)
    except msgspec.MsgspecError:
        entry = converted(lenient(body), dict[str, Any]).get(prompt_id)
    if not isinstance(entry, dict):
        if entry is None:
            return None
        raise msgspec.ValidationError("its entry is no object")
    return _RawEntry(**{name: as_raw(entry[name]) for name in ("prompt", "outputs", "status") if name in entry})


def whole_ms(stamp: float | None) -> int | None:
    """A stamp as it is kept; None of one that no whole number of ours holds."""
    return int(stamp) if stamp is not None and abs(stamp) < 2**53 else None


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


def decode_modules(body: bytes) -> dict[str, str | None]:
    """`python_module` of each class in the whole of `/object_info`, the rest unread.

    Raises:
        msgspec.MsgspecError: it is no object of objects.
    """
    try:
        told = {name: one.python_module for name, one in strict(body, dict[str, _Class], ROOMY_VALUES).items()}
    except msgspec.MsgspecError:
        plain = converted(lenient(body), dict[str, Any])
        told = {name: one.get("python_module") for name, one in plain.items() if isinstance(one, dict)}
    return {name: module if isinstance(module, str) else None for name, module in told.items()}


def decode_some(body: bytes, names: Collection[str]) -> dict[str, Any]:
    """These members of a large object, the others unread; what is no object among them is left out.

    Raises:
        msgspec.MsgspecError: it is no object.
    """
    fields = {f"f{number}": name for number, name in enumerate(names)}
    shape = msgspec.defstruct("Some", [(field, msgspec.Raw, msgspec.Raw(b"null")) for field in fields], rename=fields)
    found = strict(body, shape, ROOMY_VALUES)
    members = {name: decode_json(bytes(getattr(found, field)), Any) for field, name in fields.items()}
    return {name: member for name, member in members.items() if isinstance(member, dict)}


class _Job(Struct, gc=False):
    status: str = ""


def decode_job_status(body: bytes) -> str:
    """`status` of an `/api/jobs/{id}` reply: pending, in_progress, completed, failed or cancelled.

    Raises:
        msgspec.MsgspecError: the body tells none.
    """
    return decode_json(body, _Job).status


class _PromptInfo(Struct, gc=False):
    exec_info: _ExecInfo = _ExecInfo()


def decode_queue_remaining(body: bytes) -> int | None:
    """Running plus pending prompts, from `GET /prompt`; None if the reply is none of ComfyUI's."""
    try:
        return decode_json(body, _PromptInfo).exec_info.queue_remaining
    except msgspec.MsgspecError:
        return None


def _coerce(value: Any) -> Message | None:
    """A message whose fields have other types than ours: take what can be read as ours."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return None
    data = value.get("data")
    if not isinstance(data, dict):
        return Message(type=value["type"])

    def text(key: str) -> str | None:
        found = data.get(key)
        return None if found is None or isinstance(found, dict | list) else str(found)

    status = data.get("status")
    exec_info = status.get("exec_info") if isinstance(status, dict) else None
    remaining = exec_info.get("queue_remaining") if isinstance(exec_info, dict) else None
    return Message(
        type=value["type"],
        data=Data(
            prompt_id=text("prompt_id"),
            node=text("node"),
            display_node=text("display_node"),
            timestamp=finite(data.get("timestamp")),
            nodes=as_raw(data["nodes"]) if isinstance(data.get("nodes"), dict | list) else msgspec.Raw(b""),
            status=_Status(_ExecInfo(remaining)) if type(remaining) is int and 0 <= remaining <= MOST_COUNT else None,
            sid=text("sid"),
            node_id=text("node_id"),
            node_type=text("node_type"),
            exception_type=text("exception_type"),
            exception_message=text("exception_message"),
            value=data.get("value"),
            max=data.get("max"),
        ),
    )
