"""Runs one process, alone on its cpu, and says what it cost."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Missing(Exception):
    """Why something was not measured: a library that is not installed, or a client that did not do its work."""


class Usage(NamedTuple):
    """`began_ns`: CLOCK_MONOTONIC just before the process was made. CPU is user and system time."""

    cpu_s: float
    wall_s: float
    max_rss_bytes: int
    began_ns: int
    exit_code: int
    said: str


def cost_of(command: Sequence[str], *, cpu: int | None = None) -> Usage:
    """Run a command to its end."""
    pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
    with tempfile.TemporaryFile() as output:
        began = time.monotonic_ns()
        process = subprocess.Popen(
            [*pinned, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = (time.monotonic_ns() - began) / 1e9
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Usage(cpu_s, wall_s, usage.ru_maxrss * 1024, began, process.returncode, said)


def needed(usage: Usage, command: Sequence[str]) -> Usage:
    """The same, of a process that must have ended well.

    Raises:
        Missing: it has not.
    """
    if usage.exit_code:
        last = (usage.said.strip().splitlines() or [""])[-1]
        raise Missing(f"exit {usage.exit_code} of {shlex.join(command)[:200]}: {last[:300]}")
    return usage


def built(source: Path, folder: Path) -> Path:
    """The program of a C file, compiled into the folder if it is not there yet."""
    program = folder / source.stem
    if not program.exists():
        subprocess.run(["gcc", "-O2", "-o", str(program), str(source)], check=True)
    return program
