"""Events of a job under way, for a program's progress bar or log."""

from typing import TypeAlias

from msgspec import Struct

from comfyload.record.model import FailureKind


class Queued(Struct, frozen=True, kw_only=True):
    """The job waits on `server` (its redacted address) behind `before` prompts, the running one included.

    Counted once by the server, then down with each prompt that ends: prompts that somebody removes from the queue, or
    puts at its front, are not noticed.
    """

    server: str
    before: int


class Sending(Struct, frozen=True, kw_only=True):
    """The job is sent to `server` (its redacted address) as `prompt_id`, for the `attempt`-th time."""

    server: str
    prompt_id: str
    attempt: int


class Progress(Struct, frozen=True, kw_only=True):
    """A node runs. `step` of `steps`: as the node reports; None: it began and has reported nothing.

    `node_class`: "" where the node is not in the graph that was sent.
    """

    node: str
    node_class: str = ""
    step: int | None = None
    steps: int | None = None


class Retrying(Struct, frozen=True, kw_only=True):
    """The job will be sent again after `wait_s` seconds, for the `attempt`-th time (2: the first retry), and why."""

    attempt: int
    why: FailureKind
    message: str
    wait_s: float


JobEvent: TypeAlias = Sending | Queued | Progress | Retrying
