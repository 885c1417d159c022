"""The processes of a measurement, each of its own: simulator, generator, page, viewers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from comfyload.record.journal import RECORDS

COMFYLOAD = ("-m", "comfyload")
PAGE_NICE = 10
"""With so low a claim on the machine `comfyload run --ui` starts its page."""


@contextmanager
def started(
    *words: str, nice: int = 0, cpus: Sequence[int] = (), said: int | None = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """`python WORDS`, ended with the context. `cpus`: those that it may use; none: all."""

    def claim() -> None:
        os.nice(nice)
        if cpus:
            os.sched_setaffinity(0, set(cpus))

    pipe = {"stdin": subprocess.PIPE, "stdout": said, "text": True}
    with subprocess.Popen([sys.executable, *words], preexec_fn=claim, **pipe) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def simulator(speed: float, cpus: Sequence[int] = ()) -> Iterator[str]:
    with started(*COMFYLOAD, "sim", "--port", "0", "--speed", f"{speed:g}", cpus=cpus) as process:
        yield first_line(process)


@contextmanager
def page(runs: Path, *words: str, cpus: Sequence[int] = ()) -> Iterator[tuple[str, int]]:
    """The dashboard over a folder of runs: its address and its process."""
    where = ("ui", "--port", "0", "--runs", str(runs), "--archive", str(runs.parent / "archive"), *words)
    with started(*COMFYLOAD, *where, nice=PAGE_NICE, cpus=cpus) as process:
        yield first_line(process).rstrip("/") + "/", process.pid


@contextmanager
def load(url: str, run: Path, workflow: Path, *words: str, cpus: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """A run of the real generator."""
    where = ("--server", url, "--workflow", str(workflow), "--run-dir", str(run), "--seed", "1", "--quiet")
    silent = subprocess.DEVNULL
    with started(*COMFYLOAD, "run", *where, *words, cpus=cpus, said=silent) as process:
        yield process


async def begun(run: Path) -> None:
    """Wait until the page can know of the run: its list of runs is a second old at most."""
    while not (run / RECORDS).exists():  # noqa: ASYNC110 - another process makes the file
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.2)
