"""Drives a client by a load: every arrival is sent at most once and ends in exactly one Record.

The engine knows neither servers nor files. It asks for prompts by index, hands them to a client, and gives what came of
them to `emit`, a synchronous callable. Instants are the given clock's: seconds from the start of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from comfyload.record.model import Execution, Line, Prompt, Record, Sent

if TYPE_CHECKING:
    from comfyload.load.arrivals import Closed

__all__ = ["Stop", "drive"]

Emit = Callable[[Line], None]


class _Client(Protocol):
    async def run(self, prompt: Prompt) -> Execution: ...


class Stop:
    """Asks the engine for no more arrivals; what is under way still ends."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self) -> None:
        self.asked = True


async def drive(
    load: Closed,
    prompts: Callable[[int], Prompt],
    client: _Client,
    emit: Emit,
    *,
    clock: Callable[[], float],
    stop: Stop,
    on_counted: Callable[[], None] = lambda: None,
) -> None:
    """Run the load to its end. Warm-up jobs come first; `on_counted` is called when the counted ones begin."""
    await _closed(range(load.warmup), load.concurrency, prompts, client, emit, clock=clock, stop=stop)
    if stop.asked:
        return
    on_counted()
    counted = range(load.warmup, load.warmup + load.jobs)
    await _closed(counted, load.concurrency, prompts, client, emit, clock=clock, stop=stop)


async def _closed(
    indexes: range,
    concurrency: int,
    prompts: Callable[[int], Prompt],
    client: _Client,
    emit: Emit,
    *,
    clock: Callable[[], float],
    stop: Stop,
) -> None:
    """Each user takes the next index as soon as it is free: that instant is when its job is due."""
    todo = iter(indexes)

    async def user() -> None:
        while not stop.asked:
            index = next(todo, None)
            if index is None:
                return
            await _one(prompts(index), clock(), client, emit)

    async with asyncio.TaskGroup() as users:
        for _ in range(min(concurrency, len(indexes))):
            users.create_task(user())


async def _one(prompt: Prompt, due: float, client: _Client, emit: Emit) -> None:
    emit(Sent(index=prompt.index, prompt_id=prompt.id, due=due))
    execution = await client.run(prompt)
    emit(
        Record(
            index=prompt.index,
            prompt_id=prompt.id,
            workflow=prompt.workflow,
            warmup=prompt.warmup,
            due=due,
            values=prompt.values,
            execution=execution,
        )
    )
