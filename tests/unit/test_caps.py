"""No command asks more of a server than it may: engine, session and campaigns under caps."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from typer.testing import CliRunner

from comfyload import clock
from comfyload.advise.saturation import Saturated
from comfyload.app.ab import Alternation, alternate
from comfyload.app.campaign import CampaignOptions, Cut
from comfyload.app.checklist import Round, run_rounds
from comfyload.app.locate import measured
from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import run
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.repeat import command
from comfyload.app.run.resume import resume
from comfyload.app.run.viewer import Viewer
from comfyload.app.saturate import saturate
from comfyload.cli import app_of
from comfyload.errors import ComfyloadError, NothingMeasured
from comfyload.judge.summary import Measured
from comfyload.record.model import Sent
from comfyload.record.plan import Closed, Open, Plan, Stage
from comfyload.record.run import RunReader
from comfyload.sim import Server
from tests.support.rig import sleeper
from tests.support.servers import in_thread
from tests.support.stalls import again_after_a_stall
from tests.unit.test_engine import drive

app = app_of()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with in_thread(lambda: Server(speed=200)) as (address, _):
        yield address


@pytest.fixture
def options(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.json").write_text(json.dumps(sleeper(1.0)), encoding="utf-8")
    return RunOptions(
        server=url,
        workflows=[WorkflowChoice(file="g.json")],
        plan=Plan(load=Closed(), jobs=12, warmup=1),
        run_dir="r",
        telemetry=False,
    )


def _sent(path: Path | str) -> int:
    return sum(isinstance(line, Sent) for line in RunReader(Path(path)).lines())


def _run(options: RunOptions) -> Measured:
    return measured(RunReader(clock.run(run(options, Viewer(), live=False))))


def _codes(found: Measured) -> dict[str, str]:
    return {finding.code: finding.text for finding in found.summary.findings}


@pytest.mark.parametrize(
    "load", [Closed(concurrency=3), Open(stages=[Stage(per_s=2.0)], arrivals="constant", max_in_flight=2)]
)
def test_an_engine_sends_no_more_than_is_admitted(load: Any) -> None:
    left = [7]

    def admits(jobs: int) -> bool:
        left[0] -= jobs
        return left[0] >= 0

    records, _ = drive(load, jobs=20, admits=admits)
    assert [record.execution.outcome for record in records] == ["completed"] * 7, "those that wait for a place too"


def test_a_book_is_sent_whole_or_not() -> None:
    admitted: list[int] = []

    def admits(jobs: int) -> bool:
        admitted.append(jobs)
        return len(admitted) <= 2

    records, _ = drive(Closed(), jobs=5, pages=3, admits=admits)
    assert (len(records), admitted) == (6, [3, 3, 3])


def test_an_open_load_does_not_wait_for_an_arrival_that_will_not_be_sent() -> None:
    left = iter([True, True, False])
    load = Open(stages=[Stage(per_s=1 / 3600)], arrivals="constant")
    records, _ = drive(load, jobs=5, admits=lambda _: next(left))
    assert [round(record.due) for record in records] == [0, 3600]


def test_jobs_and_time_are_counted_over_all_runs_of_a_command() -> None:
    async def main() -> None:
        caps = Caps(RunOptions(max_jobs=5, max_time_s=60.0))
        assert caps.admits(3) and caps.admits(2)
        assert not caps.admits(1)
        assert caps.reached == "--max-jobs 5 was reached"
        timed = Caps(RunOptions(max_time_s=60.0))
        await asyncio.sleep(59.0)
        assert timed.admits(1) and timed.left_s == 1.0
        await asyncio.sleep(1.0)
        assert not timed.admits(1) and timed.reached == "--max-time 60s was reached"
        assert Caps(RunOptions()).left_s is None

    clock.run_virtual(main())


def test_a_run_that_reaches_its_cap_says_so_and_is_valid(options: RunOptions) -> None:
    found = _run(structs.replace(options, max_jobs=6))
    assert _sent("r") == 6, "the one to warm up is one of them"
    assert found.manifest.end == "capped"
    assert _codes(found)["capped"] == "--max-jobs 6 was reached: 5 of 12 planned jobs were offered."
    assert "records_missing" not in _codes(found) and "ended_early" not in _codes(found)


def test_a_cap_that_is_just_enough_cuts_nothing(options: RunOptions) -> None:
    found = _run(structs.replace(options, max_jobs=13))
    assert (found.manifest.end, _sent("r")) == ("complete", 13)


def test_what_is_admitted_is_sent_though_it_is_held_back_when_the_cap_is_reached(options: RunOptions) -> None:
    plan = structs.replace(options.plan, load=Closed(concurrency=3), max_server_queue=1)
    found = _run(structs.replace(options, plan=plan, max_jobs=6))
    assert found.manifest.end == "capped" and found.summary.summary["completed"] == 5
    assert "dropped_arrivals" not in _codes(found)


def test_time_ends_a_run_between_two_arrivals(options: RunOptions) -> None:
    slow = structs.replace(options.plan, load=Open(stages=[Stage(per_s=0.01)], arrivals="constant"), warmup=0)
    found = _run(structs.replace(options, plan=slow, max_time_s=0.6))
    assert found.manifest.end == "capped" and _sent("r") <= 1
    assert _codes(found)["capped"].startswith("--max-time 0.6s was reached: ")


def test_what_a_cap_cut_can_be_resumed_and_counts_anew(options: RunOptions) -> None:
    path = clock.run(run(structs.replace(options, max_jobs=6), Viewer(), live=False))
    assert clock.run(resume(path, RunOptions(), Viewer()))
    assert (RunReader(path).manifest.end, _sent(path)) == ("capped", 12)
    assert clock.run(resume(path, RunOptions(max_jobs=50), Viewer()))
    assert (RunReader(path).manifest.end, _sent(path)) == ("complete", 13)
    assert not clock.run(resume(path, RunOptions(), Viewer())), "there is nothing left"


def test_the_command_that_repeats_a_run_has_its_caps() -> None:
    words = command(RunOptions(server="s", plan=Plan(max_server_queue=3), max_jobs=9, max_time_s=90.0))
    assert words == [
        "comfyload",
        "run",
        "--server",
        "s",
        "--max-server-queue",
        "3",
        "--max-jobs",
        "9",
        "--max-time",
        "90s",
    ]


def _search(settings: CampaignOptions) -> Saturated:
    return clock.run(saturate(settings, lambda _: Viewer(), Path("s")))


def test_saturate_says_what_it_could_not_run(options: RunOptions) -> None:
    settings = CampaignOptions(
        run=structs.replace(options, run_dir=None, max_jobs=9), jobs=12, confirm_jobs=3, replicates=20
    )
    with pytest.raises(Cut, match=r"^--max-jobs 9 was reached \(1 in flight\) \(allow more"):
        _search(settings)
    assert _sent("s/c1") == 9


def test_saturate_that_is_cut_writes_what_it_found_and_that_it_was_cut(options: RunOptions) -> None:
    words = ["saturate", "--server", options.server, "--workflow", "g.json", "-n", "12", "--max-jobs", "9", "--quiet"]
    done = CliRunner().invoke(app, [*words, "--no-telemetry", "--run-dir", "s", "--output", "knee.json"])
    assert isinstance(done.exception, Cut)
    found = json.loads(Path("knee.json").read_text(encoding="utf-8"))
    assert found["cut"] == "--max-jobs 9 was reached (1 in flight)"
    assert f"{found['cut']}: no rate follows from these runs." in found["findings"]
    assert found["paths"] == [str(Path("s/c1"))] and [step["concurrency"] for step in found["steps"]] == [1]
    assert found["deploy_per_minute"] is found["sla_rate_per_minute"] is found["capacity_per_minute"] is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--metrics-log", "nowhere.ndjson"], "no log at nowhere.ndjson"),
        (["--gate", "p95_latency <= 3"], "p95_latency"),
        (["--gate", "p95_latency_s <= 1 * baseline"], "baseline"),
    ],
)
def test_what_a_run_is_judged_by_is_looked_at_before_the_load(options: RunOptions, words: list[str], why: str) -> None:
    load = ["run", "--server", options.server, "--workflow", "g.json", "-n", "2", "--run-dir", "r", "-q"]
    done = CliRunner().invoke(app, [*load, *words])
    assert isinstance(done.exception, ComfyloadError) and done.exception.exit_code == 2
    assert why in str(done.exception) and not Path("r").exists()


@pytest.mark.alone  # jobs of milliseconds: a busy machine sends them late, and late runs are not compared
@again_after_a_stall
def test_ab_compares_whole_pairs(options: RunOptions, tmp_path: Path) -> None:
    side = structs.replace(options, run_dir=None, plan=structs.replace(options.plan, jobs=3))
    alternation = Alternation(a=structs.replace(side, max_jobs=18), b=side, pairs=4)
    ab = tmp_path / "ab"
    made = clock.run(alternate(alternation, Viewer, ab))
    assert made.cut == "--max-jobs 18 was reached after 2 of 4 pairs"
    assert (made.a, made.b) == (f"{ab / 'a' / '01'},{ab / 'a' / '02'}", f"{ab / 'b' / '01'},{ab / 'b' / '02'}")
    with pytest.raises(NothingMeasured, match="--max-jobs 9 was reached before there were two whole pairs"):
        clock.run(
            alternate(structs.replace(alternation, a=structs.replace(side, max_jobs=9)), Viewer, tmp_path / "few")
        )


def test_a_checklist_that_is_cut_keeps_no_baseline(options: RunOptions) -> None:
    rounds = [Round(workflow="g.json", concurrency=places) for places in (1, 2)]
    small = structs.replace(options, run_dir=None, plan=structs.replace(options.plan, jobs=3))
    with pytest.raises(NothingMeasured, match="--max-jobs 5 was reached before all 2 runs were made: no baseline"):
        clock.run(run_rounds(structs.replace(small, max_jobs=5), rounds, lambda _: Viewer(), lambda *_: None))


def test_a_checklist_that_just_fits_is_whole(options: RunOptions) -> None:
    rounds = [Round(workflow="g.json", concurrency=1)]
    small = structs.replace(options, run_dir=None, plan=structs.replace(options.plan, jobs=3))
    ended: list[str] = []
    capped = structs.replace(small, max_jobs=4)
    results = clock.run(
        run_rounds(capped, rounds, lambda _: Viewer(), lambda one, _seconds, _result: ended.append(one.workflow))
    )
    assert [len(list(result.reader.lines())) for result in results] == [8] and ended == ["g.json"]


def test_a_checklist_of_which_the_user_stops_a_run_ends(options: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = [Round(workflow="g.json", concurrency=places) for places in (1, 2)]
    small = structs.replace(options, run_dir=None, plan=structs.replace(options.plan, jobs=3))
    read, numbers = RunReader.__init__, list[int]()

    def stopped(self: RunReader, path: Path) -> None:
        read(self, path)
        self.manifest = structs.replace(self.manifest, end="stopped")

    def viewer(number: int) -> Viewer:
        numbers.append(number)
        return Viewer()

    monkeypatch.setattr(RunReader, "__init__", stopped)
    with pytest.raises(KeyboardInterrupt):
        clock.run(run_rounds(small, planned, viewer, lambda *_: None))
    assert numbers == [1]


@pytest.mark.long
@pytest.mark.alone
@again_after_a_stall
def test_others_hold_a_run_back_and_its_numbers_say_so(options: RunOptions, tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=200)) as (address, _):
        for seed in range(2):
            graph = sleeper(400.0)  # 2 s: a busy machine begins to look before they are done
            graph["2"]["inputs"]["seed"] = seed
            asyncio.run(_post(address, graph))
        plan = structs.replace(options.plan, jobs=4, warmup=0, max_server_queue=1)
        given = structs.replace(options, server=address, plan=plan, run_dir=str(tmp_path / "r"), allow_shared=True)
        found = _run(given)
    text = _codes(found)["held_back"]
    held = re.match(r"1 of 4 jobs were held back on our side, ([\d.]+) s on average", text)
    assert held is not None and 0.0 < float(held[1]) < 4.5
    assert "`latency_sent` does not" in text
    assert found.manifest.plan.waits


async def _post(address: str, graph: dict[str, Any]) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.post(f"{address}/prompt", json={"prompt": graph}) as reply:
        assert reply.status == 200
