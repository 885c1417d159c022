"""What is done about a job that failed: numbers and rules in one file, `retry.json`. No I/O, no clock, no randomness.

A deadline counts from the call for a job, over all its attempts. Every wait comes from `wait_s`, so that the client
and a simulation of it decide alike.
"""

from typing import get_args

import msgspec

from comfyload.errors import UsageError
from comfyload.record import codec
from comfyload.record.policy import FORMAT, Admission, FailureClass, Policy, Rule

__all__ = [
    "RULES",
    "Admission",
    "Policy",
    "attempts_left",
    "decode",
    "default",
    "encode",
    "rule_in_words",
    "rule_of",
    "spent",
    "wait_s",
]

RETRY_AFTER_MOST_S = 600.0
"""The longest pause at the server's request, however long it asks for; then it is tried again."""

RULES: dict[FailureClass, Rule] = {
    "validation": Rule(retry=False, why="the same graph is refused again"),
    "missing": Rule(
        retry=True, elsewhere=True, delay="none", charged=False, why="another server may have the node, model or file"
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
    "lost": Rule(retry=True, attempts=5, delay="none", charged=False, why="the server no longer knows the job"),
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


ONCE = Policy(attempts=1, classes={name: Rule(retry=False) for name in get_args(FailureClass)})
"""Each job is sent once."""


def rule_of(policy: Policy, class_: FailureClass) -> Rule:
    return policy.classes.get(class_) or RULES[class_]


def spent(policy: Policy, class_: FailureClass, attempt: int, charged: int = 0) -> bool:
    """Whether the job has had all its attempts; the arguments are those of `wait_s`."""
    return not rule_of(policy, class_).retry or attempts_left(policy, class_, attempt, charged) <= 0


def attempts_left(policy: Policy, class_: FailureClass, attempt: int, charged: int = 0) -> int:
    """How many more attempts the rule leaves the job, if they fail like this one; arguments as those of `wait_s`."""
    rule = rule_of(policy, class_)
    left = (policy.attempts if rule.attempts is None else rule.attempts) - attempt
    return min(left, policy.attempts - max(charged, attempt)) if rule.charged else left


def rule_in_words(policy: Policy, class_: FailureClass) -> str:
    """The class of failure, and what the policy gives as its reason."""
    why = rule_of(policy, class_).why
    return f"{class_}: {why}" if why else class_


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
        policy = codec.decode(content, msgspec.json.Decoder(Policy))
        codec.check_keys(codec.parsed(content), policy)
        if policy.format > FORMAT:
            raise msgspec.ValidationError(f"format {policy.format} is newer than {FORMAT} - at `$.format`")
    except msgspec.MsgspecError as error:
        raise UsageError(f"the retry policy cannot be read: {error}", "see the reference of retry.json") from None
    return policy


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
