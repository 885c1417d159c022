"""Whether a server gets jobs, and if not, until when. No clock of its own: `now` is an instant that is handed in."""

import math
from collections.abc import Callable
from typing import Literal

from comfyload.record.policy import Breaker, FailureClass
from comfyload.retry.policy import RETRY_AFTER_MOST_S


class CircuitBreaker:
    """The circuit of one server. `closed`: jobs go there; `open`: none until the pause ends; `due`: it may be tried;
    `half_open`: it answered, and one job is on trial.

    A pause is random, from half to one and a half times its nominal length, which doubles with each failed trial. It
    ends early when the server is back: `connections` counts how often a connection to it was opened. A pause that the
    server requested does not end when a job completes there. `draw`: uniformly from [0, 1).
    """

    def __init__(self, rules: Breaker, draw: Callable[[], float], connections: Callable[[], int] = lambda: 0) -> None:
        self.rules = rules
        self._draw = draw
        self._connections = connections
        self._before = 0
        self._failures = 0
        self._trips = 0
        self._until: float | None = None
        self._requested = False
        self._trial: str | None = None
        self._broken_since: float | None = None
        self._tripped_at = -math.inf

    def state(self, now: float) -> Literal["closed", "open", "due", "half_open"]:
        if self._until is None:
            return "closed"
        if self._trial is not None:
            return "half_open"
        back = self._connections() > self._before
        return "due" if back or now >= self._until else "open"

    @property
    def resting(self) -> bool:
        """Whether it pauses because the server requested that, not because something failed."""
        return self._until is not None and self._requested

    @property
    def broken_since(self) -> float | None:
        """The instant since which nothing has worked there; None: it does."""
        return self._broken_since

    def broken_s(self, now: float) -> float:
        """For how long nothing has worked there; 0 if it does."""
        return 0.0 if self._broken_since is None else now - self._broken_since

    def hopeless(self, now: float, since: float) -> bool:
        """Whether waiting for it is useless: it is open now, or was tried since then and failed."""
        return self.state(now) == "open" or self._tripped_at >= since

    def failed(self, now: float) -> None:
        """A call or a job failed by the server's fault."""
        self._failures += 1
        if self._until is not None or self._failures >= self.rules.failures:
            self.trip(now)

    def trip(self, now: float) -> None:
        """Open the circuit. Failures while it is already open do not extend the pause."""
        if self.state(now) == "open":
            return
        pause = self.rules.open_s * 2.0 ** min(self._trips, 60) * (0.5 + self._draw())
        self._until = now + min(pause, self.rules.open_max_s)
        self._trips, self._tripped_at = self._trips + 1, now
        self._before = self._connections()
        if self._broken_since is None:
            self._broken_since = now
        self._requested, self._trial = False, None

    def trial(self, job_id: str) -> None:
        """The server answers again: this job shows whether it works."""
        self._trial = job_id

    def rest(self, seconds: float, now: float) -> None:
        """The server requests a pause, which is not a failure."""
        seconds = min(seconds, RETRY_AFTER_MOST_S)
        if self._until is None or now + seconds > self._until:
            self._until, self._requested = now + seconds, True
        self._before = self._connections()
        self._trial = None

    def gone(self, job_id: str) -> None:
        """The job is no longer there: if it was on trial, another may be."""
        if self._trial == job_id:
            self._trial = None

    def succeeded(self, now: float) -> None:
        """A job ended there without a fault of the server."""
        self._failures = self._trips = 0
        self._broken_since = self._trial = None
        if not (self._requested and self.state(now) == "open"):
            self._until = None

    def ended(
        self,
        class_: FailureClass | None,
        now: float,
        *,
        unreachable: bool = False,
        retry_after_s: float | None = None,
        own_fault: bool = False,
    ) -> None:
        """Judge the server by the end of an attempt; `class_` None: the job completed.

        `unreachable`: the server did not answer what happened to the job. `retry_after_s`: the pause it requests.
        `own_fault`: the machine on which we run failed, not the server.
        """
        if own_fault:
            return
        if class_ in ("hung", "cuda") or (class_ == "lost" and unreachable):
            self.trip(now)
        elif class_ == "busy" and retry_after_s is not None:
            self.rest(retry_after_s, now)
        elif class_ in ("connect", "submit_unknown", "server_error", "busy"):
            self.failed(now)
        elif class_ not in ("lost", "deadline", "other"):
            self.succeeded(now)
