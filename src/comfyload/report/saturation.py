"""How a found saturation is shown: the answers first, then what was measured, then what to know of it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfyload.advise.rate import Rate
from comfyload.advise.saturation import Saturated
from comfyload.advise.validation import Prediction
from comfyload.report.advice import validation_table
from comfyload.report.console import draw
from comfyload.report.text import DASH, decimals, duration, fixed, percent, span

__all__ = ["render_saturation"]


def render_saturation(found: Saturated, console: Console) -> None:
    """Print it; at 80 columns nothing is cut."""
    parts: list[Text | Table] = [_answers(found), _steps(found)]
    if found.confirmation is not None:
        parts += [_confirmed(found), validation_table(found.confirmation)]
    if found.findings:
        parts.append(Text("\n".join(found.findings)))
    for number, part in enumerate(parts):
        if number:
            console.print()
        draw(part, console)


def _answers(found: Saturated) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    knee = DASH if found.knee is None else f"{found.knee} in flight; more only wait in the queue"
    grid.add_row("Knee", knee if found.serial else knee.replace("; more only wait in the queue", ""))
    grid.add_row("Capacity", _rate(found.capacity_per_minute))
    service = found.service_s
    if service is not None and service.estimate is not None:
        known = service.low is not None and service.high is not None
        sure = f"  ({span(duration(service.low or 0.0), duration(service.high or 0.0))})" if known else ""
        grid.add_row("A job takes", f"{duration(service.estimate)}{sure}, its pause included")
    rate = found.sla_rate_per_minute
    if rate is not None:
        sla = f"{100 * found.share:g} % within {found.limit_s:g} s"
        grid.add_row("Highest rate", f"{_rate(rate)} with {sla}")
        grid.add_row("To deploy", _to_deploy(rate, found.limit_s))
    return grid


def _to_deploy(rate: Rate, limit_s: float) -> str:
    if rate.estimate is None:
        return f"withheld: {_most(rate)}"
    if not rate.estimate:
        return f"nothing: too many jobs alone take over {limit_s:g} s"
    if not rate.low:
        return "withheld: so few jobs do not tell how long the longest take"
    doubt = {True: "", False: ", not confirmed", None: ", which no run has confirmed"}[rate.confirmed]
    return f"{fixed(rate.low, decimals(rate.low))} a minute{doubt}"


def _most(rate: Rate) -> str:
    return f"no more than {fixed(rate.high, decimals(rate.high))} a minute" if rate.high else "nothing is left of it"


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return DASH
    if rate.estimate is None:
        return "withheld"
    places = decimals(rate.estimate)
    sure = ""
    if rate.low is not None and rate.high is not None:
        sure = f"  ({span(fixed(rate.low, places), fixed(rate.high, places))}, {100 * rate.confidence:g} %)"
    elif rate.high is not None:
        sure = f"  (up to {fixed(rate.high, places)}, {100 * rate.confidence:g} %)"
    return f"{fixed(rate.estimate, places)} a minute{sure}"


def _steps(found: Saturated) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("in flight", "jobs", "server busy", "GPU busy", "service", "jobs/min"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.steps:
        table.add_row(
            str(one.concurrency),
            str(one.jobs),
            DASH if one.server_busy is None else percent(one.server_busy),
            DASH if one.gpu_busy_percent is None else f"{one.gpu_busy_percent:.0f} %",
            DASH if one.service_s is None else duration(one.service_s),
            DASH if one.jobs_per_minute is None else fixed(one.jobs_per_minute, decimals(one.jobs_per_minute)),
        )
    return table


def _confirmed(found: Saturated) -> Text:
    confirmation = found.confirmation
    if confirmation is None:
        return Text("")
    rate = found.sla_rate_per_minute
    if rate is not None and rate.confirmed:
        return Text.assemble(("CONFIRMED", "bold green"), " by a run at nine tenths of the rate to deploy:")
    why = [words for check in confirmation.checks if (words := _missed(check))]
    words = "; ".join([*why, *confirmation.reasons]) or "see below"
    return Text.assemble(("NOT CONFIRMED", "bold yellow"), f": {words}")


def _missed(check: Prediction) -> str:
    """How a check of the confirming run speaks against the model; "" if it does not."""
    if check.passed is not False:
        return ""
    if check.inside is None:
        return f"its waits are {100 * check.error:.0f} % off what its own execution times make them"
    return (
        f"its {check.of} is {duration(check.measured_s)}, not {duration(check.predicted_s)}" if check.error < 0 else ""
    )
