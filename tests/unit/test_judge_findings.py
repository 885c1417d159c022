"""What makes a run invalid or doubtful, and what does not."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from comfyload.judge import findings
from comfyload.judge.findings import table
from comfyload.judge.findings.stability import cold_head, drifted, in_flight
from comfyload.judge.findings.table import NOTICED, Finding
from comfyload.judge.summary import measure, summarise
from comfyload.record.model import Manifest, Observation, Record, Sample, Sent, ServerTimes
from comfyload.record.plan import Plan, Replay
from tests.unit.judge_runs import failed, job, manifest, one_by_one


def _durations(n: int, spread: float = 0.02) -> list[float]:
    return [float(x) for x in np.random.default_rng(3).lognormal(2.3, spread, n)]


def _find(code: str, run: Manifest, lines: list[Any]) -> Finding | None:
    return next((finding for finding in summarise(run, lines).findings if finding.code == code), None)


def test_a_clean_run_has_nothing_said_against_it() -> None:
    summary = summarise(manifest(100), one_by_one(_durations(100)))
    assert summary.findings == [] and summary.valid


def test_failed_jobs_do_not_make_a_run_invalid_but_nothing_completed_does() -> None:
    records = one_by_one(_durations(12))
    records[3] = failed(3, records[3].due, 1.0)
    assert summarise(manifest(12), records).valid
    finding = _find("nothing_measured", manifest(2), [failed(0, 0.0, 1.0), failed(1, 1.0, 1.0)])
    assert finding is not None and finding.level == "invalid" and "2 failed" in finding.text


def test_a_job_that_was_sent_and_never_ended_is_named() -> None:
    records = one_by_one(_durations(12))
    finding = _find("unfinished", manifest(13), [*records, Sent(index=12, prompt_id="id-12", due=200.0)])
    assert finding is not None and finding.level == "invalid"
    assert "12" in finding.text and finding.evidence["prompt_ids"] == ["id-12"]


def test_a_second_record_of_a_job_is_refused_and_named() -> None:
    records = one_by_one(_durations(12))
    summary = summarise(manifest(12), [*records, records[4]])
    assert summary.summary["total_jobs"] == 12 and not summary.valid
    assert [(f.code, f.evidence["jobs"]) for f in summary.findings] == [("duplicate_record", [4])]


def test_a_job_that_the_server_ran_twice_is_named() -> None:
    finding = _find("duplicate_execution", manifest(1), [job(0, 0.0, 1.0, executions=2)])
    assert finding is not None and finding.level == "invalid" and "job 0" in finding.text


@pytest.mark.parametrize("fate", ["finished", "running", "pending", "unknown"])
def test_a_job_that_used_the_server_after_we_gave_it_up_is_an_orphan(fate: Any) -> None:
    lost = failed(12, 500.0, 30.0, "timed_out", kind="timeout")
    lost = msgspec.structs.replace(lost, execution=msgspec.structs.replace(lost.execution, server_state_after=fate))
    seen = [Observation(t=1.0, code="orphan", text="the same, from the client")]
    summary = summarise(manifest(13, observations=seen), [*one_by_one(_durations(12)), lost])
    assert [f.level for f in summary.findings if f.code == "orphan"] == ["warning"]
    assert summary.left_on_server == {fate: 1}
    (orphan,) = (f for f in summary.findings if f.code == "orphan")
    assert ("we gave up" in orphan.text) == (fate != "unknown")


def test_of_a_job_that_nobody_knows_of_only_that_is_said() -> None:
    """A gateway answered its POST with a 5xx: we gave nothing up, and it may never have been on the server."""
    refused = [failed(12 + i, 500.0 + i, 1.0, kind="server_error", type="", message="HTTP 502") for i in range(2)]
    refused = [
        msgspec.structs.replace(r, execution=msgspec.structs.replace(r.execution, server_state_after="unknown"))
        for r in refused
    ]
    finding = _find("orphan", manifest(14), [*one_by_one(_durations(12)), *refused])
    assert finding is not None and finding.level == "warning" and finding.evidence == {"unknown": 2}
    assert finding.text == "It is not known whether the server ran 2 jobs that did not complete (job 12, 13)."


@pytest.mark.parametrize("end", [None, "crashed"])
def test_a_run_without_a_proper_end_is_invalid(end: Any) -> None:
    finding = _find("not_ended", manifest(12, end=end), list(one_by_one(_durations(5))))
    assert finding is not None and finding.level == "invalid"


def test_a_run_stopped_early_is_a_warning_and_missing_records_are_invalid() -> None:
    records = list(one_by_one(_durations(5)))
    stopped = _find("ended_early", manifest(12, end="stopped"), records)
    assert stopped is not None and stopped.level == "warning" and "5 of 12" in stopped.text
    missing = _find("records_missing", manifest(12), records)
    assert missing is not None and missing.level == "invalid"


@pytest.mark.parametrize(
    ("code", "level"),
    [
        ("restart", "invalid"),
        ("foreign_load", "invalid"),
        ("busy_at_start", "invalid"),
        ("stream_lost", "warning"),
        ("stream_stalled", "warning"),
        ("vary", "info"),
        ("something_new", "info"),
    ],
)
def test_observations_become_findings(code: str, level: str) -> None:
    seen = [Observation(t=1.0, code=code, text="it happened", count=2), Observation(t=9.0, code=code, text="again")]
    finding = _find(code, manifest(12, observations=seen), list(one_by_one(_durations(12))))
    assert finding is not None and finding.level == level
    assert finding.text == "It happened (and 1 more such)." and finding.evidence["count"] == 3


def _late(records: list[Record], index: int | None, seconds: float) -> list[Record]:
    chosen = range(len(records)) if index is None else [index]
    for i in chosen:
        run = msgspec.structs.replace(records[i].execution, sent=records[i].due + seconds)
        records[i] = msgspec.structs.replace(records[i], execution=run)
    return records


def test_a_generator_that_is_always_late_makes_the_run_invalid_and_one_hiccup_is_a_warning() -> None:
    always = _find("generator_late", manifest(50), list(_late(one_by_one(_durations(50)), None, 0.8)))
    assert always is not None and always.level == "invalid" and "0.800 s" in always.text
    once = _find("generator_late", manifest(50), list(_late(one_by_one(_durations(50)), 20, 2.0)))
    assert once is not None and once.level == "warning"
    assert _find("generator_late", manifest(50), list(_late(one_by_one(_durations(50)), None, 0.1))) is None


def test_less_than_a_millisecond_is_not_spoken_of_in_a_closed_load() -> None:
    cached = _late(one_by_one([0.004] * 50), None, 0.0009)
    assert _find("generator_late", manifest(50, as_is=True), list(cached)) is None


def test_executions_side_by_side_are_worth_knowing() -> None:
    finding = _find("overlap", manifest(2), [job(0, 0.0, 5.0), job(1, 1.0, 5.0)])
    assert finding is not None and finding.level == "info"


def test_a_server_clock_that_was_set_back_measures_nothing() -> None:
    records = list(one_by_one(_durations(12)))
    back = ServerTimes(create_ms=1000, start_ms=2000, end_ms=500)
    records[5] = job(5, records[5].due, 10.0, server=back)
    summary = summarise(manifest(12), records)
    assert summary.statistics["avg_execution_s"].n == 11
    assert [f.code for f in summary.findings if f.level == "warning"] == ["server_clock"]


def test_polled_ends_say_how_much_too_long_the_latency_may_be() -> None:
    records = [*one_by_one(_durations(12)), job(12, 200.0, 10.0, end_source="history", done_uncertainty_s=0.5)]
    finding = _find("polled_ends", manifest(13), list(records))
    assert finding is not None and finding.level == "warning"
    assert "1 of 13" in finding.text and "0.500 s" in finding.text


def test_time_lost_between_jobs_breaks_littles_law() -> None:
    gaps = [job(i, 20.0 * i, 10.0) for i in range(30)]
    finding = _find("little_law", manifest(30), list(gaps))
    assert finding is not None and "0.5 jobs" in finding.text
    assert _find("little_law", manifest(100), list(one_by_one(_durations(100)))) is None
    assert in_flight(np.array([0.0]), np.array([1.0])) is None


def test_a_closed_loop_of_two_on_a_serial_server_is_as_it_should_be() -> None:
    seconds, done = _durations(60), [0.0]
    for length in seconds:
        done.append(done[-1] + length)
    due = [0.0, 0.0, *done[1:]]
    lines: list[Record] = []
    for i in range(60):
        start, end = (round(1000 * instant) + 1_700_000_000_000 for instant in done[i : i + 2])
        times = ServerTimes(create_ms=start, start_ms=start, end_ms=end)
        lines.append(job(i, due[i], done[i + 1] - due[i], server=times))
    summary = summarise(manifest(60, concurrency=2), lines)
    assert summary.valid and {f.code for f in summary.findings} <= {"dependent_jobs"}


def test_cold_first_jobs_are_found_and_the_rarer_kind_of_two_is_not_cold() -> None:
    steady = np.array(_durations(60))
    assert cold_head(steady) == 0
    assert cold_head(np.array([50.0, 30.0, *steady])) == 2
    mixed = np.where(np.arange(60) % 6 == 0, 20.0, 8.0)
    assert cold_head(mixed) == 0
    finding = _find("cold_head", manifest(62, warmup=1), list(one_by_one([50.0, 30.0, *steady])))
    assert finding is not None and finding.level == "warning" and finding.hint == "Run again with --warmup 3 or more."


def test_a_drift_is_measured_and_noise_is_none() -> None:
    steady = np.array(_durations(60))
    assert drifted(steady) is None
    found = drifted(steady * np.linspace(1.0, 1.2, 60))
    assert found is not None and found.at is None and found.change == pytest.approx(0.18, abs=0.04)
    long = np.random.default_rng(5).normal(10, 0.3, 5000)
    assert drifted(long) is None and drifted(np.round(long)) is None and drifted(np.full(5000, 3.0)) is None
    found = drifted(long * np.linspace(1.0, 1.1, 5000))
    assert found is not None and found.at is None and found.change == pytest.approx(0.1, abs=0.01)
    found = drifted(long * np.where(np.arange(5000) < 2000, 1.0, 0.9))
    assert found is not None and found.at == pytest.approx(0.4, abs=0.01)
    assert found.change == pytest.approx(-0.1, abs=0.01)
    finding = _find("drift", manifest(60), list(one_by_one([float(x) for x in steady * np.linspace(1.0, 1.2, 60)])))
    assert finding is not None and " % slower from" in finding.text


def test_a_step_within_a_run_is_told_with_the_job_after_which_it_came() -> None:
    steady = np.array(_durations(400))
    finding = _find("drift", manifest(400), one_by_one([float(x) for x in steady * np.repeat([1.0, 1.1], [300, 100])]))
    assert finding is not None and 290 <= finding.evidence["after_jobs"] <= 310
    assert finding.text == f"Jobs became 10 % slower after {finding.evidence['after_jobs']} of 400."


def _memory(held: list[float], source: str = "host", name: str = "server.rss_bytes", **changes: Any) -> list[Finding]:
    """What is said of a run in which this was read of memory, in MiB, every 30 s."""
    samples = [Sample(t=30.0 * n, source=source, name=name, value=mib * 2**20) for n, mib in enumerate(held)]
    lines = one_by_one([10.0] * 12)
    found = measure("run", manifest(12, **changes), lines, samples).summary.findings
    return [one for one in found if one.code in ("memory_growth", "own_growth")]


def test_memory_that_grows_is_told_whose_it_is_by_how_much_and_since_when() -> None:
    noise = np.random.default_rng(2).normal(0.0, 5.0, 600)
    (leak,) = _memory((1000 + np.linspace(0.0, 200.0, 600) + noise).tolist())
    assert leak.code == "memory_growth" and leak.text.startswith("The server's memory grew by 1")
    assert "little by little" in leak.text and 35 <= leak.evidence["bytes_per_hour"] / 2**20 <= 45
    (step,) = _memory((1000 + np.repeat([0.0, 200.0], [400, 200]) + noise).tolist())
    assert "at once" in step.text and abs(step.evidence["at_s"] - 12_000) < 600
    (gpu,) = _memory((1000 + np.linspace(0.0, 200.0, 600) + noise).tolist(), "comfy", "gpu.0.vram_used_bytes")
    assert gpu.code == "memory_growth" and "GPU 0" in gpu.text
    rising = (100 + np.linspace(0.0, 30.0, 600)).tolist()
    (ours,) = _memory(rising, "generator", "generator.rss_bytes")
    assert ours.code == "own_growth" and "report" in ours.hint
    assert _memory(rising, "generator", "generator.rss_bytes", resumed=[5.0]) == []


def test_memory_that_settles_shrinks_or_was_seldom_read_is_not_spoken_of() -> None:
    noise = np.random.default_rng(3).normal(0.0, 5.0, 600)
    filling = np.concatenate([np.linspace(100.0, 1000.0, 50), np.full(550, 1000.0)])
    for held in (
        1000 + noise,
        filling + noise,
        1000 - np.linspace(0.0, 200.0, 600),
        1000 + np.linspace(0.0, 10.0, 600),
    ):
        assert _memory(held.tolist()) == []
    assert _memory((1000 + np.linspace(0.0, 200.0, 90)).tolist()) == []
    assert _memory([]) == []


def test_dependent_latencies_say_what_they_are_worth() -> None:
    waves = 10 + np.sin(np.arange(100) / 8)
    finding = _find("dependent_jobs", manifest(100), list(one_by_one([float(x) for x in waves])))
    assert finding is not None and finding.level == "warning" and finding.evidence["n_eff"] < 40


def test_every_code_has_its_meaning_and_no_other() -> None:
    folder = Path(findings.__file__).parent
    calls = [
        node
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "finding"
    ]
    made = {str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)}
    named = set(re.findall(r"`(\w+)`", (Observation.__doc__ or "").partition("Codes:")[2]))
    assert len(made) > 30 and len(named) > 10
    assert set(table.FINDINGS) == made | set(NOTICED)
    assert named <= set(table.FINDINGS)
    for row in table.FINDINGS.values():
        assert row.meaning.endswith(".") and row.advice({}).endswith(".") and "{" not in row.advice({})


def test_traffic_has_no_warm_up_and_no_drift() -> None:
    seconds = [50.0, 30.0, *(np.array(_durations(60)) * np.linspace(1.0, 1.3, 60))]
    lines = list(one_by_one([float(each) for each in seconds]))
    said = {finding.code for finding in summarise(manifest(62), lines).findings}
    assert {"cold_head", "drift"} <= said
    traffic = manifest(62)
    traffic.plan = Plan(load=Replay(offsets_s=[], source="the gateway's traffic"), as_is=True)
    assert not {"cold_head", "drift"} & {finding.code for finding in summarise(traffic, lines).findings}
