"""What is in a folder of the archive: a baseline's runs at a glance, or what was put there by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from comfyload.judge.columns.ledger import clean
from comfyload.judge.summary import Measured
from comfyload.record.archive import Kept
from comfyload.record.by_hand import ByHand
from comfyload.report.page import Page
from comfyload.report.sections import results
from comfyload.words import count, digits, percent


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


# --- made by hand

_LARGEST = 1e12
"""From here on a number was not measured by a load test."""
_KEYS = {"avg_latency_s": "mean {} s", "p95_latency_s": "p95 {} s", "images_per_minute": "{} images/min"}
"""Of a summary: what the checklist's section 5 asks for."""


def by_hand_words(folder: ByHand) -> str:
    """What it holds, and how to have a baseline that holds more."""
    held = f"{len(folder.stated)} load*.json" if folder.stated else "no load*.json"
    return f"by hand: {held}, no runs (comfyload baseline save makes one that can be verified)"


def stated_words(file: str, summary: Mapping[str, Any] | None) -> str:
    """`load_2024-06-01.json: 12 jobs, 100 % success, p95 31.2 s`, as far as it states them."""
    file = clean(file, 60)
    if summary is None:
        return f"{file} has no summary"
    parts = ["not VALID"] if summary.get("valid") is False else []
    if (jobs := _number(summary.get("total_jobs"))) is not None:
        parts.append(count(round(jobs), "job"))
    if (rate := _number(summary.get("success_rate"))) is not None:
        parts.append(f"{percent(rate)} success" if 0 <= rate <= 1 else f"success_rate {rate:g}")
    for key, words in _KEYS.items():
        if (value := _number(summary.get(key))) is not None:
            parts.append(words.format(digits(value)))
    return f"{file}: {', '.join(parts)}" if parts else f"{file} has a summary of other keys"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return None
    return float(value)
