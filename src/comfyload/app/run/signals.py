"""Handles the signals that end a run."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def on_signals(interrupt: Callable[[], None], cancel: Callable[[], None]) -> Iterator[None]:
    """Within the context Ctrl-C calls `interrupt`; SIGTERM, and a terminal that is closed, call `cancel`."""
    loop = asyncio.get_running_loop()
    handled: list[tuple[int, Callable[[], None]]] = [(signal.SIGINT, interrupt), (signal.SIGTERM, cancel)]
    hung_up = getattr(signal, "SIGHUP", None)
    if hung_up is not None and signal.getsignal(hung_up) != signal.SIG_IGN:  # nohup has it ignored
        handled.append((hung_up, cancel))
    with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt instead
        for number, handler in handled:
            loop.add_signal_handler(number, handler)
    breaking = getattr(signal, "SIGBREAK", None)  # Windows: what one process can send to another
    before = None if breaking is None else signal.signal(breaking, lambda *_: loop.call_soon_threadsafe(interrupt))
    try:
        yield
    finally:
        if breaking is not None:
            signal.signal(breaking, before)
        with suppress(NotImplementedError):
            for number, _ in handled:
                loop.remove_signal_handler(number)
