"""Clocks that disagree are found, with their rate and their steps; clocks as they usually are never are."""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from comfyload.judge.clocks import check_clocks
from comfyload.judge.findings.table import Finding
from comfyload.judge.summary import summarise
from comfyload.load import clocks
from comfyload.load.clocks import ClockWatch
from comfyload.record.clocks import ClockCheck, ClockName, ClockRate, ClockReadings
from comfyload.record.model import Fact, Record, ServerTimes
from tests.unit.judge_runs import manifest, one_by_one

ELSEWHERE = {"host.runs_generator": Fact(value=False, source="the server is on another machine (10.0.0.2)")}
BESIDE = {"host.runs_generator": Fact(value=True, source="this machine")}
Course = Callable[[float], float]


def series(
    seconds: float, *, every: float = 0.5, noise_s: float = 0.0, seed: int = 1, **courses: Course
) -> ClockReadings:
    """Clocks that show COURSE(t) where the monotonic one shows t; read late at times, by no more than `noise_s`."""
    rng, others = random.Random(seed), {"wall": lambda t: t, "raw": lambda t: t, "boottime": lambda t: t, **courses}
    readings = ClockReadings(others={name: array("d") for name in others})  # type: ignore[misc]
    t = 0.0
    while t <= seconds:
        error = noise_s * rng.random()
        readings.t.append(t)
        readings.error.append(error + 1e-6)
        for name, course in others.items():
            readings.others[name].append(1.7e9 + course(t + rng.uniform(-error, error)))  # type: ignore[index]
        t += every * rng.uniform(0.9, 3.0)
    return readings


def steps(every: float, size: float) -> Course:
    return lambda t: t + size * (t // every)


def checked(readings: ClockReadings) -> tuple[ClockCheck, dict[ClockName, ClockRate]]:
    check = check_clocks(readings)
    assert check is not None
    return check, {rate.clock: rate for rate in check.rates}


def found(check: ClockCheck, records: list[Record] | None = None, **changes: Any) -> dict[str, Finding]:
    records = one_by_one([2.0] * 12) if records is None else records
    made = summarise(manifest(jobs=len(records), clocks=[check], **changes), records)
    codes = ("clock_rate", "clock_step", "slept", "server_clock_rate")
    return {finding.code: finding for finding in made.findings if finding.code in codes}


def stamped(records: list[Record], course: Course) -> list[Record]:
    """The same jobs on a server whose clock shows COURSE(t)."""
    out = []
    for record in records:
        run = record.execution
        times = [course(t) for t in (record.due + 0.002, record.due + 0.005, (run.done or 0) - 0.003)]
        create, start, end = (round(1000 * (1.7e9 + t)) for t in times)
        server = ServerTimes(create_ms=create, start_ms=start, end_ms=end)
        out.append(structs.replace(record, execution=structs.replace(run, server=server)))
    return out


@pytest.mark.parametrize("seconds", [2.0, 10.0, 60.0, 600.0])
@pytest.mark.parametrize("rate", [0.058, -0.055, 0.021, 0.004])
def test_a_rate_is_found_whatever_the_length(seconds: float, rate: float) -> None:
    check, rates = checked(series(seconds, noise_s=0.0005, wall=lambda t: t * (1 + rate)))
    assert rates["wall"].rate == pytest.approx(rate, abs=0.0006)
    assert rates["wall"].steps == 0
    said = found(check).get("clock_rate")
    if abs(rate) * seconds < 0.02:  # a few milliseconds are within what reading the clocks can be wrong by
        return
    assert said is not None and said.level == ("invalid" if abs(rate) > 0.02 else "warning")
    assert f"{'faster' if rate > 0 else 'slower'} than the monotonic clock" in said.text


@pytest.mark.parametrize(
    ("course", "words"),
    [
        (lambda t: t + 3600.0 * (t > 20.0) - 7200.0 * (t > 40.0), "2 steps, the largest of -7.2e+03 s"),
        (lambda t: t + 3600.0 * (t > 20.0), "one step of +3.6e+03 s"),
    ],
)
def test_a_wall_clock_that_somebody_set_by_an_hour_is_no_clock_that_runs_wrong(course: Course, words: str) -> None:
    check, _ = checked(series(60.0, wall=course))
    said = found(check)
    assert list(said) == ["clock_step"]
    assert said["clock_step"].level == "warning" and words in said["clock_step"].text


def test_the_case_of_a_virtual_machine_that_is_set_every_35_seconds() -> None:
    check, rates = checked(series(700, noise_s=0.002, wall=steps(35, 1.8)))
    assert rates["wall"].steps == 19
    assert rates["wall"].largest_step_s == pytest.approx(1.8, abs=0.005)
    assert rates["wall"].rate == pytest.approx(1.8 * 19 / check.seconds, abs=1e-4)
    said = found(check)["clock_rate"]
    assert said.level == "invalid" and "19 steps of +1.8 s" in said.text
    assert "4.66 % too short" in said.text and "cannot be known" in said.text


def test_a_clock_that_runs_fast_and_is_set_back_keeps_its_rate_in_the_mean() -> None:
    check, rates = checked(series(350, wall=lambda t: 1.058 * t - 2.03 * (t // 35)))
    assert rates["wall"].steps == 9 and rates["wall"].stepped_s == pytest.approx(-9 * 2.03, abs=0.05)
    assert abs(rates["wall"].rate) < 0.01
    assert found(check)["clock_rate"].level == "warning"


def test_one_step_in_a_long_run_is_said_and_moves_nothing() -> None:
    check, _ = checked(series(1200, noise_s=0.001, wall=lambda t: t + (1.8 if t > 400 else 0.0)))
    said = found(check)
    assert set(said) == {"clock_step"} and said["clock_step"].level == "warning"
    assert "one step of +1.8 s" in said["clock_step"].text


def test_a_leap_second_is_a_step() -> None:
    _, rates = checked(series(900, wall=lambda t: t - (t > 450)))
    assert rates["wall"].steps == 1
    assert rates["wall"].largest_step_s == pytest.approx(-1.0, abs=0.01)


def test_a_monotonic_clock_that_all_others_leave_behind_is_the_one_that_is_slow() -> None:
    fast: Course = lambda t: 1.058 * t  # noqa: E731
    check, rates = checked(series(120, wall=fast, raw=fast, boottime=fast))
    assert check.slept_s == 0 and {round(rate.rate, 4) for rate in rates.values()} == {0.058}
    said = found(check)["clock_rate"]
    assert said.text.startswith("The monotonic clock, by which instants are counted, ran 5.48 % slower than the wall")
    assert said.level == "invalid"


def test_sleep_is_told_from_a_step() -> None:
    asleep: Course = lambda t: t + (300 if t > 50 else 0)  # noqa: E731
    check, rates = checked(series(100, wall=asleep, boottime=asleep))
    assert check.slept_s == pytest.approx(300, abs=0.01)
    assert abs(rates["wall"].gained_s) < 0.01 and rates["wall"].steps == 0
    said = found(check)
    assert set(said) == {"slept"} and said["slept"].level == "invalid"


@pytest.mark.parametrize("seed", range(40))
def test_clocks_as_they_usually_are_are_not_spoken_of(seed: int) -> None:
    """Slewing by NTP up to 500 ppm, crystals off by 100, readings torn by the scheduler, runs from 1 s to 3 h."""
    rng = random.Random(seed)
    seconds, every = rng.choice([1.0, 3.0, 20.0, 300.0, 10_800.0]), rng.choice([0.5, 0.5, 5.0])
    slew, crystal = rng.uniform(-5e-4, 5e-4), rng.uniform(-1e-4, 1e-4)
    check = check_clocks(
        series(
            seconds,
            every=every,
            noise_s=rng.choice([1e-6, 1e-3, 0.03]),
            seed=seed,
            wall=lambda t: t * (1 + crystal),
            raw=lambda t: t * (1 + slew),
            boottime=lambda t: t,
        )
    )
    assert check is None or found(check) == {}


def test_readings_as_coarse_as_on_windows_are_not_spoken_of() -> None:
    readings = ClockReadings(others={"wall": array("d")})
    for n in range(20):
        readings.t.append(0.015625 * int(n * 0.5 / 0.015625))
        readings.error.append(0.015625)
        readings.others["wall"].append(1.7e9 + 0.015625 * int((n * 0.5 + 0.009) / 0.015625))
    check, _ = checked(readings)
    assert found(check) == {}


def test_nothing_is_said_of_one_reading_or_none() -> None:
    assert check_clocks(ClockReadings()) is None
    assert check_clocks(series(0.0)) is None


def test_a_server_on_another_machine_decides_by_majority() -> None:
    """The wall clock runs 5.8 % fast. Whether latencies stand is what the server's clock tells."""
    check, _ = checked(series(60, wall=lambda t: 1.058 * t))
    jobs = one_by_one([2.0] * 30)
    stands = found(check, jobs, environment=ELSEWHERE)["clock_rate"]
    assert stands.level == "warning" and "by majority the wall clock is wrong, and latencies stand" in stands.text
    other = found(check, stamped(jobs, lambda t: 1.058 * t), environment=ELSEWHERE)
    assert set(other) == {"clock_rate"} and other["clock_rate"].level == "invalid"
    assert "by majority it is the monotonic clock that is wrong" in other["clock_rate"].text
    third = found(check, stamped(jobs, lambda t: 0.9 * t), environment=ELSEWHERE)
    assert third["clock_rate"].level == "invalid" and "agrees with neither" in third["clock_rate"].text


def test_a_server_beside_us_is_no_witness() -> None:
    check, _ = checked(series(60, wall=lambda t: 1.058 * t))
    jobs = one_by_one([2.0] * 30)
    for records in (jobs, stamped(jobs, lambda t: 1.058 * t)):
        said = found(check, records, environment=BESIDE)
        assert set(said) == {"clock_rate"} or records is jobs
        assert said["clock_rate"].level == "invalid" and "cannot be known" in said["clock_rate"].text


@pytest.mark.parametrize(("rate", "level"), [(0.058, "invalid"), (-0.03, "invalid"), (0.006, "warning")])
def test_a_server_whose_clock_alone_is_off(rate: float, level: str) -> None:
    check, _ = checked(series(60))
    said = found(check, stamped(one_by_one([2.0] * 30), lambda t: (1 + rate) * t), environment=ELSEWHERE)
    assert set(said) == {"server_clock_rate"} and said["server_clock_rate"].level == level
    assert said["server_clock_rate"].evidence["rate"] == pytest.approx(rate, abs=0.0005)
    assert "by majority it is the server's that is wrong" in said["server_clock_rate"].text


def test_without_our_own_clocks_the_two_are_only_said_to_differ() -> None:
    jobs = stamped(one_by_one([2.0] * 30), lambda t: 1.058 * t)
    made = summarise(manifest(jobs=30), jobs)
    (said,) = [finding for finding in made.findings if finding.code == "server_clock_rate"]
    assert said.level == "invalid" and "cannot be known" in said.text
    assert made.server_clock is not None and made.server_clock.rate == pytest.approx(0.058, abs=0.001)


@pytest.mark.parametrize("seed", range(20))
def test_delays_of_events_are_not_a_clocks_rate(seed: int) -> None:
    """An event comes later as the generator gets busier, up to 40 ms, and now and then by half a second."""
    rng = random.Random(seed)
    check, _ = checked(series(30))
    jobs = one_by_one([rng.uniform(0.02, 1.0) for _ in range(60)])
    last = jobs[-1].execution.done or 0.0

    def late(record: Record) -> Record:
        done = record.execution.done or 0.0
        wait = 0.04 * done / last + (0.5 if rng.random() < 0.05 else rng.uniform(0, 0.004))
        return structs.replace(record, execution=structs.replace(record.execution, done=done + wait))

    assert found(check, [late(record) for record in jobs], environment=ELSEWHERE) == {}


def test_of_several_processes_of_a_run_the_worst_is_spoken_of() -> None:
    good, bad = checked(series(60))[0], checked(series(30, wall=lambda t: 0.9 * t))[0]
    records = one_by_one([2.0] * 12)
    made = summarise(manifest(clocks=[good, bad, good], resumed=[10.0, 20.0]), records)
    (said,) = [finding for finding in made.findings if finding.code == "clock_rate"]
    assert "10 % slower" in said.text and said.level == "invalid"


def test_the_clocks_of_a_long_run_are_read_less_often_and_a_step_is_still_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "MOST", 64)
    shift = [0.0]
    watch = ClockWatch({"wall": lambda: time.monotonic() + shift[0]})
    for number in range(1_000):
        watch._read()
        shift[0] = 1.0 if number > 500 else 0.0
    assert len(watch.readings.t) < 64 and watch._every_s > clocks.EVERY_S
    assert all(
        len(column) == len(watch.readings.t) for column in (watch.readings.error, *watch.readings.others.values())
    )
    check = check_clocks(watch.end())
    assert check is not None and check.rates[0].gained_s == pytest.approx(1.0, abs=0.01)
    assert check.rates[0].steps == 1
