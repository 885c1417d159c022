"""A retry policy as a value, `retry.json`: what is done about a job that failed. Its rules are in `retry.policy`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

FORMAT = 1
"""Version of `retry.json`; a newer file is refused."""

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


class Admission(Struct, frozen=True, kw_only=True):
    """When a prompt is sent. It must also be able to end by its deadline, judging by the workflow's times so far.

    `depth`: most prompts of any client that may run or wait on the server before this one. None: any number.
    """

    depth: Annotated[int, Meta(ge=0)] | None = None


class Backoff(Struct, frozen=True, kw_only=True):
    """The pause after the n-th failure of a kind: `base_s` doubled each time, at most `cap_s`.

    `full` jitter: a uniformly random pause between 0 and that.
    """

    base_s: Seconds = 1.0
    cap_s: Seconds = 15.0
    jitter: Literal["full", "none"] = "full"


class Budget(Struct, frozen=True, kw_only=True):
    """A bucket of retries, counted by jobs: `ratio` more with each first attempt, one less with each charged retry."""

    ratio: Annotated[float, Meta(ge=0)] = 1.0
    cap: Annotated[float, Meta(ge=0)] = 20.0


class Breaker(Struct, frozen=True, kw_only=True):
    """When a server gets no jobs: after `failures` in a row, for `open_s`, doubled each time up to `open_max_s`."""

    failures: Some = 3
    open_s: Seconds = 5.0
    open_max_s: Seconds = 60.0


class Rule(Struct, frozen=True, kw_only=True):
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


class Score(Struct, frozen=True, kw_only=True):
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


class Policy(Struct, frozen=True, kw_only=True):
    """`retry.json`. Every field has a default, so a file need only have the others.

    `deadline_s`: from the call for a job to its end, all attempts together; None: no deadline. `attempts`: most
    attempts of a job that cost GPU time. `connect_s`, `submit_s`: timeouts of a connection and of the reply to a POST.
    `liveness_s`: a running job without progress for so long is hung; None: never. `cancel`: a job that is given up is
    removed from the server. `lookup`: an id of unknown state is looked up before its job is sent again.
    `explanations`: the reason of each number, by the path of its field. `scores`, `inputs`: what the numbers were
    chosen from.
    """

    format: Annotated[int, Meta(ge=1, extra_json_schema={"maximum": FORMAT})] = FORMAT
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
