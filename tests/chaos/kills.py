"""The process is killed at every point of a job's life: in a run, in a resume, in a cleanup; then it is taken up.

`python -m tests.chaos.kills` plays all of them and prints how many there were.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

from comfyload import clock
from comfyload.app.run.launch import run
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.resume import cleanup, resume
from comfyload.app.run.viewer import Viewer
from comfyload.errors import ComfyloadError
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RunReader
from tests.chaos.forked import begin, ended, side_by_side
from tests.chaos.judged import Expected, failed_otherwise, judge
from tests.chaos.points import Point, watch
from tests.chaos.server import in_process
from tests.support.rig import sleeper

__all__ = ["JOBS", "VERBS", "Bench", "points_of"]

JOBS = 5
VERBS = ("run", "resume", "cleanup")
AMID: Point = ("event executing: seen", 3)
"""Where the run is killed that a resume or a cleanup then takes up: one job runs, others wait, others are to come."""
TURNS = 3
"""A point that a process comes to many times is played the first so many times."""


class Bench:
    """A folder for plays against one server, whose executions are counted in `ledger`."""

    def __init__(self, folder: Path, url: str, ledger: Path) -> None:
        self.folder, self.url, self.ledger = folder, url, ledger
        self.graph = folder / "graph.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.graph.write_text(json.dumps(sleeper(0.1)), encoding="utf-8")

    def verb(self, verb: str, path: Path, kill_at: Point | None = None, points_file: Path | None = None) -> int:
        """Do it in a process of its own, to its end or to the point; returns how that ended."""
        return ended(self.begin(verb, path, kill_at, points_file))

    def begin(self, verb: str, path: Path, kill_at: Point | None = None, points_file: Path | None = None) -> int:
        def work() -> int:
            if kill_at is not None or points_file is not None:
                watch(kill_at, points_file)
            try:
                if verb == "run":
                    clock.run(run(self._options(path), Viewer(), live=False))
                elif verb == "resume":
                    clock.run(resume(path, RunOptions(), Viewer()))
                else:
                    return 3 if clock.run(cleanup(path, RunOptions())).still_there else 0
            except ComfyloadError as error:
                return error.exit_code
            return 0

        return begin(work)

    def _options(self, path: Path) -> RunOptions:
        return RunOptions(
            server=self.url,
            workflows=[WorkflowChoice(file=str(self.graph))],
            plan=Plan(load=Closed(concurrency=3), jobs=JOBS, fetch=True, timeout_s=60.0),
            run_dir=str(path),
            telemetry=False,
            allow_shared=True,
        )

    def play(self, verb: str, point: Point) -> list[str]:
        """Kill the verb at the point, take the run up again, and say what does not hold."""
        path = self.folder / f"{verb}-{point[0]}-{point[1]}".replace("/", "_").replace(" ", "_")
        if verb != "run":
            self.verb("run", path, AMID)
        died = self.verb(verb, path, point) == -signal.SIGKILL
        name = f"{verb}, {point[0]} ({point[1]})"
        broken = [] if died else ["NOT REACHED"]
        if not (path / "manifest.json").exists():  # before anything was begun, nothing can have been sent
            again = self.verb("run", path)
        else:
            if verb == "cleanup" and (code := self.verb("cleanup", path)):
                broken.append(f"cleanup ended with {code}")
            again = self.verb("resume", path)
        if again not in (0, 5):
            broken.append(f"taken up again, it ended with {again}")
        else:
            # A job that cleanup stops ends as interrupted.
            ends = ("cancelled", "failed") if verb == "cleanup" else ()
            broken += [*judge(path, self.mine(path), Expected(ends=ends), JOBS).broken, *failed_otherwise(path)]
        shutil.rmtree(path, ignore_errors=True)
        return [f"{name}: {what}" for what in broken] or [f"{name}: held"]

    def mine(self, path: Path) -> Path:
        """The ledger's lines of the run's own prompts."""
        mine = {line.prompt_id for line in RunReader(path).lines()}
        lines = self.ledger.read_text(encoding="utf-8").splitlines(keepends=True)
        file = path / "mine.log"
        file.write_text("".join(line for line in lines if line.split()[1] in mine), encoding="utf-8")
        return file


def points_of(bench: Bench, verb: str) -> list[Point]:
    """Where a process that does this comes by, from one that is not killed."""
    points_file, path = bench.folder / f"{verb}.points", bench.folder / f"{verb}-whole"
    if verb != "run":
        bench.verb("run", path, AMID)
    bench.verb(verb, path, None, points_file)
    passed = Counter(points_file.read_text(encoding="utf-8").splitlines())
    return [(name, turn) for name, count in passed.items() for turn in range(1, min(count, TURNS) + 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verb", choices=VERBS, action="append")
    parser.add_argument("--at-once", type=int, default=6)
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="comfyload-kills-"))
    failed = 0
    with in_process(folder / "executed.log", speed=5.0) as url:
        bench = Bench(folder, url, folder / "executed.log")
        for verb in words.verb or VERBS:
            began, points = time.monotonic(), points_of(bench, verb)
            said = side_by_side(points, partial(bench.play, verb), words.at_once)
            broken = [line for line in said if not line.endswith((": held", ": NOT REACHED"))]
            missed = [line for line in said if line.endswith("NOT REACHED")]
            failed += len(broken)
            killed, took = len(points) - len(missed), time.monotonic() - began
            print(f"{verb}: {len(points)} points, {killed} killed at, {len(broken)} broken, {took:.0f} s", flush=True)
            print("\n".join([*broken, *missed]), file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
