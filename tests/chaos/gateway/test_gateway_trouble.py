"""A sample of the gateway's trouble: some points to be killed at, some faults, one overload of each kind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from comfyload.app.faults import Scenario
from comfyload.gateway.ledger import TrafficLedger
from comfyload.gateway.service import Gateway
from tests.chaos.gateway.__main__ import WORSE, broken_rules
from tests.chaos.gateway.faults import compared
from tests.chaos.gateway.kills import DYING, play, points_of
from tests.chaos.gateway.overload import SHAPES, overload
from tests.chaos.points import Point

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="signals and forks are of POSIX"),
]
SAMPLE: dict[str, list[Point]] = {
    "gateway": [
        ("store add: done", 2),
        ("POST prompt: not sent", 1),
        ("POST prompt: answered", 2),
        ("event execution_start: seen", 1),
        ("store end: done", 1),
        ("line of a job that ended: half written", 2),
        ("line of a job that ended: written", 1),
        ("client's event execution_success: not sent", 1),
        ("client's cancel: not answered", 1),
    ],
    "server": [("POST prompt: not answered", 1), ("event execution_start: not sent", 1), ("history: not written", 1)],
    "both": [("POST prompt: answered", 1), ("event executed: seen", 1)],
}


@pytest.mark.parametrize("dying", DYING)
def test_each_job_ends_once_whatever_dies(dying: str, tmp_path: Path) -> None:
    points = points_of(tmp_path, dying)
    assert len(points) > 60
    assert set(SAMPLE[dying]) <= set(points), "the names of points have changed"
    said = [line for point in SAMPLE[dying] for line in play(tmp_path, dying, point)]
    assert all(line.endswith((": held", ": NOT REACHED")) for line in said), said
    assert sum(line.endswith(": held") for line in said) > len(said) // 2


@pytest.mark.parametrize("scenario", ["steady", "crash", "restart"])
def test_a_script_fares_no_worse_than_the_python_client(scenario: Scenario, tmp_path: Path) -> None:
    found = asyncio.run(compared(scenario, tmp_path, 40, 0.2, 6.0, struck=1))
    python, gateway = found["python"], found["gateway"]
    # Of forty jobs, one more or less is chance.
    assert gateway.share >= python.share - WORSE - 1.0 / gateway.of
    assert gateway.lost == 0
    if scenario == "steady":
        assert gateway.in_time == gateway.of


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_accepted_is_done_in_time(shape: str, tmp_path: Path) -> None:
    load = overload(tmp_path, shape)
    assert broken_rules([load]) == []
    assert load.in_time["calm"] == load.offered["calm"], "who does not flood is not refused"
    assert load.refused[503] > 50


def test_retries_stay_within_their_budget(tmp_path: Path) -> None:
    load = overload(tmp_path, "steady", failing=0.3)
    assert 10 < load.retries <= load.allowed


def test_the_play_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a play are forked from this one, and do wrong what is done wrong here."""
    monkeypatch.setattr(TrafficLedger, "settle", TrafficLedger.write)
    said = play(tmp_path, "gateway", ("line of a job that ended: written", 1))
    assert any(line.endswith("has 2 records") for line in said), said
    monkeypatch.setattr(TrafficLedger, "settle", lambda self, owed: None)
    said = play(tmp_path, "gateway", ("store end: done", 1))
    assert any(line.endswith("has 0 records") for line in said), said
    monkeypatch.undo()
    monkeypatch.setattr(Gateway, "take_up", Gateway.add)
    said = play(tmp_path, "gateway", ("event execution_start: seen", 1))
    assert any("was executed 2 times" in line for line in said), said
