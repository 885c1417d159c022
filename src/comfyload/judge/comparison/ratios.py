"""The rows of a comparison: which numbers of two sides are set against each other, and which cannot be."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from msgspec import Struct, structs

from comfyload.judge.arrays import Floats
from comfyload.judge.columns.nodes import NODE_CLOCK_S, NodeRow
from comfyload.judge.comparison.effects import (
    CompareVerdict,
    Effect,
    from_intervals,
    from_pairs,
    from_pools,
    from_runs,
    from_single_jobs,
)
from comfyload.judge.numbers import COMPARED, NUMBERS
from comfyload.judge.statistics.significance import geometric_mean
from comfyload.judge.statistics.stats import Statistic, percentile
from comfyload.judge.summary import Measured

HEADLINE = ("p50_execution_s", "p50_latency_s")
"""The metric a comparison is about: the first of these that both sides have."""

_TAIL_NEEDS = 200
MEAN_NEEDS = 59
"""Jobs a side without which two means are not shown to be the same: one in 20 that is slow may not be among fewer."""

_SERVER_TICK_S, _SERVER_COARSE_S = 0.001, 0.05
_NOT_MEASURED = Statistic(value=None, n=0, unit="s", method="none", reason="it did not run")


class Ratio(Struct, frozen=True, kw_only=True):
    """One number of B over the same of A, and what follows.

    `ratio` None: withheld, and `note` says why. `low` or `high` None: that side is not bounded. `a`, `b`: geometric
    means over the runs of a side; of failures, their share of jobs. `n_a`, `n_b` count jobs, or a node's runs.
    `margin`: smaller differences are of no practical interest. `runs_needed`: pairs, or runs a side, that would settle
    what is inconclusive; None: it is settled, or more than 200. `load`: workflows and load in words, "" where there is
    but one. `workflow` None: all of a mix together. `headline`: the overall is made of this row.
    """

    name: str
    kind: Literal["metric", "node", "failures"]
    workflow: str | None
    a: float | None
    b: float | None
    unit: str
    ratio: float | None
    low: float | None
    high: float | None
    n_a: int
    n_b: int
    p: float | None
    p_holm: float | None
    verdict: CompareVerdict
    margin: float
    runs_needed: int | None
    method: str
    note: str
    load: str = ""
    headline: bool = False


class Group(Struct, frozen=True, kw_only=True):
    """Runs of one load, of both sides; `paired`: the first of A was run next to the first of B, and so on.

    `load`: its name in words, "" if it is the only one.
    """

    a: list[Measured]
    b: list[Measured]
    paired: bool
    load: str = ""

    @property
    def single(self) -> bool:
        """Whether the group has but one run a side, so that nothing tells what differs between runs."""
        return len(self.a) == len(self.b) == 1

    @property
    def workflows(self) -> list[str]:
        """Names of the workflows of both sides."""
        names = [[facts.name for facts in runs[0].manifest.workflows] for runs in (self.a, self.b)]
        return [name for name in names[0] if name in names[1]]


class Draft(Struct, frozen=True, kw_only=True):
    """A row before its verdict. `effect` None: withheld, for `note`. `moot`: why its verdict may be neither way.

    `runs`: those of the side that has fewer. `family`: the rows among which it is corrected.
    """

    name: str
    kind: Literal["metric", "node"]
    workflow: str | None
    unit: str
    load: str
    a: float | None
    b: float | None
    n_a: int
    n_b: int
    runs: int
    effect: Effect | None
    note: str = ""
    moot: bool = False
    family: Literal["headline", "tail", "rest"] = "rest"

    @property
    def higher_is_faster(self) -> bool:
        return self.name in NUMBERS and NUMBERS[self.name].rate

    @property
    def mean(self) -> bool:
        """Whether it is made of all jobs' sum, to which a few slow ones may bring most."""
        return self.kind == "node" or (self.name in NUMBERS and NUMBERS[self.name].kind == "mean")

    @property
    def few(self) -> bool:
        """Whether it is a mean of so few jobs that a usual slow one may not be among them."""
        return self.mean and min(self.n_a, self.n_b) < MEAN_NEEDS


_Sides = tuple[list[Statistic], list[Statistic]]
"""A statistic of each run of a group, side by side."""


def metric_drafts(group: Group, between_sd: float, margin: float) -> Iterator[Draft]:
    """A row for each metric of all jobs, then for each of every workflow of a mix."""
    mixed = len(group.a[0].manifest.workflows) > 1
    workflow = None if mixed or not group.workflows else group.workflows[0]
    yield from _metrics(group, {key: _sides(group, key, None) for key in COMPARED}, workflow, between_sd, margin)
    durations = [key for key in COMPARED if NUMBERS[key].of_workflow and NUMBERS[key].measure == "s"]
    for name in group.workflows if mixed else ():
        yield from _metrics(group, {key: _sides(group, key, name) for key in durations}, name, between_sd, margin)


def node_drafts(group: Group, between_sd: float) -> Iterator[Draft]:
    """A row for the mean of each node that ran on both sides, the costliest of A first."""
    sides = [[_nodes(run) for run in runs] for runs in (group.a, group.b)]
    for key, row in sides[0][0].items():
        if not any(key in run for run in sides[1]):
            continue
        a, b = ([run[key].avg_s if key in run else _NOT_MEASURED for run in side] for side in sides)
        draft = _draft(group, f"{row.node} {row.class_type or ''}".strip(), row.workflow, (a, b), between_sd)
        draft = structs.replace(draft, kind="node")
        if draft.effect is not None and max(draft.a or 0, draft.b or 0) < NODE_CLOCK_S:
            note = f"shorter than the {1000 * NODE_CLOCK_S:.0f} ms to which node times are good"
            draft = structs.replace(draft, note=note, moot=True)
        yield draft


def _metrics(
    group: Group, sides: dict[str, _Sides], workflow: str | None, between_sd: float, margin: float
) -> Iterator[Draft]:
    mixed_whole = workflow is None and len(group.a[0].manifest.workflows) > 1
    known = [name for name in HEADLINE if name in sides and _withheld(sides[name]) is None and not mixed_whole]
    headline = [name for median in known[:1] for name in (median, median.replace("p50_", "avg_"))]
    for name, values in sides.items():
        if name.startswith("p95"):
            yield structs.replace(_tail(group, name, workflow, values, between_sd), family="tail")
        else:
            draft = _quantised(_draft(group, name, workflow, values, between_sd), margin)
            yield structs.replace(draft, family="headline" if name in headline else "rest")


def _tail(group: Group, name: str, workflow: str | None, sides: _Sides, between_sd: float) -> Draft:
    """A high percentile: of several runs that of all their jobs together, for it is never averaged."""
    draft = _draft(group, name, workflow, sides, between_sd)
    fewest = min(draft.n_a, draft.n_b)
    if fewest < _TAIL_NEEDS:
        more = math.ceil(_TAIL_NEEDS * draft.runs / max(fewest, 1))
        runs = "" if group.single else f", which {more} {'pairs' if group.paired else 'runs'} like these would make"
        return structs.replace(draft, effect=None, note=f"a p95 is compared from {_TAIL_NEEDS} jobs a side{runs}")
    endless = any(math.isinf(statistic.value or 0) for statistic in (*sides[0], *sides[1]))
    return draft if group.single or endless else _pooled(group, draft, workflow)


def _pooled(group: Group, draft: Draft, workflow: str | None) -> Draft:
    share, _, metric = draft.name.removesuffix("_s").partition("_")
    sides = [[_durations(run, metric, workflow) for run in runs] for runs in (group.a, group.b)]
    if _any_cut(group):
        return structs.replace(draft, effect=None, note="jobs were cut off, whose durations are not known")
    if not all(len(jobs) and float(np.min(jobs)) > 0 for side in sides for jobs in side):
        return structs.replace(draft, effect=None, note="a run has no job of a known duration")
    a, b = (percentile(np.concatenate(side), int(share[1:]) / 100) for side in sides)
    medians = [np.array([math.log(float(np.median(jobs))) for jobs in side]) for side in sides]
    between = from_pairs(medians[1] - medians[0]) if group.paired else from_runs(medians[0], medians[1])
    effect = from_pools(_bounds(a), _bounds(b), between, draft.runs)
    if math.isinf(effect.low) and math.isinf(effect.high):
        return structs.replace(draft, effect=None, note="jobs that depend so much on each other bound nothing")
    return structs.replace(draft, a=a.value, b=b.value, effect=effect, note="of all jobs of a side together")


def _quantised(draft: Draft, margin: float) -> Draft:
    """The server tells whole milliseconds: a median of a few of them moves in steps."""
    shortest = min(draft.a or math.inf, draft.b or math.inf)
    if draft.effect is None or not draft.name.startswith(("p50_execution", "p50_queue")) or shortest > _SERVER_COARSE_S:
        return draft
    too_coarse = _SERVER_TICK_S / shortest > margin
    note = "the server counts whole milliseconds" + (": too coarse here" if too_coarse else "")
    return structs.replace(draft, note=note, moot=too_coarse)


def _draft(group: Group, name: str, workflow: str | None, sides: _Sides, between_sd: float) -> Draft:
    reason = _withheld(sides)
    values = [[statistic.value for statistic in side] for side in sides]
    logs = [np.log(np.asarray(side, np.float64)) for side in values] if reason is None else []
    means = [geometric_mean([value or 1.0 for value in side]) for side in values] if logs else []
    effect = None if reason is not None else _effect(group, name, workflow, sides, logs, between_sd)
    if effect is not None and math.isinf(effect.low) and math.isinf(effect.high):
        effect, reason = None, "so few jobs bound nothing"
    one = [side[0] if len(side) == 1 else None for side in values]
    return Draft(
        name=name,
        kind="metric",
        workflow=workflow,
        unit=sides[0][0].unit,
        load=group.load,
        a=means[0] if means else one[0],
        b=means[1] if means else one[1],
        n_a=sum(statistic.n for statistic in sides[0]),
        n_b=sum(statistic.n for statistic in sides[1]),
        runs=min(map(len, sides)),
        effect=effect,
        note=reason or "",
    )


def _effect(
    group: Group, name: str, workflow: str | None, sides: _Sides, logs: list[Floats], between_sd: float
) -> Effect:
    if not group.single:
        return from_pairs(logs[1] - logs[0]) if group.paired else from_runs(logs[0], logs[1])
    # Durations of two single runs' jobs are set against each other, but where jobs were cut off: these are not known.
    if name.startswith("p50_") and not _any_cut(group):
        metric = name.removeprefix("p50_").removesuffix("_s")
        a, b = (_durations(runs[0], metric, workflow) for runs in (group.a, group.b))
        if all(len(x) and float(np.min(x)) > 0 for x in (a, b)):
            return from_single_jobs(np.log(a), np.log(b), between_sd)
    return from_intervals(_bounds(sides[0][0]), _bounds(sides[1][0]), between_sd)


def _bounds(statistic: Statistic) -> tuple[float, float, float]:
    value, low, high = (
        x if x is not None and x > 0 else None for x in (statistic.value, statistic.low, statistic.high)
    )
    return (
        math.log(value or 1.0),
        -math.inf if low is None else math.log(low),
        math.inf if high is None or math.isinf(high) else math.log(high),
    )


def _withheld(sides: _Sides) -> str | None:
    """Why there is no ratio of these; None if there is one."""
    units = {statistic.unit for side in sides for statistic in side if statistic.value is not None}
    if len(units) > 1:
        return f"not the same is counted: {' and '.join(sorted(units))}"
    for name, side in zip("AB", sides, strict=True):
        for statistic in side:
            if statistic.value is None:
                return f"{name}: {statistic.reason or 'not known'}"
            if statistic.value <= 0:
                return f"{name} is 0, so a ratio to it does not exist"
            if math.isinf(statistic.value):
                return f"{name} is infinite: so many jobs failed"
    return None


def _sides(group: Group, name: str, workflow: str | None) -> _Sides:
    """Of one workflow of a mix, or of the whole run."""
    a, b = ([run.summary.statistic(name, workflow or "") for run in runs] for runs in (group.a, group.b))
    return a, b


def _any_cut(group: Group) -> bool:
    return any(run.jobs.counted.censored.any() for run in (*group.a, *group.b))


def _durations(run: Measured, metric: str, workflow: str | None) -> Floats:
    """Of completed jobs, in the order of completion."""
    return run.jobs.known(metric, run.jobs_of(workflow or ""))


def _nodes(run: Measured) -> dict[tuple[str, str, str | None], NodeRow]:
    mixed = len(run.manifest.workflows) > 1
    return {(row.workflow if mixed else "", row.node, row.class_type): row for row in run.summary.nodes}
