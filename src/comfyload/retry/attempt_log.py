"""The attempts of one job so far, and their ids. No I/O."""

import json
import uuid
from dataclasses import dataclass, field

from msgspec import structs

from comfyload.record.model import Attempt, Execution, Failure, Prompt
from comfyload.record.stamps import believed
from comfyload.retry.classify import never_sent

LATER_IDS = 8
"""How many ids after the first a job of an earlier process is looked up under; the usual rules come to six."""


def later_ids(prompt_id: str) -> list[str]:
    """The ids of a job after its first, in order."""
    return [id_of(prompt_id, number) for number in range(2, LATER_IDS + 2)]


@dataclass(eq=False)
class AttemptLog:
    """`number`: of the id under which the job is sent, from 1. `listed`: its attempts are listed even if there was only
    one. `waiting_since`: an instant.
    """

    first: str
    waiting_since: float
    listed: bool = False
    number: int = 1
    attempts: list[Attempt] = field(default_factory=list)
    last: Execution | None = None
    node_failures: list[Failure] = field(default_factory=list)
    held_s: float = 0.0

    def add(self, server: str, prompt_id: str, execution: Execution, sent_at: float, now: float) -> None:
        """Note an attempt that began at `sent_at` and has ended. One that was never sent does not count."""
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
        """The end of the job with its attempts; the attempt before `execution` counts if that was never sent."""
        if execution.outcome == "dropped" and self.last is not None:
            execution = self.last
        only_one = len(self.attempts) == 1 and execution is self.last and not self.listed
        if execution.held_s != self.held_s:
            execution = structs.replace(execution, held_s=self.held_s)
        return execution if only_one else structs.replace(execution, attempts=self.attempts)

    def no_place(self, why: Failure, now: float) -> Execution:
        """The end of a job that is not sent again: the failure of its last attempt, or `why` if there was none."""
        last = self.last
        if last is not None and last.failure is not None and last.failure.kind != "cancelled":
            return self.close(structs.replace(last, done=now))
        return self.close(Execution(outcome="failed", done=now, failure=why))

    def next_prompt(self, prompt: Prompt, execution: Execution) -> Prompt:
        """The prompt of the next attempt, under the same id only if no server has ever had that id."""
        prompt_id = prompt.id
        if not never_sent(execution):
            self.number += 1
            prompt_id = id_of(self.first, self.number)
        extra = json.loads(prompt.extra_data) if prompt.extra_data else {}
        extra["comfyload"] = {"attempt": len(self.attempts) + 1, "retry_of": self.first}
        return structs.replace(prompt, id=prompt_id, extra_data=json.dumps(extra).encode())


def id_of(first: str, number: int) -> str:
    """The `number`-th id of a job, from 1: a job that may have begun under an id gets another."""
    return first if number == 1 else str(uuid.uuid5(uuid.NAMESPACE_URL, f"{first}/{number}"))
