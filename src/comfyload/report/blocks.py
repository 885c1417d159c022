"""The rows about an open load, books and several workflows, which most runs lack."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Summary
from comfyload.judge.workflows import WorkflowRow
from comfyload.record.model import Manifest
from comfyload.record.plan import Closed
from comfyload.report.durations import Notes
from comfyload.report.made import rate_label
from comfyload.report.text import DASH, count, decimals, duration, fixed, percent

__all__ = ["books", "rates", "retried", "switches", "workflows"]


def rates(manifest: Manifest, summary: Summary) -> str | None:
    """Arrivals per minute that were due, sent and completed; None of a closed load, which asks for no rate."""
    if isinstance(manifest.plan.load, Closed):
        return None
    named = (("due", "offered_per_minute"), ("sent", "sent_per_minute"), ("completed", "completed_per_minute"))
    return ", ".join(f"{_number(summary.summary[key])} {name}" for name, key in named)


def books(summary: Summary) -> str | None:
    """Books offered by their ends; None if an arrival is one job."""
    row = summary.books
    if row is None:
        return None
    ends = {"failed": row.failed, "dropped": row.dropped, "cut off by the end": row.censored}
    parts = [f"{row.completed} complete", *(f"{number} {words}" for words, number in ends.items() if number)]
    return f"{row.books}, each of {count(row.pages, 'page')} = {' + '.join(parts)}"


def workflows(summary: Summary, notes: Notes) -> Table | None:
    """A row for each of several workflows; latencies are from due."""
    if len(summary.workflows) < 2:
        return None
    rate = "prev/min" if rate_label(summary) == "Previews/min" else "img/min"
    table = _table("Workflows", ("jobs", "success", "mean", "p95", "execution", rate, "cached"))
    for name, row in summary.workflows.items():
        table.add_row(Text(name), *_cells(row, notes))
    return table


def switches(summary: Summary) -> Table | None:
    """Mean execution by what the server ran before; None if it never switched.

    There is no row of all together: it would compare workflows that are often repeated with workflows that seldom are.
    """
    if not summary.after.switched_s.n:
        return None
    table = _table("Mean execution", ("after its own", "after a switch"))
    for name, row in summary.workflows.items():
        table.add_row(Text(name), _mean_of(row.after.same_s), _mean_of(row.after.switched_s))
    return table


def retried(summary: Summary) -> Text | None:
    """What retries saved and cost, with the first attempts beside; None without a policy."""
    row = summary.retries
    if row is None:
        return None
    rate = row.first_success_rate.value
    first = [] if rate is None else [f"success {percent(rate)}"]
    for name, statistic in (("p50", row.first_p50_latency_s), ("p95", row.first_p95_latency_s)):
        if statistic.value is not None:
            first.append(f"{name} {duration(statistic.value)}")
    cost = "" if row.amplification is None else f", {row.amplification:.3g} for each job that was sent"
    unknown = row.executed_unknown
    least = "at least " if unknown else ""
    besides = f" (of {count(unknown, 'attempt')} that is not known)" if unknown else ""
    held = f", {count(row.not_sent, 'job')} not sent at all" if row.not_sent else ""
    return Text.assemble(
        ("Retries", "bold"),
        f"  {row.attempts} attempts{cost}; {count(row.retried, 'job')} sent again, {row.saved} of them saved{held}; "
        f"{least}{duration(row.executed_for_nothing_s)} executed for nothing{besides}.\n",
        f"First attempts alone: {', '.join(first) or DASH}.",
    )


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(title)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(row: WorkflowRow, notes: Notes) -> list[str]:
    shown = (row.avg_latency_s, row.p95_latency_s, row.avg_execution_s)
    return [
        str(row.jobs),
        DASH if row.success_rate.value is None else percent(row.success_rate.value),
        *(_seconds(statistic, notes) for statistic in shown),
        _number(row.images_per_minute.value),
        str(row.cached),
    ]


def _mean_of(statistic: Statistic) -> str:
    return DASH if statistic.value is None else f"{duration(statistic.value)} ({count(statistic.n, 'job')})"


def _seconds(statistic: Statistic, notes: Notes) -> str:
    return f"{DASH}{notes.mark(statistic.reason)}" if statistic.value is None else duration(statistic.value)


def _number(value: object) -> str:
    return fixed(value, decimals(value)) if isinstance(value, float) else DASH
