"""comfyload's engine with a client that sends nothing: python -m bench.clients.schedule PER_SECOND JOBS

Prints how late each start was, in nanoseconds, as `lateness.c` does.
"""

from __future__ import annotations

import sys
import time
from random import Random

from comfyload import clock
from comfyload.load.engine import Engine, Stop
from comfyload.load.selfcheck import frozen_gc
from comfyload.record.model import Execution, Line, Prompt, Record
from comfyload.record.plan import Open, Plan, Stage


class Now:
    """A client that notes when it was called."""

    async def run(self, prompt: Prompt) -> Execution:
        return Execution(outcome="completed", sent=time.monotonic())


async def run(per_s: float, jobs: int) -> list[float]:
    """How late each start was, in seconds."""
    lines: list[Line] = []
    watch = clock.stopwatch()
    zero = time.monotonic() - watch()
    prompt = Prompt(id="", index=0, workflow="w", warmup=False, graph_of=lambda _: b"")
    plan = Plan(load=Open(stages=[Stage(per_s=per_s)], arrivals="constant"), jobs=jobs)
    with frozen_gc():
        await Engine(plan, lambda _: prompt, Now(), lines.append, clock=watch, rng=Random(1), stop=Stop()).run()
    return [(line.execution.sent or 0.0) - zero - line.due for line in lines if isinstance(line, Record)]


if __name__ == "__main__":
    for late_s in clock.run(run(float(sys.argv[1]), int(sys.argv[2]))):
        print(round(late_s * 1e9))
