"""Turns what a client notices apart from its jobs into observations of the run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from comfyload.record.model import Observation


@dataclass(eq=False)
class Noticed:
    """Hands observations to `observe`. `own_fault`: the last fault of the generator's own machine, and its instant."""

    clock: Callable[[], float]
    observe: Callable[[Observation], None]
    own_fault: tuple[float, str] = (-math.inf, "")

    def note(self, code: str, text: str) -> None:
        """Observe something under a code that the findings know."""
        self.observe(Observation(t=self.clock(), code=code, text=text))

    def foreign_load(self, remaining: int, ours: int) -> None:
        """The server's queue is longer than our own prompts make it."""
        self.note(
            "foreign_load",
            f"the server's queue held {remaining} prompts, of which at most {ours} were ours: "
            "other clients' work is in these numbers",
        )

    def unread(self, what: str) -> None:
        self.note("unreadable", f"the server sent what cannot be read: {what[:300]}")

    def stream_lost(self, reason: str) -> None:
        self.note("stream_lost", f"the event stream was lost: {reason}")

    def fault_of_ours(self, fault: str) -> None:
        self.own_fault = self.clock(), fault
        self.note("generator_fault", f"the generator's machine failed: {fault}")
