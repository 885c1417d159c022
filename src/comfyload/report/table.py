"""The table that ends a run: first whether it counts and why, then the numbers, then what to know of them."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfyload.judge.columns.nodes import NODE_CLOCK_S
from comfyload.judge.findings.table import Finding
from comfyload.judge.numbers import NUMBERS
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Summary
from comfyload.record.model import Manifest, SelfCheck
from comfyload.record.outcomes import OUTCOMES
from comfyload.report.blocks import books, rates, retried, switches, workflows
from comfyload.report.busy import gpu_words, server_words
from comfyload.report.console import draw
from comfyload.report.durations import Notes, durations
from comfyload.report.made import made_rows, rate_label
from comfyload.report.plan_text import plan_words
from comfyload.report.text import (
    DASH,
    count,
    decimals,
    duration,
    fixed,
    percent,
    span,
)
from comfyload.visible import visible

__all__ = ["render"]

_COLOURS = {"invalid": "bold red", "warning": "yellow", "info": "cyan"}


def render(manifest: Manifest, summary: Summary, console: Console) -> None:
    """Print the run. Looks the same without colour; at 80 columns nothing is cut."""
    notes = Notes()
    parts: list[Text | Table | None] = [
        _title(manifest),
        _verdict(summary),
        _ledger(manifest, summary, notes),
        durations(summary, notes),
        workflows(summary, notes),
        switches(summary),
        retried(summary),
        notes.text(),
        _nodes(summary),
        _failures(summary),
        _findings(summary),
        _self_check(manifest.self_check),
    ]
    for number, part in enumerate(part for part in parts if part is not None):
        if number:
            console.print()
        draw(part, console)


def _title(manifest: Manifest) -> Text:
    plan, server = manifest.plan, manifest.server
    version = f" (ComfyUI {visible(server.comfyui_version)})" if server.comfyui_version else ""
    text = Text(visible(manifest.name), style="bold")
    text.append(f" on {server.url}{version}\n", style="not bold")
    asked = f"{plan_words(plan)}{', unchanged graph' if plan.as_is else ''}"
    between = "\n" if len(asked) + len(manifest.run_id) > 77 else " · "
    text.append(f"{asked}{between}{manifest.run_id}", style="not bold dim")
    return text


def _verdict(summary: Summary) -> Text | Table:
    invalid = [finding for finding in summary.findings if finding.level == "invalid"]
    if invalid:
        grid = _grid(2)
        head = Text("NOT VALID", style="bold red")
        head.append(". The numbers below do not measure what they are named after:", style="not bold")
        table = Table.grid()
        table.add_row(head)
        for finding in invalid:
            _add_finding(grid, finding)
        table.add_row(grid)
        return table
    warnings = sum(finding.level == "warning" for finding in summary.findings)
    if warnings:
        return Text.assemble(("VALID", "bold yellow"), f", with {count(warnings, 'warning')} (below).")
    return Text.assemble(("VALID", "bold green"), ". Nothing was found that speaks against these numbers.")


def _ledger(manifest: Manifest, summary: Summary, notes: Notes) -> Table:
    flat, grid = summary.summary, _grid(2)
    by_us = int(flat["cancelled"] or 0) - int(flat["censored"] or 0)
    counts = {**flat, "cancelled": by_us}
    numbers = [*(NUMBERS[row.key] for row in OUTCOMES.values()), NUMBERS["censored"]]
    ends = [f"{counts[row.key]} {row.words}" for row in numbers if counts[row.key] or row.key == "completed"]
    unfinished = f" · {flat['unfinished']} without an end" if flat["unfinished"] else ""
    grid.add_row("Jobs", f"{flat['total_jobs']} offered = {' + '.join(ends)}{unfinished}")
    arrivals = "Arrivals/min" if summary.books is None else "Books/min"
    optional = ((arrivals, rates(manifest, summary)), ("Books", books(summary)))
    for label, words in optional:
        if words is not None:
            grid.add_row(label, Text(words))
    grid.add_row("Success", _with_interval(summary.statistics["success_rate"], notes, percent))
    grid.add_row("Cache", _cache(summary))
    for label, words in made_rows(summary):
        grid.add_row(label, Text(words))
    if rate := rate_label(summary):
        grid.add_row(rate, _with_interval(summary.statistics["images_per_minute"], notes))
    grid.add_row("Jobs/min", _with_interval(summary.statistics["jobs_per_minute"], notes))
    if words := server_words(summary.saturation):
        grid.add_row("Server", Text(words))
    for gpu, row in summary.gpus.items():
        if words := gpu_words(row, notes.mark):
            grid.add_row(f"GPU {gpu}", Text(words))
    if summary.books is not None:
        grid.add_row("Books whole", _with_interval(summary.statistics["book_success_rate"], notes, percent))
        grid.add_row("Books/h", _with_interval(summary.statistics["books_per_hour"], notes))
    wall = flat["wall_clock_s"]
    grid.add_row("Wall clock", f"{duration(wall)}, first due to last end" if isinstance(wall, float) else DASH)
    return grid


def _cache(summary: Summary) -> str:
    if not summary.summary["completed"]:
        return DASH
    fresh, partial, cached = (summary.cache[name] for name in ("fresh", "partial", "cached"))
    text = f"{fresh.jobs} fresh"
    if not partial.jobs + cached.jobs:
        return f"{text}: no completed job came from the server's cache"
    text += f", {partial.jobs} partly and {cached.jobs} wholly from the server's cache"
    alone = fresh.avg_latency_s.value
    if alone is not None:
        text += f"; the latency below is of all, that of the fresh alone {duration(alone)} on average"
    return text


def _with_interval(statistic: Statistic, notes: Notes, write: Callable[[float], str] | None = None) -> Text:
    if statistic.value is None:
        return Text(f"{DASH}{notes.mark(statistic.reason)}")
    places = decimals(statistic.value)
    written = write or (lambda value: fixed(value, places))
    text = Text(written(statistic.value))
    if statistic.low is not None and statistic.high is not None:
        text.append(f"  ({span(written(statistic.low), written(statistic.high))})", style="dim")
    elif statistic.high is not None:
        notes.rates_open = True
        text.append(f"  (up to {written(statistic.high)})", style="dim")
    return text


def _nodes(summary: Summary) -> Table | None:
    if not summary.nodes:
        return None
    shown = summary.nodes[:5]
    where = {name: f"{name}: " for name in summary.workflows} if len(summary.workflows) > 1 else {}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(f"Nodes (by arrival of messages, ±{1000 * NODE_CLOCK_S:.0f} ms)")
    for name in ("runs", "mean", "p95", "share"):
        table.add_column(name, justify="right")
    for row in shown:
        p95, mean = row.p95_s.value, row.avg_s.value
        table.add_row(
            Text(visible(f"{where.get(row.workflow, '')}{row.node} {row.class_type or '(not in the graph)'}")),
            str(row.n),
            DASH if mean is None else duration(mean),
            DASH if p95 is None else duration(p95),
            DASH if row.share is None else percent(row.share),
        )
    if len(summary.nodes) > len(shown):
        table.add_row(Text(f"and {len(summary.nodes) - len(shown)} more", style="dim"))
    return table


def _failures(summary: Summary) -> Table | None:
    if not summary.failures:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Failures", no_wrap=True)
    table.add_column("jobs", justify="right")
    table.add_column("node")
    table.add_column("first message")
    failures = [row for row in summary.failures if row.kind not in ("dropped", "censored")]  # told in the ledger
    if not failures:
        return None
    for row in failures[:10]:
        kind = row.kind if not row.type or row.type == row.kind else f"{row.kind}\n  {row.type}"
        table.add_row(
            Text(kind), str(row.count), Text(visible(row.node_class or "")), Text(f"{row.example} (job {row.index})")
        )
    if len(failures) > 10:
        table.add_row(Text(f"and {len(failures) - 10} more causes", style="dim"))
    return table


def _findings(summary: Summary) -> Table | None:
    rest = [finding for finding in summary.findings if finding.level != "invalid"]
    if not rest:
        return None
    grid = _grid(2)
    for finding in rest:
        _add_finding(grid, finding)
    return grid


def _add_finding(grid: Table, finding: Finding) -> None:
    text = Text(finding.text)
    if finding.hint:
        text.append(f" {finding.hint}", style="dim")
    grid.add_row(Text(finding.level, style=_COLOURS[finding.level]), text)


def _self_check(check: SelfCheck | None) -> Text | None:
    if check is None:
        return Text("Self-check: the generator did not measure itself; our own error is not known.", style="dim")
    parts = []
    for name, spread in (("sent", check.send_lateness_s), ("timers", check.timer_lateness_s)):
        if spread is not None:
            parts.append(f"{name} {duration(spread.p99)} late (p99), {duration(spread.max)} at most")
    parts.append(f"CPU {percent(check.busy_fraction)} busy")
    if check.gc_pauses_s is not None:
        parts.append(
            f"{count(check.gc_pauses_s.n, 'collection')} of garbage, {duration(check.gc_pauses_s.max)} at most"
        )
    return Text(f"Self-check: {' · '.join(parts)}.", style="dim")


def _grid(gap: int) -> Table:
    grid = Table.grid(padding=(0, gap, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    return grid
