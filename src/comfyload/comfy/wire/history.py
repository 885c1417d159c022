"""`GET /history/{id}`: what the server remembers of one prompt that has ended."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.lenient import as_raw, decode_json, lenient, members, raw_list, strict
from comfyload.comfy.wire.messages import Message, decode_messages
from comfyload.record.bounds import whole_ms
from comfyload.record.codec import converted

T = TypeVar("T")


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


def decode_history(body: bytes, prompt_id: str) -> HistoryEntry | None:
    """The entry of `prompt_id` in a `/history/{id}` reply; None when the server does not have it.

    Raises:
        msgspec.MsgspecError: the body is not a history.
    """
    entry = _entry(body, prompt_id)
    if entry is None:
        return None
    parts = _Parts()
    prompt = parts.listed("prompt", entry.prompt)
    extra = parts.part("extra_data", prompt[3], _ExtraData()) if len(prompt) > 3 else _ExtraData()
    number = parts.part("number", prompt[0], math.nan) if prompt else math.nan
    return HistoryEntry(
        outputs=parts.outputs(entry.outputs),
        messages=parts.messages(entry.status),
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
        raw = msgspec.Raw(b"[]")
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


def _entry(body: bytes, prompt_id: str) -> _RawEntry | None:
    try:
        return strict(body, dict[str, _RawEntry]).get(prompt_id)
    except msgspec.MsgspecError:
        entry = converted(lenient(body), dict[str, Any]).get(prompt_id)
    if not isinstance(entry, dict):
        if entry is None:
            return None
        raise msgspec.ValidationError("its entry is not an object")
    return _RawEntry(**{name: as_raw(entry[name]) for name in ("prompt", "outputs", "status") if name in entry})
