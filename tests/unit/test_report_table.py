"""What people read: the verdict before any number, nothing cut at 80 columns, and no number that is not known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from msgspec import structs
from rich.console import Console

from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import summarise
from comfyload.record.model import Manifest, Observation, Output, Record
from comfyload.record.plan import Closed, Open, Plan, Replay, Stage
from comfyload.report.busy import gpu_words
from comfyload.report.durations import Notes
from comfyload.report.plan_text import plan_words
from comfyload.report.table import render
from comfyload.report.text import decimals, duration, fixed, percent
from tests.unit.judge_runs import FACTS, booked, censored, failed, job, manifest, one_by_one, planned, served


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
    notes = Notes()
    assert gpu_words(row, notes.mark) == "233 W, –¹ J a job"
    assert "¹ withheld: too coarse" in notes.text().plain


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


def _overloaded(**changes: object) -> str:
    load = Open(stages=[Stage(per_s=10.0, seconds=15.0)], arrivals="constant", **changes)  # type: ignore[arg-type]
    places = load.max_in_flight
    return _draw(planned(load), served([i / 10 for i in range(150)], 0.2, places=places, drop=load.on_full == "drop"))


def test_a_number_that_grew_through_the_run_says_so() -> None:
    text = _overloaded()
    assert "from due, s¹" in text and "from sent, s¹" in text and "execution, ms " in text
    assert "¹ overload: grew through the run, so it depends on how long that lasted" in text
    assert "Arrivals/min  600 due, 600 sent, 300 completed" in text
    waiting = _overloaded(max_in_flight=4)
    assert "from due, s¹" in waiting and "from sent, ms " in waiting


def test_drops_are_in_the_ledger_and_their_tails_are_withheld() -> None:
    text = _overloaded(max_in_flight=4, on_full="drop")
    assert "150 offered = 78 completed + 72 dropped" in text and "withheld: overload: 72 of 150 jobs" in text
    assert "grew through the run" not in text


def test_jobs_cut_off_by_the_end_are_not_called_cancelled() -> None:
    load = Open(stages=[Stage(per_s=0.1, seconds=200.0)], arrivals="constant")
    records = served([10.0 * i for i in range(20)], 8.0)
    text = _draw(planned(load, drain=False), [*records[:-1], censored(records[-1])])
    assert "20 offered = 19 completed + 1 cut off by the end" in text and "cancelled" not in text


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
    assert "Books        10, each of 4 pages = 10 complete" in text and "book, from due, s" in text
    assert "Books/min    0.600 due" in text and "Books/h " in text
    lines = text.splitlines()
    assert any(line.split()[:2] == ["flux", "28"] for line in lines)
    assert any(line.startswith("Mean execution") and line.endswith("after a switch") for line in lines)
    assert max(map(len, lines)) <= width


def test_one_workflow_and_single_jobs_have_no_such_rows() -> None:
    text = _draw(manifest(100), _hundred())
    assert not any(word in text for word in ("Workflows", "Mean execution", "Books", "/min  0", "Arrivals"))
