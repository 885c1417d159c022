"""Limits of one command over all its runs: a number of jobs, and a time."""

from pathlib import Path

from comfyload.app.run.options import RunOptions
from comfyload.app.run.sharing import shard_of
from comfyload.clock import stopwatch
from comfyload.errors import NothingMeasured


class Caps:
    """Counts from when it is made, on the running loop. Every admitted job counts: warm-up, failed, dropped."""

    def __init__(self, options: RunOptions) -> None:
        self._jobs, self._seconds = options.max_jobs, options.max_time_s
        self._most = _share(options)
        self._elapsed = stopwatch()
        self._sent = 0
        self._refused = False
        self.cut = False
        """Whether a run was cut short by them."""

    @property
    def left_s(self) -> float | None:
        """Seconds in which jobs may still be sent; None: no cap."""
        return None if self._seconds is None else max(0.0, self._seconds - self._elapsed())

    @property
    def reached(self) -> str:
        """Which cap is reached, in words; "" if none is."""
        if self._refused:
            ours = "" if self._most == self._jobs else f", of which {self._most} are this shard's,"
            return f"--max-jobs {self._jobs}{ours} was reached"
        if self.left_s == 0.0:
            return f"--max-time {self._seconds:g}s was reached"
        return ""

    def admits(self, jobs: int) -> bool:
        """Whether so many more jobs may be sent, which counts them. After the first refusal, all are refused."""
        if not self.reached and self._most is not None and self._sent + jobs > self._most:
            self._refused = True
        if self.reached:
            return False
        self._sent += jobs
        return True

    def short(self, what: str, folder: Path) -> NothingMeasured:
        """The error for a command that was cut short before `what`; its runs are in `folder`."""
        return NothingMeasured(
            f"{self.reached} before {what}", f"the runs so far are in {folder}; raise the limit, or run less"
        )


def _share(options: RunOptions) -> int | None:
    """The most jobs of this process: of the first arrivals, which all shards together may send, its own."""
    shard, pages = shard_of(options), options.plan.pages
    if options.max_jobs is None or shard.is_whole:
        return options.max_jobs
    return shard.share(options.max_jobs // pages) * pages
