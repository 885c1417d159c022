"""Instructions of a job, counted by valgrind's callgrind: without the kernel's, and the same on a busy machine.

python -m bench.parts.instructions      counts anew and writes bench/instructions.json, which a test compares with
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from bench import server
from bench.case import OURS, Case, Setting
from bench.client import theirs
from bench.process import ROOT, Missing

KEPT = ROOT / "bench" / "instructions.json"
SOURCE = ROOT / "bench" / "callgrind.c"
WARMUP, SHORT, LONG = 10, 10, 60
CLIENTS = (OURS, "prototype", "C, epoll")


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Of our process, without the kernel's, by this Python."""

    instructions_per_job: int
    python: str


def missing() -> str:
    """Why instructions cannot be counted here; "" if they can."""
    absent = [program for program in ("valgrind", "gcc") if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def kept() -> Count:
    return msgspec.json.decode(KEPT.read_bytes(), type=Count)


def counted(folder: Path) -> Count:
    """Count ours now, in some 20 seconds; files go to the folder."""
    with server.running(folder) as url:
        server.configure(url, "emit=0")
        workflow, library = folder / "graph.json", folder / "callgrind.so"
        workflow.write_text(json.dumps(server.workflow()))
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
        words = [str(library), url, str(workflow), str(folder), str(WARMUP), str(SHORT), str(LONG)]
        _callgrind([sys.executable, "-m", "bench.counted_run", *words], folder / "counts", "--instr-atstart=no")
    short, long = (_total(folder / f"counts.{number}") for number in (1, 2))
    return Count(instructions_per_job=round((long - short) / (LONG - SHORT)), python=platform.python_version())


def cases(setting: Setting) -> Iterator[Case]:
    for client in CLIENTS[:1] if setting.quick else CLIENTS:
        yield Case(what="a job, one at a time", client=client, measure=partial(_measure, setting, client), rounds=1)


def _measure(setting: Setting, client: str) -> dict[str, float]:
    if why := missing():
        raise Missing(why)
    with tempfile.TemporaryDirectory(dir=setting.folder) as name:
        folder = Path(name)
        per_job = counted(folder).instructions_per_job if client == OURS else _of_theirs(client, setting, folder)
    return {"thousand instructions": per_job / 1e3}


def _of_theirs(client: str, setting: Setting, folder: Path) -> float:
    """The slope between two processes of different lengths, which have nothing in them that time brings by itself."""
    server.configure(setting.url, "emit=0")
    totals = []
    for jobs in (SHORT, LONG):
        out = folder / str(jobs)
        _callgrind(theirs(client, setting, jobs, 1, folder), out)
        totals.append(_total(out))
    return (totals[1] - totals[0]) / (LONG - SHORT)


def _callgrind(command: list[str], out: Path, *flags: str) -> None:
    whole = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *flags, *command]
    done = subprocess.run(whole, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def _total(path: Path) -> int:
    found = re.search(r"^totals: (\d+)$", path.read_text(), re.MULTILINE)
    assert found is not None, path
    return int(found[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        count = counted(Path(folder))
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(count)) + b"\n")
    print(f"{count.instructions_per_job:,} instructions per job, Python {count.python}")


if __name__ == "__main__":
    main()
