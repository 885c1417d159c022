"""Progress of a run on standard error: redrawn in place on a terminal, a line every few seconds elsewhere."""

import io
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from comfyload.app.run.viewer import Viewer
from comfyload.judge.columns.cache import CacheJudge
from comfyload.judge.metrics import METRICS
from comfyload.record.model import Line, Manifest, Observation, Record, Sent
from comfyload.record.plan import Replay
from comfyload.record.ranks import quantiles_of
from comfyload.report.console import Screen
from comfyload.report.page import Page
from comfyload.report.page import Table as PageTable
from comfyload.report.plan_text import plan_words, servers_words
from comfyload.report.render.terminal import render
from comfyload.visible import visible
from comfyload.words import count, digits, duration, span_words

RECENT = 100
"""Jobs that the rolling p50 is taken over."""
NAMES = 1000
"""Names of files that are remembered, to tell images that are new: a run has no end of them."""

PLAIN_EVERY_S, LIVE_EVERY_S = 5.0, 0.2
LONG_S, LINES = 600.0, 144
"""After so long a run gets a line now and then about the time since the last one: so many in the time that is planned,
but not more often than each minute, and not less often than every ten.
"""
COLOUR = "cyan"
"""Of the bar: rich's own red is the colour of FAIL."""


class Part(Struct, frozen=True, kw_only=True):
    """One of several runs that a command makes.

    `name`: as `Run 3 of 9`. `above`: a table of the results so far. `left`: the time left of all runs in words, from
    the share of this run that is done; "" if it is not known.
    """

    name: str
    above: Callable[[], RenderableType] = Text
    left: Callable[[float], str] = lambda _: ""


def viewer_for(*, quiet: bool, part: Part | None = None) -> Viewer:
    """The viewer of a run: its progress on standard error, or with `quiet` nothing."""
    return Viewer() if quiet else RunProgress(_ErrorScreen(stderr=True), part)


@contextmanager
def working(words: str, *, quiet: bool, steps: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on a terminal for a computation, with the time left; elsewhere with `steps` a line for each step.

    Yields what takes the share done, from 0 to 1, and in words the step that is being done.
    """
    console = _ErrorScreen(stderr=True)
    bar = BarColumn(complete_style=COLOUR, finished_style=COLOUR, pulse_style=COLOUR)
    columns = (TextColumn("{task.description}"), bar, TaskProgressColumn(), TimeRemainingColumn())
    silent = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent) as shown:
        task, last = shown.add_task(words, total=1.0), ""

        def update(share: float, step: str = "") -> None:
            nonlocal last
            shown.update(task, completed=share, description=step or words)
            if steps and step != last and not quiet and not console.is_terminal:
                console.print(step, markup=False, highlight=False, soft_wrap=True)
            last = step

        yield update


class _ErrorScreen(Screen):
    """Standard error of a command that goes on whether or not somebody reads it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class LiveCounts:
    """The few numbers that progress shows, counted as the summary counts them. `cache`: which files a job made."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.in_flight: set[int] = set()
        self.queue: int | None = None
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.cache = CacheJudge([], newest=NAMES)
        self.start(None, "warm-up")

    @property
    def done(self) -> int:
        return sum(self.outcomes.values())

    @property
    def share(self) -> float:
        """Of the jobs of this phase, those that have ended; 0 where the total is not known."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def start(self, total: int | None, phase: str) -> None:
        self.total, self.phase, self.began = total, phase, time.monotonic()
        self.images, self.slowest = 0, 0.0
        self.outcomes.clear()
        self.in_flight.clear()
        self.recent.clear()

    def add(self, line: Line) -> None:
        if isinstance(line, Sent):
            self.in_flight.add(line.index)
            return
        execution = line.execution
        self.in_flight.discard(line.index)
        self.outcomes[execution.outcome] += 1
        files = self.cache.judge(line)
        if execution.outcome == "completed":
            self.images += files.images
            if (latency_s := METRICS["latency"].of(line)) is not None:
                self.recent.append(latency_s)
                self.slowest = max(self.slowest, latency_s)

    def place(self) -> list[str]:
        """Jobs done of how many, and the time left of this phase."""
        if self.total is None or self.done > self.total:  # the number of random arrivals is not known beforehand
            return [f"{self.done} done"]
        words = [f"{self.done}/{self.total}"]
        elapsed = time.monotonic() - self.began
        if self.done and elapsed > 1 and self.done < self.total:
            words.append(f"{clock_words(elapsed / self.done * (self.total - self.done))} left")
        return words

    def words(self) -> list[str]:
        """Failed, in flight, the server's queue, recent latency, images per minute."""
        dropped = self.outcomes["dropped"]
        failed = self.done - dropped - self.outcomes["completed"]
        words = [f"{failed} failed", f"{len(self.in_flight)} in flight"]
        if dropped:
            words.append(f"{dropped} dropped")
        if self.queue is not None:
            words.append(f"queue {self.queue}")
        if self.recent:
            (median,) = quantiles_of(self.recent, (0.5,))
            words += [f"p50 {duration(median)}", f"slowest {duration(self.slowest)}"]
        elapsed = time.monotonic() - self.began
        if self.images and elapsed > 1:
            rate = 60 * self.images / elapsed
            words.append(f"{digits(rate)} images/min")
        return words


class Stretch:
    """What came in the last stretch of a long run. `queue`: the length of the server's, as it began."""

    def __init__(self, began: float, queue: int | None = None) -> None:
        self.began = began
        self._outcomes: Counter[str] = Counter()
        self._latencies = array("d")
        self._queue = [] if queue is None else [queue]

    def add(self, record: Record) -> None:
        self._outcomes[record.execution.outcome] += 1
        if record.execution.outcome == "completed" and (latency_s := METRICS["latency"].of(record)) is not None:
            self._latencies.append(latency_s)

    def queue(self, remaining: int) -> None:
        self._queue = [min([remaining, *self._queue]), max([remaining, *self._queue])]

    def words(self, began: float, now: float) -> str:
        """From when to when, jobs that ended, p50 and p95, errors, and the server's queue; `began`: of the run."""
        jobs, completed = sum(self._outcomes.values()), self._outcomes["completed"]
        words = [f"{clock_words(self.began - began)} to {clock_words(now - began)}", count(jobs, "job")]
        if self._latencies:
            p50, p95 = quantiles_of(self._latencies, (0.5, 0.95))
            words += [f"p50 {duration(p50)}", f"p95 {duration(p95)}"]
        words.append(f"{jobs - completed} not completed")
        if self._queue:
            words.append(f"queue {span_words(str(min(self._queue)), str(max(self._queue)))}")
        return " · ".join(words)


class RunProgress(Viewer):
    """On a terminal a bar that is redrawn in place, at most five times a second; elsewhere a line every few seconds.

    A long run gets a line every few minutes, and elsewhere than on a terminal no others any more.
    """

    def __init__(self, console: Console, part: Part | None = None) -> None:
        self.counts = LiveCounts()
        self._console = console
        self._part = part
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._expected: int | None = None
        self._shown = self._began = time.monotonic()
        self._every_s = 60.0
        self._stretch = Stretch(self._began)

    def began(self, manifest: Manifest, path: Path, expected: int | None) -> None:
        plan = manifest.plan
        self._expected = expected
        self._began = time.monotonic()
        self._stretch = Stretch(self._began)
        self._every_s = min(max((plan.duration_s or 0.0) / LINES, 60.0), 600.0)
        self.counts.cache = CacheJudge(manifest.workflows, newest=NAMES, several=len(manifest.fleet) > 1)
        self.counts.start(plan.warmup * plan.pages or expected, "warm-up" if plan.warmup else "jobs")
        load = f"{manifest.name}: {plan_words(plan)}"
        if isinstance(plan.load, Replay):
            load += f", as in {plan.load.source}" + (f" ({plan.load.read_as})" if plan.load.read_as else "")
        if self._part is None:
            where, *version = servers_words(manifest)
            self.say(f"{load}, on {where} ({version[0] if version else 'ComfyUI of unknown version'}); run in {path}")
        elif self._live is None:
            self.say(load if self._part.name in load else f"{self._part.name} · {load}")
        if self._live is not None:
            self._live.start()

    def counting(self) -> None:
        self.counts.start(self._expected, "jobs")
        self._refresh()

    def line(self, line: Line) -> None:
        self.counts.add(line)
        if isinstance(line, Record):
            self._stretch.add(line)
            self._refresh()

    def queue(self, remaining: int) -> None:
        self.counts.queue = remaining
        self._stretch.queue(remaining)
        if self._live is not None:
            self._refresh()

    def noticed(self, observation: Observation) -> None:
        self.say(f"noticed: {observation.text}")

    def stopping(self, how: str) -> None:
        self.say(how)

    def ended(self) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=self._live is None)

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._stretch.began >= self._every_s:
            if now - self._began >= LONG_S:
                self.say(self._stretch.words(self._began, now))
            self._stretch = Stretch(now, self.counts.queue)
        if self._live is None and now - self._began >= LONG_S:
            return
        if now - self._shown < (PLAIN_EVERY_S if self._live is None else LIVE_EVERY_S):
            return
        self._shown = now
        if self._live is None:
            self.say(f"{self.counts.phase} " + " · ".join([*self._place(), *self.counts.words()]))
        else:
            self._live.update(self._drawn(), refresh=True)

    def _place(self) -> list[str]:
        """How far the run is, with the time left of all runs where that is known, else of this one."""
        place = self.counts.place()
        counting = self.counts.phase == "jobs"
        left = self._part.left(self.counts.share if counting else 0.0) if self._part is not None else ""
        return [place[0], left] if left else place

    def _drawn(self) -> Group:
        counts, part = self.counts, self._part
        phase = counts.phase if part is None else part.name if counts.phase == "jobs" else f"{part.name}, warm-up"
        bar = Table.grid(padding=(0, 1))
        total = max(counts.total or 0, counts.done, 1)
        line = ProgressBar(total=total, completed=counts.done, width=24, complete_style=COLOUR, finished_style=COLOUR)
        bar.add_row(Text(phase, style="bold"), line, Text(" · ".join(self._place())))
        words = Text(" · ".join(one.replace(" ", "\N{NO-BREAK SPACE}") for one in counts.words()), style="dim")
        return Group(*([] if part is None else [part.above()]), bar, words)


def clock_words(seconds: float) -> str:
    """0:23, 5:40, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def table_text(table: PageTable) -> Text:
    """A page's table as it is drawn above a bar on standard error."""
    screen = Screen(stderr=True)
    lines = Screen(file=io.StringIO(), width=screen.width, color_system="standard", force_terminal=True)
    with lines.capture() as capture:
        render(Page(title="", tables=[table]), lines)
    return Text.from_ansi(capture.get())
