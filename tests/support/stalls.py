"""Tests that are about time, on a machine that now and then stands still."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

__all__ = ["again_after_a_stall"]

P = ParamSpec("P")

TRIES = 3
STALL_S = 0.1
"""For so long nothing ran that was due."""

_CODE = """\
import sys, threading, time
is_over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), is_over.set())).start()
longest, before = 0.0, time.monotonic()
while not is_over.is_set():
    time.sleep(0.01)
    now = time.monotonic()
    longest, before = max(longest, now - before - 0.01), now
print(longest)
"""
"""Until the end of its input. A process of its own: what holds up a test's interpreter is no stall of the machine."""
_WATCH = [sys.executable, "-S", "-c", _CODE]


def again_after_a_stall(test: Callable[P, None]) -> Callable[P, None]:
    """Run the test again if it failed and the machine stood still meanwhile. Where it did not, the test has failed.

    A `tmp_path` is another folder each time.
    """

    @functools.wraps(test)
    def tried(*args: P.args, **given: P.kwargs) -> None:
        folder = given.get("tmp_path")
        for number in range(1, TRIES + 1):
            if isinstance(folder, Path):
                given["tmp_path"] = folder / f"try{number}"
                (folder / f"try{number}").mkdir()
            failure = None
            with subprocess.Popen(_WATCH, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watch:
                try:
                    test(*args, **given)
                except AssertionError as error:
                    failure = error
                longest_s = float(watch.communicate()[0])
            if failure is None:
                return
            if number == TRIES or longest_s < STALL_S:
                raise failure
            sys.stderr.write(f"again, as the machine stood still for {longest_s:.2f} s\n")

    return tried
