"""Verdicts as people and CI systems read them: the word first, nothing cut, and text of others never markup."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from msgspec import structs
from rich.console import Console
from rich.text import Text

from comfyload.judge.gates.gate import GateVerdict, judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.judge.summary import measure
from comfyload.report.junit import junit, suite_of
from comfyload.report.verdicts import as_json, gate_tables, markdown, render, value_words
from tests.unit.judge_runs import failed, manifest, one_by_one

EVIL = "<script>alert(1)</script> | `rm` **b** [x](http://e) \x1b[31m\n# h [red]no[/red] $x$ ü"


def _judged(n: int = 12, message: str = "", path: str = "runs/x") -> list[GateVerdict]:
    records = one_by_one([10.0 + i % 3 for i in range(n)])
    if message:
        records[5] = failed(5, records[5].due, 1.0, message=message)
    texts = (*DEFAULT_GATES, "images_per_minute >= 0.95 * baseline", "max_latency_s < 60 s", "avg_latency_s <= 11 s")
    return judge(GateSet(gates=[parse_gate(text) for text in texts]), measure(path, manifest(n), records))


def _draw(verdicts: list[GateVerdict], width: int = 80, encoding: str = "utf-8", color: bool = False) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n", write_through=True)
    console = Console(file=file, width=width, force_terminal=color, color_system="standard" if color else None)
    render(verdicts, console)
    return raw.getvalue().decode(encoding)


def test_a_gate_is_a_line_with_its_value_its_verdict_and_what_would_prove_it() -> None:
    lines = _draw(_judged(), width=120).splitlines()
    cells = [re.split(r"\s{2,}", line) for line in lines]
    assert cells[0] == ["✓", "success_rate >= 98 %", "100 %", "ok", "1 483 jobs would prove it"]
    assert cells[1] == ["✓", "p95_latency_s <= 45", "–", "ok", "59 jobs would prove it"]
    assert cells[2] == ["✓", "unexpected_errors == 0", "0", "PASS", "No error in 12 jobs; no log was read."]
    assert cells[3] == ["?", "images_per_minute >= 0.95 * baseline", "–", "INCONCLUSIVE", "No baseline given."]
    assert lines[-1].startswith("INCONCLUSIVE. Of 6 gates: 1 INCONCLUSIVE (undecided), 3 ok (inside the limit, not")


def test_where_a_percentile_is_withheld_the_slowest_job_stands_in_its_place() -> None:
    (table,) = gate_tables(_judged(), {"latency": 11.97})
    assert [value.words for value in table.rows[1]][2] == "slowest 12.0 s"


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal_or_ends_in_blanks(width: int) -> None:
    for verdicts in (_judged(message="x" * 190), _judged(200, message=EVIL), _judged(60) + _judged(60, path="y" * 100)):
        for line in _draw(verdicts, width).splitlines():
            assert len(line) <= width and line == line.rstrip()


def test_no_gate_at_all_is_not_a_pass() -> None:
    assert _draw([]).startswith("INCONCLUSIVE. No gate was judged.")


def test_colour_adds_nothing_but_colour() -> None:
    drawn = _draw(_judged(), color=True)
    assert "\x1b[" in drawn
    assert Text.from_ansi(drawn).plain.rstrip() == _draw(_judged()).rstrip()


def test_a_terminal_without_unicode_gets_ascii() -> None:
    text = _draw(_judged(message=EVIL), encoding="ascii")
    assert "(" in text and "?" in text and text.isascii()


def test_words_of_the_server_are_not_taken_for_markup_by_the_terminal() -> None:
    text = _draw(_judged(message=EVIL), width=120)
    assert "[red]no[/red]" in " ".join(text.split()) and "\x1b" not in text


def test_runs_are_told_apart_where_there_are_several() -> None:
    text = _draw(_judged(path="runs/small") + _judged(path="runs/medium", message="another"))
    assert text.index("runs/small") < text.index("runs/medium") and "Of 12 gates" in text
    assert "runs/x" not in _draw(_judged())


def test_runs_of_which_the_same_is_to_be_said_share_a_heading() -> None:
    text = _draw(_judged(path="runs/small") + _judged(path="runs/medium"))
    assert "runs/small; runs/medium" in text and "Of 12 gates" in text
    assert text.count("success_rate >= 98 %") == 1


def test_markdown_takes_nothing_for_markup() -> None:
    text = markdown(_judged(message=EVIL))
    row = next(line for line in text.splitlines() if "script" in line)
    assert "&lt;script&gt;" in row and "<" not in row.replace("&lt;", "")
    for sign in "|`*[]#$":
        cells = row.removeprefix("| ").removesuffix(" |").split(" | ")
        assert all(f"\\{sign}" in cell or sign not in cell for cell in cells)
    unescaped = row.replace("\\|", "").count("|")
    assert unescaped == 7 and "\\`rm\\`" in row


def test_a_markdown_row_is_one_line_for_each_gate() -> None:
    verdicts = _judged(message=EVIL)
    rows = [line for line in markdown(verdicts).splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(verdicts)
    assert markdown(verdicts).startswith("## Gates: FAIL\n") and "| ok |" in markdown(_judged())


def test_json_has_every_field_and_no_token_that_json_lacks() -> None:
    verdicts = _judged(message="broken")
    infinite = structs.replace(verdicts[1], value=float("inf"), high=float("inf"))
    document = json.loads(json.dumps(as_json([*verdicts, infinite]), allow_nan=False))
    assert document["overall"] == "FAIL" and document["verdicts"][-1]["value"] == "inf"
    assert set(document["verdicts"][0]) == set(GateVerdict.__struct_fields__)


def _valid_to_jenkins(document: str) -> ET.Element:
    """Parsed, after a look at the schema that Jenkins's xUnit plugin holds reports against."""
    schema = xmlschema.XMLSchema(str(Path(__file__).parents[1] / "data" / "junit-10.xsd"))
    schema.validate(document)
    return ET.fromstring(document.encode())


def _cases(root: ET.Element, child: str) -> list[str | None]:
    return [case.get("name") for case in root.iter("testcase") if case.find(child) is not None]


def test_junit_has_a_suite_for_each_run_and_a_case_for_each_gate() -> None:
    verdicts = _judged(message="broken", path="a") + _judged(path="b")
    root = _valid_to_jenkins(junit(verdicts))
    assert [suite.get("name") for suite in root] == ["a", "b"]
    assert [len(suite.findall("testcase")) for suite in root] == [6, 6]
    named = {word: [v.gate for v in verdicts if v.verdict == word] for word in ("FAIL", "INCONCLUSIVE", "PASS*")}
    assert _cases(root, "failure") == named["FAIL"] and named["FAIL"]
    assert _cases(root, "skipped") == named["INCONCLUSIVE"] and named["INCONCLUSIVE"]
    said = [out.text or "" for out in root.iter("system-out")]
    assert sum(text.startswith("PASS*: ") for text in said) == len(named["PASS*"]) > 0
    skipped = sum(int(suite.get("skipped", "")) for suite in root)
    assert (root.get("failures"), root.get("errors"), skipped) == (
        str(len(named["FAIL"])),
        "0",
        len(named["INCONCLUSIVE"]),
    )


def test_junit_with_strict_takes_what_is_not_proven_for_a_failure() -> None:
    verdicts = [verdict for verdict in _judged() if verdict.verdict in ("PASS*", "INCONCLUSIVE")]
    assert _cases(_valid_to_jenkins(junit(verdicts)), "failure") == []
    root = _valid_to_jenkins(junit(verdicts, strict=True))
    assert _cases(root, "failure") == [verdict.gate for verdict in verdicts]
    assert (root.get("failures"), list(root.iter("skipped"))) == (str(len(verdicts)), [])


def test_a_suite_tells_how_long_the_run_was_and_what_it_was_of() -> None:
    records = one_by_one([10.0 + i % 3 for i in range(12)])
    run = measure("runs/x", manifest(12), records)
    verdicts = judge(GateSet(gates=[parse_gate(text) for text in ("p50_latency_s <= 45", "total_jobs >= 12")]), run)
    (suite,) = _valid_to_jenkins(junit(verdicts, {"runs/x": suite_of(run)}))
    assert (suite.get("time"), suite.get("timestamp")) == ("3600.000", "2026-01-01T00:00:00")
    assert [case.get("time") for case in suite.iter("testcase")] == ["11.000", "0.000"]
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert (
        properties["server"] == "http://127.0.0.1:8188"
        and properties["comfyui"] == "0.28.1"
        and properties["gpu"] == "unknown"
    )
    assert properties["run_directory"] == "runs/x" and properties["comfyload"] == "comfyload 0"
    assert properties["workflow"] == "book (000000000000)" and properties["load"] == "1 in flight"
    assert properties["median_latency"] == "11.0 s (95 %: 10.0 – 12.0 s, n = 12)"
    assert properties["p95_latency"] is not None and properties["p95_latency"].startswith("–")


def test_junit_is_xml_whatever_a_server_wrote() -> None:
    evil = structs.replace(_judged(message="x")[2], why=f"{EVIL} \x00\x0b\ud800 ]]> &amp;", run="<&\"'>")
    text = junit([evil])
    _valid_to_jenkins(text)
    assert "<script>" not in text and "&lt;script&gt;" in text
    (failure,) = ET.fromstring(text.encode()).iter("failure")
    assert "<script>alert(1)</script>" in (failure.text or "") and "\N{REPLACEMENT CHARACTER}" in (failure.text or "")


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "words"),
    [
        ("p95_latency_s", 31.94, 29.98, 36.13, "31.9 s"),
        ("p95_latency_s", 31.94, 29.98, None, "31.9 s"),
        ("p95_latency_s", None, 29.98, None, "–"),
        ("p95_latency_s", float("inf"), 30.0, float("inf"), "∞"),
        ("p50_acknowledge_s", 0.0042, 0.004, 0.005, "4.2 ms"),
        ("success_rate", 1.0, 0.779, 1.0, "100 %"),
        ("avg_latency_s", 31.94, 29.98, 36.13, "31.9 s (30.0 – 36.1 s)"),
        ("avg_latency_s", 31.94, 29.98, None, "31.9 s (≥ 30.0 s)"),
        ("images_per_minute", 2.378, 2.31, 2.44, "2.38/min (2.31 – 2.44)"),
        ("flux.jobs", 12.0, None, None, "12"),
        ("unexpected_errors", 0.0, None, None, "0"),
        ("max_latency_s", 47.7, None, None, "47.7 s"),
    ],
)
def test_a_value_is_written_with_its_unit_and_a_mean_with_its_interval(
    metric: str, value: float | None, low: float | None, high: float | None, words: str
) -> None:
    verdict = structs.replace(_judged()[0], metric=metric, value=value, low=low, high=high)
    assert value_words(verdict) == words
