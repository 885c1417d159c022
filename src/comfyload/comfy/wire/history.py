"""`GET /history/{id}`: what the server remembers of one prompt that has ended."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.lenient import MAX_VALUES, decode_json, members, raw_list
from comfyload.comfy.wire.messages import Listed, Message, decode_messages
from comfyload.record.bounds import whole_ms

T = TypeVar("T")

_LIST, _OBJECT = msgspec.Raw(b"[]"), msgspec.Raw(b"{}")


class HistoryEntry(Struct, gc=False):
    """One finished prompt as the server remembers it. `create_ms` is None before ComfyUI 0.3.69.

    `unread`: what of the entry could not be read.
    """

    messages: Sequence[Message]
    outputs: dict[str, dict[str, Any]]
    create_ms: int | None
    number: float | None
    unread: list[str] = []


class _ExtraData(Struct, gc=False):
    create_time: float | None = None


class _EntryStatus(Struct, gc=False):
    messages: list[Listed] = []


class _Entry(Struct, gc=False):
    """An entry as ComfyUI writes it, without its prompt."""

    outputs: msgspec.Raw
    status: _EntryStatus


_number = msgspec.json.Decoder(float, strict=False)
_prompt_end = msgspec.json.Decoder(tuple[_ExtraData, list[str]], strict=False)
_entry = msgspec.json.Decoder(_Entry, strict=False)


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
    """The entry as ComfyUI writes it. The graph, most of the text, is not read: what follows it is found from the end.

    In JSON a key cannot stand inside a string, since quotes are escaped there. What lies deeper than the entry closes
    more brackets than are opened here, and is refused as invalid.

    Raises:
        ValueError: it is not as ComfyUI writes it, or so large that its parts are weighed one by one.
    """
    head = b'{"%b": {"prompt": [' % prompt_id.encode()
    outputs_at = body.rfind(b', "outputs": {')
    extra_at = body.rfind(b"}, {", 0, max(0, outputs_at)) + 3
    if not body.startswith(head) or len(body) >= MAX_VALUES:
        raise ValueError("it begins otherwise, or is large")
    number = _number.decode(body[len(head) : body.find(b",", len(head))])
    extra, _ = _prompt_end.decode(b"[" + body[extra_at:outputs_at])
    entry = _entry.decode(b"{" + body[outputs_at + 2 :].rstrip()[:-1])
    messages = entry.status.messages
    if {message.data.prompt_id for message in messages} != {prompt_id}:
        raise ValueError("it is another prompt's")
    return HistoryEntry(
        outputs=decode_json(bytes(entry.outputs), dict[str, dict[str, Any]]),
        messages=messages,
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

    def messages(self, status: msgspec.Raw) -> list[Listed]:
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
