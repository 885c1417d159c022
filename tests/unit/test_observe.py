"""Observations: each with its numbers, unknown where nothing was recorded, and no claim beyond an interval."""

from __future__ import annotations

from itertools import accumulate

import pytest
from msgspec import structs

from comfyload.judge.columns.gpu import gpu_reading
from comfyload.judge.observations import observations
from comfyload.judge.summary import Measured
from comfyload.record.model import Fact, Line, Sample, Server
from comfyload.record.plan import Closed
from tests.unit.chart_runs import gpu_samples, hostile_manifest, judged, varied
from tests.unit.judge_runs import failed, job, manifest, one_by_one, planned, served


def _said(measured: Measured) -> str:
    return "\n".join(one.text for one in observations([measured]))


def _steady(n: int = 40) -> list[Line]:
    return list(one_by_one([10.0 + 0.3 * (i % 3) for i in range(n)]))


def test_how_busy_the_server_was_is_execution_over_wall_clock() -> None:
    said = _said(judged(manifest(40), _steady()))
    assert "The server was busy 99.9 % of the time at 1 in flight: more jobs in flight would only wait." in said
    idle = [job(i, 20.0 * i, 10.0) for i in range(40)]
    said = _said(judged(manifest(40), list(idle)))
    assert "The server was busy 50.6 % of the time" in said and "would only wait" not in said


def test_a_server_without_times_is_not_called_idle() -> None:
    from comfyload.record.model import ServerTimes

    mute = [
        structs.replace(r, execution=structs.replace(r.execution, server=ServerTimes()))
        for r in one_by_one([10.0] * 12)
    ]
    assert "How busy the server was is unknown: too few jobs have execution times." in _said(
        judged(manifest(12), list(mute))
    )


def test_headroom_is_unknown_without_readings() -> None:
    unknown = "How much GPU memory was used is unknown: no readings of it were recorded."
    assert unknown in _said(judged(manifest(40), _steady()))


def test_memory_that_grows_through_the_run_is_said_and_one_that_wavers_is_not() -> None:
    run, lines = manifest(40), _steady()

    def read(per_s: float) -> list[Sample]:
        used = [8 * 2**30 * (1 + per_s * t) + 2**20 * (t % 3) for t in range(400)]
        return [Sample(t=t, source="nvml", name="gpu.0.vram_used_bytes", value=v) for t, v in enumerate(used)]

    assert "Memory of GPU 0 grew by about" in _said(judged(run, lines, read(0.0005)))
    assert "grew" not in _said(judged(run, lines, read(0.0)))
    assert "grew" not in _said(judged(run, lines, read(0.0005)[:10]))


def test_headroom_is_what_the_most_used_leaves() -> None:
    facts = {"gpu.0.vram_bytes": Fact(value=16 * 2**30, source="nvml")}
    measured = judged(hostile_manifest(environment=facts), list(varied()), gpu_samples(700))
    said = _said(measured)
    assert "GPU 0 held 15.0 GiB of 16.0 GiB at most: 1.0 GiB (6.2 %) stayed free: little is left." in said
    read = "(640 readings by nvml, 60 unknown)"
    assert f"GPU 0 was busy 88 % of the time, 88 % while a job executed {read}" in said


def test_how_much_memory_there_is_may_be_unknown() -> None:
    said = _said(judged(hostile_manifest(), list(varied()), gpu_samples(700)))
    assert "GPU 0 held 15.0 GiB at most; how much it has is unknown." in said


def test_a_cold_start_is_the_first_warm_up_job_against_fresh_ones() -> None:
    said = _said(judged(hostile_manifest(), list(varied())))
    assert "The first warm-up job executed in 36.5 s, 3.0 times the median of fresh jobs (12.1 s, n = 55)." in said
    assert "The cold start cost about 24.5 s: one job, no interval." in said


def test_a_warm_server_shows_no_cold_start() -> None:
    records = _steady(42)
    first = records[0]
    assert not isinstance(first, Sample)
    records[0] = structs.replace(first, warmup=True)
    assert "No cold start: the first warm-up job executed in" in _said(judged(manifest(41, warmup=1), records))


def test_without_warm_up_the_cost_of_a_cold_start_is_unknown() -> None:
    assert "unknown: the run had no warm-up job" in _said(judged(manifest(40), _steady()))


def test_drift_is_said_with_its_size_and_its_absence_with_n() -> None:
    slower = list(one_by_one([10.0 + 0.05 * i for i in range(60)]))
    assert "Execution times drifted: jobs became" in _said(judged(manifest(60), list(slower)))
    assert "Execution times did not drift by more than 3.0 % (40 fresh jobs)." in _said(judged(manifest(40), _steady()))
    assert "drift" not in _said(judged(manifest(12), _steady(12)))  # too few to say


def test_the_costliest_nodes_come_with_share_and_n() -> None:
    said = _said(judged(manifest(40), _steady()))
    assert "The slowest nodes are 3 KSampler (9.25 s a run, n = 40, 90.0 % of execution); 9 SaveImage" in said


def test_cache_use_and_failures_are_counted() -> None:
    said = _said(judged(hostile_manifest(), list(varied())))
    assert (
        "Of 57 completed jobs 1 came wholly and 1 partly from the cache; the median latency of the others was" in said
    )
    assert "2 of 60 jobs did not succeed: 1 execution error, 1 timeout." in said


def test_no_failure_claims_no_more_than_its_interval() -> None:
    said = _said(judged(manifest(40), _steady()))
    assert "No job of 40 failed." in said  # what that proves is the gates' to say


def test_an_invalid_run_is_no_measurement() -> None:
    said = observations([judged(manifest(12), [failed(i, float(i), 1.0) for i in range(12)])])
    assert said[0].text.startswith("This run is invalid (nothing_measured)")


def _at(users: int) -> Measured:
    """A serial server and `users` who each send their next job when the last has ended."""
    seconds = [10.0 + 0.1 * (i % 3) for i in range(80)]
    ends = list(accumulate(seconds))
    due = [0.0] * users + ends[: 80 - users]
    return judged(planned(Closed(concurrency=users), 80), list(served(due, seconds)))


def test_more_in_flight_is_throughput_gained_and_latency_paid() -> None:
    first = observations([_at(1), _at(2)])[0]
    assert first.notable
    rate = "book, from 1 to 2 in flight: images a minute 5.94 to 5.94 (+0.0 %, within noise), "
    assert first.text == f"{rate}median latency 10.1 s to 20.2 s (×2.00, intervals apart)."


def test_of_several_steps_the_whole_way_comes_first() -> None:
    found = observations([_at(1), _at(2), _at(4)])
    assert found[0].text.startswith("From 1 to 4 in flight, book: images a minute 5.94 to 5.94 (+0.0 %, within noise)")
    pairs = [one for one in found if ", from " in one.text]
    assert len(pairs) == 2 and not any(one.notable for one in pairs)


def test_what_is_true_of_all_runs_is_one_sentence_without_labels() -> None:
    said = [one.text for one in observations([_at(1), _at(2)])]
    assert any(text.endswith(", already at 1 in flight: more jobs in flight would only wait.") for text in said)
    assert "No job of 160 failed." in said and "None of 160 completed jobs came from the server's cache." in said
    assert len(said) == len(set(said))


def test_what_is_true_of_some_runs_names_them() -> None:
    idle = judged(manifest(40, name="idle"), [job(i, 20.0 * i, 10.0) for i in range(40)])
    said = [one.text for one in observations([_at(1), idle])]
    assert "The server was busy 50.6 % of the time at 1 in flight in 1 of 2 runs (idle at 1 in flight)." in said


def test_what_was_found_comes_before_what_was_not() -> None:
    order = [one.notable for one in observations([judged(hostile_manifest(), list(varied()), gpu_samples(700))])]
    assert order == sorted(order, reverse=True) and False in order


def test_a_simulated_gpu_is_called_that_in_every_sentence() -> None:
    device = {"name": "cuda:0 Simulated GPU : cudaMallocAsync", "type": "cuda", "vram_total": 16 * 2**30}
    run = hostile_manifest(server=Server(url="http://127.0.0.1:8188", devices=[device]))
    sentences = [one.text for one in observations([judged(run, list(varied()), gpu_samples(700))])]
    of_gpu = [text for text in sentences if "GPU 0" in text]
    assert len(of_gpu) >= 3 and all("Simulated GPU 0" in text for text in of_gpu)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpu.0.utilisation_percent", ("0", "utilisation", 1.0)),
        ("gpu.1.memory_used_mib", ("1", "vram_used", 2.0**20)),
        ("gpu.0.power_mw", ("0", "power", 0.001)),
        ("gpu.0.vram_total_bytes", ("0", "vram_total", 1.0)),
        ("gpu.0.temperature_c", ("0", "temperature", 1.0)),
        ("cpu.utilisation_percent", None),
        ("gpu.0.memory_utilisation", None),
        ("queue_remaining", None),
    ],
)
def test_a_reading_is_known_by_its_name(name: str, expected: tuple[str, str, float] | None) -> None:
    found = gpu_reading(name)
    assert (None if found is None else (found.gpu, found.kind, found.factor)) == expected
