"""One job of an application: what it is, and where it stands."""

import asyncio
import math
from dataclasses import dataclass, field
from typing import Literal

from comfyload.comfy.wire.calls import Reply
from comfyload.record.model import Attempt, RetryLine

State = Literal["pending", "in_progress", "completed", "failed", "cancelled"]
"""As `/api/jobs` calls them."""


@dataclass(slots=True, eq=False, kw_only=True)
class ClientJob:
    """A job that has not ended. Its graph is in the store, not in memory.

    `id`: the public one. `due`: the instant of its arrival. `created_ms`: the same on the wall clock, Unix ms.
    `number`: its place in ComfyUI's order. `limit_s`: from its arrival to its end; infinite: none. `not_on`: addresses
    of servers that lack one of its node classes. `files`: the uploads that it names. `expected_s`: what it may take.
    `workflow_id`: what the page calls its workflow. `posting`: its POST still waits for the answer. `sent`: set when it
    is sent the first time, while its POST waits.
    `attempt_id`: its id on the `server` that has it now, or had it last; `answer`: to its POST there. `ending`:
    how it ended is known, and being written. `retries`: what the run directory says of each time it was sent again.
    """

    id: str
    tenant: str
    client_id: str | None
    due: float
    created_ms: int
    number: float
    workflow: str
    limit_s: float = math.inf
    not_on: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()
    expected_s: float = 0.0
    workflow_id: str | None = None
    posting: bool = False
    sent: asyncio.Event | None = None
    answer: asyncio.Future[Reply] | None = None
    attempt_id: str = ""
    attempt: int = 0
    server: str = ""
    began: bool = False
    started_ms: int | None = None
    next_attempt_at_ms: int | None = None
    cancelled: bool = False
    ending: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    retries: list[RetryLine] = field(default_factory=list)

    @property
    def state(self) -> State:
        return "in_progress" if self.began else "pending"
