"""Ends background tasks, and waits for a limited time."""

import asyncio
from collections.abc import Awaitable, Collection
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, wait until they have ended, and raise the error of one that failed."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def within(seconds: float | None, call: Awaitable[T], late: T) -> T:
    """The result of the call; `late` if it was cancelled after so many seconds (None: it may take any time)."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await call
    return late
