"""An event loop in a thread of its own, for programs that have none."""

import asyncio
import os
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from comfyload.errors import ComfyloadError, UsageError

T = TypeVar("T")
END_S = 5.0
LOOK_S = 5.0
"""How often a caller that waits checks that the thread is alive."""


class NoAnswer(ComfyloadError):
    """The thread did not answer in time: it is stuck."""


def refuse_after_fork(pid: int) -> None:
    """Refuse a connection after a fork, which copies no threads, so that it would hang.

    Raises:
        UsageError: this is another process than `pid`, in which the connection was opened.
    """
    if os.getpid() != pid:
        raise UsageError(
            f"this connection was opened by process {pid}, before it forked", "open it in the worker, after the fork"
        )


class LoopThread:
    """Runs an event loop until `close`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="comfyload", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], within_s: float | None = None) -> T:
        """Run it on the loop and return its result. If the wait ends otherwise, as by Ctrl-C, it is cancelled.

        Raises:
            NoAnswer: no result within `within_s`. The coroutine has a shorter limit, so the thread is stuck.
            ComfyloadError: the thread has ended.
            UsageError: the caller is a process forked since, or the thread itself.
        """
        try:
            refuse_after_fork(self.pid)
            if threading.current_thread() is self._thread:
                raise UsageError(
                    "this is the connection's own thread, on which on_event is called: it would wait for itself",
                    "hand the work to a thread of yours",
                )
            self._lives()
        except ComfyloadError:
            coroutine.close()
            raise
        until = None if within_s is None else time.monotonic() + within_s
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            while True:
                left = LOOK_S if until is None else min(LOOK_S, until - time.monotonic())
                try:
                    return future.result(max(0.0, left))
                except TimeoutError:
                    if future.done():
                        return future.result()
                self._lives()
                if until is not None and time.monotonic() >= until:
                    raise NoAnswer(f"the connection's thread did not answer for {within_s:g} s", "open it again")
        except BaseException:
            future.cancel()
            raise

    def close(self, within_s: float) -> None:
        """End the loop; a thread that is stuck is left behind, and ends with the process."""
        if not self._loop.is_closed() and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(within_s)
        if not self._thread.is_alive() and not self._loop.is_closed():
            self._loop.run_until_complete(_end_the_rest())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _lives(self) -> None:
        if not self._thread.is_alive():
            raise ComfyloadError("the connection's thread has ended", "open it again")


async def _end_the_rest() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=END_S)
