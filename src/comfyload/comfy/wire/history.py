"""`GET /history/{id}`: what the server remembers of one prompt that has ended."""

import math
import re
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.lenient import MAX_VALUES, decode_json, members, raw_list
from comfyload.comfy.wire.messages import Data, Message, decode_messages
from comfyload.record.bounds import whole_ms
from comfyload.record.codec import MOST_LEVELS

T = TypeVar("T")

_LIST, _OBJECT = msgspec.Raw(b"[]"), msgspec.Raw(b"{}")


class HistoryEntry(Struct, gc=False):
    """One finished prompt as the server remembers it. `create_ms` is None before ComfyUI 0.3.69.

    `unread`: what of the entry could not be read.
    """

    messages: list[Message]
    outputs: dict[str, dict[str, Any]]
    create_ms: int | None
    number: float | None
    unread: list[str] = []


class _ExtraData(Struct, gc=False):
    create_time: float | None = None


class _EntryStatus(Struct, gc=False):
    messages: list[tuple[str, Data]] = []


class _Entry(Struct, gc=False):
    """An entry as ComfyUI writes it. Its prompt: number, id, graph, extra data, and what versions add."""

    prompt: list[msgspec.Raw] = []
    outputs: msgspec.Raw = _OBJECT
    status: _EntryStatus | None = None


_WIDE = re.compile(rb"\d{18}")

_outputs = msgspec.json.Decoder(dict[str, dict[str, Any]], strict=False)
_number = msgspec.json.Decoder(float, strict=False)
_extra_data = msgspec.json.Decoder(_ExtraData, strict=False)
_history = msgspec.json.Decoder(dict[str, _Entry | None], strict=False)


def decode_history(body: bytes, prompt_id: str) -> HistoryEntry | None:
    """The entry of `prompt_id` in a `/history/{id}` reply; None when the server does not have it.

    Raises:
        msgspec.MsgspecError: the body is not a history.
    """
    try:
        return _as_written(body, prompt_id)
    except (ValueError, RecursionError):  # MsgspecError is a ValueError, as is the error for bad UTF-8
        return _part_by_part(body, prompt_id)


def _as_written(body: bytes, prompt_id: str) -> HistoryEntry | None:
    """The entry in one pass, which skips the graph.

    Raises:
        ValueError: it is not as ComfyUI writes it, or so large that its parts are weighed one by one.
    """
    if len(body) >= MAX_VALUES:
        raise ValueError("it is large")
    entry = _history.decode(body).get(prompt_id)
    if entry is None:
        return None
    outputs = bytes(entry.outputs)
    if outputs.count(b"{") + outputs.count(b"[") > MOST_LEVELS or _WIDE.search(outputs):
        raise ValueError("its outputs may be deep, or hold a wide number")
    number = _number.decode(entry.prompt[0]) if entry.prompt else math.nan
    extra = _extra_data.decode(entry.prompt[3]) if len(entry.prompt) > 3 else _ExtraData()
    return HistoryEntry(
        outputs=_outputs.decode(outputs),
        messages=[Message(kind, data) for kind, data in entry.status.messages] if entry.status else [],
        create_ms=whole_ms(extra.create_time),
        number=number if math.isfinite(number) else None,
    )


def _part_by_part(body: bytes, prompt_id: str) -> HistoryEntry | None:
    raw = members(body).get(prompt_id)
    if raw is None or bytes(raw).strip() == b"null":
        return None
    entry, parts = members(raw), _Parts()
    prompt = parts.listed("prompt", entry.get("prompt", _LIST))
    extra = parts.part("extra_data", prompt[3], _ExtraData()) if len(prompt) > 3 else _ExtraData()
    number = parts.part("number", prompt[0], math.nan) if prompt else math.nan
    return HistoryEntry(
        outputs=parts.outputs(entry.get("outputs", _OBJECT)),
        messages=parts.messages(entry.get("status", _OBJECT)),
        create_ms=whole_ms(extra.create_time),
        number=number if math.isfinite(number) else None,
        unread=parts.unread,
    )


class _Parts:
    """Reads an entry part by part: a part that cannot be read is named in `unread`, and the others are read."""

    def __init__(self) -> None:
        self.unread: list[str] = []

    def part(self, name: str, raw: msgspec.Raw, none: T) -> T:
        """The part, as what `none` is; `none` where it cannot be read."""
        try:
            return decode_json(bytes(raw), type(none))
        except msgspec.MsgspecError as error:
            self.unread.append(f"its {name} ({error})")
            return none

    def listed(self, name: str, raw: msgspec.Raw) -> list[msgspec.Raw]:
        """The members of a list, which stay unread."""
        try:
            return raw_list(raw)
        except msgspec.MsgspecError as error:
            self.unread.append(f"its {name} ({error})")
            return []

    def messages(self, status: msgspec.Raw) -> list[Message]:
        """Those of its status, whose `status_str` can lie. A server without a status says `null`."""
        raw = _LIST
        try:
            raw = members(status).get("messages", raw) if bytes(status).strip() != b"null" else raw
        except msgspec.MsgspecError as error:
            self.unread.append(f"its status ({error})")
        listed = self.listed("messages", raw)
        messages = decode_messages(listed)
        if len(messages) < len(listed):
            self.unread.append(f"{len(listed) - len(messages)} of its messages")
        return messages

    def outputs(self, raw: msgspec.Raw) -> dict[str, dict[str, Any]]:
        """What each output node reported, by node id."""
        none: dict[str, Any] = {}
        outputs = self.part("outputs", raw, none)
        kept = {node: output for node, output in outputs.items() if isinstance(output, dict)}
        if len(kept) < len(outputs):
            self.unread.append(f"{len(outputs) - len(kept)} of its outputs")
        return kept
