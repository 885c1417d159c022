"""Processes that are ready in a moment: forked from one that has everything imported, and neither thread nor loop."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["begin", "ended", "side_by_side"]

T = TypeVar("T")


def begin(work: Callable[[], int]) -> int:
    """Do it in a process of its own; returns its id. It ends with the code that the work returns, 70 if it raises."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = work()
    except BaseException:  # noqa: BLE001 - it must not come back into the code of its parent
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


def ended(pid: int) -> int:
    """Wait for it; its exit code, or the signal that killed it with a minus before it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def side_by_side(work: Sequence[T], do: Callable[[T], list[str]], at_once: int) -> list[str]:
    """What `do` says of each piece of work, by so many processes at once, each with its share."""
    workers = []
    for number in range(at_once):
        source, sink = os.pipe()

        def share(number: int = number, sink: int = sink) -> int:
            said = [line for piece in work[number::at_once] for line in do(piece)]
            with os.fdopen(sink, "w", encoding="utf-8") as out:
                json.dump(said, out)
            return 0

        workers.append((begin(share), source))
        os.close(sink)
    found: list[str] = []
    for pid, source in workers:
        with os.fdopen(source, encoding="utf-8") as answer:
            text = answer.read()
        code = ended(pid)
        found += json.loads(text) if code == 0 else [f"a worker ended with {code}"]
    return found
