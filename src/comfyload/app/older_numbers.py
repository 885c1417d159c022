"""How a version before this one stated numbers that have been made others on purpose since."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from comfyload.judge.columns.jobs import Jobs

_OTHERS = ("videos", "audio_files", "files_3d", "latents", "texts", "other_files")


def as_before(again: Mapping[str, Any], jobs: Jobs, stated: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as a version makes it that counts previews among the images, and gives a p99 of however few jobs.

    Where jobs made anything but images, that version may have called it an image or not: what it says of images, and
    of files that came again, is left out.
    """
    images, wall_s, latency = again["images"] + again["previews"], again["wall_clock_s"], np.sort(jobs.known("latency"))
    p99 = float(latency[math.ceil(0.99 * len(latency)) - 1]) if len(latency) else None
    before = {**again, "images": images, "observed_p99_latency_s": p99}
    rate = stated.get("images_per_minute")
    if rate is not None and wall_s:
        expected = 60 * images / wall_s
        before["images_per_minute"] = rate if math.isclose(rate, expected, rel_tol=1e-9) else expected
    if any(again[key] for key in _OTHERS):
        before = {key: value for key, value in before.items() if not key.startswith("image") and key != "valid"}
    return before
