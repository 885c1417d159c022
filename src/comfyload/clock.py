"""One monotonic clock for all instants, and an event loop with a virtual clock for tests.

Instants are in seconds; they never go back and have no meaning outside the process.
Under `VirtualLoop` nothing waits: when all tasks sleep, the clock jumps to the next timer.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def now() -> float:
    """Seconds on a monotonic clock: the running loop's if it is virtual, the system's otherwise.

    Not `loop.time()` in general: uvloop's has steps of a millisecond.
    """
    loop = asyncio.get_running_loop()
    return loop.time() if isinstance(loop, VirtualLoop) else time.monotonic()


def stopwatch() -> Callable[[], float]:
    """A clock that starts at zero now; for code that runs on the present loop."""
    loop = asyncio.get_running_loop()
    read = loop.time if isinstance(loop, VirtualLoop) else time.monotonic
    zero = read()
    return lambda: read() - zero


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on the fastest loop (uvloop where it is installed)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    except RuntimeError as error:  # uvloop says that it still runs, if Ctrl-C struck while it was closed
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__context__
        if cause is None:
            raise
        raise cause from None


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on virtual time: an hour of sleeping passes in the time its callbacks take."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing is left to do before it.

    For code that only sleeps and computes. Sockets and threads take real time, which this clock does not see; a wait
    that no timer can end raises RuntimeError instead of hanging.
    """

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_JumpingSelector(self))
        # Two timers closer than this are one instant: float addition at 1e6 s must not stall the clock.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual

    def advance(self, seconds: float) -> None:
        self._virtual += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            raise RuntimeError("deadlock on virtual time: every task waits and no timer is set")
        self._loop.advance(timeout)
        return []
