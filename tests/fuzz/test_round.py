"""A short round of every target; `make fuzz` is the long one."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.mutate import Mutations
from tests.fuzz.round import fuzz, trouble
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in TARGETS if name != "pages"])
def test_nothing_is_found_in_a_short_round(name: str) -> None:
    done = fuzz(TARGETS[name], Random(20261127), executions=500, seconds=0.2)
    assert done.executions > 0
    assert not done.found, "\n".join(found.text for found in done.found.values())


def _raises(data: bytes) -> None:
    if b"NaN" in data:
        raise KeyError("a decoder that forgot something")
    if b"null" in data:
        raise ValueError("its own")


def test_an_error_that_is_not_the_targets_own_is_found_and_its_own_is_not() -> None:
    target = Target(name="x", what="x", feed=_raises, errors=(ValueError,), seeds=[b'{"a": [1, 2]}'])
    done = fuzz(target, Random(1), executions=500, seconds=10)
    assert done.executions == 500
    assert [kind.partition(" ")[0] for kind in done.found] == ["KeyError"]
    assert b"NaN" in next(iter(done.found.values())).data
    assert trouble(target, b"null") is None


def test_mutations_follow_from_the_seed_alone_and_reach_keys_values_and_bytes() -> None:
    seed = b'{"key": [1, {"in": "x"}]}'
    first, second = (
        [supply.next() for _ in range(2000)] for supply in (Mutations([seed], Random(5)) for _ in range(2))
    )
    assert first == second
    assert len(set(first)) > 1000
    for odd in (b"NaN", b"1e400", b"9" * 5000, b'"\\ud83d"', b"\xff\xfe", b"[" * 990, b'{"key": null}'):
        assert any(odd in data for data in first), odd
