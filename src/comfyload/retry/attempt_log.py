"""What became of one job so far, over all its attempts, and under which ids. No I/O."""

from __future__ import annotations

import json
import uuid

from msgspec import structs

from comfyload.record.model import Attempt, Execution, Failure, Prompt
from comfyload.record.stamps import believed
from comfyload.retry.classify import never_sent

__all__ = ["AttemptLog", "id_of", "later_ids"]

LATER_IDS = 8
"""How many ids beside its first a job of an earlier process is looked for under; the usual rules come to six."""


def later_ids(prompt_id: str) -> list[str]:
    """Under which ids a job may be sent again after its first, in their order."""
    return [id_of(prompt_id, number) for number in range(2, LATER_IDS + 2)]


class AttemptLog:
    """`number`: of the id under which the job is sent, from 1. `told`: its attempts are told though there was but one.

    `waiting_since`: an instant.
    """

    def __init__(self, first: str, began: float, *, told: bool) -> None:
        self.first = first
        self.told = told
        self.number = 1
        self.attempts: list[Attempt] = []
        self.last: Execution | None = None
        self.waiting_since = began
        self.node_failures: list[Failure] = []
        self.held_s = 0.0

    def add(self, server: str, prompt_id: str, execution: Execution, sent_at: float, now: float) -> None:
        """One attempt has ended, which began at `sent_at`. One that was held back and never sent is none."""
        self.held_s += execution.held_s
        if execution.outcome == "dropped" and self.last is not None:
            return
        self.last = execution
        self.attempts.append(
            Attempt(
                server=server,
                prompt_id=prompt_id,
                outcome=execution.outcome,
                sent=execution.sent,
                done=execution.done,
                failure=execution.failure,
                executed_ms=believed(execution).execution_ms,
                waited_s=max(0.0, sent_at - self.waiting_since),
            )
        )
        self.waiting_since = now

    def close(self, execution: Execution) -> Execution:
        """The account of the job, `execution` being its end, or what came before it if that was never sent."""
        if execution.outcome == "dropped" and self.last is not None:
            execution = self.last
        told_by_itself = len(self.attempts) == 1 and execution is self.last and not self.told
        if execution.held_s != self.held_s:
            execution = structs.replace(execution, held_s=self.held_s)
        return execution if told_by_itself else structs.replace(execution, attempts=self.attempts)

    def no_place(self, why: Failure, now: float) -> Execution:
        """The end of a job that is sent no more: how its last attempt failed, or, if it was not refused any, why."""
        last = self.last
        if last is not None and last.failure is not None and last.failure.kind != "cancelled":
            return self.close(structs.replace(last, done=now))
        return self.close(Execution(outcome="failed", done=now, failure=why))

    def next_prompt(self, prompt: Prompt, execution: Execution) -> Prompt:
        """The prompt of the next attempt: under the same id only if no server has ever had it by that."""
        prompt_id = prompt.id
        if not never_sent(execution):
            self.number += 1
            prompt_id = id_of(self.first, self.number)
        extra = json.loads(prompt.extra_data) if prompt.extra_data else {}
        extra["comfyload"] = {"attempt": len(self.attempts) + 1, "retry_of": self.first}
        return structs.replace(prompt, id=prompt_id, extra_data=json.dumps(extra).encode())


def id_of(first: str, number: int) -> str:
    """Under which id a job is sent for that time, from 1: one that may have begun under an id gets another."""
    return first if number == 1 else str(uuid.uuid5(uuid.NAMESPACE_URL, f"{first}/{number}"))
