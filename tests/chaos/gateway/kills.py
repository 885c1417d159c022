"""The gateway, a server behind it, or both are killed at every point of a job's life, and started again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import time
from collections import Counter
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

from comfyload.app.show import show_folder
from comfyload.app.summary import INVALID, OK, report_run
from comfyload.record.model import Record
from comfyload.record.run import RunReader
from comfyload.retry.attempt_log import LATER_IDS, id_of
from tests.chaos.forked import begin, ended
from tests.chaos.gateway import client
from tests.chaos.gateway.client import Seen
from tests.chaos.gateway.processes import SERVERS, Processes
from tests.chaos.points import Point

__all__ = ["DYING", "play", "points_of"]

DYING = ("gateway", "server", "both")
TURNS = 3
NOT_REACHED = "NOT REACHED"
MOST_S = 60.0
TRIES = 3
"""Which server gets which job differs from play to play: a point may be met in the next one."""


def points_of(folder: Path, dying: str) -> list[Point]:
    """Where such a process comes by, from one that is not killed."""
    points_file = folder / f"{dying}.points"
    broken = _play(folder / f"{dying}-whole", dying, None, points_file)
    assert not broken, broken
    passed = Counter(points_file.read_text(encoding="utf-8").splitlines())
    return [(name, turn) for name, count in passed.items() for turn in range(1, min(count, TURNS) + 1)]


def play(folder: Path, dying: str, point: Point) -> list[str]:
    """Kill it at the point, start it again, and say what does not hold."""
    path = folder / re.sub(r"\W+", "_", f"{dying}-{point[0]}-{point[1]}")  # a comma would part two runs
    name = f"{dying}, {point[0]} ({point[1]})"
    broken = _play(path, dying, point)
    for _ in range(TRIES - 1):
        if broken == [NOT_REACHED]:
            shutil.rmtree(path)
            broken = _play(path, dying, point)
    if not broken:
        shutil.rmtree(path, ignore_errors=True)
    return [f"{name}: {what}" for what in broken] or [f"{name}: held"]


def _play(folder: Path, dying: str, point: Point | None, points_file: Path | None = None) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "seen.json"
    processes = Processes(folder, dying, point, points_file)
    processes.start()
    application = begin(lambda: asyncio.run(client.play(processes.url, file)))
    broken, until = list[str](), time.monotonic() + MOST_S
    try:
        while not _has_ended(application) and time.monotonic() < until:
            broken += processes.look()
            time.sleep(0.02)
        if not file.exists():
            return [*broken, "the jobs did not end"]
        broken += processes.stop()
    finally:
        processes.end()
    if point is not None and not processes.killed:
        return [*broken, NOT_REACHED]
    seen = Seen(**json.loads(file.read_text(encoding="utf-8")))
    shown = [*_shown(processes.left), *_shown(processes.ledger)]
    return [*broken, *seen.broken, *_ends(seen), *_records(processes, seen), *shown, *_executions(processes, seen)]


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _ends(seen: Seen) -> list[str]:
    """Each job ended as it should, and its client heard it."""
    broken = []
    for job_id, end in seen.ends.items():
        wanted: tuple[str, ...] = ("completed",)
        if job_id == seen.failing:
            wanted = ("failed",)
        elif job_id == seen.cancelled:
            wanted = ("cancelled", "gone") if seen.promised else ("cancelled", "gone", "completed")
        if end not in wanted:
            broken.append(f"{job_id} should be {wanted[0]} and is {end}")
        if end != "gone" and job_id not in seen.heard:
            broken.append(f"no socket heard how {job_id} ended ({end})")
    return broken


def _records(processes: Processes, seen: Seen) -> list[str]:
    """Each job has exactly one record, in files that can be read."""
    runs = sorted(path.parent for path in processes.ledger.glob("*/manifest.json"))
    found = Counter[str]()
    for run in runs:
        reader = RunReader(run)
        reader.check()
        lines = [line for line in reader.lines() if isinstance(line, Record)]
        found.update(line.prompt_id for line in lines)
        if [line.index for line in lines] != list(range(len(lines))):
            return [f"{run.name} counts {[line.index for line in lines]}"]
        unknown = {line.workflow for line in lines} - {facts.name for facts in reader.manifest.workflows}
        if unknown:
            return [f"{run.name} does not say what {unknown} are"]
        if reader.manifest.end != "complete":
            return [f"{run.name} has the end {reader.manifest.end}"]
    return [f"{job_id} has {found[job_id]} records" for job_id in seen.ends if found[job_id] != 1]


def _shown(ledger: Path) -> list[str]:
    """`comfyload show` shows each day, and the ledger with all jobs whose records are on the disk."""
    broken, jobs = [], 0
    for run in (path.parent for path in ledger.glob("*/manifest.json")):
        lines = [json.loads(line) for line in _whole_lines(run / "records.ndjson")]
        ends = Counter(line["execution"]["outcome"] for line in lines if line["line"] == "record")
        jobs += ends.total()
        wanted = OK if ends["completed"] else INVALID  # where nothing completed, nothing was measured
        code = ended(begin(partial(report_run, run, quiet=True)))
        if code != wanted:
            broken.append(f"comfyload show {ledger.name}/{run.name} ended with {code}")
    if not any(ledger.glob("*/manifest.json")):
        return broken
    file = ledger.with_suffix(".shown")
    code = ended(begin(partial(_show_folder, ledger, file)))
    shown = sum(row["jobs"] for row in json.loads(file.read_text(encoding="utf-8"))) if code == OK else None
    if shown != jobs:
        broken.append(f"comfyload show {ledger.name} ended with {code}, and showed {shown} of {jobs} jobs")
    return broken


def _whole_lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return text.split("\n")[:-1]


def _show_folder(ledger: Path, file: Path) -> int:
    with file.open("w", encoding="utf-8") as out, redirect_stdout(out):
        show_folder(ledger, as_json=True)
    return OK


def _executions(processes: Processes, seen: Seen) -> list[str]:
    """Each job was executed once. What a server had begun before it died may have been begun again, unless its history
    was read by a gateway that lived on: the server has forgotten it.
    """
    begun: Counter[str] = Counter()
    forgotten: Counter[str] = Counter()
    for number in range(SERVERS):
        unread = set[str]()
        for line in processes.executed(number).read_text(encoding="utf-8").splitlines():
            what, _, prompt_id = line.partition(" ")
            if what == "begun":
                begun[prompt_id] += 1
                unread.add(prompt_id)
            elif what == "read" and processes.dying != "both":
                unread.discard(prompt_id)
            elif what == "booted":
                forgotten.update(unread)
                unread.clear()
    broken = []
    for job_id in seen.ends:
        ids = [id_of(job_id, number) for number in range(1, LATER_IDS + 2)]
        count = sum(begun[one] - forgotten[one] for one in ids)
        # What fails in a node is tried again, as that may pass.
        if any(begun[one] - forgotten[one] > 1 for one in ids) or (count > 1 and job_id != seen.failing):
            broken.append(f"{job_id} was executed {count} times")
    return broken
