"""`compare` and `trend`: one result against another, and all of them through time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfyload.app.results import find, measured
from comfyload.errors import RunFilesError
from comfyload.judge.comparison.compare import compare
from comfyload.judge.comparison.history import history
from comfyload.record import archive

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comfyload.judge.comparison.compare import Comparison
    from comfyload.judge.comparison.history import Series

__all__ = ["compare_targets", "trend"]


def compare_targets(
    a: str, b: str, base: Path, *, paired: bool = False, margin: float = 0.05, accept: Sequence[str] = ()
) -> Comparison:
    """B against A; each is a run, a baseline or several of them.

    Raises:
        RunFilesError: there is no such thing.
        UsageError: what made them differs so that a comparison means nothing.
    """
    return compare(find(a, base).runs, find(b, base).runs, paired=paired, margin=margin, accept=accept)


def trend(base: Path, metrics: Sequence[str]) -> list[Series]:
    """Every metric through the baselines of an archive, oldest first; no metrics named: the usual ones.

    Raises:
        RunFilesError: the archive holds none.
    """
    listed = archive.list_all(base)
    entries = [
        (kept.path.name, reader.manifest.started_utc, measured(reader)) for kept in listed for _, reader in kept.runs()
    ]
    if not entries:
        by_hand = " but folders made by hand, which have no records" if archive.list_by_hand(base) else ""
        raise RunFilesError(f"{base} holds no baselines{by_hand}", "save one with comfyload baseline save")
    return history(entries, metrics) if metrics else history(entries)
