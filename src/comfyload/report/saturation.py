"""The Page of `saturate`: knee, capacity and the rate to deploy first, then what was measured and checked."""

import math
from typing import Any

from msgspec import structs

from comfyload.advise.rate import Rate
from comfyload.advise.saturation import Saturated
from comfyload.advise.validation import Checked, Prediction, Validation
from comfyload.judge.summary import jsonable
from comfyload.report.page import Look, Page, PageLine, Remark, Row, State, Table, Value, table
from comfyload.report.values import in_words
from comfyload.words import DASH, digits, duration, span

HOW: dict[Checked, str] = {
    "structural": "from its own times",
    "replay": "with its own arrivals",
    "blind": "before it ran",
}
"""How the model predicted a run: with less and less taken from the run itself."""


def saturation_page(found: Saturated, next_: list[str]) -> Page:
    """`next_`: command lines to type now."""
    tables = [_steps(found)]
    if found.confirmation is not None:
        tables.append(validation_table("checks", "The confirming run", found.confirmation))
    return Page(
        title="",
        states=[] if found.confirmation is None else [_confirmed(found, found.confirmation)],
        facts=_answers(found),
        tables=tables,
        remarks=[Remark("info", sentence) for sentence in found.findings],
        next=next_,
    )


def saturation_json(found: Saturated) -> dict[str, Any]:
    """All of it as JSON types, the rate to deploy included."""
    rate = {"deploy_per_minute": found.deploy_per_minute, "confirmed": found.confirmed}
    return {"knee": found.knee, **rate, **jsonable(found)}


def _answers(found: Saturated) -> list[PageLine]:
    knee = DASH if found.knee is None else f"{found.knee} in flight"
    waits = "; more only wait in the queue" if found.knee is not None and found.serial else ""
    facts = [PageLine("Knee", Value(f"{knee}{waits}")), PageLine("Capacity", _rate(found.capacity_per_minute))]
    service = found.service_s
    if service is not None and service.estimate is not None:
        time = in_words(service.estimate, service.low, service.high, "s")
        facts.append(PageLine("One job", structs.replace(time, words=f"every {time.words}")))
    rate = found.sla_rate_per_minute
    if rate is not None:
        sla = f"{100 * found.share:g} % of jobs within {found.limit_s:g} s"
        highest = _rate(rate)
        words = f"{highest.words} with {sla}" if rate.estimate is not None else highest.words
        facts.append(PageLine("Highest rate", Value(words, interval=highest.interval)))
        look: Look = "good" if rate.confirmed and found.deploy_per_minute else "doubt"
        facts.append(PageLine("To deploy", Value(_to_deploy(found, rate)), look=look))
    return facts


def _to_deploy(found: Saturated, rate: Rate) -> str:
    if rate.estimate == 0:
        return f"{DASH}  (too many jobs take over {found.limit_s:g} s even if none waits)"
    if rate.confirmed is False:
        why = _why_not(found.confirmation) or "see below"
        bound = found.lower_bound_per_minute
        left = "" if not bound else f"; lower bound from the confirming run: {_per_minute(bound)}"
        return f"{DASH}  (not confirmed: {why}{left})"
    if not rate.low:
        return f"{DASH}  (too few jobs to know how long the longest take)"
    return f"{_per_minute(rate.low)}{'' if rate.confirmed else ', which no run has confirmed'}"


def _per_minute(value: float) -> str:
    return f"{digits(value)} a minute"


def _rate(rate: Rate | None) -> Value:
    if rate is None or rate.estimate is None:
        return Value(DASH)
    value = in_words(rate.estimate, rate.low, rate.high)
    sure = f"{value.interval}, {100 * rate.confidence:g} %" if value.interval else ""
    return Value(f"{value.words} a minute", interval=sure)


def _steps(found: Saturated) -> Table:
    rows: list[Row] = [
        [
            str(one.concurrency),
            str(one.jobs),
            in_words(one.server_busy, unit="share"),
            DASH if one.gpu_busy_percent is None else f"{one.gpu_busy_percent:.0f} %",
            in_words(one.service_s, unit="s"),
            in_words(one.jobs_per_minute),
        ]
        for one in found.steps
    ]
    titles = (">in flight", ">jobs", ">server busy", ">GPU busy", ">service time", ">jobs/min")
    return table("steps", titles, rows)


def _confirmed(found: Saturated, confirmation: Validation) -> State:
    tried = f" at {_per_minute(found.tried_per_minute)}" if found.tried_per_minute else ""
    if found.confirmed:
        return State("CONFIRMED", "good", f"A run{tried} went as predicted.")
    why = "; ".join([word for word in (_why_not(confirmation), *confirmation.reasons) if word]) or "see below"
    return State("NOT CONFIRMED", "doubt", f"A run{tried} did not go as predicted: {why}.")


def _why_not(confirmation: Validation | None) -> str:
    """What of the confirming run contradicts the prediction; "" if nothing does."""
    checks = [] if confirmation is None else confirmation.checks
    return "; ".join(words for check in checks if (words := _missed(check)))


def _missed(check: Prediction) -> str:
    """How a check contradicts the prediction; "" if it does not."""
    if check.passed is not False:
        return ""
    if check.inside is None:
        return f"its waits are {100 * check.error:.0f} % off what its own execution times give"
    took = f"its {check.of} is {duration(check.measured_s)}, not {duration(check.predicted_s)}"
    return took if check.error < 0 else ""


def validation_table(key: str, title: str, validation: Validation) -> Table:
    """Each check of the model against a run; it takes a reader who knows the model, so that it is a detail."""
    rows = []
    for check in validation.checks:
        known = check.low is not None and check.high is not None and math.isfinite(check.high)
        band = span(duration(check.low or 0.0), duration(check.high or 0.0)) if known else ""
        off = "off" if check.inside is None else "longer" if check.error < 0 else "shorter"
        rows.append(
            [
                f"{check.of}, {HOW[check.name]}",
                duration(check.measured_s),
                duration(check.predicted_s),
                f"{100 * check.error:+.1f} %" if check.name != "structural" else f"±{100 * check.error:.1f} %",
                band,
                "" if check.passed is None else "ok" if check.passed else off,
            ]
        )
    columns = ("latency", ">measured", ">predicted", ">error", ">19 of 20 runs lie in", ">")
    return table(key, columns, rows, title=title, detail=True)
