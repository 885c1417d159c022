"""Whether memory grew within a run: the server's, its GPUs', and our own."""

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import Finding, finding
from comfyload.judge.statistics.shift import block_means, shift
from comfyload.words import digits, duration, percent

OWN = ("generator", "generator.rss_bytes")
"""Source and name of our own resident memory."""
_SETTLING = 0.1
"""The share of the readings that is left out at the beginning, while models and caches fill."""
_FEWEST, _LEAST, _LEAST_BYTES = 100, 0.03, 16 << 20


class Growth(Struct, frozen=True, kw_only=True):
    """By how many bytes, from how many on. `at_s`: when, of a step; None: little by little, at so much an hour."""

    grown: float
    before: float
    at_s: float | None
    per_hour: float | None


def growth_findings(evidence: Evidence) -> Iterator[Finding]:
    """What grew, the server's first. A resumed run has had several processes of ours."""
    for what, at, held in _of_server(evidence):
        if (found := growth(at, held)) is not None:
            yield finding("memory_growth", _words(what, found), _evidence(found))
    own = evidence.fold.resident.get(OWN)
    if own is not None and not evidence.manifest.resumed and (found := growth(*map(np.asarray, own))) is not None:
        yield finding("own_growth", _words("The generator's own memory", found), _evidence(found))


def growth(at: Floats, held: Floats) -> Growth | None:
    """How memory grew, None if it may not have, or if it is not worth a word. `at`: instants in seconds, ascending."""
    known = ~np.isnan(held)
    at, held = at[known], held[known]
    settled = int(_SETTLING * len(held))
    at, held = at[settled:], held[settled:]
    if len(held) < _FEWEST:
        return None
    found = shift(block_means(held))
    if found is None or found.change < max(_LEAST_BYTES, _LEAST * found.before):
        return None
    step = None if found.at is None else float(at[min(len(at) - 1, round(found.at * len(at)))])
    hours = float(at[-1] - at[0]) / 3600
    per_hour = found.change / hours if step is None and hours > 0 else None
    return Growth(grown=found.change, before=found.before, at_s=step, per_hour=per_hour)


def _of_server(evidence: Evidence) -> Iterator[tuple[str, Floats, Floats]]:
    """The server's process by the best source that read it, and each GPU that is surely its own."""
    fold = evidence.fold
    for source in ("probe", "host"):
        if (found := fold.resident.get((source, "server.rss_bytes"))) is not None:
            yield "The server's memory", np.asarray(found[0]), np.asarray(found[1])
            break
    for gpu in fold.gpus.gpus:
        series = fold.gpus.best(gpu, "vram_used")
        if series.alike == 1:
            yield f"Memory in use on GPU {gpu}", series.at, series.values


def _words(what: str, found: Growth) -> str:
    how = "little by little" if found.at_s is None else f"at once, {duration(found.at_s)} after the run began"
    pace = "" if found.per_hour is None else f", {_mib(found.per_hour)} an hour"
    share = f" ({percent(found.grown / found.before)})" if found.before > 0 else ""
    return f"{what} grew by {_mib(found.grown)}{share} from {_mib(found.before)}, {how}{pace}."


def _evidence(found: Growth) -> dict[str, float | None]:
    per_hour = found.per_hour
    return {"bytes": found.grown, "before_bytes": found.before, "at_s": found.at_s, "bytes_per_hour": per_hour}


def _mib(size: float) -> str:
    return f"{digits(size / 2**20)} MiB"
