"""The parts of a job that Locust's table shows: what is known, on the right clock, and nothing else."""

from __future__ import annotations

import pytest

from comfyload.app.library.parts import PARTS, parts_of
from comfyload.record.model import Execution, Failure, ServerTimes

DONE = Execution(
    outcome="completed",
    sent=10.5,
    acknowledged=10.6,
    done=14.0,
    server=ServerTimes(create_ms=1_800_000_000_000, start_ms=1_800_000_001_000, end_ms=1_800_000_003_250),
)


def test_a_job_s_parts_are_its_durations() -> None:
    parts = parts_of(DONE, called=10.0, returned=14.2)
    assert parts == pytest.approx({"submit": 0.1, "wait": 1.0, "execution": 2.25, "total": 4.0})
    assert list(parts) == list(PARTS)


def test_what_is_not_known_is_left_out() -> None:
    refused = Execution(outcome="failed", sent=1.0, done=1.5, failure=Failure(kind="validation"))
    assert parts_of(refused, called=1.0, returned=2.0) == {"total": 0.5}


def test_stamps_that_cannot_be_are_left_out() -> None:
    """The server says that it worked for an hour on a job that we waited four seconds for."""
    odd = ServerTimes(create_ms=1_800_000_000_000, start_ms=1_800_000_000_100, end_ms=1_800_003_600_000)
    parts = parts_of(Execution(outcome="completed", sent=10.0, acknowledged=10.1, done=14.0, server=odd), 10.0, 14.0)
    assert "execution" not in parts and parts["wait"] == pytest.approx(0.1)


def test_the_total_of_a_job_without_an_end_is_how_long_the_call_took() -> None:
    assert parts_of(Execution(outcome="timed_out"), called=1.0, returned=3.5) == {"total": 2.5}
