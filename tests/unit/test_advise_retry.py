"""Retry policies: the numbers by rule, and what becomes of them, and of the usual ones, in simulated trouble."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from comfyload.advise.choose_policy import _deepest, _sums, infeasible, synthesise
from comfyload.advise.naive_client import NAIVE, Naive
from comfyload.advise.retry_model import _half_width, play, score, worlds
from comfyload.advise.scenarios import Scenario, Setting, World, scenarios
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.record.policy import Admission, Policy, Score
from comfyload.retry.policy import decode, encode
from tests.unit.advise_pools import bimodal, pools_of_one, pools_of_two

pytestmark = pytest.mark.long

ONE = Workload(shares=[1.0])


def _rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def _setting(servers: int = 1, seconds: float | None = None) -> Setting:
    pool = bimodal(4000, _rng()) if seconds is None else [seconds]
    return Setting(pools=pools_of_one(pool), workload=ONE, servers=servers, deadline_s=90.0)


def _scores(
    behaviour: Policy | Naive, names: tuple[str, ...], *, servers: int = 1, replications: int = 10
) -> dict[str, Score]:
    setting = _setting(servers)
    chosen = [one for one in scenarios(setting.pools, ONE, load=0.6) if one.name in names]
    drawn = worlds(setting, chosen, replications, _rng(3))
    return {name: score("x", behaviour, of_it, setting) for name, of_it in drawn.items()}


def _world(arrivals: list[float], takes: float = 10.0, **changes: object) -> World:
    """Jobs of equal length, by hand; `fails` at a trouble of its own."""
    n = len(arrivals)
    base = World(
        scenario=Scenario(name="hand"),
        arrivals=arrivals,
        workflows=[0] * n,
        warm=[takes] * n,
        switched=[takes] * n,
        u=[[1.0] * 8 for _ in arrivals],
        breaks_at=[0.5] * n,
        poisoned=[False] * n,
        seed=1,
        minute_s=60.0,
        settled_s=0.0,
        event_from_s=0.0,
        event_to_s=0.0,
        scored_to_s=1000.0,
        ends_s=1000.0,
    )
    return structs.replace(base, **changes)


# --- the numbers by rule


def depth(pools: ServiceTimes, workload: Workload, deadline_s: float, rng: np.random.Generator) -> int:
    setting = Setting(pools=pools, workload=workload, servers=1, deadline_s=deadline_s)
    return _deepest(_sums(setting, rng), deadline_s - setting.overhead_s)


@pytest.mark.parametrize(
    ("pool", "deadline_s", "most"),
    [
        ([8.0] * 7 + [20.0], 90, 6),
        ([5.0] * 4 + [60.0], 180, 3),
        (_rng().lognormal(np.log(8) - 0.011, 0.15, 4000), 90, 9),
        (_rng().lognormal(np.log(120) - 0.02, 0.2, 4000), 900, 5),
    ],
    ids=["bimodal", "few very long", "unimodal", "video"],
)
def test_so_many_may_be_before_a_job(pool: list[float], deadline_s: float, most: int) -> None:
    assert depth(pools_of_one(pool), ONE, deadline_s, _rng()) == most


def test_a_deadline_shorter_than_a_job_leaves_no_depth() -> None:
    assert depth(pools_of_one([10.0]), ONE, 9, _rng()) == -1
    assert depth(pools_of_one([10.0]), ONE, 10, _rng()) == 0


def test_switches_make_the_queue_shorter() -> None:
    jobs = np.full(5, 8.0)
    alone, mixed = pools_of_two([jobs, jobs], [jobs, jobs]), pools_of_two([jobs, jobs], [jobs + 9, jobs + 9])
    both = Workload(shares=[1, 1])
    assert depth(alone, both, 90, _rng()) == 10 > depth(mixed, both, 90, _rng())


# --- how clients behave, by hand


def test_a_late_job_is_taken_off_and_one_that_nobody_waits_for_is_not() -> None:
    setting = structs.replace(_setting(seconds=10.0), deadline_s=15.0)
    world = _world([0.0, 0.1])
    careful = play(world, Policy(deadline_s=15.0, admission=Admission(depth=5)), setting)
    assert [job.done for job in careful] == [10.0, None]
    left = play(world, Naive(name="x", timeout_s=15.0), setting)
    assert [job.done for job in left] == [10.0, None] and left[1].spent_s == 10


def test_a_naive_retry_runs_what_it_has_given_up_too() -> None:
    setting = _setting(seconds=10.0)
    jobs = play(_world([0.0, 0.1]), Naive(name="x", attempts=3, timeout_s=12.0), setting)
    assert jobs[1].number == 3 and jobs[1].spent_s == 30 and jobs[1].done is None


def test_what_fails_for_good_is_learnt_from_the_second_failure() -> None:
    setting = _setting(seconds=10.0)
    jobs = play(_world([0.0, 100.0], poisoned=[True, True]), Policy(deadline_s=90.0), setting)
    assert [job.number for job in jobs] == [2, 1]


def test_no_more_than_the_depth_are_before_a_job() -> None:
    setting = _setting(seconds=10.0)
    jobs = play(_world([0.0, 1.0, 2.0]), Policy(deadline_s=90.0, admission=Admission(depth=0)), setting)
    assert [job.done for job in jobs] == [10, 20, 30] and [job.number for job in jobs] == [1, 1, 1]


def test_a_lost_job_is_sent_again_once_its_server_is_back() -> None:
    setting = _setting(seconds=10.0)
    world = _world(
        [0.0], scenario=Scenario(name="restart", event_s=20, restarts=True), event_from_s=5.0, event_to_s=25.0
    )
    (job,) = play(world, Policy(deadline_s=90.0), setting)
    assert job.done is not None and 35 <= job.done < 60 and job.spent_s == pytest.approx(15)
    (waits,) = play(world, Naive(name="x", timeout_s=90.0), setting)
    assert waits.done is None


def test_another_server_takes_over_at_once_and_what_was_lost_is_known_once_its_server_is_back() -> None:
    setting = _setting(servers=2, seconds=10.0)
    world = _world(
        [0.0, 6.0], scenario=Scenario(name="restart", event_s=30, restarts=True), event_from_s=5.0, event_to_s=35.0
    )
    lost, new = play(world, Policy(deadline_s=90.0), setting)
    assert new.done is not None and new.done < 17
    assert lost.done is not None and 47 <= lost.done < 52 and lost.number == 2


def test_a_server_that_stands_still_goes_on_where_it_was() -> None:
    world = _world([0.0], scenario=Scenario(name="stall", event_s=60, stalls=True), event_from_s=5.0, event_to_s=65.0)
    (job,) = play(world, Policy(deadline_s=90.0), _setting(seconds=10.0))
    assert job.done == 70


# --- in trouble


def test_a_short_timeout_without_cancelling_collapses_with_no_trouble_at_all() -> None:
    at_once = structs.replace(NAIVE[1], timeout_s=30.0)
    row = _scores(at_once, ("steady",))["steady"]
    assert row.success < 0.25 and row.wasted_share is not None and row.wasted_share > 0.7


def test_the_policy_from_sixty_jobs_beats_the_usual_ones_in_trouble_and_costs_nothing_without() -> None:
    names = ("steady", "burst", "restart", "stall")
    pools = pools_of_one(bimodal(60, _rng(8)), 0.2)
    policy = synthesise(pools, ONE, deadline_s=90, rate_per_s=0.063, transient=(1, 60), rng=_rng(2), replications=6)
    ours = _scores(policy, names)
    for timeout_s in (60.0, 90.0):
        for naive in (NAIVE[0], NAIVE[1], NAIVE[4], NAIVE[6]):
            theirs = _scores(structs.replace(naive, timeout_s=timeout_s), names)
            assert ours["steady"].success >= theirs["steady"].success - 0.01
            for trouble in ("burst", "stall"):
                assert ours[trouble].success > theirs[trouble].success
            assert ours["restart"].success > theirs["restart"].success
    assert ours["burst"].success > 0.6 and (ours["burst"].wasted_share or 0) < 0.1
    assert ours["stall"].success > 0.9 and ours["restart"].success > 0.95
    assert ours["burst"].recovery_s is not None and ours["burst"].recovery_s <= 120


def test_retrying_naively_never_recovers_from_a_burst() -> None:
    row = _scores(structs.replace(NAIVE[1], timeout_s=60.0), ("burst",))["burst"]
    assert row.success < 0.25 and row.recovery_s is None and (row.submits_per_job or 0) > 3


def test_several_servers_survive_the_loss_of_one() -> None:
    policy = Policy(deadline_s=90.0, admission=Admission(depth=6))
    found = _scores(policy, ("restart", "stall"), servers=3, replications=8)
    assert found["restart"].success > 0.97 and found["stall"].success > 0.9


# --- what is made of it


def test_a_policy_says_its_reasons_and_its_scores_and_is_a_file() -> None:
    pools = pools_of_one(bimodal(60, _rng(8)), 0.2)
    policy = synthesise(
        pools, ONE, deadline_s=90, rate_per_s=0.06, transient=(1, 60), outages=[40, 90, 30], rng=_rng(2), replications=4
    )
    assert decode(encode(policy)) == policy
    assert 2 <= policy.attempts <= 5 and policy.backoff.cap_s == 15 and policy.breaker.open_max_s == 15
    assert policy.admission.depth in (5, 6, 7, 8) and policy.classes["transient"].attempts == policy.attempts
    assert policy.inputs["outage_s"] == 40 and policy.inputs["jobs"] == 60
    assert "90 s" in policy.explanations["admission.depth"] and infeasible(policy) == []
    assert {row.scenario for row in policy.scores} == {
        "steady", "burst", "restart", "failures", "stall", "poison", "sick",
    }  # fmt: skip
    assert len({row.policy for row in policy.scores}) == 1 + len(NAIVE) + 2


def test_how_far_it_is_is_told() -> None:
    shares: list[float] = []
    synthesise(
        pools_of_one([10.0] * 40),
        ONE,
        deadline_s=90,
        rate_per_s=0.06,
        rng=_rng(),
        replications=1,
        progress=shares.append,
    )
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) > 50


def test_worlds_of_very_many_jobs_are_few() -> None:
    setting = structs.replace(_setting(seconds=0.1), deadline_s=60.0)
    (stall,) = (one for one in scenarios(setting.pools, ONE, load=0.6) if one.stalls)
    assert len(worlds(setting, [stall], 24, _rng(), most_jobs=5000)["stall"]) == 4


def test_a_share_is_no_surer_than_the_measured_jobs() -> None:
    """Where all worlds differ by their pace alone, more of them say no more; where by luck, they do."""
    pace, counted = np.linspace(0.9, 1.1, 24), np.full(24, 200.0)
    by_pace = _half_width(200 * (1.8 - pace), counted, pace, collapses=False)
    by_luck = _half_width(200 * (1.8 - _rng().permutation(pace)), counted, pace, collapses=False)
    assert by_pace is not None and by_pace == pytest.approx(2.07 * pace.std(ddof=1), rel=0.01)
    assert by_luck is not None and by_luck < 0.6 * by_pace
    assert _half_width(counted, counted, pace, collapses=True) == pytest.approx(1 / 25)


def test_the_same_seed_makes_the_same_policy() -> None:
    pools = pools_of_one(bimodal(60, _rng(8)))
    one, two = (synthesise(pools, ONE, deadline_s=90, rate_per_s=0.06, rng=_rng(2), replications=2) for _ in range(2))
    assert one == two


def test_what_cannot_be_had_is_said() -> None:
    policy = synthesise(pools_of_one([10.0] * 40), ONE, deadline_s=8, rate_per_s=0.15, rng=_rng(), replications=2)
    short, much = infeasible(policy)
    assert "too short" in short and "150 %" in much and "2 are needed" in much
    assert policy.inputs["depth_within_deadline"] == -1


def test_where_the_queue_cannot_be_seen_the_budget_is_small() -> None:
    policy = synthesise(
        pools_of_one([10.0] * 40), ONE, deadline_s=90, rate_per_s=0.06, depth_known=False, rng=_rng(), replications=2
    )
    assert policy.admission.depth is None and policy.budget.ratio <= 0.5
