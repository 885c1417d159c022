"""The seam to a machine: a command is started there, and what was started can be watched and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from comfyload.errors import file_errors
from comfyload.record.lock import is_taken
from comfyload.record.manifest_file import MANIFEST

_LATER_S = 30.0
_APART = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""On Windows, where there are no sessions: a signal for this process does not reach the shard."""
_INTERRUPT = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)


class ShardProcess(Protocol):
    """A shard that was started. `name`: how its host finds it again, in a word for `fleet.json`."""

    name: str

    def alive(self) -> bool:
        """Whether it goes on."""

    def interrupt(self) -> None:
        """As Ctrl-C does: the first time no more jobs are sent, the second time its jobs are cancelled."""


Starter = Callable[[Sequence[str], str, Mapping[str, str], Path], ShardProcess]
"""Starts `comfyload WORDS` on a host, with more variables of its environment; what it says on standard error goes to
the file. Raises RunFilesError where it cannot be started."""


def this_host() -> str:
    return socket.gethostname()


class LocalProcess:
    """A process of this machine; `popen`: where this process is its parent."""

    def __init__(self, pid: int, born: float, popen: "subprocess.Popen[bytes] | None" = None) -> None:
        self.name = f"{pid} {born:.2f}"
        self._pid, self._born, self._popen = pid, born, popen

    def alive(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is None
        with suppress(psutil.Error):
            process = psutil.Process(self._pid)
            same = abs(process.create_time() - self._born) < 1.0  # or a later process has its number
            return same and process.status() != psutil.STATUS_ZOMBIE
        return False

    def interrupt(self) -> None:
        if self.alive():
            with suppress(OSError):
                os.kill(self._pid, _INTERRUPT)


class ElsewhereProcess:
    """A process of another machine, of which only its run directory is known here. `begins`: when its load does, in
    Unix seconds; until some time after that the directory may be still to come.
    """

    def __init__(self, name: str, run: Path, begins: float) -> None:
        self.name = name
        self._run = run
        self._until = begins + _LATER_S

    def alive(self) -> bool:
        return is_taken(self._run) or (not (self._run / MANIFEST).exists() and time.time() < self._until)

    def interrupt(self) -> None:
        """Nothing: it cannot be reached from here."""


def start_here(words: Sequence[str], _host: str, more: Mapping[str, str], messages: Path) -> LocalProcess:
    """Start it on this machine, in a session of its own, so that it outlives this process."""
    failed = file_errors("cannot begin a shard", "is there room on the disk, and may it start processes?")
    with failed, messages.open("ab", buffering=0) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "comfyload", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env={**os.environ, "NO_COLOR": "1", **more},
            start_new_session=sys.platform != "win32",
            creationflags=_APART,
        )
    born = 0.0
    with suppress(psutil.Error):
        born = psutil.Process(process.pid).create_time()
    return LocalProcess(process.pid, born, process)


def found_again(name: str, host: str, run: Path, begins: float) -> ShardProcess:
    """A shard that an earlier command started, by what `fleet.json` says of it."""
    if name.startswith("ray "):
        from comfyload.app.fleet.on_ray import found_on_ray  # loads Ray

        return found_on_ray(name)
    pid, _, born = name.partition(" ")
    if host == this_host() and pid.isdecimal():
        with suppress(ValueError):
            return LocalProcess(int(pid), float(born))
    return ElsewhereProcess(name, run, begins)
