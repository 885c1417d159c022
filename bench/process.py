"""Runs one process, alone on its cpu, and says what it cost."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.case import Setting

ROOT = Path(__file__).parents[1]


class Missing(Exception):
    """Why something was not measured: a library that is not installed, or a client that did not do its work."""


class Usage(NamedTuple):
    """`began_ns`: CLOCK_MONOTONIC at the start of the process. CPU is user and system time."""

    exit_code: int
    cpu_s: float
    wall_s: float
    max_rss_bytes: int
    began_ns: int
    said: str


def cost_of(command: Sequence[str], setting: Setting) -> Usage:
    """Run a command to its end, on the client's cpu.

    Python may keep what it has compiled, as it does of an installed package, whatever the environment says.
    """
    cost = built(ROOT / "bench" / "cost.c", setting.folder)
    with tempfile.TemporaryFile() as output:
        whole = [str(cost), str(setting.client_cpu), *command]
        env = {**os.environ, "PYTHONPYCACHEPREFIX": str(setting.folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
        subprocess.run(whole, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True)
        output.seek(0)
        said, _, numbers = output.read().decode(errors="replace").rstrip().rpartition("\n")
    code, cpu_s, wall_s, max_rss, began = numbers.split()
    return Usage(int(code), float(cpu_s), float(wall_s), int(max_rss), int(began), said)


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
