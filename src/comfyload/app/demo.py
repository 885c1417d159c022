"""`demo`: a simulated ComfyUI in a process of its own, and a small load against it through sockets."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from secrets import randbits

from comfyload import clock
from comfyload.app.run.launch import folder_of_runs, run
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.viewer import Viewer
from comfyload.errors import ServerUnreachable
from comfyload.record.plan import Closed, Plan

NEXT = "comfyload run --server :8188 --workflow infra/comfyui/samples/smoke_small.json --jobs 24"
"""What to try on a ComfyUI of one's own: it needs no model."""

PICTURE = files("comfyload.sim") / "picture.json"
"""A graph that the simulator can run as it comes: one page of a picture book."""

SPEED = 40.0
JOBS = 60


def run_demo(viewer: Viewer) -> tuple[Path, Path]:
    """Run the demo load; returns the run directory and the file for its JSON."""
    path = folder_of_runs("demo")
    with tempfile.TemporaryDirectory() as folder, simulator() as url:
        workflow = Path(folder) / "picture.json"
        workflow.write_bytes(PICTURE.read_bytes())
        plan = Plan(load=Closed(concurrency=2), jobs=JOBS, warmup=4, timeout_s=30, fetch=True, seed=randbits(53))
        choice = WorkflowChoice(file=str(workflow))
        options = RunOptions(server=url, workflows=[choice], plan=plan, name="demo", run_dir=str(path))
        return clock.run(run(options, viewer, live=False)), path.with_suffix(".json")


@contextmanager
def simulator() -> Iterator[str]:
    """A simulated server on a free port of loopback, ended with the context; yields its address."""
    command = [sys.executable, "-m", "comfyload", "sim", "--port", "0", "--speed", str(SPEED)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                raise ServerUnreachable("the simulator did not start", "run: comfyload sim")
            yield url
        finally:
            process.terminate()
