"""Any instants, written in any format with noise between and around them, come back as they were."""

from __future__ import annotations

import codecs
import gzip
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyload.errors import UsageError
from comfyload.load.recorded import read_recording
from comfyload.text_files import decode_log

Render = Callable[[datetime, str, str], str]
"""One line of a log, of an instant with its zone, a method and a path."""

MONTHS = {
    "en": ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
    "de": ["Jan", "Feb", "Mär", "Apr", "Mai", "Jun", "Jul", "Aug", "Sep", "Okt", "Nov", "Dez"],
    "fr": ["janv.", "févr.", "mars", "avril", "mai", "juin", "juil.", "août", "sept.", "oct.", "nov.", "déc."],
    "es": ["ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sep", "oct", "nov", "dic"],
}
BEGAN = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
"""The night in which the clocks of Europe are set back."""


def clf(at: datetime, method: str, path: str, language: str = "en") -> str:
    day = f"{at:%d}/{MONTHS[language][at.month - 1]}/{at:%Y:%H:%M:%S %z}"
    return f'10.0.0.5 - müller [{day}] "{method} {path} HTTP/1.1" 200 95 "http://x/?q=POST /prompt" "curl/8"'


def milliseconds(at: datetime) -> str:
    return f"{at.timestamp():.3f}"


FORMATS: dict[str, tuple[float, Render]] = {
    "combined": (1.0, clf),
    "german": (1.0, lambda at, method, path: clf(at, method, path, "de")),
    "french": (1.0, lambda at, method, path: clf(at, method, path, "fr")),
    "spanish": (1.0, lambda at, method, path: clf(at, method, path, "es")),
    "iso": (1e-6, lambda at, method, path: f'{at.isoformat()} INFO "{method} {path} HTTP/1.1" 200'),
    "python": (
        1e-3,
        lambda at, method, path: f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S},{at:%f}"[:23] + f" {method} {path}",
    ),
    "error log": (
        1.0,
        lambda at, method, path: f'{at.astimezone(UTC):%Y/%m/%d %H:%M:%S} [error] request: "{method} {path}"',
    ),
    "squid": (
        1e-3,
        lambda at, method, path: f"{milliseconds(at)} 0 10.0.0.5 TCP_MISS/200 95 {method} http://g{path} - D/g -",
    ),
    "nginx": (
        1e-3,
        lambda at, method, path: json.dumps(
            {
                "msec": milliseconds(at + timedelta(seconds=2)),
                "request_time": "2.000",
                "request": f"{method} {path} HTTP/1.1",
            }
        ),
    ),
    "caddy": (
        1e-5,
        lambda at, method, path: json.dumps({"ts": at.timestamp(), "request": {"method": method, "uri": path}}),
    ),
    "traefik": (
        1e-6,
        lambda at, method, path: json.dumps(
            {"StartUTC": f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}789Z", "RequestMethod": method, "RequestPath": path}
        ),
    ),
    "k6": (
        1e-6,
        lambda at, method, path: json.dumps(
            {
                "type": "Point",
                "metric": "http_reqs",
                "data": {"time": at.isoformat(), "value": 1, "tags": {"method": method, "url": f"http://g{path}"}},
            }
        ),
    ),
}
PACKED: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "bom": lambda text: codecs.BOM_UTF8 + text.encode(),
    "latin-1": lambda text: text.encode("latin-1"),
    "utf-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16 without a mark": lambda text: text.encode("utf-16-be"),
    "gz": lambda text: gzip.compress(text.encode()),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
}
zones = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-9, minutes=-30))])
microseconds = st.lists(st.integers(0, 48 * 3600 * 10**6), min_size=1, max_size=12)
polls = st.lists(
    st.sampled_from(
        [("GET", "/history/7f"), ("GET", "/prompt"), ("OPTIONS", "/prompt"), ("POST", "/upload/image"), ("GET", "/ws")]
    ),
    max_size=6,
)
prompts = st.sampled_from(["/prompt", "/api/prompt", "/gpu/1/prompt", "/prompt?client=POST"])


@pytest.mark.parametrize("name", FORMATS)
@given(instants=microseconds, zone=zones, noise=polls, path=prompts, packed=st.sampled_from(sorted(PACKED)))
def test_what_was_written_is_read(
    name: str, instants: list[int], zone: timezone, noise: list[tuple[str, str]], path: str, packed: str
) -> None:
    resolution, render = FORMATS[name]
    lines = []
    for number, instant in enumerate(instants):
        at = (BEGAN + timedelta(microseconds=instant)).astimezone(zone if number % 2 else UTC)
        lines.append(render(at, "POST", path))
        lines += [render(at, method, poll) for method, poll in noise[number::2]]
    content = PACKED[packed]("\n".join(lines) + "\n")
    found = read_recording(decode_log(content, "f").split("\n"), "f").offsets_s
    due = [(instant - min(instants)) / 1e6 for instant in sorted(instants)]
    assert found == pytest.approx(due, abs=resolution + 1e-6)


@given(
    instants=st.lists(st.integers(0, 10**7), min_size=1, max_size=12), unit=st.sampled_from([1, 10**3, 10**6, 10**9])
)
def test_unix_times_of_any_unit_are_told_by_their_size(instants: list[int], unit: int) -> None:
    lines = [str((1795773600 + instant) * unit) for instant in instants]
    due = [float(instant - min(instants)) for instant in sorted(instants)]
    assert read_recording(lines, "f").offsets_s == pytest.approx(due, abs=1e-6)


@given(st.lists(st.floats(0, 9e7), min_size=1), st.sampled_from(["{}", '{{"offset_s": {}}}', '{{"t": "{}"}}']))
def test_offsets_are_seconds(offsets: list[float], form: str) -> None:
    found = read_recording([form.format(offset) for offset in offsets], "f").offsets_s
    assert found == [offset - min(offsets) for offset in sorted(offsets)]


LETTERS = '0123456789:-/.,;|TZ+ \t{}[]"#='
PIECES = """2026-11-27
10:00:00
[27/Nov/2026:10:00:00 +0000]
"POST /prompt HTTP/1.1" 200
{"ts": 1}
"time"
timestamp
#Fields: date time
NaN
1e400
GET /x
got prompt
Feb 29
Jan
PM"""
WORDS = st.sampled_from([*LETTERS, *PIECES.split("\n")])


@given(st.lists(st.one_of(st.text(max_size=30), st.lists(WORDS, max_size=8).map("".join)), max_size=6))
def test_any_lines_are_a_schedule_or_one_refusal(lines: list[str]) -> None:
    try:
        found = read_recording(lines, "f")
    except UsageError as error:
        assert "\n" not in str(error)
        assert error.hint
    else:
        assert found.offsets_s[0] == 0
        assert found.offsets_s == sorted(found.offsets_s)
        assert all(map(math.isfinite, found.offsets_s))
        assert found.read_as.isprintable()
