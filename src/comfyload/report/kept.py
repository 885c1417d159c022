"""The runs of a baseline at a glance, and where its README and its page are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfyload.report.page import Column, Page, Table, Value
from comfyload.words import DASH, count, decimals, duration, fixed, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comfyload.judge.summary import Summary
    from comfyload.record.archive import Kept

__all__ = ["kept_page"]

_TITLES = ("images/min", "half wait", "p95", "success")


def kept_page(kept: Kept, summaries: Sequence[Summary]) -> Page:
    """The page of a baseline; `summaries` are of its runs, in their order."""
    rows = [
        [Value(words=run.name), Value(words=run.load), *_numbers(summary), Value(words=_state(summary), look="bad")]
        for run, summary in zip(kept.manifest.runs, summaries, strict=True)
    ]
    columns = [Column(title="workflow"), Column(title="load")]
    columns += [*(Column(title=title, right=True) for title in _TITLES), Column(title="")]
    files = {"README": "README.md", "Page": "report.html"}
    return Page(
        title=kept.folder,
        subtitle=[f"saved {kept.manifest.saved_utc[:16].replace('T', ' ')} UTC", count(len(rows), "run")],
        tables=[Table(key="runs", title="", columns=columns, rows=rows)],
        places=[(label, str(kept.path / file)) for label, file in files.items() if (kept.path / file).exists()],
    )


def _numbers(summary: Summary) -> list[Value]:
    rate, half, success = (
        summary.statistics[key].value for key in ("images_per_minute", "p50_latency_s", "success_rate")
    )
    return [
        Value(words=DASH if rate is None else fixed(rate, decimals(rate))),
        Value(words=DASH if half is None else duration(half)),
        _tail(summary),
        Value(words=DASH if success is None else percent(success)),
    ]


def _tail(summary: Summary) -> Value:
    """The p95, or the longest latency where there are too few jobs for one."""
    known, longest = summary.statistics["p95_latency_s"].value, summary.summary.get("max_latency_s")
    if known is not None:
        return Value(words=duration(known))
    if not isinstance(longest, float):
        return Value(words=DASH)
    return Value(words=f"\N{LESS-THAN OR EQUAL TO} {duration(longest)}", note="the slowest job: too few jobs for a p95")


def _state(summary: Summary) -> str:
    return "" if summary.valid else "INVALID"
