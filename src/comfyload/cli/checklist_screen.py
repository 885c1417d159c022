"""What `comfyload checklist` shows while its runs go on, and at the end."""

import shlex
from collections.abc import Sequence
from functools import partial

from rich.text import Text

from comfyload.app.baseline import PAGE, README
from comfyload.app.checklist import WARMUP, Round, TimeLeft
from comfyload.app.locate import Result, Target
from comfyload.app.run.viewer import Viewer
from comfyload.cli.advise import policy_from
from comfyload.cli.output import echo
from comfyload.cli.progress import Part, clock_words, table_text, viewer_for
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.summary import Measured
from comfyload.record.archive import Kept
from comfyload.report.checklist import Found, checklist_pages, results_table
from comfyload.report.console import Screen
from comfyload.report.render.terminal import render


class ChecklistProgress:
    """What is shown of all runs together: the results so far, and the time left."""

    def __init__(self, planned: Sequence[Round], pace: TimeLeft, jobs: int, *, quiet: bool) -> None:
        self._planned, self._pace, self._quiet = planned, pace, quiet
        self._results: list[Measured] = []
        self._table = Text()
        if not quiet:
            whole = pace.whole_s(1)
            total = len(planned) * (jobs + WARMUP)
            takes = (
                "the time left appears once each workflow has run" if whole is None else f"about {clock_words(whole)}"
            )
            echo(f"\n{len(planned)} runs of {jobs} jobs, each after one to warm up: {total} jobs, {takes}.", err=True)

    def viewer(self, number: int) -> Viewer:
        """Of run `number`, from 1."""
        name = f"Run {number} of {len(self._planned)}"
        left = partial(self._left, number, self._pace.whole_s(number))
        return viewer_for(quiet=self._quiet, part=Part(name=name, above=lambda: self._table, left=left))

    def ended(self, one: Round, seconds: float, result: Result) -> None:
        """A row more."""
        self._pace.ended(one, seconds)
        self._results.append(result.measured)
        if not self._quiet:
            self._table = table_text(results_table(self._results))

    def _left(self, number: int, whole: float | None, share: float) -> str:
        left = self._pace.left_s(number, share)
        return "" if left is None or whole is None else f"about {clock_words(left)} left of {clock_words(whole)}"


def show_results(found: Target, verdicts: list[GateVerdict], kept: Kept, *, server: str, workflows: list[str]) -> None:
    """The table of results, what they mean, where they are kept, and what to do next."""
    middle = workflows[len(workflows) // 2]
    result = Found(
        name=kept.folder,
        runs=found.runs,
        verdicts=verdicts,
        warmup=WARMUP,
        places=[("Page", str(kept.path / PAGE)), ("README", str(kept.path / README))],
        next=[
            shlex.join(["comfyload", "saturate", "--server", server, "--workflow", middle, "--p95", "45s"]),
            policy_from(found.name or kept.folder),
        ],
    )
    console = Screen()
    for page in checklist_pages(result):
        console.print()
        render(page, console)
