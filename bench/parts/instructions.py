"""Instructions of a job, counted by valgrind's callgrind: a number that a busy machine does not change.

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
from bench.process import ROOT, Missing

KEPT = ROOT / "bench" / "instructions.json"
SOURCE = ROOT / "bench" / "callgrind.c"
WARMUP, SHORT, LONG = 10, 10, 60


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Of our process in user mode, by this Python."""

    instructions_per_job: int
    python: str


def missing() -> str:
    """Why instructions cannot be counted here; "" if they can."""
    absent = [program for program in ("valgrind", "gcc") if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def kept() -> Count:
    return msgspec.json.decode(KEPT.read_bytes(), type=Count)


def counted(folder: Path) -> Count:
    """Count now, in some 20 seconds; files go to the folder."""
    with server.running(folder) as url:
        server.configure(url, "emit=0")
        return _counted(url, folder)


def _counted(url: str, folder: Path) -> Count:
    workflow, library = folder / "workflow.json", folder / "callgrind.so"
    workflow.write_text(json.dumps(server.workflow()))
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/callgrind"]
    words = [str(library), url, str(workflow), str(folder), str(WARMUP), str(SHORT), str(LONG)]
    command = [*valgrind, sys.executable, "-m", "bench.counted_run", *words]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    short, long = (_total(folder / f"callgrind.{number}") for number in (1, 2))
    return Count(instructions_per_job=round((long - short) / (LONG - SHORT)), python=platform.python_version())


def _total(path: Path) -> int:
    found = re.search(r"^totals: (\d+)$", path.read_text(), re.MULTILINE)
    assert found is not None, path
    return int(found[1])


def cases(setting: Setting) -> Iterator[Case]:
    yield Case(what="a job, one at a time", client=OURS, measure=partial(_measure, setting), rounds=1)


def _measure(setting: Setting) -> dict[str, float]:
    if why := missing():
        raise Missing(why)
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        return {"thousand instructions": counted(Path(folder)).instructions_per_job / 1e3}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        count = counted(Path(folder))
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(count)) + b"\n")
    print(f"{count.instructions_per_job:,} instructions per job, Python {count.python}")


if __name__ == "__main__":
    main()
