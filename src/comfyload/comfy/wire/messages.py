"""The messages of the event stream; a history entry holds the same messages."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.lenient import MAX_VALUES, as_raw, decode_json, lenient, weigh
from comfyload.record.bounds import MOST_COUNT, Count, finite


class NodeState(Struct, gc=False):
    """One node in a `progress_state` message."""

    state: str = ""


class ExecInfo(Struct, frozen=True, gc=False):
    """How long the server's queue is."""

    queue_remaining: Count | None = None


class _Status(Struct, frozen=True, gc=False):
    exec_info: ExecInfo = ExecInfo()


class Data(Struct, frozen=True, gc=False):
    """The fields of a message's `data` that matter; absent ones are None.

    `nodes` is a list of ids in `execution_cached` and an object of states in `progress_state`; it stays raw until it
    is needed. `value` and `max` of a `progress` are whatever its node sent.
    """

    prompt_id: str | None = None
    node: str | None = None
    display_node: str | None = None
    timestamp: float | None = None
    nodes: msgspec.Raw = msgspec.Raw(b"")
    status: _Status | None = None
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
            msgspec.MsgspecError: they are not a list of ids.
        """
        nodes = bytes(self.nodes)
        if nodes in (b"", b"[]"):  # as in most jobs under load
            return []
        return [str(node) for node in decode_json(nodes, list[str | int])]

    def node_states(self) -> dict[str, NodeState]:
        """The states of a `progress_state` message, by node id.

        Raises:
            msgspec.MsgspecError: they are not states.
        """
        return decode_json(bytes(self.nodes), dict[str, NodeState]) if self.nodes else {}


class Message(Struct, frozen=True, gc=False):
    """One text frame of the WebSocket."""

    type: str
    data: Data = Data()


class Listed(Message, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """The same in a history, as a pair."""

    data: Data


_TEXTS = ("prompt_id", "node", "display_node", "node_id", "node_type", "exception_type", "exception_message")

_message = msgspec.json.Decoder(Message, strict=False)


def decode_message(text: str | bytes) -> Message | None:
    """One WebSocket text frame; None: it is not ComfyUI's (a custom node may send anything), or too large."""
    try:
        if len(text) >= MAX_VALUES:
            weigh(text)
        return _message.decode(text)
    except (ValueError, RecursionError):
        try:
            return _coerce(lenient(text))
        except msgspec.MsgspecError:
            return None


def decode_messages(raw: Iterable[msgspec.Raw]) -> list[Listed]:
    """The `[type, data]` pairs of a history entry's status; anything else is skipped."""
    found = []
    for item in raw:
        try:
            pair = lenient(bytes(item))
        except msgspec.MsgspecError:
            continue
        if isinstance(pair, list) and len(pair) == 2:
            message = _coerce({"type": pair[0], "data": pair[1]})
            if message is not None:
                found.append(Listed(message.type, message.data))
    return found


def _coerce(value: Any) -> Message | None:
    """A message whose fields have other types than ours: take what can be read as ours."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return None
    data = value.get("data")
    if not isinstance(data, dict):
        return Message(type=value["type"])
    texts = {name: str(data[name]) for name in _TEXTS if isinstance(data.get(name), str | int | float)}
    status = data.get("status")
    exec_info = status.get("exec_info") if isinstance(status, dict) else None
    remaining = exec_info.get("queue_remaining") if isinstance(exec_info, dict) else None
    return Message(
        type=value["type"],
        data=Data(
            timestamp=finite(data.get("timestamp")),
            nodes=as_raw(data["nodes"]) if "nodes" in data else msgspec.Raw(b""),
            status=_Status(ExecInfo(remaining)) if type(remaining) is int and 0 <= remaining <= MOST_COUNT else None,
            value=data.get("value"),
            max=data.get("max"),
            **texts,
        ),
    )
