"""What is done about a job that failed: numbers and rules in one file, `retry.json`. No I/O, no clock, no randomness.

A deadline counts from the call for a job, over all its attempts. Every wait comes from `wait_s`, so that the client
and a simulation of it decide alike.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from comfyload.errors import UsageError
from comfyload.record import codec

RETRY_AFTER_MOST_S = 600.0
"""The longest pause at the server's request, however long it asks for; then it is tried again."""

FORMAT = 1
"""Version of `retry.json`; a newer one is refused."""

FailureClass = Literal[
    "validation",  # the graph, or a part of it, cannot run
    "missing",  # this server lacks a node or a model
    "too_large",  # the server takes no body of that size
    "auth",  # the server refuses access
    "connect",  # nothing was sent, or a gateway has no server behind it
    "submit_unknown",  # sent, no reply, and the server does not know the id
    "busy",  # 429 or 503: come back later
    "server_error",  # any other 5xx; the server does not have the job
    "lost",  # accepted once; the server knows it no longer, or is gone
    "hung",  # it runs without progress
    "oom",  # a node ran out of GPU memory
    "cuda",  # the GPU context is broken; the server needs a restart
    "deterministic",  # a node raised an error that would recur
    "transient",  # a node raised an error that may not recur
    "interrupted",  # stopped by another client
    "deadline",  # not done in time
    "fetch",  # done, but an output could not be downloaded whole
    "other",
]

Seconds = Annotated[float, Meta(ge=0)]
Some = Annotated[int, Meta(ge=1)]


class Admission(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a prompt is sent. It must also be able to end by its deadline, judging by the workflow's times so far.

    `depth`: most prompts of any client that may run or wait on the server before this one. None: any number.
    """

    depth: Annotated[int, Meta(ge=0)] | None = None


class Backoff(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pause after the n-th failure of a kind: `base_s` doubled each time, at most `cap_s`.

    `full` jitter: a uniformly random pause between 0 and that.
    """

    base_s: Seconds = 1.0
    cap_s: Seconds = 15.0
    jitter: Literal["full", "none"] = "full"


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bucket of retries, counted by jobs: `ratio` more with each first attempt, one less with each charged retry."""

    ratio: Annotated[float, Meta(ge=0)] = 1.0
    cap: Annotated[float, Meta(ge=0)] = 20.0


class Breaker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a server gets no jobs: after `failures` in a row, for `open_s`, doubled each time up to `open_max_s`."""

    failures: Some = 3
    open_s: Seconds = 5.0
    open_max_s: Seconds = 60.0


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done about one class of failures.

    `attempts`: most attempts of a job that may end in this class; None: the policy's. `free_memory`: the server
    unloads its models first. `elsewhere`: another server is preferred for the next attempt. `charged`: the retry
    follows GPU work, and so counts against the policy's attempts and its budget.
    """

    retry: bool
    attempts: Some | None = None
    free_memory: bool = False
    elsewhere: bool = False
    delay: Literal["none", "backoff", "retry_after"] = "backoff"
    charged: bool = True
    why: str = ""


class Score(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of a policy in one simulated scenario; shares are from 0 to 1.

    `success`: share of jobs done within the deadline; `success_half_width`: of its 95 % interval. `recovery_s`: from
    the end of the trouble until jobs succeed as often as before it; None: never, or no trouble.
    """

    scenario: str
    policy: str
    success: float
    success_half_width: float | None = None
    goodput_per_min: float | None = None
    submits_per_job: float | None = None
    wasted_share: float | None = None
    recovery_s: float | None = None


RULES: dict[FailureClass, Rule] = {
    "validation": Rule(retry=False, why="the same graph is refused again"),
    "missing": Rule(
        retry=True, elsewhere=True, delay="none", charged=False, why="another server may have the node or the model"
    ),
    "too_large": Rule(retry=False, why="the same body is refused again"),
    "auth": Rule(retry=False, why="the same credentials are refused again"),
    "connect": Rule(
        retry=True, attempts=50, elsewhere=True, charged=False, why="nothing was sent; it cost no GPU time"
    ),
    "submit_unknown": Rule(
        retry=True, attempts=5, charged=False, why="it was looked up, and the server does not have it"
    ),
    "busy": Rule(
        retry=True, attempts=50, elsewhere=True, delay="retry_after", charged=False, why="the server asks to wait"
    ),
    "server_error": Rule(
        retry=True, attempts=5, elsewhere=True, charged=False, why="the server does not have the job after its error"
    ),
    "lost": Rule(
        retry=True,
        attempts=5,
        delay="none",
        charged=False,
        why="the server no longer knows the job",
    ),
    "hung": Rule(retry=True, attempts=2, elsewhere=True, delay="none", why="its server makes no progress"),
    "oom": Rule(retry=True, attempts=2, free_memory=True, delay="none", why="memory held by other models is freed"),
    "cuda": Rule(retry=True, attempts=2, elsewhere=True, delay="none", why="its server needs a restart"),
    "deterministic": Rule(retry=False, why="it would fail in the same way again"),
    "transient": Rule(retry=True, delay="none", why="it may pass by itself"),
    "interrupted": Rule(retry=False, why="it was stopped on purpose"),
    "deadline": Rule(retry=False, why="it would be late"),
    "fetch": Rule(retry=False, why="the job is done; running it again does not repair a download"),
    "other": Rule(retry=False, why="its cause is unknown"),
}
"""What is done where a policy does not say otherwise."""


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`retry.json`. Every field has a default, so a file need only have the others.

    `deadline_s`: from the call for a job to its end, all attempts together; None: no deadline. `attempts`: most
    attempts of a job that cost GPU time. `connect_s`, `submit_s`: timeouts of a connection and of the reply to a POST.
    `liveness_s`: a running job without progress for so long is hung; None: never. `cancel`: a job that is given up is
    removed from the server. `lookup`: an id of unknown state is looked up before its job is sent again.
    `explanations`: the reason of each number, by the path of its field. `scores`, `inputs`: what the numbers were
    chosen from.
    """

    format: Annotated[int, Meta(ge=1, le=FORMAT)] = FORMAT
    deadline_s: Annotated[float, Meta(gt=0)] | None = None
    attempts: Some = 3
    connect_s: Annotated[float, Meta(gt=0)] = 5.0
    submit_s: Annotated[float, Meta(gt=0)] = 30.0
    liveness_s: Annotated[float, Meta(gt=0)] | None = None
    admission: Admission = Admission()
    backoff: Backoff = Backoff()
    budget: Budget = Budget()
    breaker: Breaker = Breaker()
    classes: dict[FailureClass, Rule] = {}
    cancel: bool = True
    lookup: bool = True
    explanations: dict[str, str] = {}
    scores: list[Score] = []
    inputs: dict[str, float | str | None] = {}


def rule_of(policy: Policy, class_: FailureClass) -> Rule:
    """The policy's rule for the class, or the usual one."""
    return policy.classes.get(class_) or RULES[class_]


def spent(policy: Policy, class_: FailureClass, attempt: int, charged: int = 0) -> bool:
    """Whether the job has had all its attempts; the arguments are those of `wait_s`."""
    rule = rule_of(policy, class_)
    if not rule.retry or attempt >= (policy.attempts if rule.attempts is None else rule.attempts):
        return True
    return rule.charged and max(charged, attempt) >= policy.attempts


def wait_s(
    policy: Policy,
    class_: FailureClass,
    attempt: int,
    elapsed_s: float,
    u: float,
    retry_after_s: float | None = None,
    charged: int = 0,
) -> float | None:
    """Seconds until the next attempt, or None: give up.

    `attempt`: how many attempts of this job have ended in `class_`, from 1. `elapsed_s`: since the call for the job.
    `u`: drawn uniformly from [0, 1). `retry_after_s`: the pause that the server requests, which is kept up to
    `RETRY_AFTER_MOST_S` and prolonged by up to half. `charged`: how many of its attempts were charged so
    far, this one included.
    """
    rule = rule_of(policy, class_)
    if spent(policy, class_, attempt, charged):
        return None
    if rule.delay == "none":
        wait = 0.0
    elif rule.delay == "retry_after" and retry_after_s is not None:
        wait = min(retry_after_s, RETRY_AFTER_MOST_S) * (1.0 + 0.5 * u)
    else:
        most = min(policy.backoff.cap_s, policy.backoff.base_s * 2.0 ** min(attempt - 1, 60))
        wait = most * u if policy.backoff.jitter == "full" else most
    return wait if policy.deadline_s is None or elapsed_s + wait < policy.deadline_s else None


def decode(content: bytes) -> Policy:
    """The policy of a `retry.json`.

    Raises:
        UsageError: it is not valid; the message names the place.
    """
    try:
        return codec.decode(content, msgspec.json.Decoder(Policy))
    except msgspec.MsgspecError as error:
        raise UsageError(f"the retry policy cannot be read: {error}", "see the reference of retry.json") from None


def encode(policy: Policy) -> bytes:
    """The content of a `retry.json`, indented."""
    return codec.encode_pretty(policy) + b"\n"


def default(deadline_s: float | None = None) -> Policy:
    """A cautious policy for those who have no baseline to choose one from."""
    return Policy(
        deadline_s=deadline_s,
        liveness_s=600.0,
        classes={name: RULES[name] for name in get_args(FailureClass)},
        explanations={
            "attempts": "three, as no share of transient failures is known",
            "liveness_s": "ten minutes, as no service time is known",
            "admission.depth": "no limit, as neither a service time is known nor what the queue may cost",
        },
    )
