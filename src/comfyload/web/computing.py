"""A process of its own that computes one thing after the other; questions and answers go through pipes."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pkgutil import resolve_name
from queue import SimpleQueue
from typing import Any, BinaryIO, cast

_NICE = 5
"""A run that is measured on this machine comes first."""
_BEGIN = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import serve; serve()"
"""It finds modules where we do, and not in the folder in which it happens to begin."""

Call = tuple[str, tuple[Any, ...]]
"""A function by its name, such as `comfyload.web.run_views:run_answer`, and what it is called with."""


class ProcessEnded(Exception):
    """The process has died, or was ended."""


class Computing:
    """Our end of the process, which ends when we do."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BEGIN, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, call: Call) -> Any:
        """What the function returns; for one thread at a time, which waits.

        Raises:
            ProcessEnded: it has, or did meanwhile.
        """
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            pickle.dump(call, process.stdin)
            process.stdin.flush()
            found, error = pickle.load(process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise ProcessEnded from None
        if error is not None:
            raise error
        return found

    def end(self) -> None:
        """End it, whatever it computes, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # a question that it never read
                cast(BinaryIO, pipe).close()


# --- in the other process


def serve() -> None:
    """Answer until nobody can ask any more. Ctrl-C is for the server, which ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(_NICE)
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what is printed is no answer
        calls = SimpleQueue[Call]()
        threading.Thread(target=_listen, args=(calls,), daemon=True).start()
        while True:
            answers.write(_answer(*calls.get()))
            answers.flush()


def _listen(calls: SimpleQueue[Call]) -> None:
    """Take calls, also while one is computed: the end of them is the end of this process."""
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            calls.put(pickle.load(sys.stdin.buffer))
    os._exit(0)


def _answer(name: str, arguments: tuple[Any, ...]) -> bytes:
    """What the function returns, or the error that it raises, with its place there."""
    try:
        return pickle.dumps((resolve_name(name)(*arguments), None))
    except Exception as error:  # noqa: BLE001 - it is raised in the process that put the question
        error.add_note("".join(traceback.format_exception(error)))
        try:
            return pickle.dumps((None, error))
        except Exception:  # noqa: BLE001 - its text is left of an error that cannot be sent
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
