"""What a checklist ends with: a table of its runs, and true sentences on whether they are good, enough and busy."""

from __future__ import annotations

import io
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from comfyload.app.checklist import Round, TimeLeft
from comfyload.app.doctor import DoctorCheck
from comfyload.cli.progress import LiveCounts
from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Output, Sent, ServerTimes
from comfyload.report.checklist import Found, checklist_pages, results_table
from comfyload.report.render.terminal import render
from tests.unit.judge_runs import job, manifest

ZERO = 1_700_000_000_000


def _run(name: str, places: int, *, service_s: float = 1.0, overhead_s: float = 0.0, jobs: int = 20) -> Measured:
    """A closed load on a server that runs one job at a time, each of which saves an image."""
    free, users, lines = 0.0, [0.0] * places, []
    for index in range(jobs):
        user = min(range(places), key=users.__getitem__)
        due = users[user]
        begin = max(due + overhead_s, free)
        free = users[user] = begin + service_s
        file = Output(node="9", kind="images", count=1, files=[f"output/{name}-{places}-{index}.png"])
        times = ServerTimes(
            create_ms=ZERO + round(1000 * (due + overhead_s)),
            start_ms=ZERO + round(1000 * begin),
            end_ms=ZERO + round(1000 * free),
        )
        record = job(index, due, free - due)
        changed = structs.replace(record.execution, server=times, done=free, outputs=[file])
        lines.append(structs.replace(record, execution=changed))
    return measure(f"runs/{name}-c{places}", manifest(jobs, places, name=name), lines)


def _side_by_side(users: int, *, lanes: int = 4) -> Measured:
    """A closed load on a server that runs up to `lanes` jobs of a second side by side."""
    free, ready, lines = [0.0] * lanes, [0.0] * users, []
    for index in range(40):
        user, lane = min(range(users), key=ready.__getitem__), min(range(lanes), key=free.__getitem__)
        due = ready[user]
        begin = max(due, free[lane])
        free[lane] = ready[user] = begin + 1.0
        stamps = (ZERO + round(1000 * at) for at in (due, begin, begin + 1.0))
        times = ServerTimes(**dict(zip(("create_ms", "start_ms", "end_ms"), stamps, strict=True)))
        lines.append(job(index, due, begin + 1.0 - due, server=times))
    return measure(f"runs/wide-c{users}", manifest(40, users, name="wide"), lines)


def _found(runs: list[Measured], *, log: bool = True, **changes: Any) -> Found:
    gates = GateSet(gates=[parse_gate(text) for text in DEFAULT_GATES])
    verdicts = [verdict for run in runs for verdict in judge(gates, run, [] if log else None)]
    base: dict[str, Any] = {"name": "mygpu", "runs": runs, "warmup": 1}
    return Found(verdicts=verdicts, **{**base, **changes})


def _printed(found: Found, width: int = 80) -> list[str]:
    out = io.StringIO()
    for page in checklist_pages(found):
        render(page, Console(file=out, width=width))
    return out.getvalue().splitlines()


STEPS = [_run("small", places, overhead_s=0.4) for places in (1, 2, 4)]


def test_each_run_is_a_line_with_its_rate_wait_and_slowest_job_and_the_knee_is_marked() -> None:
    lines = _printed(_found(STEPS))
    rows = [line.split() for line in lines if line.endswith("knee") or line.split()[:1] in (["small"], ["4"])]
    assert rows[0][:3] == ["small", "1", "42.9"] and rows[0][-4:] == ["1.40", "s", "1.40", "s"]
    assert rows[1][0] == "2" and rows[1][-1] == "knee"
    assert rows[2][0] == "4" and rows[2][-1] == "s"
    assert max(map(len, lines)) <= 80


def test_a_rate_that_falls_is_called_slower_than_where_it_was_best() -> None:
    table = results_table([*STEPS[:2], _run("small", 4, service_s=1.3)])
    assert [row[-1].words for row in table.rows] == ["", "knee", "slower than at 2"]


def test_in_short_it_says_whether_that_is_good_enough_and_busy() -> None:
    text = " ".join(" ".join(_printed(_found(STEPS, next=["comfyload saturate"], places=[("Page", "x.html")]))).split())
    assert "Good 60 of 60 jobs completed, the slowest in" in text
    assert "success_rate >= 98 %: ok" in text and "PASS*" not in text
    assert "Enough? Not to prove success_rate >= 98 %" in text
    assert "or --jobs 149 --independent-failures if failures come one at a time." in text
    assert "Busy At 2 in flight the server is" in text
    assert text.endswith("Page x.html Next comfyload saturate")


def test_a_server_that_is_never_full_is_not_called_saturated() -> None:
    runs = [_run("small", places, overhead_s=9.0) for places in (1, 2)]
    text = " ".join(" ".join(_printed(_found(runs))).split())
    assert "more in flight may help" in text and "only waits" not in text and "knee" not in text


def test_a_server_that_runs_jobs_side_by_side_is_full_when_more_in_flight_complete_no_more() -> None:
    runs = [_side_by_side(users) for users in (1, 2, 4, 8)]
    assert [row[-1].words for row in results_table(runs).rows] == ["", "", "knee", ""]
    assert [row[-1].words for row in results_table(runs[:3]).rows] == ["", "", ""]
    text = " ".join(" ".join(_printed(_found(runs[:3]))).split())
    assert "wide runs 4.0 jobs at a time at 4 in flight: more in flight may help" in text and "only waits" not in text


def test_a_gate_that_fails_is_not_good_and_says_why() -> None:
    found = _found([_run("large", 1, service_s=60.0)])
    lines = _printed(found)
    text = " ".join(" ".join(lines).split())
    assert "Not good 20 of 20 jobs completed" in text and "p95_latency_s <= 45: FAIL" in text
    assert any(line.startswith("✗ FAIL") for line in lines)


# --- the time left


PLANNED = [Round(workflow=name, concurrency=places) for name in ("a", "b") for places in (1, 2)]


def test_the_time_left_is_known_once_each_workflow_has_run() -> None:
    pace = TimeLeft(PLANNED, jobs=19)
    assert pace.whole_s(1) is None
    pace.ended(PLANNED[0], 20.0)
    pace.ended(PLANNED[1], 20.0)
    assert pace.left_s(3) is None
    pace.ended(PLANNED[2], 60.0)
    assert pace.left_s(4) == pytest.approx(60.0) and pace.left_s(4, 0.5) == pytest.approx(30.0)
    assert pace.whole_s(4) == pytest.approx(160.0)


def test_earlier_runs_tell_the_time_before_the_first_job() -> None:
    pace = TimeLeft(PLANNED, jobs=19)
    checks = [DoctorCheck("cost", "ok", "", "", {"execution_s": cost}, "workflow") for cost in (1.0, 3.0)]
    pace.expect(["a", "b"], [DoctorCheck("queue", "ok", "empty"), *checks])
    assert pace.whole_s(1) == pytest.approx(2 * 20 * (1.0 + 3.0))
    half = TimeLeft(PLANNED, jobs=19)
    half.expect(["a", "b"], [checks[0], DoctorCheck("cost", "unknown", "", "", {}, "workflow")])
    assert half.whole_s(1) is None


# --- progress


def test_progress_shows_what_failed_what_is_slowest_and_never_a_power_of_ten() -> None:
    counts = LiveCounts()
    counts.start(40, "jobs")
    counts.began -= 0.6 * 20 / 9  # twenty images in 1.33 s are 900 a minute
    for index, seconds in enumerate([0.02] * 19 + [0.5]):
        counts.add(Sent(index=index, prompt_id=f"p{index}", due=0.0))
        record = job(index, 0.0, seconds)
        output = Output(node="9", kind="images", count=2, files=[f"output/{index}-{n}.png" for n in range(2)])
        counts.add(structs.replace(record, execution=structs.replace(record.execution, outputs=[output])))
    words = counts.words()
    assert words[:2] == ["0 failed", "0 in flight"] and words[2:4] == ["p50 20.0 ms", "slowest 0.500 s"]
    assert words[4].startswith("1 ") and words[4].endswith(" images/min")
    assert counts.share == 0.5 and counts.place()[0] == "20/40"


def test_jobs_in_flight_are_those_of_which_this_process_knows_no_end() -> None:
    counts = LiveCounts()
    counts.add(job(0, 0.0, 1.0))  # sent by the process before
    counts.add(Sent(index=1, prompt_id="p1", due=0.0))
    counts.add(Sent(index=2, prompt_id="p2", due=0.0))
    counts.add(Sent(index=2, prompt_id="p2-again", due=0.0))  # a second attempt
    assert counts.words()[1] == "2 in flight"
    counts.add(job(2, 0.0, 1.0))
    assert counts.words()[1] == "1 in flight"
