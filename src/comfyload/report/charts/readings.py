"""Telemetry as series: what was read when, with a gap wherever a source could not tell."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable

import numpy as np

from comfyload.record.model import Sample
from comfyload.report.charts.chart import MOST

_GAP = 5.0
"""Readings further apart than this many usual pauses have a gap between them: the source fell silent."""


class ReadingSeries:
    """Readings of one source under one name; NaN is a reading without a value."""

    def __init__(self) -> None:
        self._at, self._values = array("d"), array("d")

    def add(self, t: float, value: float | None) -> None:
        self._at.append(t)
        self._values.append(math.nan if value is None else value)

    @property
    def known(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The readings that have a value."""
        values = np.frombuffer(self._values, np.float64)
        return values[np.isfinite(values)]

    @property
    def high(self) -> float | None:
        return float(self.known.max()) if len(self.known) else None

    def thinned(self, *, polled: bool = False) -> list[tuple[float, float | None]]:
        """At most `MOST` points, in the order of time; of more readings, the mean of each stretch. None is a gap.

        `polled`: readings come at a steady pace, so a long silence is a gap too.
        """
        at, values = np.frombuffer(self._at, np.float64), np.frombuffer(self._values, np.float64)
        order = np.argsort(at, kind="stable")
        at, values = at[order], values[order]
        if len(at) > MOST:
            parts = np.array_split(np.arange(len(at)), MOST // 2)
            at = np.array([at[part[0]] for part in parts])
            # One unknown reading makes the stretch unknown: a bridge over it would be a claim.
            values = np.array([float(np.mean(values[part])) for part in parts])
        points: list[tuple[float, float | None]] = []
        usual = float(np.median(np.diff(at))) if len(at) > 2 else math.inf
        for t, value in zip(at, values, strict=True):
            if polled and points and t - points[-1][0] > _GAP * usual:
                points.append((points[-1][0] + usual, None))
            points.append((float(t), float(value) if math.isfinite(value) else None))
        return points


def series(samples: Iterable[Sample]) -> dict[tuple[str, str], ReadingSeries]:
    """All readings by source and name."""
    out: dict[tuple[str, str], ReadingSeries] = {}
    for sample in samples:
        out.setdefault((sample.source, sample.name), ReadingSeries()).add(sample.t, sample.value)
    return out
