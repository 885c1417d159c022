"""Servers that are alike are seldom called different, whatever the shape of their times; different ones are found."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from comfyload.judge.findings.fleet import apart
from comfyload.judge.summary import summarise
from comfyload.record.model import Attempt, Record, Server, ServerTimes
from tests.error_rates.fleet import SHAPES, share_found
from tests.unit.judge_runs import FACTS, job, manifest

FLEET = [
    Server(url="http://a/", name="a", comfyui_version="0.33.0", argv=["main.py", "--port", "1"], queue_at_start=0),
    Server(url="http://b/", name="b", comfyui_version="0.33.0", argv=["main.py", "--port", "2"], queue_at_start=0),
]


@pytest.mark.parametrize("jobs", [8, 30])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("servers", [2, 4])
def test_servers_that_are_alike_are_called_different_in_at_most_a_twentieth_of_the_runs(
    shape: str, jobs: int, servers: int
) -> None:
    most = 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    assert share_found(SHAPES[shape], jobs, servers=servers, times=200, seed=jobs) <= most


@pytest.mark.parametrize(
    ("shape", "slower", "jobs"), [("lognormal", 2.0, 60), ("lopsided", 1.3, 30), ("drifting", 1.6, 200)]
)
def test_a_slower_server_is_mostly_found(shape: str, slower: float, jobs: int) -> None:
    assert share_found(SHAPES[shape], jobs, servers=2, times=100, slower=slower) > 0.8


def test_a_median_between_two_kinds_of_jobs_decides_nothing() -> None:
    """Where half of the jobs take five times as long, the median lies anywhere between: no factor is read from it."""
    assert share_found(SHAPES["bimodal"], 60, servers=2, times=100, slower=1.5) <= 0.05


def test_few_jobs_say_nothing_however_far_they_are_apart() -> None:
    few = {"a": np.array([1.0, 1.1, 1.0, 1.05]), "b": np.array([9.0, 9.1, 9.2, 9.0])}
    assert apart({"job": few}) == []
    more = {name: np.tile(seconds, 3) for name, seconds in few.items()}
    (found,) = apart({"job": more})
    assert (found.slower, found.faster, found.n) == ("b", "a", (12, 12))
    assert found.low <= found.ratio <= found.high and found.ratio == pytest.approx(8.9, rel=0.05)


def test_a_difference_below_five_percent_is_no_finding() -> None:
    rng = np.random.default_rng(0)
    of = {name: scale * rng.lognormal(0.0, 0.001, 200) for name, scale in (("a", 1.0), ("b", 1.03))}
    assert apart({"job": of}) == []


def on(server: str, record: Record) -> Record:
    run = record.execution
    attempt = Attempt(server=f"http://{server}/", prompt_id=record.prompt_id, outcome=run.outcome, sent=run.sent)
    return structs.replace(record, execution=structs.replace(run, attempts=[attempt]))


def side_by_side(a: list[float], b: list[float], ahead_ms: int = 0) -> list[Record]:
    """Jobs of these seconds, one after the other on each of two servers at once; the clock of b is ahead."""
    found, index = list[Record](), 0
    for server, seconds in (("a", a), ("b", b)):
        due = 0.0
        for length in seconds:
            record = on(server, job(index, due, length))
            times = record.execution.server
            if server == "b" and times.create_ms and times.start_ms and times.end_ms:
                moved = ServerTimes(
                    create_ms=times.create_ms + ahead_ms,
                    start_ms=times.start_ms + ahead_ms,
                    end_ms=times.end_ms + ahead_ms,
                )
                record = structs.replace(record, execution=structs.replace(record.execution, server=moved))
            found.append(record)
            index, due = index + 1, due + length
    return sorted(found, key=lambda record: record.execution.done or 0.0)


def test_two_servers_side_by_side_are_two_serial_servers_and_not_one_that_overlaps() -> None:
    lines = side_by_side([10.0] * 12, [10.0] * 12)
    two = summarise(manifest(24, 2, servers=FLEET), lines)
    codes = {finding.code for finding in two.findings}
    assert not codes & {"overlap", "servers_differ", "servers_unlike", "server_clock_rate", "cold_head", "drift"}
    assert two.saturation.server_busy == pytest.approx(1.0, abs=0.02) and two.saturation.server_saturated
    assert [row.busy for row in two.servers.values()] == [pytest.approx(1.0, abs=0.02)] * 2
    one = summarise(manifest(24, 2), lines)
    assert "overlap" in {finding.code for finding in one.findings}
    assert one.servers == {} and two.server_clock is None


def test_clocks_of_two_servers_are_never_compared() -> None:
    """That of b is an hour ahead: neither server ran faster, overlapped, or waited for it."""
    near = summarise(manifest(24, 2, servers=FLEET), side_by_side([10.0] * 12, [10.0] * 12))
    far = summarise(manifest(24, 2, servers=FLEET), side_by_side([10.0] * 12, [10.0] * 12, ahead_ms=3_600_000))
    assert far.summary == near.summary and far.servers == near.servers
    assert [finding.code for finding in far.findings] == [finding.code for finding in near.findings]


def test_where_one_server_is_full_and_the_other_idle_whether_more_would_wait_is_not_said() -> None:
    found = summarise(manifest(14, 2, servers=FLEET), side_by_side([10.0] * 12, [10.0] * 2)).saturation
    assert found.server_busy is not None and found.server_busy < 0.7 and found.server_saturated is None


def test_a_slow_server_is_neither_a_drift_nor_a_cold_start() -> None:
    """In the order of completion, fast and slow jobs alternate, and at the end only slow ones come."""
    run = summarise(manifest(60, 2, servers=FLEET), side_by_side([2.0] * 40, [10.0] * 20))
    codes = [finding.code for finding in run.findings]
    assert "servers_differ" in codes and not {"drift", "cold_head"} & set(codes)
    (differ,) = [finding for finding in run.findings if finding.code == "servers_differ"]
    assert differ.evidence["ratio"] == pytest.approx(5.0, rel=0.01)
    assert "b takes 5" in differ.text


def test_a_cold_start_and_a_drift_of_one_server_name_it() -> None:
    rng = np.random.default_rng(1)
    steady = list(10.0 + rng.normal(0.0, 0.02, 30))
    cold = summarise(manifest(60, 2, servers=FLEET), side_by_side(steady, [30.0, *steady[1:]]))
    (found,) = [finding for finding in cold.findings if finding.code == "cold_head"]
    assert found.text.startswith("b: the first counted job took 200 % longer")
    slower = [seconds * (1 + 0.01 * place) for place, seconds in enumerate(steady)]
    (drift,) = [
        finding
        for finding in summarise(manifest(60, 2, servers=FLEET), side_by_side(slower, steady)).findings
        if finding.code == "drift"
    ]
    assert drift.text.startswith("a: jobs became ")


def test_files_of_one_name_on_two_servers_are_two_files() -> None:
    lines = side_by_side([10.0] * 12, [10.0] * 12)
    same = [
        structs.replace(
            record,
            execution=structs.replace(
                record.execution,
                outputs=[structs.replace(record.execution.outputs[0], files=[f"output/x_{record.index % 12:05}_.png"])],
            ),
        )
        for record in lines
    ]
    two = summarise(manifest(24, 2, servers=FLEET), same)
    assert two.images_by_type == {"output": 24} and "repeated_files" not in {f.code for f in two.findings}
    assert "repeated_files" in {finding.code for finding in summarise(manifest(24, 2), same).findings}


def test_version_flags_and_hardware_that_differ_are_named() -> None:
    other = structs.replace(
        FLEET[1], comfyui_version="0.32.0", argv=["main.py", "--port", "2", "--lowvram"], devices=[{"name": "B"}]
    )
    first = structs.replace(FLEET[0], devices=[{"name": "A"}])
    run = summarise(manifest(24, 2, servers=[first, other]), side_by_side([10.0] * 12, [10.0] * 12))
    (found,) = [finding for finding in run.findings if finding.code == "servers_unlike"]
    assert found.evidence["differences"] == [
        "ComfyUI 0.32.0 on b, 0.33.0 on a",
        "flags --lowvram on b, none on a",
        "GPU B on b, A on a",
    ]


def test_a_swap_of_models_is_counted_on_its_own_server() -> None:
    """Two workflows, each on a server of its own, are never switched between, however they end in turn."""
    lines = [
        structs.replace(record, workflow="book" if record.execution.attempts[0].server == "http://a/" else "other")
        for record in side_by_side([10.0] * 12, [10.0] * 12)
    ]
    run = summarise(manifest(24, 2, servers=FLEET, workflows=[FACTS, structs.replace(FACTS, name="other")]), lines)
    assert run.after.switched_s.n == 0 and run.after.same_s.n == 22
