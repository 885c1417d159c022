"""Events of a job under way, for a program's progress bar or log."""

from typing import TypeAlias

from msgspec import Struct

from comfyload.record.model import FailureKind, RetryLine


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
    """The job will be sent again after `wait_s` seconds, for the `attempt`-th time (2: the first retry), and why.

    `of`: the most attempts that the policy allows if they fail like this one; None: this one does not count.
    `rule`: the policy's rule in words. `prompt_id`, `server`: of the attempt that failed.
    """

    attempt: int
    why: FailureKind
    message: str
    wait_s: float
    of: int | None = None
    rule: str = ""
    prompt_id: str = ""
    server: str = ""


JobEvent: TypeAlias = Sending | Queued | Progress | Retrying


def retry_line(event: Retrying, *, index: int, t: float) -> RetryLine:
    """The line of a run directory that says it: of the job `index`, at the instant `t`."""
    return RetryLine(
        t=t,
        index=index,
        prompt_id=event.prompt_id,
        server=event.server,
        attempt=event.attempt,
        of=event.of,
        why=event.why,
        message=event.message,
        rule=event.rule,
        wait_s=event.wait_s,
    )
