"""The lines of a recording in any format (JSON, CSV, W3C, numbers, text): the request and the instant of each."""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct, structs

from comfyload.load.instants import Instant, dated, numbered
from comfyload.load.requests import LoggedRequest, request_in, request_of

_TIMES = (
    "due", "offset_s", "due_s", "t", "startutc", "startlocal", "edgestarttimestamp", "start_time", "starttime",
    "started_at", "requesttimeepoch", "requesttime", "msec", "time_iso8601", "date_time", "datetime", "timestamp",
    "@timestamp", "ts", "time", "data.time", "time_local", "asctime", "eventtime", "created_at", "created", "date",
    "date-local", "offset",
)  # fmt: skip
"""Keys and columns that hold a time, the best first; in small letters."""

_ENDS = ("msec", "time_iso8601", "time_local")
"""nginx's own names: the end of a request, which began `request_time` before."""

_SQUID = re.compile(r"(\d{9,10}\.\d{3})\s+(\d+)\s+\S+\s+[A-Z_]+(?:/(\d{3}))\s+\d+\s+[A-Z]+\s+\S")
_ANSI = re.compile(r"\x1b\[[\d;]*m")
_DELIMITERS = ",;\t|"
_SEVERAL = re.compile(r"[+-]?\d[\d.,;|\t +-]*")
_DEEPEST = 3


class Line(Struct, frozen=True, kw_only=True):
    """One line that may be an arrival. `fields`: of JSON or a table; keys in small letters, of inner objects dotted;
    without any, it is text.

    `before`: the text before a JSON object, as `docker compose logs` writes it; it may hold the time.
    """

    number: int
    text: str
    fields: dict[str, Any] = {}
    before: str = ""


def lines_of(lines: Iterable[str]) -> Iterator[Line]:
    """The lines with content: without comments, blank lines and the header of a table."""
    header: list[str] = []
    delimiter = ""
    first = True
    for number, raw in enumerate(lines, 1):
        text = (_ANSI.sub("", raw) if "\x1b" in raw else raw).strip().strip("\ufeff")
        if re.match(r"#fields:?\s", text, re.IGNORECASE):  # W3C, and Zeek
            header, delimiter, first = text.lower().split()[1:], "", False
        if not text or text.startswith("#") or (first and re.fullmatch("sep=.", text)):
            continue
        if first:
            first = False
            delimiter, header = _header(text)
            if header:
                continue
        yield _line(number, text, header, delimiter)


def request_on(line: Line) -> LoggedRequest | None:
    """The request in a line; None: there is none."""
    if not line.fields:
        return request_in(line.text)
    if "metric" in line.fields or "metric_name" in line.fields:  # k6 writes a dozen metrics per request
        return request_of(line.fields) if _metric(line) == "http_reqs" else None
    return None if is_record(line) else request_of(line.fields)


def is_record(line: Line) -> bool:
    """Whether a line is of the journal of a run."""
    due = line.fields.get("due")
    return isinstance(due, int | float) and not isinstance(due, bool)


def is_noise(line: Line) -> bool:
    """Whether a line is never an arrival: a run's "sent" or warm-up line, k6's other metrics."""
    fields = line.fields
    if fields.get("line") == "sent" or fields.get("warmup") is True:
        return True
    kind = fields.get("type")
    of_k6 = kind == "Point" or "metric_name" in fields
    return kind == "Metric" or (of_k6 and _metric(line) not in ("http_reqs", "iterations"))


def instant_of(line: Line) -> Instant | str | None:
    """When a line's arrival was; a text: what is wrong with its time; None: it has none."""
    if line.fields:
        written = dated(line.before)
        return written if isinstance(written, Instant) else _of_fields(line.fields)
    number = numbered(line.text)
    if number is not None:
        return number
    if _SEVERAL.fullmatch(line.text):
        return f"{excerpt(line.text, 20)} may be a decimal comma or several columns"
    squid = _SQUID.match(line.text)
    found = dated(line.text)
    if squid is not None and isinstance(found, Instant):
        return _earlier(found, int(squid[2]) / 1000)
    return found


def excerpt(text: str, most: int = 50) -> str:
    """The beginning of a line, fit to be shown."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return f"{shown[:most]}…" if len(shown) > most else shown


def _line(number: int, text: str, header: list[str], delimiter: str) -> Line:
    before, fields = "", {}
    if text.endswith("}"):
        before, brace, rest = text.partition("{")
        fields = _object(brace + rest)
    elif header:
        cells = _cells(text, delimiter or ("\t" if "\t" in text else " "))
        fields = {name: _number_text(cell, delimiter) for name, cell in zip(header, cells, strict=False)}
    return Line(number=number, text=text, fields=fields, before=before)


def _object(text: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return dict(reversed(list(_flat(loaded))))  # of keys that differ only in their case, the first


def _header(text: str) -> tuple[str, list[str]]:
    """Delimiter and names of a table's first line; no names: it is not one."""
    if text.startswith(("{", "[")) or numbered(text) is not None or dated(text) is not None:
        return "", []
    delimiter = max(_DELIMITERS, key=text.count)
    names = [name.strip().strip('"').lower() for name in _cells(text, delimiter)]
    return (delimiter, names) if any(name in _TIMES for name in names) else ("", [])


def _cells(text: str, delimiter: str) -> list[str]:
    if '"' not in text and delimiter == " ":
        return text.split()
    try:
        return next(csv.reader([text], delimiter=delimiter, skipinitialspace=delimiter == " "), [])
    except csv.Error:
        return text.split(delimiter)


def _number_text(cell: str, delimiter: str) -> str:
    """A decimal comma cannot be mistaken where something else parts the columns."""
    cell = cell.strip()
    return cell.replace(",", ".") if delimiter != "," and re.fullmatch(r"[+-]?\d+,\d+", cell) else cell


def _flat(value: dict[str, Any], before: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        name = f"{before}{key}".lower()
        if isinstance(inner, dict) and depth < _DEEPEST:
            yield from _flat(inner, f"{name}.", depth + 1)
        else:
            yield name, inner


def _of_fields(fields: dict[str, Any]) -> Instant | str | None:
    wrong: str | None = None
    for key in _TIMES:
        value = fields.get(key)
        if key.startswith("date") and isinstance(value, str) and isinstance(time := fields.get(f"time{key[4:]}"), str):
            value = f"{value} {time}"
        if value is None or isinstance(value, dict | list):
            continue
        found = numbered(value)
        if found is None and isinstance(value, str):
            found = dated(value)
        if isinstance(found, Instant):
            return _earlier(found, _took(key, fields))
        wrong = wrong or found
    return wrong


def _took(key: str, fields: dict[str, Any]) -> float:
    """Seconds from a request's start to the instant that its log line has."""
    taken = fields.get("request_time") if key in _ENDS else None
    if key == "ts" and str(fields.get("logger", "")).startswith("http.log.access"):  # Caddy
        taken = fields.get("duration")
    found = numbered(taken) if isinstance(taken, str | float | int) else None
    return found.s if isinstance(found, Instant) and found.kind == "offset" else 0.0


def _earlier(instant: Instant, seconds: float) -> Instant:
    return instant if instant.kind == "offset" else structs.replace(instant, s=instant.s - seconds)


def _metric(line: Line) -> str:
    return str(line.fields.get("metric", line.fields.get("metric_name", "")))
