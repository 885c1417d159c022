"""How a client that follows a policy behaves in the simulated world.

All decisions are those of `retry.decide`, which the client over sockets uses too. This module imitates what that client
knows, and when: it starts without service times, reads the queues only while a job waits, and learns that a job was
lost once its server answers again. Hung jobs are not recalled: no simulated server stands still for longer than a
minute, the shortest `liveness_s` of a policy made here.
"""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from comfyload.advise.cluster import Cluster, SimAttempt, SimJob, SimServer
from comfyload.comfy.poller import LONGEST_PAUSE_S
from comfyload.comfy.stream import RECONNECT_FIRST_S, RECONNECT_MOST_S
from comfyload.comfy.timeouts import Timeouts
from comfyload.record.model import Failure
from comfyload.record.policy import FailureClass, Policy
from comfyload.retry.classify import KnownFailures
from comfyload.retry.decide import Backend, Dispatcher, PendingJob

_REFUSED_S = 0.01
"""What it takes to notice that nothing answers."""
_FOR_GOOD = Failure(kind="execution_error", type="FailsForGood", node_class="Simulated")
_BY_CHANCE = Failure(kind="execution_error", type="FailsByChance", node_class="Simulated")


class _Pending(PendingJob):
    """A job, and how its attempts failed on a node."""

    def __init__(self, job: SimJob, workflow: str, began: float, policy: Policy) -> None:
        super().__init__(str(job.index), workflow, began, policy)
        self.job = job
        self.failures: list[Failure] = []


class _Server(Backend):
    """What the client knows of a simulated server. `connections`: how often its event stream was opened."""

    def __init__(self, place: SimServer, policy: Policy, rng: np.random.Generator) -> None:
        super().__init__(policy.breaker, rng.random, lambda: self.connections)
        self.place = place
        self.connections = 1

    def usable(self, now: float) -> bool:
        """Whether jobs may go there now, after a look at its queue; a server that is down counts as one failure."""
        place, circuit = self.place, self.circuit
        state = circuit.state(now)
        if state == "due" and not place.up:
            circuit.trip(now)
        if state in ("open", "half_open") or (state == "due" and not place.up):
            return False
        ours = len(self.held)
        self.depth = place.depth if place.up else ours
        self.others = max(0, self.depth - ours)
        if not place.up:
            circuit.failed(now)
        return circuit.state(now) in ("closed", "due")


class PolicyClient:
    """Sends the jobs of a farm as the policy says; its deadline counts from a job's arrival."""

    def __init__(self, policy: Policy, farm: Cluster) -> None:
        self._policy, self._farm = policy, farm
        self._rng = np.random.default_rng(farm.world.seed)
        self._dispatcher = Dispatcher(policy, self._rng.random)
        self._servers = [_Server(place, policy, self._rng) for place in farm.places]
        self._server_of = dict(zip(farm.places, self._servers, strict=True))
        self._jobs: dict[int, _Pending] = {}
        self._waiting: dict[str, _Pending] = {}
        self._looks = False
        self._known_failures = KnownFailures()
        world = farm.world
        if world.scenario.restarts:
            back = world.event_from_s + _reconnects_after(world.event_to_s - world.event_from_s)
            farm.at(back, self._reconnected, self._servers[0])

    # --- what the servers report

    def arrive(self, job: SimJob) -> None:
        farm = self._farm
        self._dispatcher.budget.first()
        pending = _Pending(job, str(farm.world.workflows[job.index]), farm.now, self._policy)
        self._jobs[job.index] = pending
        if pending.deadline < math.inf:
            farm.at(pending.deadline, self._late, pending)
        self._wait(pending)

    def started(self, attempt: SimAttempt) -> None:
        if attempt.job.attempt is attempt:
            self._server_of[attempt.place].started(str(attempt.job.index), self._farm.now)

    def ended(self, attempt: SimAttempt) -> None:
        job = attempt.job
        if not job.over and job.attempt is attempt:
            self._settle(self._jobs[job.index], self._server_of[attempt.place], attempt)
        self._round()

    def lost(self, attempt: SimAttempt) -> None:
        """It asks for the job in vain until the server is back and denies it twice, or is given up."""
        farm, timeouts = self._farm, Timeouts()
        down_s = farm.world.event_to_s - farm.now
        unreachable_s = min(timeouts.unreachable_s, self._policy.liveness_s or timeouts.unreachable_s)
        again_s = LONGEST_PAUSE_S * self._rng.random()
        unreachable = down_s > unreachable_s
        at = farm.now + unreachable_s if unreachable else farm.world.event_to_s + timeouts.lost_s
        farm.at(at + again_s, partial(self._lost, unreachable=unreachable), attempt)

    # --- what becomes of a job

    def _settle(self, pending: _Pending, server: _Server, attempt: SimAttempt) -> None:
        now, job = self._farm.now, pending.job
        held = server.held[pending.id]
        started = now if held.started is None else held.started
        self._dispatcher.release(pending.id, server, None if attempt.fails else now - started)
        if not attempt.fails:
            job.done, job.over = now, True
            for failure in pending.failures:
                self._known_failures.passed(pending.workflow, failure)
            server.circuit.ended(None, now)
            return
        failure = _FOR_GOOD if self._farm.world.poisoned[job.index] else _BY_CHANCE
        pending.failures.append(failure)
        known = self._known_failures.deterministic(pending.workflow, f"{pending.id}/{job.number}", failure)
        self._again(pending, server, "deterministic" if known else "transient")

    def _lost(self, attempt: SimAttempt, *, unreachable: bool) -> None:
        job = attempt.job
        if not job.over and job.attempt is attempt:
            server = self._server_of[attempt.place]
            self._dispatcher.release(str(job.index), server)
            self._again(self._jobs[job.index], server, "lost", unreachable=unreachable)
            self._round()

    def _again(
        self,
        pending: _Pending,
        server: _Server,
        class_: FailureClass,
        *,
        unreachable: bool = False,
        after_s: float = 0.0,
    ) -> None:
        now = self._farm.now + after_s
        pending.job.attempt = None
        server.circuit.ended(class_, now, unreachable=unreachable)
        wait = self._dispatcher.retry_in_s(pending, server, class_, self._servers, now)
        if wait is None:
            pending.job.over = True
        else:
            self._farm.at(now + wait, self._wait, pending)

    def _late(self, pending: _Pending) -> None:
        job = pending.job
        if job.over:
            return
        job.over = True
        if job.attempt is not None:
            server = self._server_of[job.attempt.place]
            self._dispatcher.release(pending.id, server)
            server.circuit.ended("deadline", self._farm.now)
            if self._policy.cancel:
                self._farm.cancel(job.attempt)
            self._round()

    # --- places

    def _wait(self, pending: _Pending) -> None:
        if not pending.job.over:
            self._waiting[pending.id] = pending
            self._round()

    def _reconnected(self, server: _Server) -> None:
        server.connections += 1
        self._round()

    def _look_again(self, _: None) -> None:
        self._looks = False
        self._round()

    def _round(self) -> None:
        """Give what places there are to those who wait, and look again where an outage may end without an event.

        Otherwise nothing but an arrival or an end makes a place: with time alone, a job's room before its deadline only
        shrinks.
        """
        if not self._waiting:
            return
        now, waiting, servers = self._farm.now, self._waiting, self._servers
        usable = [server for server in servers if server.usable(now)]
        placed = list(self._dispatcher.assign(self._in_time(now), usable, now))
        for pending, _ in placed:
            del waiting[pending.id]
        for pending, server in placed:
            if server.place.up:
                self._farm.submit(pending.job, server.place)
            else:
                self._dispatcher.release(pending.id, server)
                self._again(pending, server, "connect", after_s=_REFUSED_S)
        if waiting and not self._looks and not all(s.place.up and s.circuit.state(now) == "closed" for s in servers):
            self._looks = True
            self._farm.at(now + self._dispatcher.pause_s(), self._look_again, None)

    def _in_time(self, now: float) -> Iterator[_Pending]:
        """Those who wait, but for those who have waited too long, as far as there are places to give."""
        for pending in list(self._waiting.values()):
            if pending.job.over or self._dispatcher.left_s(pending, now) <= 0.0:
                pending.job.over = True
                del self._waiting[pending.id]
            else:
                yield pending


def _reconnects_after(down_s: float) -> float:
    """Seconds from a server's end to the first attempt to open its event stream that finds it back."""
    waited, pause = 0.0, RECONNECT_FIRST_S
    while waited <= down_s:
        waited += pause
        pause = min(2 * pause, RECONNECT_MOST_S)
    return waited
