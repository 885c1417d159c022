"""What people read: the verdict before any number, nothing cut at 80 columns, and no number that is not known."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from msgspec import structs
from rich.console import Console

from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import measure
from comfyload.record.model import Manifest, Observation, Output, Record
from comfyload.record.plan import Closed, Open, Plan, Replay, Stage
from comfyload.report.of_run import page_of
from comfyload.report.page import Column, Page, Table, Value
from comfyload.report.plan_text import plan_words
from comfyload.report.render.layout import wrapped
from comfyload.report.render.terminal import render
from comfyload.report.run_facts import gpu_value
from comfyload.words import decimals, duration, fixed, percent
from tests.unit.judge_runs import FACTS, booked, censored, failed, job, manifest, one_by_one, planned, served

GATES = GateSet(gates=[parse_gate(text) for text in (*DEFAULT_GATES, "images_per_minute >= 0.95 * baseline")])


def _draw(
    run: Manifest, lines: list[Record], width: int = 80, encoding: str = "utf-8", color: bool = False, all: bool = True
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n", write_through=True)
    console = Console(file=file, width=width, force_terminal=color, color_system="standard" if color else None)
    measured = measure("", run, lines)
    render(page_of(measured, judge(GATES, measured)), console, all=all)
    return raw.getvalue().decode(encoding)


def _hundred() -> list[Record]:
    records = one_by_one([float(x) for x in np.random.default_rng(7).lognormal(2.3, 0.15, 100)])
    for index, outcome in ((13, "failed"), (40, "lost"), (77, "timed_out")):
        records[index] = failed(index, records[index].due, 30.0, outcome)
    return records


def test_a_footnote_of_something_withheld_hangs_on_nothing_that_is_printed() -> None:
    withheld = Statistic(value=None, n=0, unit="J", method="none", reason="too coarse")
    row = GpuRow(
        source="nvml",
        readings=9,
        unknown=0,
        utilisation_percent=None,
        ceiling_percent=None,
        vram_peak_bytes=None,
        vram_total_bytes=None,
        power_w=233.2,
        temperature_max_c=None,
        throttled_share=None,
        energy_per_job_j=withheld,
        vram_per_job_bytes=withheld,
        torch_vram_per_job_bytes=withheld,
    )
    assert gpu_value(row) == Value(words="233 W · energy per job –", note="withheld: too coarse")


def test_a_good_run_says_so_first() -> None:
    lines = _draw(manifest(12), one_by_one([10.0 + i % 3 for i in range(12)])).splitlines()
    assert lines[2] == "VALID. No problems found."
    assert any(line.startswith("12 of 12 completed") for line in lines)


def test_an_invalid_run_says_why_before_any_number() -> None:
    cached = [job(i, float(i), 1.0, cached=["3", "9"] if i else []) for i in range(12)]
    text = _draw(manifest(12), cached)
    invalid = text.index("INVALID. Do not use these numbers:\n✗ 11 of 12 jobs were served from the cache")
    assert invalid < text.index("images/min")


def test_what_is_withheld_is_a_dash_with_a_footnote() -> None:
    text = _draw(manifest(12), one_by_one([10.0 + i % 3 for i in range(12)]))
    assert "\N{EN DASH}¹" in text
    assert "¹ withheld: 12 completed jobs; a p95 needs 20" in text


def test_failures_are_listed_with_their_first_message() -> None:
    text = _draw(manifest(100), _hundred())
    assert "97 of 100 completed · 1 failed · 1 timed out · 1 lost" in text
    assert "failures as ∞" in text and "mat1 and mat2 (job 13)" in text
    assert "mat1 and mat2 (job 13)" in _draw(manifest(100), _hundred(), all=False)


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
        rows = text[text.index("Durations") : text.index("queue wait")].splitlines()
        assert [line.split(",")[0] for line in rows if not line.startswith(" ")][1:2] == ["latency"]
        assert sum(line.startswith(" ") for line in rows) == len(rows) // 2


def test_nothing_measured_prints_no_zero_for_what_is_unknown() -> None:
    text = _draw(manifest(12), [failed(i, float(i), 1.0) for i in range(12)])
    assert "Nothing was measured: 12 failed." in text
    assert "Images/min  \N{EN DASH}" in text and "nan" not in text.lower()
    assert "  – images/min        – for half of the jobs" in text


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
        (1234.5, "1 234 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit_to_read(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_only_all_is_a_hundred_per_cent() -> None:
    assert [percent(x) for x in (1.0, 0.97, 0.99999, 0.0, 0.0001)] == ["100 %", "97.0 %", "99.999 %", "0 %", "0.01 %"]
    assert fixed(float("inf"), decimals(float("inf"))) == "∞"


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(load=Closed(concurrency=2), jobs=12, warmup=1), "12 jobs after 1 to warm up, 2 in flight"),
        (Plan(load=Closed(concurrency=4, think_s=2.0), jobs=1), "1 job, 4 users, 2 s think time"),
        (Plan(load=Closed(concurrency=4, ramp_up_s=60.0), duration_s=7200.0), "4 users, started over 1 min for 2 h"),
        (Plan(load=Open(stages=[Stage(per_s=0.2, seconds=900.0)])), "poisson 12/min for 15 min"),
        (Plan(load=Open(stages=[Stage(per_s=0.2)]), jobs=30, pages=8), "30 books of 8 pages, poisson 12/min"),
        (
            Plan(load=Open(stages=[Stage(per_s=0.0, to_per_s=1.0, seconds=60.0)], arrivals="constant"), drain=False),
            "constant 0 to 60/min for 1 min, cut off at the end",
        ),
        (
            Plan(load=Open(stages=[Stage(per_s=1.0, seconds=90.0)] * 3, arrivals="gamma", cv=2.0)),
            "gamma (cv 2), 3 stages for 4.5 min",
        ),
        (
            Plan(load=Replay(offsets_s=[0.0] * 230, speedup=2.0, max_in_flight=4, on_full="drop"), warmup=2),
            "after 2 to warm up, replay of 230 arrivals ×2, at most 4 in flight and the rest dropped",
        ),
    ],
)
def test_a_plan_is_said_in_words(plan: Plan, words: str) -> None:
    assert plan_words(plan) == words


def _overloaded(all: bool = True, **changes: object) -> str:
    load = Open(stages=[Stage(per_s=10.0, seconds=15.0)], arrivals="constant", **changes)  # type: ignore[arg-type]
    places = load.max_in_flight
    return _draw(
        planned(load), served([i / 10 for i in range(150)], 0.2, places=places, drop=load.on_full == "drop"), all=all
    )


def test_a_number_that_grew_through_the_run_says_so() -> None:
    text = _overloaded()
    assert re.search(r"latency, s[¹²]", text) and "execution, ms " in text and "latency once sent" not in text
    assert "overload: it grew through the run, so it depends on how long the run lasted" in text
    assert "Arrivals/min  600 due, 600 sent, 300 completed" in text


def test_latency_once_sent_is_shown_only_where_it_differs() -> None:
    waiting = _overloaded(max_in_flight=4)
    assert re.search(r"latency, s[¹²]", waiting) and "latency once sent, ms " in waiting
    short = _overloaded(max_in_flight=4, all=False)
    assert "Once sent     0.800 s for half of the jobs, 0.800 s for the slowest" in short
    assert [line.split()[0] for line in short.splitlines() if "▇" in line] == ["not", "queue", "execution"]
    assert "Once sent" not in _draw(manifest(100), _hundred(), all=False)


def test_drops_are_in_the_ledger_and_their_tails_are_withheld() -> None:
    text = _overloaded(max_in_flight=4, on_full="drop")
    assert "78 of 150 completed · 72 dropped" in text and "withheld: overload: 72 of 150 jobs" in text
    assert "it grew through the run" not in text


def test_jobs_cut_off_by_the_end_are_not_called_cancelled() -> None:
    load = Open(stages=[Stage(per_s=0.1, seconds=200.0)], arrivals="constant")
    records = served([10.0 * i for i in range(20)], 8.0)
    text = _draw(planned(load, drain=False), [*records[:-1], censored(records[-1])])
    assert "19 of 20 completed · 1 cut off by the end" in text and "cancelled" not in text


def _mixed() -> tuple[Manifest, list[Record]]:
    due = [100.0 * (i // 4) for i in range(40)]
    names = ["flux", "sdxl"] * 3 + ["flux"] * 4
    records = served(due, [10.0 + i % 2 for i in range(40)], workflows=[names[i // 4] for i in range(40)])
    facts = [structs.replace(FACTS, name=name) for name in ("flux", "sdxl")]
    return planned(Open(stages=[Stage(per_s=0.01)], arrivals="constant"), 10, pages=4, workflows=facts), booked(
        records, 4
    )


@pytest.mark.parametrize("width", [80, 120])
def test_books_and_workflows_have_rows_of_their_own(width: int) -> None:
    text = _draw(*_mixed(), width)
    assert "Books        10 of 10 complete; each of 4 pages" in text and "book latency, s" in text
    assert "Books/min    0.600 due" in text and "Books/h " in text
    lines = text.splitlines()
    assert any(line.split()[:2] == ["flux", "28"] for line in lines)
    assert any(line.startswith("Mean execution") and line.endswith("after a switch") for line in lines)
    assert max(map(len, lines)) <= width


def test_one_workflow_and_single_jobs_have_no_such_rows() -> None:
    text = _draw(manifest(100), _hundred())
    assert not any(word in text for word in ("Workflows", "Mean execution", "Books", "/min  0", "Arrivals"))


def test_details_are_shown_only_when_asked_for() -> None:
    short, full = (_draw(manifest(100), _hundred(), all=whole) for whole in (False, True))
    for words in ("Durations", "Nodes", "Self-check", "Ranges are"):
        assert words in full and words not in short
    lines = [line.split() for line in full.splitlines()]
    assert [line for line in short.splitlines() if line.split() not in lines] == []


def test_the_generator_s_own_error_is_on_the_first_screen_where_it_matters() -> None:
    run = manifest(100)
    assert run.self_check is not None
    busy = structs.replace(run, self_check=structs.replace(run.self_check, busy_fraction=0.93))
    assert "CPU 93.0 % busy" in _draw(busy, _hundred(), all=False)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("a number 97 % of it", 11, ["a number", "97 % of it"]),
        ("it took 1 280 s in all", 12, ["it took", "1 280 s in", "all"]),
        ("aaaaaaaaaaaa b", 5, ["aaaaa", "aaaaa", "aa b"]),
        ("漢字漢字 ab", 6, ["漢字漢", "字 ab"]),
        ("", 5, [""]),
    ],
)
def test_lines_break_between_words_and_keep_a_number_with_its_unit(text: str, width: int, lines: list[str]) -> None:
    assert wrapped(text, width) == lines


@pytest.mark.parametrize("width", [40, 80])
def test_sentences_that_have_no_room_in_a_row_stand_beneath_it(width: int) -> None:
    columns = [Column(title="name"), Column(title="n", right=True), Column(title="why", prose=True)]
    rows = [
        [Value(words=name), Value(words="7"), Value(words=why)] for name, why in (("a" * 24, "short"), ("b", "x " * 60))
    ]
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="utf-8", newline="\n", write_through=True)
    render(
        Page(title="", tables=[Table(key="t", title="", columns=columns, rows=rows)]),
        Console(file=file, width=width),
        all=True,
    )
    lines = raw.getvalue().decode().splitlines()
    assert lines[0].split() == ["name", "n", "why"] and lines[1].split() == ["a" * 24, "7", "short"]
    assert lines[2].split() == ["b", "7"] and lines[3].startswith("    x x")
    assert max(map(len, lines)) <= width
