"""Drives a client by a plan: every arrival is sent at most once, and each of its jobs ends in exactly one Record.

The engine knows neither servers nor files. It makes prompts by their index, hands them to a client, and passes the
results to `emit`, a synchronous callable. Instants are the given clock's: seconds from the start of the run. An arrival
is one job, or a book of several that are due together.
"""

import asyncio
import contextvars
import itertools
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

from comfyload import clock as clocks
from comfyload.load.arrivals import Generator, offsets
from comfyload.load.timer import Timer
from comfyload.record.model import Execution, Failure, Line, Prompt, Record, Sent
from comfyload.record.plan import Closed, Open, Plan, Replay
from comfyload.record.shard import WHOLE, Shard
from comfyload.tasks import within


class Client(Protocol):
    """Runs prompts: on one server, on several, or as a script does."""

    async def run(self, prompt: Prompt) -> Execution: ...


class Stop:
    """Stops arrivals; jobs under way still end.

    `admits`: called before each arrival, whether its number of jobs may still be sent; after a no, no arrival comes any
    more, and those that wait for a free slot are sent.
    """

    def __init__(self, admits: Callable[[int], bool] = lambda _: True) -> None:
        self._admits = admits
        self._event = asyncio.Event()
        self._wake: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        self._event.set()
        if self._wake is not None:
            self._wake()

    def admits(self, jobs: int) -> bool:
        """Whether one more arrival, of so many jobs, may be sent."""
        return not self.requested and self._admits(jobs)

    def wakes(self, wake: Callable[[], None]) -> None:
        """Call `wake` when the stop is requested."""
        self._wake = wake

    async def within(self, seconds: float) -> None:
        """Sleep for so long, or until the stop is requested."""
        await within(seconds, self._event.wait(), False)


@dataclass(eq=False)
class Engine:
    """One run of a plan, or of a shard of its arrivals, users and places.

    `done`: numbers of arrivals that are left out, since an earlier process has handled them; None: there was none.
    `spent_s`: how much of the plan's duration that process had. `start`: waits until the counted load is about to
    begin, and returns when it does, by `clock`; None: it begins at once.
    """

    plan: Plan
    prompts: Callable[[int], Prompt]
    client: Client
    emit: Callable[[Line], None]
    _: KW_ONLY
    clock: Callable[[], float]
    rng: Generator
    stop: Stop
    done: Container[int] | None = None
    spent_s: float = 0.0
    shard: Shard = WHOLE
    start: Callable[[], Awaitable[float]] | None = None

    def __post_init__(self) -> None:
        self._context = contextvars.copy_context()

    async def run(
        self, on_counted: Callable[[], None] = lambda: None, on_last: Callable[[], None] = lambda: None
    ) -> None:
        """Run the plan to its end.

        Warm-up arrivals come first, by one user after the other where the load is open. `on_counted` is called when the
        counted ones begin, or a moment before, `on_last` after the last one, while jobs under way end.
        """
        plan, load = self.plan, self.plan.load
        users: Sequence[int] = range(1)
        warmup = Closed(concurrency=1)
        if isinstance(load, Closed):
            warmup, users = Closed(concurrency=load.concurrency), self.shard.numbers(load.concurrency)
        await self._closed(warmup, users, self._left(range(plan.warmup)), until=None)
        began = None if self.stop.requested or self.start is None else await self.start()
        if self.stop.requested:
            return
        on_counted()
        began = self.clock() if began is None else began
        if isinstance(load, Closed):
            until = None if plan.duration_s is None else began + plan.duration_s - self.spent_s
            await self._until(began)
            numbers = itertools.count(plan.warmup) if plan.jobs is None else range(plan.warmup, plan.warmup + plan.jobs)
            await self._closed(load, users, self._left(numbers), start=began, until=until, on_last=on_last)
        else:
            await self._open(load, began, on_last)

    async def _until(self, began: float) -> None:
        """Wait for the instant more exactly than a user waits for its own."""
        with closing(Timer()) as timer:
            self.stop.wakes(timer.wake)
            await timer.until(clocks.now() - self.clock() + began)

    async def finish(self, begun: Iterable[Sent]) -> None:
        """Finish jobs that an earlier process sent, or was about to send.

        Jobs that it sent keep their due times. One that is sent only now is due at that instant: the time until the run
        was resumed, and until the server was known not to have the job, is not the generator's lateness.
        """

        async def follow(prompt: Prompt, due: float) -> None:
            execution = await self.client.run(prompt)
            first = execution.attempts[0].sent if execution.attempts else execution.sent
            self._record(prompt, due if first is None else first, execution)

        async with asyncio.TaskGroup() as under_way:
            for line in begun:
                under_way.create_task(follow(self.prompts(line.index), line.due))

    def _left(self, numbers: Iterable[int]) -> Iterable[int]:
        if self.done is None and self.shard == WHOLE:
            return numbers
        return (number for number in numbers if self.shard.takes(number) and not self._is_done(number))

    def _is_done(self, number: int) -> bool:
        return self.done is not None and number in self.done

    async def _closed(
        self,
        load: Closed,
        ranks: Sequence[int],
        numbers: Iterable[int],
        *,
        start: float | None = None,
        until: float | None,
        on_last: Callable[[], None] = lambda: None,
    ) -> None:
        """Each user takes the next arrival when it is free and its think time has passed; the arrival is due then.

        `ranks`: of the users among all of the load, which begin one after the other from `start`; None: now.
        """
        todo = iter(numbers)
        start = self.clock() if start is None else start

        async def user(due: float) -> None:
            while until is None or due < until:
                if due > self.clock():
                    await self.stop.within(due - self.clock())
                number = None if self.stop.requested else next(todo, None)
                if number is None or not self.stop.admits(self.plan.pages):
                    break
                if self.plan.pages == 1:  # without a coroutine between, as thousands may wait here
                    prompt = self._begin(number, due)
                    self._record(prompt, due, await self.client.run(prompt))
                else:
                    await self._book(number, due)
                due = self.clock() + load.think_s
            on_last()

        # An endless plan has endless numbers; a finite one needs no more users than it has arrivals.
        first = list(itertools.islice(todo, len(ranks)))
        todo = itertools.chain(first, todo)
        async with asyncio.TaskGroup() as users:
            for rank in ranks[: len(first)]:
                self._start(users, user(start + load.ramp_up_s * rank / load.concurrency))

    async def _open(self, load: Open | Replay, began: float, on_last: Callable[[], None]) -> None:
        """Each arrival is due at its offset from the start, whatever happens to those before it. A resumed run keeps
        the gaps of those that are left; the time between the two processes is not made up for.
        """
        plan = self.plan
        slots = None
        if load.max_in_flight is not None:
            slots = asyncio.Semaphore(self.shard.share(load.max_in_flight))
        zero = clocks.now() - self.clock()
        schedule: Iterator[float] = itertools.islice(offsets(load, self.rng), plan.jobs)
        until, due, goes_on = None, began, self.done is not None
        with closing(Timer()) as timer:
            self.stop.wakes(timer.wake)
            async with asyncio.TaskGroup() as under_way:
                for number, offset in enumerate(schedule, plan.warmup):
                    if self._is_done(number):
                        continue
                    if goes_on and not self.shard.takes(number):
                        continue
                    if goes_on:  # the first that is left is due now
                        began, goes_on = began - offset, False
                    due = began + offset
                    until = None if plan.duration_s is None else began + plan.duration_s
                    if until is not None and due >= until:
                        break
                    if not self.shard.takes(number):
                        continue
                    if not self.stop.admits(plan.pages):
                        until = None
                        break
                    await timer.until(zero + due)
                    if self.stop.requested:
                        break
                    if slots is not None and load.on_full == "drop" and slots.locked():
                        self._drop(number, due, "no slot was free when it was due")
                    else:
                        self._start(under_way, self._when_free(number, due, slots))
                else:
                    await timer.until(zero + due)  # the last may be another shard's
                if until is not None and not self.stop.requested:
                    await timer.until(zero + until)
                on_last()

    async def _when_free(self, number: int, due: float, slots: asyncio.Semaphore | None) -> None:
        """Send an arrival when a slot is free; its due time is kept, so that the wait is in its latency."""
        if slots is None:
            await self._arrival(number, due)
            return
        async with slots:
            if self.stop.requested:
                self._drop(number, due, "the run was stopped while it waited for a free slot")
            else:
                await self._arrival(number, due)

    def _start(self, group: asyncio.TaskGroup, job: Coroutine[None, None, None]) -> None:
        """With one name and one context for all, as thousands wait at once and each of its own takes memory."""
        group.create_task(job, name="job", context=self._context)

    def _arrival(self, number: int, due: float) -> Coroutine[None, None, None]:
        return self._job(number, due) if self.plan.pages == 1 else self._book(number, due)

    async def _book(self, number: int, due: float) -> None:
        async with asyncio.TaskGroup() as book:
            for index in self._jobs(number):
                book.create_task(self._job(index, due))

    async def _job(self, index: int, due: float) -> None:
        prompt = self._begin(index, due)
        self._record(prompt, due, await self.client.run(prompt))

    def _begin(self, index: int, due: float) -> Prompt:
        prompt = self.prompts(index)
        self.emit(Sent(index=index, prompt_id=prompt.id, due=due))
        return prompt

    def _drop(self, number: int, due: float, why: str) -> None:
        for index in self._jobs(number):
            failure = Failure(kind="dropped", message=why)
            self._record(self.prompts(index), due, Execution(outcome="dropped", failure=failure))

    def _jobs(self, number: int) -> range:
        """The indices of an arrival's jobs."""
        pages = self.plan.pages
        return range(number * pages, (number + 1) * pages)

    def _record(self, prompt: Prompt, due: float, execution: Execution) -> None:
        self.emit(
            Record(
                index=prompt.index,
                prompt_id=prompt.id,
                workflow=prompt.workflow,
                warmup=prompt.warmup,
                due=due,
                values=prompt.values(),
                execution=execution,
                book=prompt.index // self.plan.pages if self.plan.pages > 1 else None,
                censored=execution.failure is not None and execution.failure.kind == "censored",
            )
        )
