"""The Pages of `policy` and `capacity`: a retry policy with its scores, and what to expect at other loads."""

from collections.abc import Sequence

from msgspec import Struct, structs

from comfyload.advise.choose_policy import OURS, infeasible
from comfyload.advise.forecast import Estimate, Forecast, Sizing
from comfyload.advise.validation import Validation
from comfyload.record.policy import Policy, Rule, Score
from comfyload.report.page import Look, Page, Remark, Row, State, Table, Value, table
from comfyload.report.saturation import validation_table
from comfyload.report.values import in_words
from comfyload.words import DASH, count, decimals, digits, fixed, percent, scale, seconds_words

NO_RETRY = "no retry"
_ALIKE = 0.005
_TROUBLE = {
    "steady": "no trouble",
    "burst": "twice the capacity",
    "restart": "a restart",
    "failures": "5 % of executions fail",
    "stall": "a minute's stall",
    "poison": "5 % fail, 3 % always",
    "sick": "60 % of executions fail",
}


# --- a policy


def policy_page(policy: Policy, file: str, doubts: Sequence[str], next_: list[str]) -> Page:
    """`file`: where it was written, "" if nowhere. `doubts`: what the runs do not show. `next_`: commands to type."""
    wrote = f"Wrote {file}" if file else "Not written"
    reasons = [(path, why) for path, why in policy.explanations.items() if not path.startswith("infeasible.")]
    rows = [(path, _value(policy, path), why) for path, why in reasons]
    tables = [table("numbers", ("", ">", "~"), rows, title="Each number and its reason", detail=True)]
    if policy.scores:
        tables = [_against_rivals(policy), *tables, *_scores(policy)]
    return Page(
        title=f"{wrote}: {policy_sentence(policy)}.",
        states=[State("NOT POSSIBLE", "bad", f"{text}.") for text in infeasible(policy)],
        tables=tables,
        remarks=[Remark("warning", doubt) for doubt in doubts],
        next=next_,
    )


def policy_sentence(policy: Policy) -> str:
    """The numbers that a user feels: 90 s in all, at most 22 prompts ahead, 3 attempts, hung after 60 s."""
    depth, attempts = policy.admission.depth, count(policy.attempts, "attempt")
    parts = ["no deadline" if policy.deadline_s is None else f"{seconds_words(policy.deadline_s)} in all"]
    parts.append("any number of prompts ahead" if depth is None else f"at most {count(depth, 'prompt')} ahead")
    parts.append(attempts)
    if policy.liveness_s is not None:
        parts.append(f"hung after {policy.liveness_s:.3g} s")
    return ", ".join(parts)


def trouble_words(scenario: str) -> str:
    """A simulated trouble in words."""
    return _TROUBLE.get(scenario, scenario)


def rule_words(policy: Policy, rule: Rule) -> str:
    """What is done about a class of failures: sent again up to twice, elsewhere, after a pause."""
    if not rule.retry:
        return "not sent again"
    attempts = policy.attempts if rule.attempts is None else rule.attempts
    if rule.charged:
        attempts = min(attempts, policy.attempts)
    if attempts < 2:
        return "not sent again"
    backoff = policy.backoff
    up_to = "" if backoff.jitter == "none" else "up to "
    pause = f"after a pause of {up_to}{backoff.base_s:g} s, doubled each time, at most {backoff.cap_s:.3g} s"
    parts = [f"sent again, at most {count(attempts, 'attempt')} in all"]
    parts += ["another server preferred"] if rule.elsewhere else []
    parts += ["models unloaded first"] if rule.free_memory else []
    parts.append(
        {"none": "at once", "backoff": pause, "retry_after": f"when the server says, else {pause}"}[rule.delay]
    )
    parts += [] if rule.charged else ["costs no GPU time"]
    return ", ".join(parts)


def _against_rivals(policy: Policy) -> Table:
    """A row for each trouble: the share done in time with this policy, without any, and with the best other one."""
    rows = list[Row]()
    for ours in (row for row in policy.scores if row.policy == OURS):
        others = {row.policy: row for row in policy.scores if row.scenario == ours.scenario and row.policy != OURS}
        best = max(others.values(), key=lambda row: row.success, default=None)
        half = "" if ours.success_half_width is None else f" ±{100 * ours.success_half_width:.1f}"
        mark = "" if best is None else _mark(ours, best)
        look: Look = "bad" if mark.startswith("✗") else "plain"
        rivals = (others.get(NO_RETRY), best)
        cells = [DASH if rival is None else percent(rival.success) for rival in rivals]
        with_it = Value(f"{percent(ours.success)}{half}", look=look)
        rows.append([trouble_words(ours.scenario), with_it, *cells, Value(mark, look=look)])
    done = "done in time" if policy.deadline_s is None else f"done in {seconds_words(policy.deadline_s)}"
    columns = (done, ">with it", f">{NO_RETRY}", ">best other", "")
    note = "Simulated from the measured jobs. = differs by less than the ±, which is a 95 % interval."
    return table("rivals", columns, rows, note=note)


def _mark(ours: Score, best: Score) -> str:
    """Better, alike, or worse and than which; alike is what the simulated worlds do not tell apart."""
    noise = max(_ALIKE, ours.success_half_width or 0.0)
    ahead = ours.success - best.success
    return "✓" if ahead > noise else f"✗ {best.policy}" if ahead < -noise else "="


def _value(policy: Policy, path: str) -> str:
    value: object = policy
    for name in path.split("."):
        value = getattr(value, name, None)
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scores(policy: Policy) -> list[Table]:
    """A table for each trouble, with a row for each policy: the share done in time, and what it cost."""
    columns = ("policy", ">in time", ">±", ">per min", ">sent", ">wasted", ">recovers")
    tables = []
    for scenario in dict.fromkeys(row.scenario for row in policy.scores):
        rows = [_cells(row) for row in policy.scores if row.scenario == scenario]
        title = trouble_words(scenario)
        tables.append(table(f"scores.{scenario}", columns, rows, title=title, detail=True))
    return tables


def _cells(row: Score) -> Row:
    never = "never" if row.scenario in ("burst", "restart", "stall", "sick") else ""
    recovers = never if row.recovery_s is None else seconds_words(row.recovery_s) if row.recovery_s else "at once"
    return [
        row.policy,
        percent(row.success),
        "" if row.success_half_width is None else f"{100 * row.success_half_width:.1f}",
        in_words(row.goodput_per_min),
        in_words(row.submits_per_job),
        in_words(row.wasted_share, unit="share"),
        recovers,
    ]


# --- a forecast


class Outlook(Struct, frozen=True, kw_only=True):
    """A forecast, from the times of `jobs` jobs.

    `rows`: at the given rate by number of servers, or of a given number by rate; `dispatches`: the ways to share jobs
    out among several servers, at the same load; `sizing` None: the number of servers was given. `doubts`: sentences on
    what it does not cover. `validation`: how the model did on other runs, by their paths.
    """

    jobs: int
    rows: list[Forecast]
    dispatches: list[Forecast]
    sizing: Sizing | None
    capacity_per_s: float
    limit_s: float
    doubts: list[str]
    validation: dict[str, Validation] = {}


def capacity_page(found: Outlook, workflows: Sequence[str], next_: list[str]) -> Page:
    """The answer in a sentence, then latency by rate or by number of servers, then how the model did on other runs.

    `workflows`: whose jobs it rests on. `next_`: command lines to type now.
    """
    per_min, jobs = digits(60 * found.capacity_per_s), count(found.jobs, "job")
    source = f"From {jobs} of {', '.join(workflows)}: one server completes at most {per_min} jobs a minute."
    answer = "" if found.sizing is None else sizing_words(found.sizing)
    tables = [forecast_table(found.rows, found.limit_s)] if found.rows else []
    if found.dispatches:
        tables.append(_dispatch_table(found.dispatches, found.limit_s))
    for path, validation in found.validation.items():
        head = "as predicted" if validation.passed else "not as predicted, or too little known to tell"
        checks = validation_table("validation", f"{path}: {head}", validation)
        tables.append(structs.replace(checks, detail=False, note=". ".join(validation.reasons)))
    return Page(
        title=answer or source,
        subtitle=[source] if answer else [],
        tables=tables,
        remarks=[Remark("warning", doubt) for doubt in found.doubts],
        next=next_,
    )


def forecast_table(rows: Sequence[Forecast], limit_s: float) -> Table:
    """A row for each number of servers at each rate; latencies with their 90 % intervals."""
    unit = _unit(rows, ("p50_s", "p95_s", "p99_s"))
    out = list[Row]()
    for row in rows:
        cells = [digits(60 * row.rate_per_s), str(row.servers), f"{100 * row.load.estimate:.0f} %"]
        latencies = [_seconds(value, unit) for value in (row.p50_s, row.p95_s, row.p99_s)]
        out.append([*cells, *_stable(row, latencies), _late(row)])
    times = (f"{name}, {unit[1]}" for name in ("p50", "p95", "p99"))
    titles = ("per min", "servers", "load", *times, f">{limit_s:g} s")
    return table("forecast", [f">{title}" for title in titles], out, note="Ranges are 90 % intervals.")


def _dispatch_table(rows: Sequence[Forecast], limit_s: float) -> Table:
    unit = _unit(rows, ("p50_s", "p95_s"))
    out = list[Row]()
    for row in rows:
        latencies = [_seconds(value, unit) for value in (row.p50_s, row.p95_s)]
        out.append([row.dispatch.replace("_", " "), *_stable(row, latencies), _late(row)])
    head = f"{count(rows[0].servers, 'server')} at {digits(60 * rows[0].rate_per_s)} a minute"
    return table("dispatch", (head, f">p50, {unit[1]}", f">p95, {unit[1]}", f">>{limit_s:g} s"), out)


def _stable(row: Forecast, latencies: list[Value]) -> list[Value]:
    """At or beyond the capacity the latency has no limit."""
    rest = [Value("∞")] * (len(latencies) - 1)
    return latencies if row.stable else [Value("unstable", look="bad"), *rest]


def _late(row: Forecast) -> Value:
    if not row.stable:
        return Value("100 %")
    return Value(DASH if row.missed is None else percent(row.missed.estimate))


def _unit(rows: Sequence[Forecast], names: Sequence[str]) -> tuple[float, str]:
    """Milliseconds where every latency is below a second."""
    return scale([getattr(row, name).estimate for row in rows if row.stable for name in names], below=1.0)


def _seconds(value: Estimate, unit: tuple[float, str]) -> Value:
    """A latency with its interval, which goes without saying where all of it rounds to the same number."""
    factor, name = unit
    places = decimals(factor * value.estimate, 1 if name == "ms" else 3)
    words, low, high = (fixed(factor * one, places) for one in (value.estimate, value.low, value.high))
    return Value(words, interval="" if low == words == high else f"{low}{DASH}{high}")


def sizing_words(sizing: Sizing) -> str:
    """How many servers, in a sentence."""
    limit = f"{sizing.limit_s:g} s"
    if not sizing.rows:
        return f"No number of servers keeps the p95 within {limit}: too many jobs take longer even if none waits."
    if sizing.enough is None:
        return f"Not even {count(sizing.rows[-1].servers, 'server')} keep the p95 within {limit}."
    words = f"{count(sizing.enough, 'server')} {'keeps' if sizing.enough == 1 else 'keep'} the p95 within {limit}"
    if sizing.with_spare is None:
        return f"{words}; with a spare one, more are needed than were tried."
    if sizing.with_spare == sizing.enough:
        return f"{words}, and carry the load, if slower, when one of them is lost."
    return f"{words}; to carry the load when one is lost, {sizing.with_spare} are needed."
