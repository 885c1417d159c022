"""Files as people's editors, shells and servers write them: what is read, and what is refused by name."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyload import text_files
from comfyload.app.check import gate_set
from comfyload.app.run.inputs import load_inputs
from comfyload.app.run.options import read_plan
from comfyload.errors import UsageError, WorkflowError
from comfyload.text_files import decode, decode_log, read_text
from comfyload.workflow import parse

GRAPH = '{"1": {"class_type": "Straße", "inputs": {"text": "ein Fuchs über 東京"}}}'
MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
PLAN = 'server = "http://127.0.0.1:8311"\n[plan]\njobs = 2\n'
LOG = '127.0.0.1 - - [27/Nov/2026:10:00:00 +0000] "POST /prompt HTTP/1.1" 200 90\n'


@pytest.mark.parametrize("encoding", MARKED)
def test_a_byte_order_mark_says_the_encoding_and_is_no_letter(encoding: str) -> None:
    assert decode(MARKED[encoding] + GRAPH.encode(encoding), "w.json") == GRAPH
    assert decode_log(MARKED[encoding] + LOG.encode(encoding), "a.log").strip() == LOG.strip()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_without_a_mark_utf_16_is_known_by_its_nuls(encoding: str) -> None:
    assert decode(GRAPH.encode(encoding), "w.json") == GRAPH
    assert decode_log(LOG.encode(encoding), "a.log") == LOG


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff")))
def test_any_text_comes_back_from_utf_8(text: str) -> None:
    assert decode(text.encode(), "f") == text
    assert decode(codecs.BOM_UTF8 + text.encode(), "f") == text
    assert decode_log(text.encode(), "f") == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff")))
def test_any_text_comes_back_from_utf_16(text: str) -> None:
    assert decode(codecs.BOM_UTF16_LE + text.encode("utf-16-le"), "f") == text
    assert decode(codecs.BOM_UTF16_BE + text.encode("utf-16-be"), "f") == text


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_one_refusal(content: bytes) -> None:
    for read in (decode, decode_log):
        try:
            assert "\0" not in read(content, "f")
        except UsageError as error:
            assert "\n" not in str(error)
            assert error.hint


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (
            b'{"1":\n {"text": "f\xfcr"}}',
            "w.json, line 2 is not UTF-8: it has the byte 0xFC, which in Windows-1252 is 'ü'",
        ),
        (b"abc\x81", "w.json, line 1 is not UTF-8: it has the byte 0x81"),
        (b"\xff\xfe{\0x", "w.json begins as UTF-16-LE and cannot be read as such"),
        (b"a\0b c d e f g", "w.json is not a text file: it has NUL bytes in it"),
        (b"\x89PNG\r\n\x1a\n\0\0", "w.json is a PNG picture, not a workflow"),
        (gzip.compress(b"{}", mtime=0), "w.json is packed (gzip), not a text file"),
        (b"PK\x03\x04\x14\0\xff", "w.json is a zip archive, as .xlsx and .ods are too, not a text file"),
    ],
)
def test_what_would_mislead_is_refused_by_name(content: bytes, refusal: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        parse(content, "w", "w.json")
    assert caught.value.message == refusal
    assert caught.value.hint


def test_a_graph_from_powershell_is_read() -> None:
    written = codecs.BOM_UTF16_LE + GRAPH.replace("\n", "\r\n").encode("utf-16-le")
    assert parse(written, "w").graph == parse(GRAPH.encode(), "w").graph


@pytest.mark.parametrize("encoding", MARKED)
def test_plans_gates_and_tables_are_read_with_a_mark(tmp_path: Path, encoding: str) -> None:
    def file(name: str, text: str) -> Path:
        (tmp_path / name).write_bytes(MARKED[encoding] + text.encode(encoding))
        return tmp_path / name

    assert read_plan(file("plan.toml", PLAN)).plan.jobs == 2
    gates = gate_set([], file("gates.toml", 'gates = ["p95_latency_s <= 30"]\n'), [])
    assert [gate.text for gate in gates.gates] == ["p95_latency_s <= 30"]
    graph, table = file("w.json", GRAPH), file("table.csv", "1.text\nein Bär\n")
    options = read_plan(file("whole.toml", f"workflows = [{{file = '{graph}'}}]\ndata = '{table}'\n"))
    material = load_inputs(options)
    assert material.table is not None
    assert material.table.column("1.text") == ["ein Bär"]
    assert read_text(graph) == GRAPH


def test_plans_and_gates_in_another_encoding_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_bytes('server = "für"'.encode("latin-1"))
    for read in (lambda: read_plan(path), lambda: gate_set([], path, [])):
        with pytest.raises(UsageError, match=r"f.toml, line 1 is not UTF-8: it has the byte 0xFC.*save it as UTF-8"):
            read()
    with pytest.raises(UsageError, match="cannot read"):
        read_plan(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "written",
    [
        gzip.compress(LOG.encode() * 3, mtime=0),
        gzip.compress(LOG.encode(), mtime=0) + gzip.compress(LOG.encode() * 2, mtime=0),
        gzip.compress(LOG.encode() * 3, mtime=0) + b"\0" * 512,
        LOG.encode() + b"\0" * 4096 + LOG.encode() * 2,
        codecs.BOM_UTF16_LE + LOG.encode("utf-16-le") + LOG.encode() + LOG.encode("utf-16-le"),
        LOG.encode() * 2 + LOG.encode("utf-16-le"),
        LOG.encode() + codecs.BOM_UTF16_LE + LOG.encode("utf-16-le") * 2,
        codecs.BOM_UTF8 + LOG.encode() * 3,
    ],
    ids=["gz", "two gz", "gz, padded", "hole", "mixed", "powershell >>", "mark in the middle", "bom"],
)
def test_logs_are_read_as_rotation_and_shells_leave_them(written: bytes) -> None:
    assert [line for line in decode_log(written, "a.log").split("\n") if line] == [LOG.strip()] * 3


def test_a_letter_in_latin_1_does_not_spoil_a_log() -> None:
    assert decode_log("müller [27/Nov/2026]".encode("latin-1"), "a.log") == "müller [27/Nov/2026]"


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (gzip.compress(LOG.encode(), mtime=0)[:-12], "cut short"),
        (gzip.compress(LOG.encode(), mtime=0)[:10] + b"\xff" * 40, "damaged"),
        (bz2.compress(LOG.encode()), "packed (bzip2)"),
        (lzma.compress(LOG.encode()), "packed (xz)"),
    ],
)
def test_logs_that_cannot_be_unpacked_are_refused(content: bytes, refusal: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode_log(content, "a.log.1")
    assert refusal in str(caught.value)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file here")
def test_a_file_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MOST_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="/dev/zero is larger than 1 MiB"):
        text_files.read_bytes(Path("/dev/zero"))
