"""The sampler keeps its schedule, outlives what fails under it, and says once what is missing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comfyload_probe import sampler as samplers
from comfyload_probe.gpus import open_gpus
from comfyload_probe.sampler import GIVES_UP_AFTER, Sampler, rss_bytes
from tests.pack.standin import Driver

SCHEMA = Path(samplers.__file__).with_name("schema.json")

Rows = list[dict[str, Any]]


class Card:
    """Stands in for Gpus: what it does when it is read is up to the test."""

    backend = "nvml"

    def __init__(self, read: Callable[[], list[dict[str, Any]]] = list) -> None:
        self.why = ""
        self.read = read


class Sink:
    """Keeps rows, and wakes whoever waits for some number of them."""

    def __init__(self, fails: bool = False) -> None:
        self.rows: Rows = []
        self.fails = fails
        self._changed = threading.Condition()

    def emit(self, event: str, *, at: float | None = None, **fields: Any) -> None:
        with self._changed:
            self.rows.append({"event": event, "at": at, **fields})
            self._changed.notify_all()
        if self.fails:
            raise OSError("the disk is full")

    def named(self, event: str) -> Rows:
        return [row for row in self.rows if row["event"] == event]

    def wait(self, event: str, number: int = 1) -> Rows:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.named(event)) >= number, 10), self.rows
        return self.named(event)


class Schedule:
    """A clock that the waits of a sampler move, and that a reading may move too; ends the sampler at `end`."""

    def __init__(self, end: float) -> None:
        self.now, self.end = 50.0, 50.0 + end

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self.now >= self.end


def played(sink: Sink, card: Any, hz: float, schedule: Schedule) -> list[float]:
    """The instants of the samples, without any thread."""
    sampler = Sampler(sink.emit, lambda: 3, card, hz, clock=schedule)
    sampler._stopping = schedule  # type: ignore[assignment]
    sampler._run()
    return [row["at"] - 50 for row in sink.named("sample")]


def test_it_keeps_an_absolute_schedule_however_long_a_reading_takes() -> None:
    schedule = Schedule(3)

    def read() -> list[dict[str, Any]]:
        schedule.now += 0.3
        return []

    assert played(Sink(), Card(read), 2, schedule) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])


def test_what_a_slow_reading_missed_is_skipped_and_not_caught_up() -> None:
    schedule = Schedule(5)
    takes = iter([0.1, 1.7, *[0.1] * 20])

    def read() -> list[dict[str, Any]]:
        schedule.now += next(takes)
        return []

    assert played(Sink(), Card(read), 2, schedule) == pytest.approx([0, 0.5, 2.5, 3, 3.5, 4, 4.5])


def test_a_row_holds_the_queue_the_process_and_the_gpus(driver: Driver) -> None:
    driver.say(pcie_ms=20)
    sink = Sink()
    gpus = open_gpus(driver.environ)
    sampler = Sampler(sink.emit, lambda: 4, gpus, 50)
    before = time.perf_counter()
    sampler.start()
    sampler.start()
    row = sink.wait("sample", 3)[0]
    was_running = sampler.running
    sampler.stop()
    assert (was_running, sampler.running) == (True, False)
    assert before <= row["at"] <= time.perf_counter()
    assert row["queue_depth"] == 4
    assert row["gpus"][0]["utilisation_percent"] == 97
    assert row["process"]["rss_bytes"] > 2**20
    assert row["process"]["cpu_s"] > 0
    assert (sampler.errors, sink.named("probe.problem")) == (0, [])
    assert sampler.last is not None and sampler.last >= before


def test_a_row_is_what_the_schema_says(driver: Driver) -> None:
    driver.say(count=2, throttle_0=0x44)
    sink = Sink()
    played(sink, open_gpus(driver.environ), 1, Schedule(1))
    (row,) = sink.named("sample")
    of_every_row = {
        "schema": 1,
        "timestamp": "2026-11-23T12:00:00.000000Z",
        "boot": "00c0ffee",
        "seq": 1,
        "mono_s": row.pop("at"),
    }
    jsonschema.validate({**of_every_row, **row}, json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_at_zero_hertz_nothing_is_read() -> None:
    sampler = Sampler(Sink().emit, lambda: 0, Card(), 0)  # type: ignore[arg-type]
    sampler.start()
    assert not sampler.running
    sampler.stop()


def test_a_reading_that_fails_is_said_once_and_the_next_ones_come() -> None:
    schedule = Schedule(10)
    outcomes = iter([*[KeyError("x")] * 3, None, ValueError("y"), *[None] * 30])

    def read() -> list[dict[str, Any]]:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return []

    sink = Sink()
    assert len(played(sink, Card(read), 1, schedule)) == 6
    (problem,) = sink.named("probe.problem")
    assert problem["level"] == "warning"
    assert problem["error"] == "a reading failed; the sampler goes on: KeyError: 'x'"


def test_a_sampler_that_only_fails_ends_loudly() -> None:
    def read() -> list[dict[str, Any]]:
        raise RuntimeError("no")

    sink = Sink()
    schedule = Schedule(1000)
    played(sink, Card(read), 1, schedule)
    assert schedule.now < 50 + GIVES_UP_AFTER + 1
    assert [row["level"] for row in sink.named("probe.problem")] == ["warning", "error"]
    assert "stops after 20 failures in a row" in sink.rows[-1]["error"]


def test_an_emit_that_fails_does_not_get_out_of_the_thread() -> None:
    sampler = Sampler(Sink(fails=True).emit, lambda: 0, Card(), 1000)  # type: ignore[arg-type]
    sampler.start()
    assert sampler._thread is not None
    sampler._thread.join(10)
    assert sampler.errors == GIVES_UP_AFTER


def test_a_gpu_that_is_lost_is_said_once_each_time(driver: Driver) -> None:
    sink = Sink()
    sampler = Sampler(sink.emit, lambda: None, open_gpus(driver.environ, lambda: 0.0), 200)
    sampler.start()
    try:
        for times in (1, 2):
            driver.fails("all", 15)
            sink.wait("probe.problem", times)
            seen = len(sink.rows)
            sink.wait("sample", seen + 3)
            assert len(sink.named("probe.problem")) == times
            assert sink.named("sample")[-1]["gpus"][0]["power_w"] is None
            driver.fails("all", None)
            sink.wait("sample", len(sink.rows) + 3)
    finally:
        sampler.stop()
    assert {row["error"] for row in sink.named("probe.problem")} == {"GPU readings are missing: nvml: GPU is lost"}


def test_a_machine_without_a_gpu_is_no_problem() -> None:
    card = Card()
    card.backend, card.why = "none", "nvml: libnvidia-ml.so.1 cannot be loaded"
    sink = Sink()
    played(sink, card, 1, Schedule(3))
    assert sink.named("probe.problem") == []


def test_a_driver_that_hangs_holds_up_neither_the_end_nor_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "STOP_PATIENCE_S", 0.01)
    let = threading.Event()

    def read() -> list[dict[str, Any]]:
        let.wait(10)
        return []

    sampler = Sampler(Sink().emit, lambda: 0, Card(read), 10)  # type: ignore[arg-type]
    sampler.start()
    sampler.stop()
    assert sampler.running
    assert sampler.last is None
    let.set()


def test_memory_is_known_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    known = rss_bytes()
    monkeypatch.setitem(sys.modules, "psutil", None)
    alone = rss_bytes()
    assert known and alone
    assert abs(known - alone) < 0.2 * known
