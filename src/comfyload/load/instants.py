"""Parses instants as logs and programs write them: numbers by their size, dates by their form."""

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Literal

from msgspec import Struct

from comfyload.words import plain_letters

Kind = Literal["offset", "absolute", "local", "yearless"]
"""Seconds since some start; Unix seconds; seconds of a clock without a zone; the same without a year."""


class Instant(Struct, frozen=True, kw_only=True):
    """A point in time. `unit`: of the number in the text; "" for a date. `whole`: it has no fraction."""

    s: float
    kind: Kind
    unit: str = ""
    whole: bool = False


_MONTHS = (
    "jan januar january janv janvier ene enero gen gennaio janeiro januari jaen jaenner janner",
    "feb febr februar february fev fevr fevrier febrero febbraio fevereiro februari",
    "mar mars marz maerz mrz march marzo marco mrt maart",
    "apr april avr avril abr abril aprile",
    "may mai mayo mag maggio maio mei maj",
    "jun juni june juin junio giu giugno junho",
    "jul juli july juil juillet julio lug luglio julho",
    "aug august aou aout ago agosto augustus",
    "sep sept september septembre septiembre set settembre setembro",
    "okt oktober oct october octobre octubre ott ottobre out outubro",
    "nov november novembre noviembre novembro",
    "dez dezember dec december decembre dic diciembre dicembre dezembro",
)
_MONTH = {word: number for number, words in enumerate(_MONTHS, 1) for word in words.split()}
_EAST = "-8 PST|-7 PDT MST|-6 MDT|-5 CDT EST|-4 EDT|0 Z UTC GMT WET|1 CET MEZ WEST|2 CEST MESZ EET|3 EEST|9 JST KST"
_ZONES = {name: int(line.split()[0]) for line in _EAST.split("|") for name in line.split()[1:]}
"""Hours east of Greenwich. Abbreviations that mean several zones (CST, IST, BST) are not here, so such are not read."""

_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)"
_CLOCK += r"(?:\.(?P<fraction>\d+)|,(?P<millis>\d{3}(?:\d{3})?)(?![\d,;]))?(?P<half> ?[AaPp][Mm]\b)?"
_OFFSET = rf"(?P<zone> ?[+-]\d{{2}}:?\d{{2}}(?![\d:])|[+-]\d{{2}}(?![\d:])|Z| ?(?:{'|'.join(_ZONES)})\b)?"
_WORD = r"(?P<month>[^\W\d_]{3,10}\.?)"
_DAY = r"(?P<day>\d{1,2})"
_YEAR = r"(?P<year>\d{4})"
_LOGGED = re.compile(rf"\[(?:\w+,? )?{_DAY}[/ -]{_WORD}[/ -]{_YEAR}[: T]{_CLOCK}{_OFFSET}")
"""What web servers put into brackets. Where a line has several times, this one is of the request."""

_FORMS = (
    re.compile(
        rf"(?<!\d){_YEAR}(?P<mark>[-/.])(?P<month>\d{{1,2}})(?P=mark){_DAY}(?:[T\t]| +(?:- )?){_CLOCK}{_OFFSET}"
    ),
    re.compile(
        r"(?<!\d)(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)T"
        rf"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?:\.(?P<fraction>\d+))?{_OFFSET}"
    ),
    re.compile(rf"(?<!\d){_DAY}[/ -]{_WORD}[/ -]{_YEAR},?[: T]{_CLOCK}{_OFFSET}"),
    re.compile(rf"(?<!\w){_WORD} +{_DAY} {_CLOCK}{_OFFSET} {_YEAR}(?!\d)"),
    re.compile(rf"(?<!\w){_WORD} +{_DAY},? {_YEAR},?(?: @)? {_CLOCK}{_OFFSET}"),
    re.compile(rf"(?<!\d){_DAY}\.(?P<month>\d{{1,2}})\.{_YEAR},? {_CLOCK}{_OFFSET}"),
    re.compile(rf"^(?:<\d+>)?{_WORD} +{_DAY} {_CLOCK}"),
)
_UNUSABLE = (
    (
        re.compile(r"(?<!\d)\d{1,2}([/-])\d{1,2}\1\d{4}(?:,? |[:T])\d{1,2}:\d\d(?::\d\d)?"),
        "has its day and month in an unknown order",
    ),
    (re.compile(r"(?<!\d)\d{4}([-/.])\d{1,2}\1\d{1,2}[T ]\d{1,2}:\d\d(?!:?\d)"), "has no seconds"),
    (re.compile(r"(?<![\d:.])\d{1,2}:\d\d:\d\d(?![\d:])"), "is a time of day without its date"),
)
"""Times that cannot be used, and why."""
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_NO_NUMBER = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_LEADING = re.compile(r"\[?(\d{9,10}(?:\.\d+)?|\d{13}|\d{16}|\d{19})\]?(?=[\s,;|])")
_UNITS: tuple[tuple[float, Kind, float, str], ...] = (
    (1e8, "offset", 1, "s"),
    (1e11, "absolute", 1, "s"),
    (1e14, "absolute", 1e3, "ms"),
    (1e17, "absolute", 1e6, "µs"),
    (1e20, "absolute", 1e9, "ns"),
)
"""Sizes below which a number is of a kind, how many of its unit are a second, and the unit."""


def numbered(value: float | str) -> Instant | str | None:
    """The instant of a number, by its size; a text that says what is wrong with it; None: it is not a number.

    Times of today are, as Unix time, some 2e9 seconds, 2e12 ms, 2e15 µs or 2e18 ns. What is below 1e8 is an offset.
    """
    if isinstance(value, bool):
        return None
    text = str(value).strip()
    if _NO_NUMBER.fullmatch(text):
        return f"invalid time {text!r}"
    if isinstance(value, str) and not _NUMBER.fullmatch(text):
        return None
    try:
        size = float(value)
    except OverflowError:
        size = math.inf
    if size < 0:
        return f"{_short(text)} is negative"
    for below, kind, per_s, unit in _UNITS:
        if size < below:
            return Instant(s=size / per_s, kind=kind, unit=unit)
    return f"{_short(text)} is too large for a time"


def dated(text: str) -> Instant | str | None:
    """The instant of the date in a line, or of a Unix time at its beginning; a text: what is wrong with it; None: none.

    A date in brackets, as web servers log it, comes before others; of others the first counts.
    """
    found = _LOGGED.search(text)
    if found is None:
        every = (form.search(text) for form in _FORMS)
        found = min((one for one in every if one), key=lambda one: one.start(), default=None)
    if found is not None:
        return _moment(found)
    leading = _LEADING.match(text)
    if leading is not None:
        return numbered(leading[1])
    for form, why in _UNUSABLE:
        unclear = form.search(text)
        if unclear is not None:
            return f"{unclear[0]} {why}"
    return None


def _moment(found: re.Match[str]) -> Instant | str:
    part = found.groupdict()
    month = part["month"]
    number = int(month) if month.isdecimal() else _MONTH.get(plain_letters(month.lower().rstrip(".")))
    if number is None:
        return f"unknown month {month!r}"
    year = 2000 if part.get("year") is None else int(part["year"])
    second = int(part["second"])
    leap = second == 60  # a clock that shows leap seconds
    zone = part.get("zone")
    try:
        moment = datetime(
            year, number, int(part["day"]), _hour(part), int(part["minute"]), second - leap, tzinfo=_zone(zone)
        )
        seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() + leap
    except ValueError:
        return f"invalid date and time {found[0].strip('[')!r}"
    fraction = part["fraction"] or part.get("millis")
    kind: Kind = "yearless" if part.get("year") is None else "local" if zone is None else "absolute"
    return Instant(s=seconds + float(f"0.{fraction or 0}"), kind=kind, whole=fraction is None)


def _hour(part: dict[str, str | None]) -> int:
    """The hour of 24. Raises ValueError: with AM or PM, it is not an hour of 12."""
    hour, half = int(part["hour"] or 0), part.get("half")
    if half is None:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError(f"not an hour of 12: {hour}")
    return hour % 12 + (12 if half.strip().lower() == "pm" else 0)


def _zone(text: str | None) -> timezone:
    """Raises ValueError: it is a day off or more."""
    text = (text or "Z").strip()
    if text in _ZONES:
        return timezone(timedelta(hours=_ZONES[text]))
    minutes = 60 * int(text[1:3]) + int(text[3:].strip(":") or 0)
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}…"
