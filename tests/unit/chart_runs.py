"""Made-up runs for the tests of charts and pages: one with everything in it, one that is long, one with nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import structs

from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Line, Manifest, Record, Sample
from comfyload.report.charts import charts
from comfyload.report.document import jobs
from comfyload.report.overview import Shown
from tests.unit.judge_runs import FACTS, censored, failed, job, manifest, one_by_one

EVIL = "<script>alert(1)</script>"
HOSTILE = structs.replace(
    FACTS,
    graph={node: {"class_type": known.class_type, "_meta": {"title": EVIL}} for node, known in FACTS.nodes.items()},
)
"""A workflow whose nodes are all called what would run in a page that believes its data."""


def varied(n: int = 60, *, warmup: int = 2, seed: int = 7) -> list[Record]:
    """Jobs of about 12 s, the first warm-up one cold, of which some failed, were cached, or cut off by the end."""
    seconds = [float(x) for x in np.random.default_rng(seed).lognormal(2.5, 0.15, n + warmup)]
    seconds[0] *= 3
    records = one_by_one(seconds)
    for index in range(warmup):
        records[index] = structs.replace(records[index], warmup=True)
    if n >= 30:
        records[13] = failed(13, records[13].due, 9.0, message=f"mat1 and mat2 {EVIL}")
        records[17] = failed(17, records[17].due, 30.0, "timed_out", kind="timeout")
        records[20] = job(20, records[20].due, 0.4, cached=["3", "9"])
        records[21] = job(21, records[21].due, 4.0, cached=["3"])
        records[-1] = censored(records[-1])
    return records


def gpu_samples(until: float, *, silent: tuple[float, float] = (200.0, 260.0)) -> list[Sample]:
    """NVML once a second, which could not tell between the two instants, and a queue that is written as it changes."""
    out = []
    for second in range(int(until)):
        wave = math.sin(second / 9)
        known = not silent[0] <= second < silent[1]
        readings = {
            "gpu.0.utilisation_percent": 88 + 11 * wave,
            "gpu.0.vram_used_bytes": (9 + 6 * min(1, second / 100)) * 2**30,
            "gpu.0.power_w": 240 + 50 * wave,
        }
        for name, value in readings.items():
            out.append(Sample(t=float(second), source="nvml", name=name, value=value if known else None))
        if second % 12 == 0:
            out.append(Sample(t=float(second), source="comfy", name="queue_remaining", value=float(second // 12 % 3)))
    return out


def hostile_manifest(n: int = 60, warmup: int = 2, **changes: Any) -> Manifest:
    return manifest(n, warmup=warmup, workflows=[HOSTILE], name=f"book {EVIL}", **changes)


def shown(run: Manifest, lines: Sequence[Line], samples: Sequence[Sample] = ()) -> Shown:
    """The run as a page takes it."""
    measured = judged(run, lines, samples)
    return Shown(measured=measured, charts=charts(measured, lines, samples), jobs=list(jobs(run, lines)))


def judged(run: Manifest, lines: Sequence[Line], samples: Sequence[Sample] = ()) -> Measured:
    return measure("run", run, lines, samples)


def hostile() -> Shown:
    """Everything at once, and every name and message a script."""
    records = varied()
    return shown(hostile_manifest(), list(records), gpu_samples(records[-1].due))
