"""Which of many jobs' stamps need a second look: all that cannot be true are among them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from comfyload.judge.metrics import Instant
from comfyload.record.stamps import COARSE_MS, FASTER, LAST, SECONDS_FROM, SECONDS_TO

Floats = NDArray[np.float64]


def doubtful(at: Mapping[Instant, Floats]) -> NDArray[np.bool_]:
    """Which jobs `record.stamps.believed` may not believe: it decides, at ten times the cost."""
    create, start, end = at["create_ms"], at["start_ms"], at["end_ms"]
    sent = np.where(np.isnan(at["sent"]), at["due"], at["sent"])
    most = FASTER * 1000 * (at["done"] - sent) + COARSE_MS
    found = np.zeros(len(sent), np.bool_)
    for stamp in (create, start, end):
        found |= (stamp < 0) | (stamp >= LAST) | ((stamp >= SECONDS_FROM) & (stamp < SECONDS_TO))
    for length in (start - create, end - start, end - create):
        found |= (length < 0) | (length > most)
    return found
