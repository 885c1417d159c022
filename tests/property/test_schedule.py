"""Shards of a schedule are the schedule, whatever their number; schedules ascend and fill their stages."""

from __future__ import annotations

import itertools
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from comfyload.app.run.schedule_seed import arrivals_rng, near_its_rate
from comfyload.load.arrivals import offsets
from comfyload.record.plan import Open, Plan, Stage

rates = st.floats(0.05, 20)
stages = st.lists(
    st.builds(Stage, per_s=rates, to_per_s=st.none() | rates, seconds=st.floats(0.1, 60)), min_size=1, max_size=4
)
loads = st.builds(Open, stages=stages, arrivals=st.sampled_from(["constant", "poisson", "gamma"]), cv=st.floats(0.2, 3))


# Two arrivals at almost the same instant, which rounding once put the wrong way round.
TIE = Open(
    stages=[Stage(per_s=2.7250356319855245, to_per_s=19.506128831622988, seconds=48.75)],
    arrivals="gamma",
    cv=2.7250356319855245,
)


@example(TIE, 10743)
@given(loads, st.integers(0, 2**32))
def test_a_schedule_ascends_within_its_stages(load: Open, seed: int) -> None:
    due = list(offsets(load, Random(seed)))
    assert due == sorted(due)
    length = sum(stage.seconds or 0 for stage in load.stages)
    assert all(0 <= t <= length + 1e-6 for t in due)
    if load.arrivals == "constant":
        area = sum(
            (s.per_s + (s.per_s if s.to_per_s is None else s.to_per_s)) / 2 * (s.seconds or 0) for s in load.stages
        )
        assert abs(len(due) - area) <= 1


@given(rates, st.integers(1, 60), st.integers(0, 2**32))
def test_a_schedule_near_its_rate_is(per_s: float, jobs: int, first: int) -> None:
    plan = near_its_rate(Plan(load=Open(stages=[Stage(per_s=per_s)]), jobs=jobs), itertools.count(first))
    *_, last = itertools.islice(offsets(plan.load, arrivals_rng(plan)), jobs)
    assert abs(last * per_s / jobs - 1) <= 0.05
