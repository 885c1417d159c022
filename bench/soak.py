"""A soak: an open load of 100 jobs a second on the simulator, in real time, and what it does to our own process.

    python bench/soak.py --minutes 20

Holds if, after the first minutes, our resident memory stays within 5 %, as many files are open at the end as at the
beginning (a file that is read for a moment does not count), none of them twice, and jobs are sent no later. Exits with
1 if it does not, and with 2 if the simulator could not keep up, so that nothing is known: give the two a CPU.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import psutil

from comfyload.record.model import Record
from comfyload.record.run import RunReader

COMFYLOAD = [sys.executable, "-m", "comfyload"]
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SimSleep", "inputs": {"image": ["1", 0], "seconds": 0.1, "seed": 1}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "soak"}},
}
EVERY_S = 2.0
PLACES = 200
"""A simulator that falls behind gets no more, as each job in flight takes memory of ours."""

SETTLED = 0.2
"""The share of the time that is left out at the beginning; buffers and caches grow to their size in it."""
MEMORY, LATER, MOMENT_S = 0.05, 2.0, 0.01
"""What resident memory may change by; how many times as late jobs may be at the end; what is not spoken of."""


class Reading(msgspec.Struct, frozen=True):
    """At `t` seconds: bytes resident, descriptors, and regular files that are open, each as often as it is."""

    t: float
    rss: int
    descriptors: int
    files: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", default="100/s")
    parser.add_argument("--keep", type=Path, help="keep the run directory here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, simulator() as url:
        run = args.keep or Path(scratch) / "run"
        readings = soak(url, Path(scratch), run, args.rate, args.minutes)
        return judge(readings, run)


@contextmanager
def simulator() -> Iterator[str]:
    """A server that does thousands of jobs a second, in a process of its own."""
    command = [*COMFYLOAD, "sim", "--port", "0", "--speed", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def soak(url: str, scratch: Path, run: Path, rate: str, minutes: float) -> list[Reading]:
    """Run the load, and look at its process every few seconds until its last jobs are sent."""
    graph = scratch / "graph.json"
    graph.write_bytes(msgspec.json.encode(GRAPH))
    load = ["--rate", rate, "--duration", f"{60 * minutes:g}s", "--seed", "1"]
    load += ["--max-in-flight", str(PLACES), "--on-full", "drop"]
    command = [*COMFYLOAD, "run", "--server", url, "--workflow", str(graph), *load, "--run-dir", str(run), "--quiet"]
    readings = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        seen, began = psutil.Process(process.pid), time.monotonic()
        while process.poll() is None and time.monotonic() - began < 60 * minutes:
            with seen.oneshot():
                files = [file.path for file in seen.open_files()]
                readings.append(Reading(time.monotonic() - began, seen.memory_info().rss, seen.num_fds(), files))
            time.sleep(EVERY_S)
    return readings


def judge(readings: Sequence[Reading], run: Path) -> int:
    """Print what came of it; returns the exit code."""
    settled = [reading for reading in readings if reading.t >= SETTLED * readings[-1].t]
    if len(settled) < 6:
        print("too short to tell: give --minutes 1 or more")
        return 2
    first, last = _thirds(settled)
    memory = [median(reading.rss for reading in part) for part in (first, last)]
    grown = memory[1] / memory[0] - 1
    slope = float(np.polyfit([reading.t for reading in settled], [reading.rss for reading in settled], 1)[0])
    opened = [median(len(reading.files) for reading in part) for part in (first, last)]
    twice = sorted({file for reading in settled for file in reading.files if reading.files.count(file) > 1})
    late, jobs = lateness(run)
    holds = {
        "memory": abs(grown) <= MEMORY,
        "files": opened[0] == opened[1] and not twice,
        "lateness": late[1] <= max(LATER * late[0], MOMENT_S),
    }
    if jobs[0] != jobs[1]:
        print(f"the simulator could not keep up: of {jobs[0]} jobs it completed {jobs[1]}")
        return 2
    print(f"after {readings[-1].t / 60:.1f} min, {jobs[0]} jobs; the first {SETTLED:.0%} of the time left out\n")
    print(f"{'':<24}{'first third':>14}{'last third':>14}   holds")
    sizes = [f"{size / 2**20:.1f} MiB" for size in memory]
    print(f"{'resident memory':<24}{sizes[0]:>14}{sizes[1]:>14}   {_word(holds['memory'])}", end="")
    print(f" ({grown:+.1%}, {slope * 3600 / 2**20:+.2f} MiB an hour)")
    print(f"{'open files':<24}{opened[0]:>14g}{opened[1]:>14g}   {_word(holds['files'])}", end="")
    print(f" ({', '.join(twice) or 'none twice'}; descriptors {settled[0].descriptors} to {settled[-1].descriptors})")
    print(f"{'lateness, p99':<24}{1000 * late[0]:>11.2f} ms{1000 * late[1]:>11.2f} ms   {_word(holds['lateness'])}")
    return 0 if all(holds.values()) else 1


def lateness(run: Path) -> tuple[list[float], tuple[int, int]]:
    """The p99 of sent - due in the first and the last third of the time, in seconds; jobs offered and completed."""
    due, late, offered, completed = [], [], 0, 0
    for line in RunReader(run).lines():
        if isinstance(line, Record):
            offered += 1
            completed += line.execution.outcome == "completed"
            if line.execution.sent is not None:
                due.append(line.due)
                late.append(line.execution.sent - line.due)
    order = np.argsort(due)
    first, *_, last = np.array_split(np.array(late)[order], 3)
    return [float(np.quantile(part, 0.99)) for part in (first, last)], (offered, completed)


def _thirds(readings: Sequence[Reading]) -> tuple[Sequence[Reading], Sequence[Reading]]:
    third = len(readings) // 3
    return readings[:third], readings[-third:]


def _word(holds: bool) -> str:
    return "yes" if holds else "NO"


if __name__ == "__main__":
    sys.exit(main())
