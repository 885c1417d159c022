"""`saturate`: find where one server saturates, what it can carry within an SLA, and confirm that by a run."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from comfyload.advise.saturation import LADDER, Saturated
from comfyload.app.campaign import FEW, FIRST_WARMUP, WARMUP, Campaign, CampaignOptions, Cut
from comfyload.app.locate import measured
from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import folder_of_runs, run
from comfyload.app.run.viewer import Viewer
from comfyload.errors import NothingMeasured
from comfyload.judge.gates.sequential import early_abort
from comfyload.judge.summary import Measured
from comfyload.record.model import Manifest, Record
from comfyload.record.plan import Plan
from comfyload.record.run import RunReader

BROKEN = ("oom", "cuda")


class Guard:
    """Ends a run early when the GPU is out of memory or broken, or too many jobs fail."""

    def __init__(self) -> None:
        self.why = ""
        self._ends: Counter[bool] = Counter()
        self._broken = 0

    def stop_reason(self, record: Record, _manifest: Manifest, _path: Path) -> str:
        """Why the run should end with this job."""
        failure = record.execution.failure
        self._broken += failure is not None and failure.kind in BROKEN
        if not record.warmup and not record.censored:
            self._ends[record.execution.outcome == "completed"] += 1
        if self._broken >= 2:
            self.why = "the GPU ran out of memory, or broke, in two jobs"
        elif early_abort(self._ends[True], self._ends[False]) == "fail":
            self.why = f"{self._ends[False]} of {self._ends.total()} jobs failed"
        return self.why


def expected_jobs(options: CampaignOptions) -> int:
    """How many jobs will be sent where no more than two in flight are needed and a job takes some seconds."""
    workflows = len(options.run.workflows)
    if options.slow:
        return len(LADDER) * (options.jobs + WARMUP) + FIRST_WARMUP - WARMUP
    return FIRST_WARMUP + options.jobs + 2 * WARMUP + max(FEW, 3 * workflows) + options.confirm_jobs


async def saturated(readers: Sequence[RunReader], limit_s: float) -> Saturated:
    """What runs show that an earlier `saturate` made, in the order in which they began.

    Raises:
        NothingMeasured: they are no such runs, or the server reported no times.
    """
    runs = [measured(reader) for reader in sorted(readers, key=lambda reader: reader.manifest.started_utc)]
    if not runs:
        raise NothingMeasured("there are no runs", "choose a folder that saturate made")
    options = CampaignOptions(run=runs[0].manifest.options, limit_s=limit_s)
    return await Campaign.recorded(options, runs).result()


def check_interrupted(reader: RunReader) -> None:
    """End the whole command where the user stopped one of its runs.

    Raises:
        KeyboardInterrupt: the user did.
    """
    if reader.manifest.end in ("stopped", "cancelled"):
        raise KeyboardInterrupt


async def saturate(
    options: CampaignOptions,
    viewer: Callable[[str], Viewer],
    folder: Path | None = None,
    more: Callable[[int, float], bool] = lambda _jobs, _seconds: False,
) -> Saturated:
    """Make runs until the rate to deploy is known; `viewer` gets the purpose of each run in words.

    `more`: whether to send this many more jobs, which take this many seconds, where the first ones are too few.

    Raises:
        UsageError: the folder exists.
        NothingMeasured: jobs failed, the server reports no times, or a cap was reached too soon for a result.
    """
    caps = Caps(options.run)
    folder = folder_of_runs("saturate", folder)

    async def make(plan: Plan, name: str, words: str) -> Measured:
        path, guard = folder / name, Guard()
        one = structs.replace(options.run, plan=plan, run_dir=str(path))
        await run(one, viewer(words), guard.stop_reason, caps=caps)
        reader = RunReader(path)
        check_interrupted(reader)
        found = measured(reader)
        if caps.cut:
            cut = Cut(f"{caps.reached} ({words})", f"allow more; see the run: comfyload show {path}")
            cut.run = found
            raise cut
        if guard.why:
            raise NothingMeasured(f"stopped ({words}): {guard.why}", f"see the run: comfyload show {path}")
        return found

    campaign = Campaign(options, make)
    await campaign.measure()
    found = await campaign.result()
    with suppress(Cut):  # the result so far stays
        while found.more_jobs and not caps.reached and more(found.more_jobs, campaign.takes_s(found.more_jobs)):
            await campaign.more(found.more_jobs)
            found = await campaign.result()
    return found
