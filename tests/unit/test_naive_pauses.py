"""When retries as scripts have them try again, and when they give up: the same for sockets and for the simulation."""

from __future__ import annotations

import pytest

from comfyload.advise.naive_client import Naive


def test_each_attempt_has_its_pause_and_the_last_has_none() -> None:
    naive = Naive(name="x", attempts=4, waits_s=(15.0, 45.0))
    assert [naive.pause_s(made, 0.0, lambda: 0.5) for made in (1, 2, 3, 4)] == [15.0, 45.0, 45.0, None]
    assert Naive(name="never gives up", attempts=None).pause_s(1000, 1e6, lambda: 0.5) == 0.0


def test_jitter_adds_to_a_pause_up_to_the_longest() -> None:
    naive = Naive(name="x", attempts=9, waits_s=(1.0, 5.0), jitter_s=10.0)
    assert naive.pause_s(1, 0.0, lambda: 0.1) == pytest.approx(2.0)
    assert naive.pause_s(1, 0.0, lambda: 0.9) == 5.0


def test_no_attempt_begins_later_than_it_may() -> None:
    naive = Naive(name="x", attempts=9, waits_s=(5.0,), within_s=45.0)
    assert naive.pause_s(3, 40.0, lambda: 0.5) == 5.0
    assert naive.pause_s(3, 40.1, lambda: 0.5) is None
