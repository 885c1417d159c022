"""How a share of jobs, such as the success rate, is judged: by counting trials, of which a burst is one.

- PASS: so few failures have at most a 5 % chance at the limit, if `jobs_per_trial` of them are one trial.
- FAIL: so many have; or more bursts came than there would be failures. The second needs no length of bursts, since a
  given rate makes the more of them the shorter they are, and at most as many as independent failures.
"""

from msgspec import Struct

from comfyload.judge.arrivals import arrivals_of, books_failed
from comfyload.judge.columns.jobs import failures_of
from comfyload.judge.gates.grammar import Gate
from comfyload.judge.gates.proof import SIDE, disproof, needed, proof
from comfyload.judge.gates.verdict import GateVerdict, Verdict, make_verdict, no_data, open_words, verdict_of
from comfyload.judge.statistics.binomial import clopper_pearson
from comfyload.judge.statistics.bursts import LONGEST, ONE_BY_ONE, Bursts, bursts_of
from comfyload.judge.summary import Measured


class _BurstCount(Struct, frozen=True, kw_only=True):
    """Jobs on the wrong side, with the jobs to a trial."""

    bursts: Bursts
    allowed: float
    per_trial: float

    @property
    def p_pass(self) -> float:
        bad, n = self.bursts.bad, self.bursts.n
        return proof(bad / self.per_trial, n / self.per_trial, self.allowed)

    @property
    def p_fail(self) -> float:
        bad, n = self.bursts.bad, self.bursts.n
        together = disproof(bad / self.per_trial, n / self.per_trial, self.allowed)
        return min(together, disproof(self.bursts.runs, n, self.allowed))

    def bounds(self) -> tuple[float, float]:
        """Of the share of jobs on the wrong side, 5 % on each side."""
        bad, n = self.bursts.bad, self.bursts.n
        low, high = clopper_pearson(bad / self.per_trial, n / self.per_trial, 1 - 2 * SIDE)
        return max(low, clopper_pearson(self.bursts.runs, n, 1 - 2 * SIDE)[0]), high


def judge_share(gate: Gate, measured: Measured) -> GateVerdict:
    """k of n. The wrong side of an upper limit are the successes."""
    found = measured.summary.statistic(gate.name, gate.workflow)
    if found.value is None:
        return no_data(gate, measured, found.reason, found)
    bursts = _bursts(gate, measured)
    allowed = gate.limit if gate.upper else round(1 - gate.limit, 12)
    count = _BurstCount(
        bursts=bursts, allowed=allowed, per_trial=ONE_BY_ONE if gate.independent else bursts.jobs_per_trial(allowed)
    )
    verdict = verdict_of(count.p_pass, count.p_fail, gate.holds(found.value, gate.limit))
    needs = needed(bursts.bad, allowed, per_trial=count.per_trial) if verdict == "PASS*" else None
    bad_low, bad_high = count.bounds()
    low, high = (bad_low, bad_high) if gate.upper else (1 - bad_high, 1 - bad_low)
    why = _why(gate, count, verdict, needs)
    return make_verdict(gate, measured, verdict, why, found, low=low, high=high, p_fail=count.p_fail, needs=needs)


def _bursts(gate: Gate, measured: Measured) -> Bursts:
    """Of what counts against the gate, in the order of submission."""
    jobs = measured.jobs
    if gate.name.startswith("book"):
        failed = books_failed(arrivals_of(jobs, measured.manifest.plan.pages))
    else:
        failed = failures_of(jobs, measured.jobs_of(gate.workflow))
    return bursts_of(~failed if gate.upper else failed)


def _why(gate: Gate, count: _BurstCount, verdict: Verdict, needs: int | None) -> str:
    unit, goal = "books" if gate.name.startswith("book") else "jobs", f"{100 * gate.limit:g} %"
    n, bad, runs = count.bursts.n, count.bursts.bad, count.bursts.runs
    good = bad if gate.upper else n - bad
    counted = f"{'All ' if n > 1 else 'The '}{f'{n} {unit}' if n > 1 else unit[:-1]} completed"
    counted = counted if good == n else f"{good} of {n} {unit} completed"
    if verdict == "PASS":
        taken = "if failures come one at a time" if gate.independent else "bursts of failures allowed for"
        return f"{counted}. {'At most' if gate.upper else 'At least'} {goal} is proven (one-sided, 95 %), {taken}."
    if verdict == "PASS*":
        return f"{counted}. {_proof(gate, count, unit, goal, needs)}"
    several = f"; the others failed in {runs} burst{'' if runs == 1 else 's'}" if runs < bad and not gate.upper else ""
    return f"{counted}{several}{open_words(verdict, count.p_fail)}."


def _proof(gate: Gate, count: _BurstCount, unit: str, goal: str, needs: int | None) -> str:
    """How many jobs a proof takes if failures come one at a time, and in bursts."""
    n, bad = count.bursts.n, count.bursts.bad
    alone = needed(bad, count.allowed)
    if needs is None or alone is None:
        return f"No number of {unit} proves {goal}."
    few = "" if bad == 0 else f" with no more than {bad} {'completed' if gate.upper else 'failed'}"
    if count.per_trial == 1:
        return f"To prove {goal}: {needs} {unit}{few}."
    bursts = f"in bursts of up to {LONGEST:.0f}" if bad == 0 else "in bursts as long as they may be here"
    if n >= alone:
        return (
            f"That proves {goal} if failures come one at a time; if they come {bursts}, it takes {needs} {unit}{few}."
        )
    return f"To prove {goal}: {alone} {unit}{few} if failures come one at a time, {needs} if they come {bursts}."
