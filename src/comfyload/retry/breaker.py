"""Whether a server is to be left alone, and until when. No clock of its own: `now` is an instant that is handed in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from comfyload.retry.policy import RETRY_AFTER_MOST_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.retry.policy import Breaker, FailureClass

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Of one server. `closed`: jobs go there; `open`: none does until `until`; `due`: it may be asked how it is;
    `half_open`: it answered, and one job is on trial.

    A pause is drawn from half to one and a half times its nominal length, which doubles with each failed trial. It ends
    early when the server is heard to be back: `connections` counts how often a connection to it was opened. One that
    the server asked for is not ended by what completes there meanwhile. `draw`: uniformly from [0, 1).
    """

    def __init__(self, rules: Breaker, draw: Callable[[], float], connections: Callable[[], int] = lambda: 0) -> None:
        self._rules = rules
        self._draw = draw
        self._connections = connections
        self._before = 0
        self._failures = 0
        self._trips = 0
        self._until: float | None = None
        self._asked_for = False
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
        """It is left alone because it asked to be, not because something failed."""
        return self._until is not None and self._asked_for

    def broken_s(self, now: float) -> float:
        """For how long nothing has worked there; 0 if it does."""
        return 0.0 if self._broken_since is None else now - self._broken_since

    def hopeless(self, now: float, since: float) -> bool:
        """Whether nobody need wait for it: it is left alone now, or was asked since then and did not work."""
        return self.state(now) == "open" or self._tripped_at >= since

    def failed(self, now: float) -> None:
        """A call or a job failed by the server's fault."""
        self._failures += 1
        if self._until is not None or self._failures >= self._rules.failures:
            self.trip(now)

    def trip(self, now: float) -> None:
        """Open the circuit. Failures while it is already open do not extend the pause."""
        if self.state(now) == "open":
            return
        pause = self._rules.open_s * 2.0 ** min(self._trips, 60) * (0.5 + self._draw())
        self._until = now + min(pause, self._rules.open_max_s)
        self._trips, self._tripped_at = self._trips + 1, now
        self._before = self._connections()
        if self._broken_since is None:
            self._broken_since = now
        self._asked_for, self._trial = False, None

    def trial(self, job_id: str) -> None:
        """It answers again: this job shows whether it works."""
        self._trial = job_id

    def rest(self, seconds: float, now: float) -> None:
        """It asks for a pause: no failure of its own."""
        seconds = min(seconds, RETRY_AFTER_MOST_S)
        if self._until is None or now + seconds > self._until:
            self._until, self._asked_for = now + seconds, True
        self._before = self._connections()
        self._trial = None

    def gone(self, job_id: str) -> None:
        """The job is no longer there: if it was on trial, another may be."""
        if self._trial == job_id:
            self._trial = None

    def succeeded(self, now: float) -> None:
        """A job ended there as jobs do."""
        self._failures = self._trips = 0
        self._broken_since = self._trial = None
        if not (self._asked_for and self.state(now) == "open"):
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
        """What the end of an attempt tells of the server; None: the job completed.

        `unreachable`: the server could not be asked what became of the job. `retry_after_s`: the pause it asks for.
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
