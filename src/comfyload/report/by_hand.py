"""What is said of a folder of the archive that was made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfyload.judge.columns.ledger import clean
from comfyload.report.text import count, decimals, fixed, percent

if TYPE_CHECKING:
    from comfyload.record.by_hand import ByHand, Stated

__all__ = ["by_hand_words", "stated_words"]

_MADE = "made by hand: no manifest, cannot be verified"
_LARGEST = 1e12
"""A number from here on is none that a load test measured."""
_KEYS = {"avg_latency_s": "mean {} s", "p95_latency_s": "p95 {} s", "images_per_minute": "{} images/min"}
"""Of a summary: what the checklist's section 5 asks for."""


def by_hand_words(folder: ByHand) -> str:
    """What it is, and what the first of its files states."""
    if not folder.stated:
        return f"{_MADE}; no load*.json in it"
    more = f" (and {count(len(folder.stated) - 1, 'more file')})" if len(folder.stated) > 1 else ""
    return f"{_MADE}; {stated_words(folder.stated[0])}{more}"


def stated_words(stated: Stated) -> str:
    """`load_2024-06-01.json says 12 jobs, 100 % success, p95 31.2 s`, of what it has."""
    file = clean(stated.file, 60)
    if stated.summary is None:
        return f"{file} has no summary"
    said = ["not VALID"] if stated.summary.get("valid") is False else []
    if (jobs := _number(stated.summary.get("total_jobs"))) is not None:
        said.append(count(round(jobs), "job"))
    if (rate := _number(stated.summary.get("success_rate"))) is not None:
        said.append(f"{percent(rate)} success" if 0 <= rate <= 1 else f"success_rate {rate:g}")
    for key, words in _KEYS.items():
        if (value := _number(stated.summary.get(key))) is not None:
            said.append(words.format(fixed(value, decimals(value))))
    return f"{file} says {', '.join(said)}" if said else f"{file} has a summary of other keys"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return None
    return float(value)
