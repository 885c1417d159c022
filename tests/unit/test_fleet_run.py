"""Runs over several servers, on virtual time: who gets which job, what each comes to, and what happens if one dies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comfyload.errors import UsageError
from comfyload.record.model import Record
from comfyload.record.plan import Closed, Plan
from comfyload.sim import Server
from comfyload.workflow.preflight import PreflightFailed
from tests.support.fleet import codes, fleet_run, jobs_of, judged, records
from tests.support.rig import sleeper

DRAWS: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "t/y"}},
}
"""A job that needs no class but ComfyUI's own."""


def slow_and_fast() -> dict[str, Server]:
    return {"fast": Server(speed=1.0), "slow": Server(speed=0.4)}


def test_each_job_runs_once_on_one_server_and_its_record_names_it(tmp_path: Path) -> None:
    servers = slow_and_fast()
    run = fleet_run(tmp_path, servers)
    assert [record.execution.outcome for record in records(tmp_path / "run")] == ["completed"] * 40
    for name, server in servers.items():
        here = [r for r in records(tmp_path / "run") if r.execution.attempts[-1].server == f"http://{name}/"]
        assert {r.prompt_id for r in here} == {truth.prompt_id for truth in server.truth}
        assert len(server.truth) == len(here) == jobs_of(run)[name]
    assert sum(jobs_of(run).values()) == 40
    assert [server.name for server in run.manifest.fleet] == ["fast", "slow"]
    assert run.manifest.server == run.manifest.fleet[0]


def test_the_least_backlog_gives_a_fast_server_more_and_in_turn_gives_both_the_same(tmp_path: Path) -> None:
    least = fleet_run(tmp_path, slow_and_fast())
    assert 2.0 < jobs_of(least)["fast"] / jobs_of(least)["slow"] < 3.0
    (tmp_path / "turn").mkdir()
    in_turn = fleet_run(tmp_path / "turn", slow_and_fast(), dispatch="round-robin")
    assert jobs_of(in_turn) == {"fast": 20, "slow": 20}
    rates = [run.summary.statistics["jobs_per_minute"].value or 0.0 for run in (least, in_turn)]
    assert rates[0] > 1.3 * rates[1]


def test_weights_are_kept_in_turn(tmp_path: Path) -> None:
    servers = {"a": Server(), "b": Server()}
    run = fleet_run(tmp_path, servers, dispatch="round-robin", tables={"a": {"weight": 3.0}})
    assert jobs_of(run) == {"a": 30, "b": 10}


def test_four_equal_servers_share_a_load_evenly_and_are_called_alike(tmp_path: Path) -> None:
    servers = {f"gpu{number}": Server() for number in range(1, 5)}
    run = fleet_run(tmp_path, servers, plan=Plan(load=Closed(concurrency=8), jobs=80, seed=1))
    assert all(jobs == 20 for jobs in jobs_of(run).values())
    assert not codes(run) & {"servers_differ", "servers_unlike", "overlap", "repeated_files", "server_clock"}
    assert run.summary.valid
    total = run.summary.statistics["jobs_per_minute"].value
    each = [row.jobs_per_minute.value or 0.0 for row in run.summary.servers.values()]
    assert sum(each) == pytest.approx(total)
    assert sum(row.share or 0.0 for row in run.summary.servers.values()) == pytest.approx(1.0)


def test_a_workflow_stays_where_its_models_are(tmp_path: Path) -> None:
    graphs = {"one": sleeper(1.0), "two": sleeper(1.0)}
    plan = Plan(load=Closed(concurrency=2), jobs=60, seed=3)

    def switches(folder: str, dispatch: str) -> int:
        (tmp_path / folder).mkdir()
        fleet_run(tmp_path / folder, {"a": Server(), "b": Server()}, graphs=graphs, plan=plan, dispatch=dispatch)
        found, before = 0, dict[str, str]()
        for record in sorted(records(tmp_path / folder / "run"), key=lambda r: r.execution.started or 0.0):
            server = record.execution.attempts[-1].server
            found += before.get(server, record.workflow) != record.workflow
            before[server] = record.workflow
        return found

    assert switches("affinity", "affinity") < switches("turn", "round-robin")


def test_a_pinned_workflow_runs_on_the_server_it_names_or_on_those_with_its_tag(tmp_path: Path) -> None:
    servers = {"a": Server(), "b": Server(), "c": Server()}
    fleet_run(
        tmp_path,
        servers,
        graphs={"one": sleeper(0.5), "two": sleeper(0.5)},
        pins={"one": "a"},
        tables={"b": {"tags": ["two"]}, "c": {"tags": ["two"]}},
        dispatch="pinned",
    )
    where: dict[str, set[str]] = {"one": set(), "two": set()}
    for record in records(tmp_path / "run"):
        where[record.workflow].add(record.execution.attempts[-1].server)
    assert where == {"one": {"http://a/"}, "two": {"http://b/", "http://c/"}}


@pytest.mark.parametrize(
    ("pins", "message"), [({}, "job names no server"), ({"job": "gpu9"}, "no server has the name or the tag 'gpu9'")]
)
def test_a_pin_without_a_server_is_refused(pins: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        fleet_run(tmp_path, {"a": Server(), "b": Server()}, pins=pins, dispatch="pinned")


# --- a server that lacks a class


def test_a_server_that_lacks_a_class_is_named_and_the_others_get_its_jobs(tmp_path: Path) -> None:
    servers = {"a": Server(), "b": Server(), "c": Server()}
    graphs = {"sleeps": sleeper(0.5), "draws": DRAWS}
    run = fleet_run(tmp_path, servers, graphs=graphs, lacks={"b": "SimSleep"}, dispatch="round-robin")
    where: dict[str, set[str]] = {"sleeps": set(), "draws": set()}
    for record in records(tmp_path / "run"):
        assert record.execution.outcome == "completed"
        where[record.workflow].add(record.execution.attempts[-1].server)
    assert where == {"sleeps": {"http://a/", "http://c/"}, "draws": {"http://a/", "http://b/", "http://c/"}}
    (noted,) = [finding for finding in run.summary.findings if finding.code == "preflight"]
    assert noted.text.startswith("B gets no jobs of sleeps: ") and "the server has no class SimSleep" in noted.text


def test_a_class_that_no_server_has_refuses_the_run_with_all_their_names(tmp_path: Path) -> None:
    lacks = {"a": "SimSleep", "b": "SimSleep"}
    with pytest.raises(PreflightFailed) as refused:
        fleet_run(tmp_path, {"a": Server(), "b": Server()}, lacks=lacks)
    assert "a: job " in refused.value.message and "b: job " in refused.value.message
    assert not (tmp_path / "run").exists()


def test_a_pinned_server_that_lacks_a_class_refuses_the_run_though_another_has_it(tmp_path: Path) -> None:
    with pytest.raises(PreflightFailed, match="a: job "):
        fleet_run(
            tmp_path, {"a": Server(), "b": Server()}, lacks={"a": "SimSleep"}, pins={"job": "a"}, dispatch="pinned"
        )


# --- one dies


def test_one_server_dies_its_jobs_are_lost_and_the_others_get_the_rest(tmp_path: Path) -> None:
    async def kill(servers: Mapping[str, Server]) -> None:
        await asyncio.sleep(5.0)
        await servers["b"].stop()

    run = fleet_run(
        tmp_path, {"a": Server(), "b": Server()}, script=kill, plan=Plan(load=Closed(concurrency=4), jobs=60, seed=2)
    )
    ends = [(r.execution.attempts[-1].server, r.execution.outcome) for r in records(tmp_path / "run")]
    assert len(ends) == 60
    bad = [server for server, outcome in ends if outcome != "completed"]
    assert set(bad) == {"http://b/"} and 1 <= len(bad) <= 2  # those that it had; none was sent to it afterwards
    assert run.summary.servers["b"].failed == len(bad) and run.summary.servers["a"].failed == 0
    (out,) = [finding for finding in run.summary.findings if finding.code == "server_out"]
    assert "B:" in out.text or "b:" in out.text
    assert out.evidence["first_t"] == pytest.approx(5.0, abs=1.5)


def test_with_a_policy_the_jobs_of_a_dead_server_are_sent_again_elsewhere(tmp_path: Path) -> None:
    async def kill(servers: Mapping[str, Server]) -> None:
        await asyncio.sleep(5.0)
        await servers["b"].stop()

    (tmp_path / "retry.json").write_text('{"liveness_s": 20.0}')
    run = fleet_run(
        tmp_path,
        {"a": Server(), "b": Server()},
        script=kill,
        plan=Plan(load=Closed(concurrency=4), jobs=60, seed=2),
        policy=str(tmp_path / "retry.json"),
    )
    found = records(tmp_path / "run")
    assert all(record.execution.outcome == "completed" for record in found)
    again = [record for record in found if len(record.execution.attempts) > 1]
    assert again and all(_moved(record) for record in again)
    assert "server_out" in codes(run)


def _moved(record: Record) -> bool:
    first, last = record.execution.attempts[0].server, record.execution.attempts[-1].server
    return (first, last) == ("http://b/", "http://a/")


def test_where_no_server_works_jobs_fail_and_the_run_ends(tmp_path: Path) -> None:
    async def kill(servers: Mapping[str, Server]) -> None:
        await asyncio.sleep(3.0)
        for server in servers.values():
            await server.stop()

    fleet_run(
        tmp_path, {"a": Server(), "b": Server()}, script=kill, plan=Plan(load=Closed(concurrency=2), jobs=20, seed=2)
    )
    found = records(tmp_path / "run")
    assert len(found) == 20 and sum(record.execution.outcome == "completed" for record in found) < 20
    assert all(record.execution.failure is not None for record in found if record.execution.outcome != "completed")
    assert judged(tmp_path / "run").summary.summary["total_jobs"] == 20
