"""The runs of a baseline at a glance, and where its README and its page are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from comfyload.report.page import Page, Row, Value, table
from comfyload.report.sections import p95
from comfyload.report.values import value_of
from comfyload.words import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comfyload.judge.summary import Summary
    from comfyload.record.archive import Kept

_COLUMNS = ("workflow", "load", ">images/min", ">half wait", ">p95", ">success", "")


def kept_page(kept: Kept, summaries: Sequence[Summary]) -> Page:
    """The page of a baseline; `summaries` are of its runs, in their order."""
    rows = list[Row]()
    for run, summary in zip(kept.manifest.runs, summaries, strict=True):
        rate, half, success = (
            structs.replace(value_of(summary.statistics[key]), interval="", note="")
            for key in ("images_per_minute", "p50_latency_s", "success_rate")
        )
        state = Value(words="" if summary.valid else "INVALID", look="bad")
        tail = structs.replace(p95(summary), interval="")
        rows.append([run.name, run.load, rate, half, tail, success, state])
    files = {"README": "README.md", "Page": "report.html"}
    return Page(
        title=kept.folder,
        subtitle=[f"saved {kept.manifest.saved_utc[:16].replace('T', ' ')} UTC", count(len(rows), "run")],
        tables=[table("runs", _COLUMNS, rows)],
        places=[(label, str(kept.path / file)) for label, file in files.items() if (kept.path / file).exists()],
    )
