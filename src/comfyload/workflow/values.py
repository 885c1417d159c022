"""Converts a text from a shell or a table to a value, by the type of its input."""

import json
import math
import re
from collections.abc import Callable, Collection
from decimal import Decimal, InvalidOperation
from typing import Any

from comfyload.errors import UsageError
from comfyload.workflow.graph import is_link
from comfyload.workflow.object_info import InputSpec

_TRUTH = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
EXACT = 2**53
"""Beyond it not every integer is a floating-point number: such a float may have lost digits."""
SPREADSHEET_DIGITS = 9
"""Spreadsheets write whole numbers of more than eleven digits as 1.23457E+11, and never shorter ones."""


class Unfit(ValueError):
    """The value does not fit the input; the message says why and what to write."""

    def of(self, place: str) -> UsageError:
        """The same of a value in this place."""
        reason, _, hint = str(self).partition("; ")
        return UsageError(f"{place} {reason}", hint)


def typed(
    value: Any, spec: InputSpec | None, present: object, nodes: Collection[str], *, decimal_comma: bool = False
) -> Any:
    """The value as the server should get it.

    `spec`: how the server declares the input; None if it does not, and then the type of `present`, the value in the
    graph, decides. `nodes`: the ids that a link may name. `decimal_comma`: `0,5` is a number.

    Raises:
        Unfit: it is of another type, was rounded by a spreadsheet, or links to no node of the graph.
    """
    link = _link(value)
    if link is not None:
        if link[0] not in nodes:
            raise Unfit(f"links to node {link[0]}, which is not in the graph")
        return link
    if value is None:
        raise Unfit("is null; write a value")
    kind = _kind(spec, present)
    if isinstance(value, str) and "\0" in value:
        raise Unfit("holds a NUL character")
    if kind in _READ:
        if isinstance(value, str) and not value.strip():
            raise Unfit(f"is empty; write {_EXPECTED[kind]}")
        if decimal_comma and kind != "BOOLEAN" and isinstance(value, str) and _COMMA.fullmatch(value.strip()):
            value = value.replace(",", ".")
        return _READ[kind](value)
    if spec is not None and spec.choices is not None:
        return next((choice for choice in spec.choices if str(choice) == str(value)), value)
    if kind == "STRING" or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _kind(spec: InputSpec | None, present: object) -> str:
    """INT, FLOAT, NUMBER, BOOLEAN or STRING; of anything else, an empty string."""
    if spec is not None and spec.choices is not None:
        return ""
    declared = spec.kind if spec is not None and isinstance(spec.kind, str) else ""
    if declared in ("INT", "FLOAT", "BOOLEAN", "STRING"):
        return declared
    if {part.strip() for part in declared.split(",")} == {"INT", "FLOAT"}:
        return "NUMBER"
    if isinstance(present, bool):
        return "BOOLEAN"
    # A whole number in the graph says little: ComfyUI writes 8.0 as 8.
    return "NUMBER" if isinstance(present, int | float) else "STRING" if isinstance(present, str) else ""


def _link(value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if is_link(value) else None


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise Unfit(f"is {_shown(value)}; write an integer")
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not value.is_integer():
            raise Unfit(f"is {value!r}; write an integer")
        if abs(value) > EXACT:
            raise Unfit(f"is {value!r}, a rounded number: several integers are written like this; write all digits")
        return int(value)
    text = str(value).strip() if isinstance(value, str) else ""
    if _WHOLE.fullmatch(text) and len(text) < 100:
        return int(text)
    if not _DECIMAL.fullmatch(text) or len(text) > 100:
        raise Unfit(f"is {_shown(value)}; write an integer")
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        raise Unfit(f"is {_shown(value)}; write an integer") from None
    if number.adjusted() < 40 and _is_rounded(text, number):
        raise Unfit(
            f"is {text}, rounded by a spreadsheet: many integers are written like this; format the column as text"
        )
    if number.adjusted() >= 40 or number != number.to_integral_value():
        raise Unfit(f"is {text}; write an integer")
    return int(number)


def _is_rounded(text: str, number: Decimal) -> bool:
    mantissa = re.split("[eE]", text)[0]
    return mantissa != text and len(re.sub(r"[^0-9]", "", mantissa)) <= number.adjusted() > SPREADSHEET_DIGITS


def _real(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number: float = value
    elif isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        number = float(value.strip())
    else:
        comma = isinstance(value, str) and _COMMA.fullmatch(value.strip())
        raise Unfit(f"is {_shown(value)}; write a number" + (" with a decimal point" if comma else ""))
    if isinstance(number, float) and not math.isfinite(number):
        raise Unfit(f"is {_shown(value)}; write a finite number")
    return number


def _number(value: Any) -> float:
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return _whole(value)
    return _real(value)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    found = _TRUTH.get(str(value).strip().lower())
    if found is None:
        raise Unfit(f"is {_shown(value)}, and the input is a boolean; write true or false")
    return found


_READ: dict[str, Callable[[Any], Any]] = {"INT": _whole, "FLOAT": _real, "NUMBER": _number, "BOOLEAN": _truth}
_EXPECTED = {"INT": "an integer", "FLOAT": "a number", "NUMBER": "a number", "BOOLEAN": "true or false"}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
