"""What people read: the verdict before any number, nothing cut at 80 columns, and no number that is not known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from comfyload.judge.summary import summarise
from comfyload.record.model import Manifest, Observation, Output, Record
from comfyload.report.table import render
from comfyload.report.text import decimals, duration, fixed, percent
from tests.unit.judge_runs import failed, job, manifest, one_by_one


def _draw(run: Manifest, lines: list[Record], width: int = 80, encoding: str = "utf-8", color: bool = False) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n", write_through=True)
    console = Console(file=file, width=width, force_terminal=color, color_system="standard" if color else None)
    render(run, summarise(run, lines), console)
    return raw.getvalue().decode(encoding)


def _hundred() -> list[Record]:
    records = one_by_one([float(x) for x in np.random.default_rng(7).lognormal(2.3, 0.15, 100)])
    for index, outcome in ((13, "failed"), (40, "lost"), (77, "timed_out")):
        records[index] = failed(index, records[index].due, 30.0, outcome)
    return records


def test_a_good_run_says_so_first() -> None:
    lines = _draw(manifest(12), one_by_one([10.0 + i % 3 for i in range(12)])).splitlines()
    assert lines[3].startswith("VALID. ")
    assert any(line.startswith("Jobs        12 offered = 12 completed") for line in lines)


def test_an_invalid_run_says_why_before_any_number() -> None:
    cached = [job(i, float(i), 1.0, cached=["3", "9"] if i else []) for i in range(12)]
    text = _draw(manifest(12), cached)
    assert text.index("NOT VALID") < text.index("11 of 12 jobs were served from the cache") < text.index("Jobs  ")


def test_what_is_withheld_is_a_dash_with_a_footnote() -> None:
    text = _draw(manifest(12), one_by_one([10.0 + i % 3 for i in range(12)]))
    assert "\N{EN DASH}¹" in text
    assert "¹ withheld: 12 completed jobs; a p95 needs 20" in text


def test_failures_are_listed_with_their_first_message() -> None:
    text = _draw(manifest(100), _hundred())
    assert "97 completed + 1 failed + 1 timed out + 1 lost" in text
    assert "failures as ∞" in text and "mat1 and mat2 (job 13)" in text


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal_or_ends_in_blanks(width: int) -> None:
    seen = [Observation(t=1.0, code="restart", text="the server was restarted " * 8)]
    for lines in (_hundred(), [failed(i, float(i), 1.0, message="x" * 190) for i in range(12)], []):
        for line in _draw(manifest(len(lines), observations=seen), list(lines), width).splitlines():
            assert len(line) <= width and line == line.rstrip()


@pytest.mark.parametrize("median", [0.004, 0.15, 0.6, 3.0, 9.9, 99.0, 2000.0])
def test_a_row_of_durations_stays_one_row_at_80_columns(median: float) -> None:
    seconds = np.random.default_rng(1).lognormal(np.log(median), 0.5, 400)
    for factor in (1.0, 3.0):
        text = _draw(manifest(400), one_by_one([float(x) * factor for x in seconds]))
        assert [line[:8] for line in text.splitlines() if line.startswith("from ")] == ["from due", "from sen"]
        assert text.count("\n ", text.index("Durations"), text.index("queue wait")) == 2


def test_nothing_measured_prints_no_zero_for_what_is_unknown() -> None:
    text = _draw(manifest(12), [failed(i, float(i), 1.0) for i in range(12)])
    assert "Nothing was measured: 12 failed." in text
    assert "Images/min  \N{EN DASH}¹" in text and "nan" not in text.lower()


def test_colour_adds_nothing_but_colour() -> None:
    from rich.text import Text

    drawn = _draw(manifest(100), _hundred(), color=True)
    assert "\x1b[" in drawn
    assert Text.from_ansi(drawn).plain.rstrip() == _draw(manifest(100), _hundred()).rstrip()


def test_a_terminal_without_unicode_gets_ascii() -> None:
    text = _draw(manifest(100), _hundred(), encoding="ascii")
    assert "failures as inf" in text and "(1) withheld" in text


def test_words_of_the_server_are_not_taken_for_markup() -> None:
    outputs = [Output(node="9", kind="images", count=1, files=["[bold]/x/a.png"])]
    lines = [job(0, 0.0, 1.0, outputs=outputs), failed(1, 1.0, 1.0, message="[red]no[/red] [/]")]
    text = _draw(manifest(2), lines)
    assert "[red]no[/red] [/]" in text


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (12.34, "12.3 s"),
        (0.8421, "0.842 s"),
        (0.0034, "3.4 ms"),
        (123.4, "123 s"),
        (9.996, "10.0 s"),
        (1234.5, "1234 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit_to_read(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_only_all_is_a_hundred_per_cent() -> None:
    assert [percent(x) for x in (1.0, 0.97, 0.99999, 0.0, 0.0001)] == ["100 %", "97.0 %", "99.999 %", "0 %", "0.01 %"]
    assert fixed(float("inf"), decimals(float("inf"))) == "∞"
