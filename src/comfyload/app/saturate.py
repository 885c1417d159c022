"""`saturate`: find where one server saturates, what it can carry within an SLA, and confirm that by a run."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from comfyload.advise.saturation import LADDER
from comfyload.app.campaign import FEW, FIRST_WARMUP, WARMUP, Campaign, CampaignOptions, Cut
from comfyload.app.locate import measured
from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import run
from comfyload.errors import NothingMeasured, UsageError
from comfyload.judge.gates.sequential import early_abort
from comfyload.record.run import RunReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.advise.saturation import Saturated
    from comfyload.app.run.viewer import Viewer
    from comfyload.judge.summary import Measured
    from comfyload.record.model import Manifest, Record
    from comfyload.record.plan import Plan

__all__ = ["CampaignOptions", "expected_jobs", "saturate"]

BROKEN = ("oom", "cuda")


class Guard:
    """Ends a run early when going on would be a waste: the GPU is out of memory or broken, or too much fails."""

    def __init__(self) -> None:
        self.why = ""
        self._ends: Counter[bool] = Counter()
        self._broken = 0

    def should_stop(self, record: Record, _manifest: Manifest, _path: Path) -> bool:
        """Whether this job's end is the one too many."""
        failure = record.execution.failure
        self._broken += failure is not None and failure.kind in BROKEN
        if not record.warmup and not record.censored:
            self._ends[record.execution.outcome == "completed"] += 1
        if self._broken >= 2:
            self.why = "the GPU ran out of memory, or broke, in two jobs"
        elif early_abort(self._ends[True], self._ends[False]) == "fail":
            self.why = f"{self._ends[False]} of {self._ends.total()} jobs had no success"
        return bool(self.why)


def expected_jobs(asked: CampaignOptions) -> int:
    """How many jobs will be sent, if no more than two in flight are needed, and a job takes some seconds."""
    workflows = len(asked.options.workflows)
    if asked.slow:
        return len(LADDER) * (asked.jobs + WARMUP) + FIRST_WARMUP - WARMUP
    return FIRST_WARMUP + asked.jobs + 2 * WARMUP + max(FEW, 3 * workflows) + asked.confirm_jobs


async def saturate(
    asked: CampaignOptions,
    viewer: Callable[[str], Viewer],
    folder: Path | None = None,
    more: Callable[[int, float], bool] = lambda _jobs, _seconds: False,
) -> Saturated:
    """Run, judge, and go on until it is known; `viewer` is given in words what each run is for.

    `more`: whether to send so many more jobs, which take so many seconds, where those sent tell too little.

    Raises:
        UsageError: the folder exists.
        NothingMeasured: jobs failed, the server tells no times, or a cap was reached too soon: nothing can be said.
    """
    caps = Caps(asked.options)
    folder = folder or Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-saturate"
    if folder.exists():
        raise UsageError(f"{folder} exists", "name another --run-dir; runs are never overwritten")

    async def make(plan: Plan, name: str, words: str) -> Measured:
        path, guard = folder / name, Guard()
        await run(structs.replace(asked.options, plan=plan, run_dir=str(path)), viewer(words), guard, caps=caps)
        if caps.cut:
            raise Cut(f"{caps.reached}, with {words}", f"allow more; look at what was run: comfyload show {path}")
        found = measured(RunReader(path))
        if guard.why:
            raise NothingMeasured(f"stopped with {words}: {guard.why}", f"look at it: comfyload show {path}")
        return found

    campaign = Campaign(asked, make)
    await campaign.measure()
    found = await campaign.result()
    with suppress(Cut):  # what is found stays found
        while found.more_jobs and not caps.reached and more(found.more_jobs, campaign.takes_s(found.more_jobs)):
            await campaign.more(found.more_jobs)
            found = await campaign.result()
    return found
