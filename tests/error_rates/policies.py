"""How often the true share of jobs done in time lies inside the ± that `policy` prints.

A policy is made from a baseline of 60 jobs, as the command does. Its truth: the same troubles at the same rates, in
many worlds whose jobs take what the law says, by the same servers, clients and naive retries.
"""

from __future__ import annotations

import argparse

import numpy as np
from msgspec import Struct

from comfyload.advise.choose_policy import OURS, naive_for, synthesise
from comfyload.advise.retry_model import scores, worlds
from comfyload.advise.scenarios import Setting, scenarios
from comfyload.advise.service_times import ServiceTimes, Workload
from comfyload.record.policy import Score
from tests.error_rates.laws import LAWS, Law

JOBS = 60
MEDIAN_S = 8.0


class Case(Struct, frozen=True, kw_only=True):
    """Servers alike, workflows in equal shares, and `swap_s` more for a job after one of another workflow."""

    law: str
    servers: int = 1
    workflows: int = 1
    swap_s: float = 0.0
    deadline_s: float = 90.0
    load: float = 0.6


CASES = {
    "1 server, 15%x2.5": Case(law="15%x2.5"),
    "2 servers, CV .3": Case(law="logn .3", servers=2, deadline_s=45.0, load=0.7),
    "1 server, 2 workflows": Case(law="logn .2", workflows=2, swap_s=9.0, deadline_s=150.0),
    "2 servers, 2 workflows, 15%x2.5": Case(law="15%x2.5", servers=2, workflows=2, swap_s=9.0, deadline_s=120.0),
}


class Row(Struct, frozen=True, kw_only=True):
    """What was printed of a policy in a trouble, and what is so; `error`: of that, by the worlds it is from."""

    case: str
    printed: Score
    truth: float
    error: float

    @property
    def inside(self) -> bool:
        """Strictly, as if the true value were known exactly."""
        return abs(self.printed.success - self.truth) <= (self.printed.success_half_width or 0.0)

    @property
    def holds(self) -> bool:
        """As far as so many true worlds can tell: one standard error of theirs is granted."""
        return abs(self.printed.success - self.truth) <= (self.printed.success_half_width or 0.0) + self.error / 2


def measured(case: Case, jobs: int, rng: np.random.Generator) -> ServiceTimes:
    """So many jobs, as a run that is made for it measures them: half of them after another workflow."""
    law, each = LAWS[case.law], jobs // case.workflows
    warm = [_takes(law, each, rng) for _ in range(case.workflows)]
    if case.workflows > 1:
        warm, switched = [of[: each // 2] for of in warm], [of[each // 2 :] + case.swap_s for of in warm]
    else:
        switched = warm
    names = [f"w{number}" for number in range(case.workflows)]
    return ServiceTimes(workflows=names, warm=warm, switched=switched, made_up=[], overhead_s=0.2, gap_s=0.0)


def _takes(law: Law, jobs: int, rng: np.random.Generator) -> np.ndarray:
    return MEDIAN_S * law.draw(rng, jobs)


def rows(name: str, seed: int, true_worlds: int, replications: int = 24) -> list[Row]:
    """All rows that are printed of one baseline."""
    case, rng = CASES[name], np.random.default_rng(seed)
    pools, truth = measured(case, JOBS, rng), measured(case, 8000, rng)
    workload = Workload(shares=[1.0] * case.workflows)
    setting = Setting(pools=pools, workload=workload, servers=case.servers, deadline_s=case.deadline_s)
    policy = synthesise(
        pools,
        workload,
        deadline_s=case.deadline_s,
        rate_per_s=case.load * case.servers / setting.mean_s,
        servers=case.servers,
        rng=rng,
        replications=replications,
    )
    behaviours = {OURS: policy, **naive_for(case.deadline_s)}
    troubles = scenarios(pools, workload, load=case.load)
    true = scores(behaviours, worlds(setting, troubles, true_worlds, rng, takes=truth), setting)
    so = {(row.scenario, row.policy): row for row in true}
    found = []
    for printed in policy.scores:
        row = so[printed.scenario, printed.policy]
        found.append(Row(case=name, printed=printed, truth=row.success, error=row.success_half_width or 0.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="baselines of each case (default: %(default)d)")
    parser.add_argument("--worlds", type=int, default=100, help="behind each true value (default: %(default)d)")
    args = parser.parse_args()
    print("| case | rows of | n | truth inside ± | median ± | largest miss |")
    print("|---|---|---:|---:|---:|---:|")
    every: list[Row] = []
    for name in CASES:
        found = [row for seed in range(args.runs) for row in rows(name, seed, args.worlds)]
        every += found
        for who in ("this policy", "the usual ones"):
            print(line(name, who, [row for row in found if (row.printed.policy == OURS) == (who == "this policy")]))
    print(line("all", "all", every))


def line(case: str, who: str, found: list[Row]) -> str:
    inside = np.mean([row.inside for row in found])
    half = np.median([row.printed.success_half_width or 0.0 for row in found])
    miss = max(abs(row.printed.success - row.truth) - (row.printed.success_half_width or 0.0) for row in found)
    return f"| {case} | {who} | {len(found)} | {100 * inside:.1f} % | {100 * half:.1f} | {100 * max(0.0, miss):.1f} |"


if __name__ == "__main__":
    main()
