"""A log's lines are told apart whatever each was written in, and what is broken ends where the next can be told."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyload.record.metrics import lines as metrics_lines
from comfyload.record.metrics.files import LogFiles, older_files
from comfyload.record.metrics.lines import Lines, ends_a_line
from comfyload.record.metrics.log import object_of_line

A, B, C = ({"n": n, "text": "Gerät \N{EURO SIGN} \N{GRINNING FACE} ੧ 笊"} for n in range(3))


def line(row: object, code: str = "utf-8", end: str = "\n") -> bytes:
    return (json.dumps(row, ensure_ascii=False) + end).encode(code)


LE, BE = "utf-16-le", "utf-16-be"
CRLF = "\r\n"


def lines(content: bytes, block: int = 1 << 16) -> list[bytes]:
    splitter = Lines()
    found = [one for at in range(0, len(content), block) for one in splitter.feed(content[at : at + block])]
    return found + splitter.end()


def rows(content: bytes, block: int = 1 << 16) -> list[object]:
    """Each line's object; None of one that has none."""
    return [object_of_line(one) for one in lines(content, block) if one.strip()]


CASES: dict[str, tuple[bytes, list[Any] | None]] = {
    "UTF-8": (line(A) + line(B), [A, B]),
    "UTF-8 with a mark": (b"\xef\xbb\xbf" + line(A), [A]),
    "UTF-16 of PowerShell": (b"\xff\xfe" + line(A, LE, CRLF) + line(B, LE, CRLF), [A, B]),
    "UTF-16, the other order": (b"\xfe\xff" + line(A, BE) + line(B, BE), [A, B]),
    "UTF-16 without a mark": (line(A, LE) + line(B, LE), [A, B]),
    "UTF-8 and UTF-16 appended": (line(A) + line(B, LE, CRLF), [A, B]),
    "the same with a mark within": (line(A) + b"\xff\xfe" + line(B, LE, CRLF), [A, B]),
    "UTF-16 and UTF-8 appended": (b"\xff\xfe" + line(A, LE, CRLF) + line(B), [A, B]),
    "UTF-16 and a writer that takes it for torn": (line(A, LE, CRLF) + b"\n" + line(B), [A, B]),
    "UTF-8 without an end and UTF-16": (line(A, end="") + line(B, LE, CRLF) + line(C), [A, B, C]),
    "torn UTF-16 and UTF-8": (line(A, LE)[:-7] + b"\n" + line(B), [None, B]),
    "torn UTF-8 and UTF-8": (line(A)[:-7] + b"\n" + line(B), [None, B]),
    "torn, padded with zeros, and on": (line(A)[:9] + b"\0" * 4000 + line(B), [None, None, B]),
    "padded with zeros between lines": (line(A) + b"\0" * 4001 + b"\n" + line(B), [A, None, B]),
    "padded UTF-16": (line(A, LE) + b"\0" * 4000 + line(B, LE), [A, None, B]),
    "Latin-1": (b'{"n": "Ger\xe4t"}\n', [{"n": "Ger\N{REPLACEMENT CHARACTER}t"}]),
    "half a character": (b'{"n": "\\ud83d"}\n', [{"n": "\N{REPLACEMENT CHARACTER}"}]),
    "UTF-32": (line(A, "utf-32-le"), None),
    "a last line without its end": (line(A) + line(B, end=""), [A, B]),
    "the same in UTF-16": (line(A, LE) + line(B, LE, end=""), [A, B]),
    "empty lines": (b"\n\r\n" + line(A) + b"\n", [A]),
}


@pytest.mark.parametrize("block", [1, 7, 1 << 16])
@pytest.mark.parametrize("name", CASES)
def test_lines_are_read_whatever_they_were_written_in(name: str, block: int) -> None:
    content, expected = CASES[name]
    found = rows(content, block)
    if expected is None:
        assert found and not any(found)
    elif block == 1:  # zeros are told in as many parts as they come in
        assert [row for row in found if row is not None] == [row for row in expected if row is not None]
    else:
        assert [row for n, row in enumerate(found) if row is not None or found[n - 1 : n] != [None]] == [
            row for n, row in enumerate(expected) if row is not None or expected[n - 1 : n] != [None]
        ]


@given(
    st.lists(st.tuples(st.text(max_size=30), st.sampled_from(["utf-8", LE]), st.sampled_from(["\n", CRLF]))),
    st.integers(1, 64),
)
def test_any_mixture_of_whole_lines_comes_out_as_it_went_in(written: list[tuple[str, str, str]], block: int) -> None:
    wanted = [({"event": text.encode("utf-8", "replace").decode()}, code, end) for text, code, end in written]
    assert rows(b"".join(line(*one) for one in wanted), block) == [row for row, _, _ in wanted]


@given(st.binary(max_size=300), st.integers(1, 64))
def test_no_bytes_are_lost_without_a_line_to_show_for_it(content: bytes, block: int) -> None:
    found = rows(content + b"\n" + line(A), block)
    assert found and found[-1] == A


def test_a_line_beyond_the_limit_is_cut_and_the_next_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_lines, "LINE_LIMIT", 100)
    for code in ("utf-8", LE):
        splitter = Lines()
        long = line({"a": "x" * 500}, code)
        found = [one for at in range(0, len(long), 64) for one in splitter.feed(long[at : at + 64])]
        found += splitter.feed(line({"b": 1}, code))
        assert [object_of_line(one) for one in found] == [None, {"b": 1}]
        assert found[0].endswith(b" (cut)\n")


def test_the_end_of_a_line_is_known_in_either_encoding() -> None:
    assert ends_a_line(b"}\n") and ends_a_line(b"\n\0")
    assert not ends_a_line(b'"}') and not ends_a_line(b"}\0")


def test_a_packed_log_and_packed_older_ones_are_read(tmp_path: Path) -> None:
    log = tmp_path / "m.ndjson"
    log.write_bytes(gzip.compress(line(C)))
    (tmp_path / "m.ndjson.1").write_bytes(line(B))
    (tmp_path / "m.ndjson.2.gz").write_bytes(gzip.compress(line(A)))
    assert [path.name for path in older_files(log)] == ["m.ndjson.2.gz", "m.ndjson.1"]
    with closing(LogFiles(log)) as files:
        assert [object_of_line(one) for _, one in files.lines()] == [A, B, C]


@pytest.mark.parametrize("damage", ["torn", "flipped"])
def test_a_packed_log_that_is_damaged_is_read_as_far_as_it_goes(tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(b"".join(line({"n": n, "x": os.urandom(20).hex()}) for n in range(5000))))
    if damage == "torn":
        del content[-3000:]
    else:
        content[-3000] ^= 255
    log = tmp_path / "m.ndjson"
    log.write_bytes(content)
    with closing(LogFiles(log)) as files:
        found = [one for _, one in files.lines()]
    assert object_of_line(found[0]) is not None and len(found) > 1000
    assert found[-1] == b"(what follows cannot be unpacked)\n"
