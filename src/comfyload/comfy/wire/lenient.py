"""JSON from a server, whatever it holds: decoded leniently, within bounds, into values that can be encoded again.

Every function raises `msgspec.MsgspecError` and nothing else.
"""

import json
import re
from typing import Any, NamedTuple, TypeVar

import msgspec

from comfyload.record.codec import MOST_LEVELS, converted, inner_of

T = TypeVar("T")

MAX_VALUES = 500_000
"""Values of one JSON text, by its commas and brackets: each may take a hundred bytes as a value of Python's."""

ROOMY_VALUES = 1_500_000
"""The same for a text that stays unread for the most part."""

MAX_LETTERS = 64 << 20
"""Bytes that the strings of one JSON text may take; a string with one letter beyond Latin-1 takes four for each."""

WIDEST = 2**63
"""Whole numbers from here on are read as floats, as JavaScript does: our integers cannot hold them."""

_BEHIND_A_HALF = re.compile(r"(?<=\\u[dD][89abAB][0-9a-fA-F]{2})[\udc80-\udcff]")
"""A byte that is not UTF-8, behind the first half of a pair: no JSON tells the two from the pair, so it is one."""


def decode_json(text: bytes | str, shape: type[T]) -> T:
    """Decode JSON as `shape`, accepting bare NaN and Infinity as the server writes them, and bytes that are not UTF-8.

    Raises:
        msgspec.MsgspecError: it is not JSON, not of that shape, too deep or too large to be held.
    """
    weigh(text)
    try:
        decoder, can_be_odd = _kept(shape)
        found: T = decoder.decode(text)
        if not can_be_odd or _surely_plain(text) or is_plain(found):
            return found
    except (ValueError, RecursionError):  # MsgspecError is a ValueError, as is the error for bad UTF-8
        pass
    return converted(lenient(text), shape, strict=False)


class _Kept(NamedTuple):
    """A decoder, and whether what it reads can be too deep, or hold a number that is too wide."""

    decoder: msgspec.json.Decoder[Any]
    can_be_odd: bool


def _kept(shape: Any) -> _Kept:
    found = _KEPT.get(shape)
    if found is None:
        parts = repr(msgspec.inspect.type_info(shape))
        decoder = msgspec.json.Decoder(shape, strict=False)
        found = _KEPT[shape] = _Kept(decoder, "AnyType" in parts or "IntType" in parts)
    return found


_KEPT: dict[Any, _Kept] = {}


def raw_list(text: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """A list, its members unread."""
    try:
        return strict(text, list[msgspec.Raw])
    except msgspec.MsgspecError:
        return [as_raw(member) for member in converted(lenient(bytes(text)), list[Any])]


def members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """An object's members by name, unread."""
    try:
        return strict(text, dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        return {name: as_raw(member) for name, member in converted(lenient(bytes(text)), dict[str, Any]).items()}


def strict(text: bytes | msgspec.Raw, shape: type[T], most: int = MAX_VALUES) -> T:
    """Valid JSON as `shape`, whose raw parts stay unread."""
    weigh(bytes(text), most)
    try:
        found: T = _kept(shape).decoder.decode(text)
        return found
    except msgspec.MsgspecError:
        raise
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)[:200]) from None


def weigh(text: bytes | str, most: int = MAX_VALUES) -> None:
    """Refuse what would take hundreds of megabytes once it is made of Python's values.

    Raises:
        msgspec.ValidationError: it would.
    """
    if len(text) < MAX_VALUES:
        return
    *values, escapes = (
        (text.count(mark) for mark in (",", "[", "{", "\\u"))
        if isinstance(text, str)
        else (text.count(mark) for mark in (b",", b"[", b"{", b"\\u"))
    )
    wide = 4 if most == MAX_VALUES and (escapes or not text.isascii()) else 1
    if sum(values) > most or wide * len(text) > MAX_LETTERS:
        raise msgspec.ValidationError(f"more than is held: {len(text) >> 20} MiB, some {sum(values)} values")


def is_plain(value: Any, levels: int = MOST_LEVELS) -> bool:
    """Whether it can be written as it is: no deeper than so many levels, and no number too wide."""
    if type(value) is int:
        return -WIDEST <= value < WIDEST
    inner = inner_of(value)
    return not inner or (levels > 0 and all(is_plain(each, levels - 1) for each in inner))


def _surely_plain(text: bytes | str) -> bool:
    """The same by a look at the text alone, which may also say no to what is plain."""
    brackets = isinstance(text, bytes) and text.count(b"{") + text.count(b"[") <= MOST_LEVELS
    return brackets and _WIDE_DIGITS not in text.translate(_ALL_DIGITS_ZERO)


_ALL_DIGITS_ZERO, _WIDE_DIGITS = bytes.maketrans(b"123456789", b"000000000"), b"0" * 18


def lenient(text: bytes | str) -> Any:
    """JSON as Python's own encoder writes it, NaN included. Bytes that are not UTF-8 become lone surrogates, as in
    file names.

    Raises:
        msgspec.MsgspecError: it is not JSON, too deep or too large to be held.
    """
    weigh(text)
    try:
        plain = text if isinstance(text, str) else text.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        plain = _BEHIND_A_HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", plain)
        found = json.loads(plain, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)[:200]) from None
    if not is_plain(found):
        raise msgspec.DecodeError(f"more than {MOST_LEVELS} levels of JSON")
    return found


def _whole(digits: str) -> int | float:
    value = float(digits) if len(digits) > 18 else int(digits)
    return int(digits) if isinstance(value, float) and abs(value) < WIDEST else value


def as_raw(value: Any) -> msgspec.Raw:
    """The value as raw JSON, to be read later."""
    return msgspec.Raw(json.dumps(value).encode())
