"""The runs that `saturate` makes, and what they come to, on servers made in arithmetic."""

from __future__ import annotations

import asyncio
import io
import json
import re
from typing import Literal

import numpy as np
import pytest
from msgspec import structs
from rich.console import Console

from comfyload.advise.deploy import after_run, disproved, jobs_worth_it
from comfyload.advise.rate import Rate
from comfyload.advise.saturation import Saturated
from comfyload.advise.validation import Prediction, Validation
from comfyload.app.campaign import CONFIRM_SHARE, Campaign, CampaignOptions, Cut
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.errors import NothingMeasured
from comfyload.judge.summary import Measured, jsonable
from comfyload.record.plan import Closed, Open, Plan
from comfyload.report.render.terminal import render
from comfyload.report.saturation import saturation_page
from comfyload.words import decimals, fixed
from tests.error_rates.laws import LAWS
from tests.error_rates.saturate import Server, World

STEADY = World(name="steady", law=LAWS["logn .1"])


def _settings() -> CampaignOptions:
    options = RunOptions(
        server="http://127.0.0.1:8188",
        workflows=[WorkflowChoice(file="book.json")],
        plan=Plan(load=Closed(), timeout_s=None),
    )
    return CampaignOptions(run=options, replicates=40)


class _Watched(Server):
    """Notes the plans; from the open load on, jobs take `later` times as long."""

    def __init__(self, world: World, later: float = 1.0) -> None:
        super().__init__(world, np.random.default_rng(5))
        self.plans: dict[str, Plan] = {}
        self.later = later

    async def make(self, plan: Plan, name: str, words: str) -> Measured:
        self.plans[name] = plan
        if isinstance(plan.load, Open):
            self.world = structs.replace(self.world, usual_s=self.later * self.world.usual_s)
        return await super().make(plan, name, words)


@pytest.fixture(autouse=True)
def _same_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    monkeypatch.setattr("comfyload.app.campaign.randbits", lambda bits: int(rng.integers(1 << bits)))


def _found(server: _Watched) -> Saturated:
    async def whole() -> Saturated:
        campaign = Campaign(_settings(), server.make)
        await campaign.measure()
        return await campaign.result()

    return asyncio.run(whole())


def _printed(found: Saturated) -> str:
    out = io.StringIO()
    render(saturation_page(found, ["comfyload policy s"]), Console(file=out, width=80))
    return out.getvalue()


class _Capped(_Watched):
    async def make(self, plan: Plan, name: str, words: str) -> Measured:
        if isinstance(plan.load, Open):
            raise Cut("--max-jobs 60 was reached")
        return await super().make(plan, name, words)


def test_when_only_the_confirmation_is_cut_what_was_found_is_kept_and_marked() -> None:
    found = _found(_Capped(STEADY))
    carries = found.capacity_per_minute
    assert carries is not None and carries.estimate is not None
    assert (found.confirmation, found.paths) == (None, ["c1", "c2"])
    assert found.findings[0] == "--max-jobs 60 was reached: the rate to deploy is not confirmed."


def test_a_steady_server_is_confirmed_and_all_jobs_count() -> None:
    server = _Watched(STEADY)
    found = _found(server)
    rate, carries = found.sla_rate_per_minute, found.capacity_per_minute
    assert list(server.plans) == ["c1", "c2", "confirm"] == found.paths
    assert [plan.jobs for plan in server.plans.values()] == [40, 12, 24]
    assert rate is not None and rate.confirmed and rate.low and rate.estimate and rate.low < rate.estimate
    assert carries is not None and carries.confirmed
    load = server.plans["confirm"].load
    assert isinstance(load, Open) and load.stages[0].per_s >= CONFIRM_SHARE * rate.low / 60
    assert _printed(found).startswith("CONFIRMED. A run at ") and found.deploy_per_minute == rate.low
    assert found.lower_bound_per_minute is None and found.tried_per_minute == pytest.approx(60 * load.stages[0].per_s)


def test_a_rate_that_its_run_disproves_is_withheld_with_what_the_run_leaves_in_its_place() -> None:
    server = _Watched(STEADY, later=1.5)
    found = _found(server)
    rate, carries, service = found.sla_rate_per_minute, found.capacity_per_minute, found.service_s
    load = server.plans["confirm"].load
    assert isinstance(load, Open)
    tried = 60 * load.stages[0].per_s
    assert rate is not None and rate.estimate is None and rate.low is None and rate.confirmed is False
    assert rate.high is not None and rate.high < tried
    # Its jobs took half as long again: the capacity is that of its jobs alone.
    assert carries is not None and carries.confirmed is False
    assert carries.estimate == pytest.approx(60 / (1.5 * STEADY.service_s), rel=0.06)
    assert service is not None and service.estimate == pytest.approx(1.5 * STEADY.service_s, rel=0.06)
    assert any("% longer (" in words for words in found.findings)
    text = " ".join(_printed(found).split())
    assert text.startswith("NOT CONFIRMED. A run at ")
    bound = fixed(rate.high, decimals(rate.high))
    assert re.search(
        rf"To deploy – \(not confirmed: its p50 is .*; lower bound from the .* run: {bound} a minute\)", text
    )
    assert found.deploy_per_minute is None and found.confirmed is False
    document = json.loads(json.dumps(jsonable(found)))
    assert document["sla_rate_per_minute"]["estimate"] is None and document["sla_rate_per_minute"]["confirmed"] is False


def test_a_server_that_is_quicker_than_predicted_disproves_nothing() -> None:
    rate = _found(_Watched(STEADY, later=0.7)).sla_rate_per_minute
    assert rate is not None and rate.confirmed


def test_a_server_that_tells_no_times_is_said_to_tell_none() -> None:
    class Silent(_Watched):
        async def make(self, plan: Plan, name: str, words: str) -> Measured:
            found = await super().make(plan, name, words)
            for instant in ("start_ms", "end_ms"):
                found.jobs.every.instants[instant][:] = np.nan
            return found

    with pytest.raises(NothingMeasured, match="no service time is known"):
        _found(Silent(STEADY))


def test_phases_that_nothing_explains_leave_no_rate_to_deploy() -> None:
    """Twenty jobs in a row that take half as long again, and twenty that do not."""

    class Phased(_Watched):
        async def make(self, plan: Plan, name: str, words: str) -> Measured:
            found = await super().make(plan, name, words)
            instants = found.jobs.every.instants
            late = np.arange(len(instants["end_ms"])) // 20 % 2 == 1
            instants["end_ms"][late] += 0.5 * (instants["end_ms"] - instants["start_ms"])[late]
            return found

    found = _found(Phased(STEADY))
    rate = found.sla_rate_per_minute
    assert rate is not None and rate.estimate is None and rate.confirmed is False
    assert any("slow and fast phases" in words for words in found.findings)
    assert found.deploy_per_minute is None and found.lower_bound_per_minute is None


def test_short_jobs_are_sent_for_half_a_minute_to_see_the_pauses() -> None:
    server = _Watched(World(name="short", law=LAWS["logn .1"], usual_s=0.5, pause_s=0.35))
    found = _found(server)
    assert server.plans["c2"].jobs == pytest.approx(60, abs=3)
    assert found.service_s is not None and found.service_s.estimate == pytest.approx(server.world.service_s, rel=0.03)


def test_interference_is_said_of_twice_as_many_jobs_and_all_of_them_count() -> None:
    world = World(name="slowed", law=LAWS["logn .1"], slowed=1.25)
    server = _Watched(world)
    found = _found(server)
    assert list(server.plans) == ["c1", "c2", "c2-2", "confirm"]
    assert found.interference is not None and found.interference.disturbed
    carries = found.capacity_per_minute
    assert carries is not None and carries.estimate == pytest.approx(60 / world.service_s, rel=0.05)
    assert carries.low is not None and carries.high is not None
    assert carries.low < 60 / world.service_s < carries.high
    assert any("longer while another one waits" in words for words in found.findings)


def test_more_jobs_are_taken_in_and_confirmed_anew() -> None:
    server = _Watched(World(name="wide", law=LAWS["15%x2.5"]))

    async def whole() -> tuple[Saturated, Saturated]:
        campaign = Campaign(_settings(), server.make)
        await campaign.measure()
        first = await campaign.result()
        await campaign.more(100)
        return first, await campaign.result()

    first, second = asyncio.run(whole())
    assert list(server.plans) == ["c1", "c2", "confirm", "c1-2", "confirm-2"]
    assert first.capacity_per_minute is not None and second.capacity_per_minute is not None

    def wide(rate: Rate) -> float:
        assert rate.low is not None and rate.high is not None
        return rate.high - rate.low

    assert wide(second.capacity_per_minute) < 0.8 * wide(first.capacity_per_minute)


def _check(of: Literal["mean", "p50", "p95"], error: float, inside: bool | None) -> Prediction:
    passed = abs(error) <= 0.03 if inside is None else inside
    name: Literal["structural", "replay"] = "structural" if inside is None else "replay"
    return Prediction(
        name=name, of=of, measured_s=1.0, predicted_s=1 + error, error=error, inside=inside, passed=passed
    )


@pytest.mark.parametrize(
    ("structural", "p95", "inside", "confirmed", "disproved"),
    [
        (0.01, 0.05, True, True, False),
        (0.01, -0.40, False, False, True),  # longer than it should be
        (0.01, 0.40, False, True, False),  # shorter
        (0.08, 0.05, True, False, False),  # something else than the queue made jobs wait, and not for long
    ],
)
def test_only_jobs_that_took_too_long_disprove_a_rate(
    structural: float, p95: float, inside: bool, confirmed: bool, disproved: bool
) -> None:
    checks = [_check("mean", structural, None), _check("p50", 0.0, True), _check("p95", p95, inside)]
    found = Validation(jobs=24, left_out=0, checks=checks, unmodelled=False, reasons=[])
    assert (found.confirmed, found.disproved) == (confirmed, disproved)


def test_what_is_deployed_is_what_was_tried_and_what_all_jobs_say() -> None:
    before, together = Rate(estimate=5.0, low=4.0, high=6.0), Rate(estimate=4.8, low=4.2, high=5.5)
    assert after_run(before, together) == Rate(estimate=4.8, low=4.0, high=5.5, confirmed=True)
    assert disproved(3.6, Rate(estimate=4.5, low=4.1, high=5.0)).high == 3.6
    assert disproved(3.6, None).high == 3.6


def test_a_rate_that_no_run_confirmed_says_so_and_one_that_is_not_known_is_not_given() -> None:
    found = _found(_Watched(STEADY))

    def shown(low: float) -> str:
        rate = Rate(estimate=5.0, low=low, high=6.0)
        return " ".join(_printed(structs.replace(found, sla_rate_per_minute=rate, confirmation=None)).split())

    assert "To deploy 4.00 a minute, which no run has confirmed" in shown(4.0)
    assert "To deploy – (too few jobs to know how long the longest take)" in shown(0.0)


def test_how_many_more_jobs_grows_with_the_square_of_what_is_not_known() -> None:
    assert jobs_worth_it(Rate(estimate=5.0, low=4.0, high=None), 76) == 0
    assert jobs_worth_it(Rate(estimate=5.0, low=2.5, high=None), 76) == 4 * 76 - 76
    assert jobs_worth_it(Rate(estimate=5.0, low=0.0, high=None), 76) == 16 * 76 - 76
    assert jobs_worth_it(Rate(estimate=None, low=None, high=3.0), 76) == 0
