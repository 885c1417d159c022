"""Servers that each run one job at a time, event by event: jobs queue, run, fail, stall and get lost.

Seconds of the simulated world. A client submits and cancels, and is called when an attempt ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Protocol

from comfyload.advise.scenarios import DRAWS, World

Act = Callable[[Any], None]


@dataclass(slots=True, eq=False)
class SimJob:
    """One job over all its attempts. `done`: when its result was there, None if never; `over`: nobody waits for it."""

    index: int
    number: int = 0
    spent_s: float = 0.0
    takes_s: float = 0.0
    done: float | None = None
    over: bool = False
    attempt: SimAttempt | None = None


@dataclass(slots=True, eq=False)
class SimAttempt:
    """One prompt on a server; `over`: it ended, or was taken off."""

    job: SimJob
    place: SimServer
    begun: float = 0.0
    ends: float = 0.0
    fails: bool = False
    over: bool = False


@dataclass(slots=True, eq=False)
class SimServer:
    """One server. `resumes`: until then it stands still; `last`: the workflow of the job that it ran last."""

    queue: deque[SimAttempt] = field(default_factory=deque)
    running: SimAttempt | None = None
    waiting: int = 0
    last: int = -1
    resumes: float = 0.0
    up: bool = True

    @property
    def depth(self) -> int:
        """Prompts on it, running or waiting."""
        return self.waiting + (self.running is not None)


class SimClient(Protocol):
    """Who sends the jobs."""

    def arrive(self, job: SimJob) -> None:
        """A job comes."""

    def started(self, attempt: SimAttempt) -> None:
        """The server begins to execute it."""

    def ended(self, attempt: SimAttempt) -> None:
        """The server is done with it, in one way or another."""

    def lost(self, attempt: SimAttempt) -> None:
        """The server went down, and will know it no longer."""


class Cluster:
    """The servers of a world, and its time."""

    def __init__(self, world: World, servers: int) -> None:
        self.world = world
        self.now = 0.0
        self.places = [SimServer() for _ in range(servers)]
        self.jobs = [SimJob(index) for index in range(len(world.arrivals))]
        self._heap: list[tuple[float, int, Act, Any]] = []
        self._count = 0

    def run(self, client: SimClient, *, longer_s: float) -> None:
        """Until so long after the last arrival."""
        self._client = client
        world, scenario = self.world, self.world.scenario
        for job, instant in zip(self.jobs, world.arrivals, strict=True):
            self.at(instant, client.arrive, job)
        if scenario.restarts:
            self.at(world.event_from_s, self._down, self.places[0])
            self.at(world.event_to_s, self._up, self.places[0])
        if scenario.stalls:
            self.at(world.event_from_s, self._stall, self.places[0])
        heap, end = self._heap, world.ends_s + longer_s
        while heap:
            self.now, _, act, what = heappop(heap)
            if self.now > end:
                return
            act(what)

    def at(self, instant: float, act: Act, what: object) -> None:
        """Do that then."""
        self._count += 1
        heappush(self._heap, (instant, self._count, act, what))

    def submit(self, job: SimJob, place: SimServer) -> SimAttempt:
        """Queue it; the server must be up."""
        job.number += 1
        attempt = job.attempt = SimAttempt(job, place)
        place.queue.append(attempt)
        place.waiting += 1
        if place.running is None:
            self._begin(place)
        return attempt

    def cancel(self, attempt: SimAttempt) -> None:
        """Take it off: at once where it waits; where it runs, as soon as the server moves."""
        if attempt.over:
            return
        place = attempt.place
        if place.running is not attempt:
            attempt.over = True
            place.waiting -= 1
        elif self.now >= place.resumes:
            self._stop(attempt)
            self._begin(place)
        else:
            attempt.fails, attempt.ends = True, place.resumes

    def _begin(self, place: SimServer) -> None:
        queue = place.queue
        while queue:
            attempt = queue.popleft()
            if attempt.over:
                continue
            place.waiting -= 1
            self._start(attempt, place)
            return

    def _start(self, attempt: SimAttempt, place: SimServer) -> None:
        job, world, index = attempt.job, self.world, attempt.job.index
        workflow = world.workflows[index]
        takes = job.takes_s = (world.warm if place.last == workflow else world.switched)[index]
        place.last, place.running = workflow, attempt
        begun = attempt.begun = max(self.now, place.resumes)
        scenario = world.scenario
        chance = scenario.fails
        if scenario.sick and place is self.places[0] and world.event_from_s <= begun < world.event_to_s:
            chance = scenario.sick
        attempt.fails = world.poisoned[index] or world.u[index][job.number % DRAWS] < chance
        attempt.ends = begun + (takes * world.breaks_at[index] if attempt.fails else takes)
        self.at(attempt.ends, self._end, attempt)
        if begun > self.now:
            self.at(begun, self._client.started, attempt)
        else:
            self._client.started(attempt)

    def _end(self, attempt: SimAttempt) -> None:
        if attempt.over:
            return
        if self.now < attempt.ends:  # it has stood still since this was foreseen
            self.at(attempt.ends, self._end, attempt)
            return
        place = attempt.place
        self._stop(attempt)
        self._begin(place)
        self._client.ended(attempt)

    def _stop(self, attempt: SimAttempt) -> None:
        attempt.over = True
        attempt.place.running = None
        attempt.job.spent_s += max(0.0, self.now - attempt.begun)

    def _down(self, place: SimServer) -> None:
        place.up, place.last = False, -1
        gone = [attempt for attempt in place.queue if not attempt.over]
        if place.running is not None:
            gone.insert(0, place.running)
            self._stop(place.running)
        place.queue.clear()
        place.waiting = 0
        for attempt in gone:
            attempt.over = True
        for attempt in gone:
            self._client.lost(attempt)

    def _up(self, place: SimServer) -> None:
        place.up = True

    def _stall(self, place: SimServer) -> None:
        place.resumes = self.world.event_to_s
        if place.running is not None:
            place.running.begun += self.world.event_to_s - self.now
            place.running.ends += self.world.event_to_s - self.now
