"""Waits for an instant as exactly as the machine can.

Event loops round their timers to a millisecond; the kernel's own timer, watched like a socket, is as exact as
`clock_nanosleep`. Where there is none (not Linux, or virtual time), the loop's sleep to an absolute instant has to do.
"""

import asyncio
import ctypes
import os
import sys

from comfyload.clock import VirtualLoop, now

CLOCK_MONOTONIC = 1
TFD_NONBLOCK = os.O_NONBLOCK if hasattr(os, "O_NONBLOCK") else 0
TFD_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """One waiter at a time, until it is closed. Instants are those of `clock.now`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._libc: ctypes.CDLL | None = None
        self._descriptor = -1
        self._waiting: asyncio.Future[None] | None = None
        if sys.platform == "linux" and not isinstance(self._loop, VirtualLoop):
            libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
            if self._descriptor >= 0:
                self._libc = libc
                self._loop.add_reader(self._descriptor, self._rang)

    def close(self) -> None:
        if self._libc is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._libc = None

    async def until(self, instant: float) -> None:
        """Return at `instant`, at once if it has passed, or when woken."""
        delay = instant - now()
        if delay <= 0:
            return
        self._waiting = self._loop.create_future()
        if self._libc is None:
            handle = self._loop.call_later(delay, self.wake)
            try:
                await self._waiting
            finally:
                handle.cancel()
            return
        seconds, fraction = divmod(instant, 1.0)
        value = _Itimerspec(_Timespec(0, 0), _Timespec(int(seconds), int(fraction * 1e9)))
        if self._libc.timerfd_settime(self._descriptor, TFD_TIMER_ABSTIME, ctypes.byref(value), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._waiting

    def wake(self) -> None:
        """End the wait under way, if there is one."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _rang(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        self.wake()
