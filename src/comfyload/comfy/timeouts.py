"""How long the client waits for what."""

import math

import msgspec


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """All in seconds. `job_s` None: no limit.

    `job_s`: a job, from its POST to its end. `submit_s`: the reply to a POST. `confirm_s`: the history entry of a
    prompt that has ended. `cancel_s`: until a cancelled prompt is gone. `silence_s`: without one of our events, before
    the history is polled. `lost_s`: an id is unknown to the server, before it counts as lost. `unreachable_s`: a
    server is out of reach, before all its prompts count as lost. `refused_s`: nothing listens at its address, before
    they do: its process is gone, and its queue with it. `stalled_s`: nothing moves, before it is noted.
    """

    job_s: float | None = None
    submit_s: float = 60.0
    confirm_s: float = 5.0
    cancel_s: float = 5.0
    silence_s: float = 1.0
    lost_s: float = 2.0
    unreachable_s: float = 120.0
    refused_s: float = math.inf
    stalled_s: float = 60.0

    @property
    def for_submit(self) -> float:
        return self.submit_s if self.job_s is None else min(self.submit_s, self.job_s)
