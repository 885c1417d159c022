"""Which class of failure an execution ended in, and which failures of nodes are known to come again. Pure."""

import re

from comfyload.record.model import Execution, Failure, FailureKind
from comfyload.record.policy import FailureClass

_BY_KIND: dict[FailureKind, FailureClass] = {
    "validation": "validation",
    "missing_node": "missing",
    "invalid_id": "validation",
    "partial_validation": "validation",
    "too_large": "too_large",
    "auth": "auth",
    "server_error": "server_error",
    "connect": "connect",
    "generator": "connect",
    "submit_unknown": "submit_unknown",
    "execution_error": "transient",
    "oom": "oom",
    "cuda": "cuda",
    "interrupted": "interrupted",
    "timeout": "deadline",
    "hung": "hung",
    "cancelled": "interrupted",
    "lost": "lost",
    "fetch": "fetch",
    "dropped": "deadline",
    "shed": "deadline",
    "censored": "interrupted",
}

_BY_STATUS: dict[int, FailureClass] = {429: "busy", 502: "connect", 503: "busy", 504: "connect"}
"""Of a refused POST: 502 and 504 come from a gateway that has no server behind it."""

_COMES_AGAIN = {
    "AssertionError",
    "AttributeError",
    "FileNotFoundError",
    "ImportError",
    "IndexError",
    "KeyError",
    "ModuleNotFoundError",
    "NameError",
    "NotADirectoryError",
    "NotImplementedError",
    "TypeError",
    "UnboundLocalError",
    "ValueError",
    "ZeroDivisionError",
}
"""Exceptions caused by the node's code or its inputs, which are the same the next time."""

_LACKING = re.compile("value not in list|invalid [a-z0-9 ]+ file", re.IGNORECASE)
"""Refusals of a model, or of an input file, that a server lacks."""

_SHAPES = (
    "shapes cannot be multiplied",
    "size mismatch",
    "must match the size of tensor",
    "shape '",
    "sizes of tensors",
)
"""Texts of torch's RuntimeErrors for tensors that do not fit each other."""


def classify(execution: Execution) -> FailureClass | None:
    """The class of failure, by this execution alone; None: it completed."""
    if execution.outcome == "completed":
        return None
    failure = execution.failure
    if failure is None:
        return "lost" if execution.outcome == "lost" else "other"
    if failure.status in _BY_STATUS and failure.kind in ("server_error", "http"):
        return _BY_STATUS[failure.status]
    if failure.kind == "validation" and _LACKING.search(failure.message):
        return "missing"
    if failure.kind == "execution_error" and _comes_again(failure):
        return "deterministic"
    return _BY_KIND.get(failure.kind, "other")


def never_sent(execution: Execution) -> bool:
    """Whether this attempt certainly did not bring the job to the server, so that its id can be used again."""
    failure = execution.failure
    if failure is None or execution.started is not None or execution.server_state_after not in (None, "absent"):
        return False
    refused = failure.status is not None and failure.kind != "partial_validation"
    return refused or failure.kind in ("connect", "generator", "submit_unknown", "lost", "cancelled")


def _comes_again(failure: Failure) -> bool:
    text = failure.message.lower()
    name = failure.type.removeprefix("builtins.")
    return name in _COMES_AGAIN or (name == "RuntimeError" and any(sign in text for sign in _SHAPES))


class KnownFailures:
    """Learns which failures of nodes come again: workflow, node class and exception type, met by two attempts.

    A signature that a job had and then completed is proven to pass, and is never called deterministic again.
    """

    def __init__(self) -> None:
        self._met: dict[tuple[str, str, str], str | None] = {}
        self._passes: set[tuple[str, str, str]] = set()

    def deterministic(self, workflow: str, prompt_id: str, failure: Failure) -> bool:
        """Note the failure of the attempt `prompt_id`; whether it will come again."""
        key = _key(workflow, failure)
        if key in self._passes:
            return False
        first = self._met.setdefault(key, prompt_id)
        return first != prompt_id

    def passed(self, workflow: str, failure: Failure) -> None:
        """A job completed after this failure."""
        self._passes.add(_key(workflow, failure))


def _key(workflow: str, failure: Failure) -> tuple[str, str, str]:
    return workflow, failure.node_class or "", failure.type
