"""`checklist`: look at the server, run each workflow with 1, 2 and 4 jobs in flight, keep a baseline, judge it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct, structs

from comfyload.app.doctor import DoctorCheck
from comfyload.app.locate import Result, measured
from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import folder_of_runs, run
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.viewer import Viewer
from comfyload.app.saturate import check_interrupted
from comfyload.clock import stopwatch
from comfyload.errors import UsageError
from comfyload.record.plan import Closed
from comfyload.record.run import RunReader

SAMPLES = Path("infra/comfyui/samples")
NAMES = ("book_small", "book_medium", "book_large")
CONCURRENCY = (1, 2, 4)
WARMUP = 1


class Round(Struct, frozen=True, kw_only=True):
    """One run of the checklist."""

    workflow: str
    concurrency: int


class TimeLeft:
    """How long the runs take, by the seconds that a job of each workflow has taken so far.

    One server runs one job at a time, so that this hardly depends on how many are in flight.
    """

    def __init__(self, planned: Sequence[Round], jobs: int) -> None:
        self._planned = planned
        self._jobs = jobs + WARMUP
        self._job_s: dict[str, float] = {}
        self._elapsed = 0.0

    def expect(self, workflows: Sequence[str], checks: Sequence[DoctorCheck]) -> None:
        """Take over what doctor knows from earlier runs; it has one check of the cost for each workflow, in order."""
        costs = [check.facts.get("execution_s") for check in checks if check.name == "cost"]
        self._job_s = {file: cost for file, cost in zip(workflows, costs, strict=False) if cost is not None}

    def ended(self, one: Round, seconds: float) -> None:
        """A run ended that took so long, warm-up included."""
        self._job_s[one.workflow] = seconds / self._jobs
        self._elapsed += seconds

    def left_s(self, number: int, share: float = 0.0) -> float | None:
        """Seconds from here to the end, where this share of run `number`, from 1, is done; None: not known."""
        costs = [self._job_s.get(one.workflow) for one in self._planned[number - 1 :]]
        known = [cost for cost in costs if cost is not None]
        return None if len(known) < len(costs) else self._jobs * (sum(known) - share * known[0])

    def whole_s(self, number: int) -> float | None:
        """Seconds that all runs take together, as known at the start of run `number`, from 1; None: not known."""
        left = self.left_s(number)
        return None if left is None else self._elapsed + left


def default_workflows() -> list[str]:
    """The three samples of the checklist, where they lie in a project.

    Raises:
        UsageError: they are not there.
    """
    for folder in (SAMPLES, Path("../samples"), Path("samples")):
        files = [folder / f"{name}.json" for name in NAMES]
        if all(file.is_file() for file in files):
            return [str(file) for file in files]
    raise UsageError(
        f"{SAMPLES} does not hold {', '.join(f'{name}.json' for name in NAMES)}",
        "go to the project's root, or name workflows with --workflow",
    )


async def run_rounds(
    options: RunOptions,
    planned: list[Round],
    viewer: Callable[[int], Viewer],
    ended: Callable[[Round, float, Result], None],
) -> list[Result]:
    """Make the runs one after the other, each after a job to warm up.

    `viewer` is called with the number of a run, from 1. `ended`: with a run, the seconds that it took, and its result.

    Raises:
        NothingMeasured: a cap was reached before all were made.
        KeyboardInterrupt: the user stopped a run.
    """
    base = folder_of_runs("checklist")
    results, caps = [], Caps(options)
    for number, one in enumerate(planned, 1):
        plan = structs.replace(options.plan, load=Closed(concurrency=one.concurrency), warmup=WARMUP)
        path = base / f"{number:02}-{Path(one.workflow).stem}-c{one.concurrency}"
        this = structs.replace(options, workflows=[WorkflowChoice(file=one.workflow)], plan=plan, run_dir=str(path))
        elapsed = stopwatch()
        await run(this, viewer(number), caps=caps)
        if caps.cut or (caps.reached and number < len(planned)):
            raise caps.short(f"all {len(planned)} runs were made: no baseline is kept", base)
        reader = RunReader(path)
        check_interrupted(reader)
        results.append(Result(reader=reader, measured=measured(reader)))
        ended(one, elapsed(), results[-1])
    return results
