"""What is shown while a run goes on: a live line on a terminal, a plain one every few seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from comfyload.judge.columns.cache import CacheJudge
from comfyload.judge.metrics import METRICS
from comfyload.record.model import Record, Sent
from comfyload.record.plan import Closed, Replay
from comfyload.record.ranks import quantiles_of
from comfyload.report.console import Screen
from comfyload.report.text import decimals, fixed
from comfyload.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rich.console import Console

    from comfyload.record.model import Line, Manifest, Observation
    from comfyload.record.plan import Plan

__all__ = ["NoProgress", "Plain", "Terminal", "viewer_for", "working"]

RECENT = 100
"""Jobs that the rolling numbers are taken over."""

PLAIN_EVERY_S = 5.0


def viewer_for(*, quiet: bool) -> NoProgress:
    """The viewer that fits where standard error goes."""
    if quiet:
        return NoProgress()
    console = _Beside(stderr=True)
    return Terminal(console) if console.is_terminal else Plain(console)


@contextmanager
def working(words: str, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Shows on a terminal how far a computation is, and when it may end; what it yields is told the share done."""
    console = _Beside(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    silent = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent) as shown:
        task = shown.add_task(words, total=1.0)
        yield lambda share: shown.update(task, completed=share)


class _Beside(Screen):
    """Standard error of a command that goes on whether somebody reads that or not."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class LiveCounts:
    """The few numbers that progress shows, counted as the summary counts them. `cache`: which files a job made."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self.queue: int | None = None
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.images = 0
        self.cache = CacheJudge([])
        self.phase = "warm-up"
        self.began = time.monotonic()

    @property
    def done(self) -> int:
        return sum(self.outcomes.values())

    def start(self, total: int | None, phase: str) -> None:
        self.total, self.phase, self.began = total, phase, time.monotonic()
        self.sent, self.images = 0, 0
        self.outcomes.clear()
        self.recent.clear()

    def add(self, line: Line) -> None:
        if isinstance(line, Sent):
            self.sent += 1
            return
        execution = line.execution
        self.outcomes[execution.outcome] += 1
        files = self.cache.judge(line)
        if execution.outcome == "completed":
            self.images += files.images
            if (latency_s := METRICS["latency"].of(line)) is not None:
                self.recent.append(latency_s)

    def place(self) -> list[str]:
        """How far the run is: done, time left."""
        if self.total is None or self.done > self.total:  # how many chance arrivals there will be is a guess
            return [f"{self.done} done"]
        words = [f"{self.done}/{self.total}"]
        elapsed = time.monotonic() - self.began
        if self.done and elapsed > 1 and self.done < self.total:
            words.append(f"{_clock(elapsed / self.done * (self.total - self.done))} left")
        return words

    def words(self) -> list[str]:
        """Failed, in flight, server queue, recent latency, images per minute."""
        dropped = self.outcomes["dropped"]
        failed = self.done - dropped - self.outcomes["completed"]
        words = [f"{failed} failed", f"{self.sent + dropped - self.done} in flight"]
        if dropped:
            words.append(f"{dropped} dropped")
        if self.queue is not None:
            words.append(f"server queue {self.queue}")
        if self.recent:
            median, p95 = quantiles_of(self.recent, (0.5, 0.95))
            words.append(f"p50 {median:.3g} s")
            if len(self.recent) >= 20:
                words.append(f"p95 {p95:.3g} s")
        elapsed = time.monotonic() - self.began
        if self.images and elapsed > 1:
            rate = 60 * self.images / elapsed
            words.append(f"{fixed(rate, decimals(rate))} images/min")
        return words


class NoProgress:
    """Shows nothing."""

    def began(self, manifest: Manifest, path: Path, expected: int | None) -> None: ...

    def counting(self) -> None: ...

    def line(self, line: Line) -> None: ...

    def queue(self, remaining: int) -> None: ...

    def noticed(self, observation: Observation) -> None: ...

    def stopping(self, how: str) -> None: ...

    def ended(self) -> None: ...


class Plain(NoProgress):
    """A line every few seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tally = LiveCounts()
        self._expected: int | None = None
        self._shown = time.monotonic()

    def began(self, manifest: Manifest, path: Path, expected: int | None) -> None:
        plan, server = manifest.plan, manifest.server
        self._expected = expected
        self.tally.cache = CacheJudge(manifest.workflows)
        self.tally.start(plan.warmup * plan.pages or expected, "warm-up" if plan.warmup else "jobs")
        self.say(
            f"{manifest.name}: {_load(plan, expected)} on {server.url}"
            f" (ComfyUI {server.comfyui_version or 'of unknown version'}); run in {path}"
        )

    def counting(self) -> None:
        self.tally.start(self._expected, "jobs")
        self.refresh()

    def line(self, line: Line) -> None:
        self.tally.add(line)
        if isinstance(line, Record):
            self.refresh()

    def queue(self, remaining: int) -> None:
        self.tally.queue = remaining

    def noticed(self, observation: Observation) -> None:
        self.say(f"noticed: {observation.text}")

    def stopping(self, how: str) -> None:
        self.say(how)

    def say(self, text: str) -> None:
        self.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        now = time.monotonic()
        if now - self._shown >= PLAIN_EVERY_S:
            self._shown = now
            self.say(f"{self.tally.phase} " + " · ".join([*self.tally.place(), *self.tally.words()]))


class Terminal(Plain):
    """A bar that is redrawn in place, at most five times a second and only when something has changed."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def began(self, manifest: Manifest, path: Path, expected: int | None) -> None:
        super().began(manifest, path, expected)
        self._live.start()

    def refresh(self) -> None:
        now = time.monotonic()
        if now - self._shown >= 0.2:
            self._shown = now
            self._live.update(self._drawn(), refresh=True)

    def queue(self, remaining: int) -> None:
        super().queue(remaining)
        self.refresh()

    def ended(self) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self.console.print(visible(text), markup=False, highlight=False)

    def _drawn(self) -> Group:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(self.tally.phase, style="bold"),
            ProgressBar(total=max(self.tally.total or 0, self.tally.done, 1), completed=self.tally.done, width=30),
            Text(" · ".join(self.tally.place())),
        )
        return Group(bar, Text(" · ".join(self.tally.words()), style="dim", overflow="ellipsis", no_wrap=True))


def _load(plan: Plan, expected: int | None) -> str:
    jobs = "jobs" if expected is None else f"{expected} jobs"
    if isinstance(plan.load, Closed):
        return f"{jobs}, {plan.load.concurrency} in flight,"
    if isinstance(plan.load, Replay):
        read_as = f" ({plan.load.read_as})" if plan.load.read_as else ""
        return f"{jobs}, as in {plan.load.source}{read_as},"
    rate = plan.load.stages[0].per_s * 60
    more = f" and {len(plan.load.stages) - 1} more stages" if len(plan.load.stages) > 1 else ""
    return f"about {jobs} at {rate:.4g} per minute{more}, {plan.load.arrivals},"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
