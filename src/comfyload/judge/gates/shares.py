"""How a share of jobs, such as the success rate, is judged: by counting trials, of which a burst is one.

- PASS: so few failures have at most a 5 % chance at the limit, if `jobs_per_trial` of them are one trial.
- FAIL: so many have; or more bursts came than there would be failures. The second needs no length of bursts, since a
  given rate makes the more of them the shorter they are, and at most as many as independent failures.
"""

from comfyload.judge.arrivals import arrivals_of, books_failed
from comfyload.judge.columns.jobs import failures_of
from comfyload.judge.gates.grammar import Gate
from comfyload.judge.gates.proof import SIDE, disproof, needed, proof
from comfyload.judge.gates.verdict import GateVerdict, Verdict, make_verdict, no_data, open_words, verdict_of
from comfyload.judge.statistics.binomial import clopper_pearson
from comfyload.judge.statistics.bursts import LONGEST, ONE_BY_ONE, Bursts, bursts_of
from comfyload.judge.summary import Measured


def judge_share(gate: Gate, measured: Measured) -> GateVerdict:
    """k of n. The wrong side of an upper limit are the successes."""
    found = measured.summary.statistic(gate.name, gate.workflow)
    if found.value is None:
        return no_data(gate, measured, found.reason, found)
    bursts = _bursts(gate, measured)
    allowed = gate.limit if gate.upper else round(1 - gate.limit, 12)
    per_trial = ONE_BY_ONE if gate.independent else bursts.jobs_per_trial(allowed)
    trials, alone = (bursts.bad / per_trial, bursts.n / per_trial), (bursts.runs, bursts.n)
    p_fail = min(disproof(*trials, allowed), disproof(*alone, allowed))
    verdict = verdict_of(proof(*trials, allowed), p_fail, gate.holds(found.value, gate.limit))
    needs = needed(bursts.bad, allowed, per_trial=per_trial) if verdict == "PASS*" else None
    bad_low, bad_high = clopper_pearson(*trials, 1 - 2 * SIDE)
    bad_low = max(bad_low, clopper_pearson(*alone, 1 - 2 * SIDE)[0])
    low, high = (bad_low, bad_high) if gate.upper else (1 - bad_high, 1 - bad_low)
    why = _why(gate, bursts, verdict, p_fail, (needed(bursts.bad, allowed), needs))
    return make_verdict(gate, measured, verdict, why, found, low=low, high=high, p_fail=p_fail, needs=needs)


def _bursts(gate: Gate, measured: Measured) -> Bursts:
    """Of what counts against the gate, in the order of submission."""
    jobs = measured.jobs
    if gate.name.startswith("book"):
        failed = books_failed(arrivals_of(jobs, measured.manifest.plan.pages))
    else:
        failed = failures_of(jobs, measured.jobs_of(gate.workflow))
    return bursts_of(~failed if gate.upper else failed)


def _why(gate: Gate, bursts: Bursts, verdict: Verdict, p_fail: float, needs: tuple[int | None, int | None]) -> str:
    """`needs`: how many jobs a proof takes if failures come one at a time, and in bursts."""
    unit, goal = "books" if gate.name.startswith("book") else "jobs", f"{100 * gate.limit:g} %"
    n, bad, runs = bursts.n, bursts.bad, bursts.runs
    good = bad if gate.upper else n - bad
    counted = f"{'All ' if n > 1 else 'The '}{f'{n} {unit}' if n > 1 else unit[:-1]} completed"
    counted = counted if good == n else f"{good} of {n} {unit} completed"
    if verdict == "PASS":
        taken = "if failures come one at a time" if gate.independent else "bursts of failures allowed for"
        return f"{counted}. {'At most' if gate.upper else 'At least'} {goal} is proven (one-sided, 95 %), {taken}."
    if verdict == "PASS*":
        return f"{counted}. {_proof(gate, bursts, unit, goal, *needs)}"
    several = f"; the others failed in {runs} burst{'' if runs == 1 else 's'}" if runs < bad and not gate.upper else ""
    return f"{counted}{several}{open_words(verdict, p_fail)}."


def _proof(gate: Gate, bursts: Bursts, unit: str, goal: str, alone: int | None, needs: int | None) -> str:
    if needs is None or alone is None:
        return f"No number of {unit} proves {goal}."
    few = "" if bursts.bad == 0 else f" with no more than {bursts.bad} {'completed' if gate.upper else 'failed'}"
    if needs == alone:
        return f"To prove {goal}: {needs} {unit}{few}."
    in_bursts = f"if they come in bursts {'as long as they may be here' if bursts.bad else f'of up to {LONGEST:.0f}'}"
    if bursts.n >= alone:
        return f"That proves {goal} if failures come one at a time; {in_bursts}, it takes {needs} {unit}{few}."
    return f"To prove {goal}: {alone} {unit}{few} if failures come one at a time, {needs} {in_bursts}."
