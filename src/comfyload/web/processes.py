"""Runs that the page has begun, each in a process of its own, which goes on when the dashboard ends."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import IO, TypeVar

from comfyload.errors import file_errors
from comfyload.hidden import without_hidden
from comfyload.visible import visible
from comfyload.web.answers import Refused

LOOK_S = 0.1
STARTS_S = 30.0
"""How long the answer to a start waits for the run's directory, or for its early end."""

SHOWN = 8 << 10
"""Bytes of what a process printed last that are read."""

_KEPT_APART = ("COMFYLOAD_TOKEN", "FORCE_COLOR")
"""Variables that a run does not get."""

_APART = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""On Windows, where there are no sessions: a signal for the dashboard does not reach the run."""

T = TypeVar("T")


class Processes:
    """The processes of runs by the runs' ids; only those that are held here are ever sent a signal."""

    def __init__(self) -> None:
        self._held: dict[str, subprocess.Popen[bytes]] = {}

    def hold(self, run_id: str, process: subprocess.Popen[bytes]) -> None:
        self._held[run_id] = process

    def alive(self, run_id: str) -> bool:
        process = self._held.get(run_id)
        return process is not None and process.poll() is None

    def stop(self, run_id: str) -> bool:
        """As Ctrl-C does: the first time no more jobs are sent, the second time its jobs are cancelled. False: the
        run's process is not one that was begun here, or has ended.
        """
        process = self._held.get(run_id)
        if process is None or process.poll() is not None:
            return False
        process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))
        return True


def spawn(words: list[str], output: IO[bytes], more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Begin `comfyload WORDS`. `more`: variables of its environment, as what a process is called with is seen by all.

    Raises:
        RunFilesError: it cannot be begun.
    """
    env = {name: value for name, value in os.environ.items() if name not in _KEPT_APART}
    with file_errors("cannot begin a run", "is there room on the disk, and may it start processes?"):
        return subprocess.Popen(
            [sys.executable, "-m", "comfyload", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env={**env, "NO_COLOR": "1", **(more or {})},
            start_new_session=sys.platform != "win32",
            creationflags=_APART,
        )


async def begun(
    words: list[str], found: Callable[[], T | None], more: Mapping[str, str] | None = None
) -> tuple[T, subprocess.Popen[bytes]]:
    """Begin `comfyload WORDS`, and wait until `found` finds what it makes.

    Raises:
        Refused: it ended before, in its own words, or nothing was found for long.
    """
    with tempfile.TemporaryFile() as output:
        process = spawn(words, output, more)
        loop = asyncio.get_running_loop()
        until = loop.time() + STARTS_S
        while loop.time() < until:
            ended = process.poll() is not None
            made = await asyncio.to_thread(found)
            if made is not None:
                return made, process
            if ended:
                output.seek(max(0, output.seek(0, os.SEEK_END) - SHOWN))
                raise _why(output.read().decode("utf-8", "replace"))
            await asyncio.sleep(LOOK_S)
    raise Refused(409, f"the run has not begun within {STARTS_S:g} s", "it may yet: look at the list of runs")


def last_error(output: str) -> tuple[str, str] | None:
    """The error that the command printed last, and its hint; None: it printed none."""
    lines = [line.removeprefix("error: ") for line in output.splitlines() if line.startswith("error: ")]
    if not lines:
        return None
    error, _, hint = visible(without_hidden(lines[-1])).rpartition(" — ")
    return (error, hint) if error else (hint, "")


def _why(output: str) -> Refused:
    return Refused(409, *(last_error(output) or ("the run ended before it had begun", "")))
