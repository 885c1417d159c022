r"""Encodes and decodes JSON with any text that a server can send.

Python reads a file's name that is not UTF-8 as text with lone surrogates (`caf\udce9.png`). JSON can write these as
escapes, and msgspec does not: where it refuses, Python's own encoder and parser are used, so that decoding returns what
was encoded.
"""

import json
import math
from collections.abc import Collection
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")
MOST_LEVELS = 100
"""Most levels of nesting: no graph and no row of a log has more, and encoders do not write many more."""
_HALF = b"\\ud"

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError)
"""What msgspec raises for what it cannot decode: for bad UTF-8 and a thousand levels it raises errors of Python's."""


def encode(value: object, order: Literal["sorted"] | None = None) -> bytes:
    """As `msgspec.json.encode` does; lone surrogates as escapes. Keys are sorted to be hashed."""
    try:
        return msgspec.json.encode(value, order=order)
    except UnicodeEncodeError:
        plain = _finite(msgspec.to_builtins(value, str_keys=True))
        return json.dumps(plain, sort_keys=order == "sorted", separators=(",", ":")).encode()


def encode_pretty(value: object) -> bytes:
    """The same on several lines, for people."""
    compact = encode(value)
    try:
        return msgspec.json.format(compact, indent=2)
    except msgspec.DecodeError:  # escapes of lone surrogates
        return json.dumps(json.loads(compact), indent=2).encode()


def decode(content: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """What `encode` wrote, as the decoder's type.

    Raises:
        msgspec.MsgspecError: it is not JSON, or not of that type.
    """
    try:
        return decoder.decode(content)
    except UNREADABLE as error:
        if _HALF not in content.lower():
            raise unreadable(error) from None
    return converted(parsed(content), decoder.type)


def parsed(content: bytes | str) -> Any:
    """What Python's own parser reads of JSON, NaN and lone surrogates included.

    Raises:
        msgspec.MsgspecError: it is not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def unreadable(error: Exception) -> msgspec.MsgspecError:
    """One of UNREADABLE as the one kind of error that decoders raise."""
    return error if isinstance(error, msgspec.MsgspecError) else msgspec.DecodeError(str(error))


def converted(plain: Any, shape: type[T], *, strict: bool = True) -> T:
    """What Python's parser read, as a type. Where lone surrogates stop msgspec, they become `printable` first.

    Raises:
        msgspec.MsgspecError: it is not of that type.
    """
    try:
        try:
            return msgspec.convert(plain, shape, str_keys=True, strict=strict)
        except UnicodeEncodeError:
            return msgspec.convert(words(plain), shape, str_keys=True, strict=strict)
    except UNREADABLE as error:
        raise unreadable(error) from None


def check_keys(given: Any, understood: Struct) -> None:
    """Compare what was read with what a type made of it: types of our files ignore keys that they do not have.

    `understood`: a value whose type leaves out no defaults.

    Raises:
        msgspec.ValidationError: a key was not understood; the text names it.
    """
    if not within_levels(given):
        raise msgspec.ValidationError(f"more than {MOST_LEVELS} levels")
    _check_keys(words(given), msgspec.to_builtins(understood), "$")


def _check_keys(given: Any, understood: Any, at: str) -> None:
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, inner in given.items():
            if key not in understood:
                raise msgspec.ValidationError(f"Object contains unknown field `{key}` - at `{at}`")
            _check_keys(inner, understood[key], f"{at}.{key}")
    elif isinstance(given, list) and isinstance(understood, list):
        for one, other in zip(given, understood, strict=True):
            if isinstance(one, dict | list):
                _check_keys(one, other, f"{at}[...]")


def printable(text: str) -> str:
    r"""The text with `\udce9` in place of lone surrogates, which no encoding can write."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def words(value: Any) -> Any:
    """Lists and objects of JSON, every text in them `printable`."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): words(inner) for key, inner in value.items()}
    return [words(inner) for inner in value] if isinstance(value, list) else value


def within_levels(value: Any, most: int = MOST_LEVELS) -> bool:
    """Whether lists, objects and structs of JSON lie no deeper in each other than `most` levels."""
    return most >= 0 and all(within_levels(inner, most - 1) for inner in inner_of(value))


def inner_of(value: Any) -> Collection[Any]:
    """What lies in a list, an object or a struct; nothing in another value."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list):
        return value
    return [getattr(value, name) for name in value.__struct_fields__] if isinstance(value, Struct) else ()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
