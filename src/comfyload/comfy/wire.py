"""ComfyUI's words on the wire, typed and decoded leniently: unknown fields and message types never fail.

A real server emits bare `NaN`, custom nodes add message types, and versions rename fields. What we need is declared
here; everything else is skipped unread.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from comfyload.record.bounds import MOST_COUNT, Count
from comfyload.record.codec import UNREADABLE, converted, parsed

__all__ = [
    "MAX_BODY_BYTES",
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
    "decode_json",
    "decode_message",
    "decode_messages",
    "decode_queue_remaining",
    "finite",
    "whole_ms",
]

T = TypeVar("T")

MAX_BODY_BYTES = 96 << 20
"""What the replies that are read at one time may be together, unpacked. The largest we know is the queue, which holds
every waiting graph."""

MAX_MESSAGE_BYTES = 64 << 20
"""What a message of the event stream may be: a picture, if a node sends its output that way."""

MAX_FILE_BYTES = 256 << 20
"""What a file may be that is kept in memory."""


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """One HTTP call. `path` is relative to the server's base (`prompt`, `history/ID`), with its query.

    `file`: what is asked for is a file, which may be larger than an answer, and may lie elsewhere by a redirect.
    """

    method: str
    path: str
    body: bytes | None = None
    content_type: str = "application/json"
    timeout_s: float = 30.0
    file: bool = False


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

    `ours`: it is the fault of the machine that asks, and says nothing of the server.
    """

    def __init__(self, message: str, *, sent: bool, ours: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.ours = ours


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
        """The ids of an `execution_cached` message; none of what is no list of ids."""
        try:
            nodes = decode_json(bytes(self.nodes), list[Any]) if self.nodes else []
        except msgspec.MsgspecError:
            return []
        return [str(node) for node in nodes if isinstance(node, str | int)]

    def node_states(self) -> dict[str, NodeState]:
        """The states of a `progress_state` message, by node id."""
        return decode_json(bytes(self.nodes), dict[str, NodeState]) if self.nodes else {}


class Message(Struct, frozen=True, gc=False):
    """One text frame of the WebSocket, or one entry of a history's `messages`."""

    type: str
    data: Data = Data()


class HistoryStatus(Struct, gc=False):
    """`status` of a history entry; `status_str` can lie, the messages do not."""

    status_str: str = ""
    completed: bool = False
    messages: list[msgspec.Raw] = []


class HistoryEntry(Struct, gc=False):
    """One finished prompt as the server remembers it. `create_ms` is None before ComfyUI 0.3.69."""

    messages: list[Message]
    outputs: dict[str, dict[str, Any]]
    create_ms: int | None
    number: float | None


class _RawEntry(Struct, gc=False):
    prompt: list[msgspec.Raw] = []
    outputs: msgspec.Raw = msgspec.Raw(b"{}")
    status: HistoryStatus | None = None


class _ExtraData(Struct, gc=False):
    create_time: float | None = None


_message = msgspec.json.Decoder(Message, strict=False)
_history = msgspec.json.Decoder(dict[str, _RawEntry], strict=False)


def decode_json(text: bytes | str, shape: type[T]) -> T:
    """Decode JSON as `shape`, accepting bare NaN and Infinity as the server writes them.

    Raises:
        msgspec.MsgspecError: it is no JSON, or not of that shape.
    """
    try:
        return msgspec.json.decode(text, type=shape, strict=False)
    except UNREADABLE:
        return converted(parsed(text), shape, strict=False)


def decode_message(text: str | bytes) -> Message | None:
    """One WebSocket text frame; None if it is none of ComfyUI's (a custom node may send anything)."""
    try:
        return _message.decode(text)
    except UNREADABLE:
        try:
            return _coerce(parsed(text))
        except msgspec.MsgspecError:
            return None


def decode_messages(raw: list[msgspec.Raw]) -> list[Message]:
    """The `[type, data]` pairs of a history entry's status; pairs that are none are skipped."""
    found = []
    for item in raw:
        pair = parsed(bytes(item))
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
    try:
        entry = _history.decode(body).get(prompt_id)
    except UNREADABLE:
        entry = _entry(converted(parsed(body), dict[str, Any], strict=False).get(prompt_id))
    if entry is None:
        return None
    extra = decode_json(bytes(entry.prompt[3]), _ExtraData) if len(entry.prompt) > 3 else _ExtraData()
    number = finite(decode_json(bytes(entry.prompt[0]), float)) if entry.prompt else None
    outputs = decode_json(bytes(entry.outputs), dict[str, Any])
    return HistoryEntry(
        messages=decode_messages(entry.status.messages) if entry.status else [],
        outputs={node: output for node, output in outputs.items() if isinstance(output, dict)},
        create_ms=whole_ms(extra.create_time),
        number=number,
    )


def finite(value: object) -> float | None:
    """A number that JSON can hold; None for anything else: truth, text, NaN, and what no float of ours holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def _entry(told: Any) -> _RawEntry | None:
    """An entry with something in it that only Python's parser reads; parts of other types than ours are left out."""
    if not isinstance(told, dict):
        return None
    prompt, status = told.get("prompt"), told.get("status")
    status = status if isinstance(status, dict) else {}
    messages = status.get("messages")
    return _RawEntry(
        prompt=[_raw(part) for part in prompt] if isinstance(prompt, list) else [],
        outputs=_raw(told.get("outputs") or {}),
        status=HistoryStatus(messages=[_raw(message) for message in messages] if isinstance(messages, list) else []),
    )


def whole_ms(stamp: float | None) -> int | None:
    """A stamp as it is kept; None of one that no whole number of ours holds."""
    return int(stamp) if stamp is not None and abs(stamp) < 2**53 else None


class _Job(Struct, gc=False):
    status: str = ""


def decode_job_status(body: bytes) -> str:
    """`status` of an `/api/jobs/{id}` reply: pending, in_progress, completed, failed or cancelled."""
    return decode_json(body, _Job).status


class _PromptInfo(Struct, gc=False):
    exec_info: _ExecInfo = _ExecInfo()


def decode_queue_remaining(body: bytes) -> int | None:
    """Running plus pending prompts, from `GET /prompt`; None if the reply is none of ComfyUI's."""
    try:
        return decode_json(body, _PromptInfo).exec_info.queue_remaining
    except msgspec.MsgspecError:
        return None


def _raw(value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(json.dumps(value).encode())
    except RecursionError as error:
        raise msgspec.DecodeError(str(error)) from None


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
            nodes=_raw(data["nodes"]) if isinstance(data.get("nodes"), dict | list) else msgspec.Raw(b""),
            status=_Status(_ExecInfo(remaining))
            if isinstance(remaining, int) and 0 <= remaining <= MOST_COUNT
            else None,
            sid=text("sid"),
            node_id=text("node_id"),
            node_type=text("node_type"),
            exception_type=text("exception_type"),
            exception_message=text("exception_message"),
            value=data.get("value"),
            max=data.get("max"),
        ),
    )
