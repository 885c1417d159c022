"""The runs of a baseline at a glance, and where its README and its page are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from comfyload.report.page import Page
from comfyload.report.sections import results
from comfyload.words import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comfyload.judge.summary import Measured
    from comfyload.record.archive import Kept


def kept_page(kept: Kept, runs: Sequence[Measured]) -> Page:
    """The page of a baseline: its results, whose intervals and notes its README and its page have."""
    table = results(runs)
    rows = [[structs.replace(cell, interval="", note="") for cell in row] for row in table.rows]
    files = {"README": "README.md", "Page": "report.html"}
    return Page(
        title=kept.folder,
        subtitle=[f"saved {kept.manifest.saved_utc[:16].replace('T', ' ')} UTC", count(len(rows), "run")],
        tables=[structs.replace(table, title="", rows=rows)],
        places=[(label, str(kept.path / file)) for label, file in files.items() if (kept.path / file).exists()],
    )
