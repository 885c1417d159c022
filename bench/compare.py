"""Client CPU per job of `comfyload run` beside `bare.py`, run in turn against the same server.

The server has one cpu and the client another. Each tool runs at two job counts, and the slope between them,
(cpu(n2) - cpu(n1)) / (n2 - n1), is its CPU per job: imports, checks before the run and the report drop out.
The unit is CPU time (user + system of the child process), which a busy machine disturbs less than wall time.
"""

import argparse
import json
import os
import resource
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Command = Callable[[int, Path], list[str]]


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How the null server sends a job's messages, which alone changes the client's cost several-fold."""

    config: str
    concurrency: int


MODES = {
    "burst": Mode(config="emit=0&dur=0", concurrency=128),  # all in one send, at once
    "sep": Mode(config="emit=1&dur=0", concurrency=128),  # one send each, at once
    "spread": Mode(config="emit=2&dur=200&jit=0.5", concurrency=512),  # over 150-250 ms, each its own wake-up
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--null-server-source", type=Path, help="C file of a null server: built, pinned and started")
    target.add_argument("--server", help="a server that runs already; pin it yourself")
    parser.add_argument("--mode", action="append", choices=MODES, help="null server only; default: all three")
    parser.add_argument("--tool", action="append", choices=("bare", "comfyload"), help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n1", type=int, default=1000, help="jobs of the short run")
    parser.add_argument("--n2", type=int, default=4000, help="jobs of the long run")
    parser.add_argument("--concurrency", type=int, help="default: 128, spread: 512; with --server: 4")
    parser.add_argument("--client-cpu", type=int, default=0)
    parser.add_argument("--server-cpu", type=int, default=1)
    parser.add_argument("--workflow", type=Path, help="default: a generated graph of 12 KB")
    parser.add_argument("--comfyload", default=str(Path(sys.executable).with_name("comfyload")), help="its command")
    parser.add_argument("--last-message", help="of bare.py; default: execution_success, with --server: executing")
    args = parser.parse_args()
    if args.n2 <= args.n1:
        parser.error("--n2 must be above --n1")
    cpus = {args.client_cpu} if args.server else {args.client_cpu, args.server_cpu}
    if not cpus <= os.sched_getaffinity(0):
        parser.error(f"this process may not use all of the cpus {sorted(cpus)}")
    with tempfile.TemporaryDirectory(prefix="comfyload-bench-") as tmp:
        if args.workflow is None:
            args.workflow = Path(tmp, "workflow.json")
            args.workflow.write_text(json.dumps(workflow(), indent=2))
        if args.server:
            measure("server", args, args.server, args.concurrency or 4, Path(tmp))
            return
        with null_server(args.null_server_source, args.server_cpu, Path(tmp)) as url:
            for name in args.mode or MODES:
                if get(f"{url}/cfg?{MODES[name].config}") != b"okay":
                    raise SystemExit("the null server still has jobs in flight")
                measure(name, args, url, args.concurrency or MODES[name].concurrency, Path(tmp))


def measure(name: str, args: argparse.Namespace, url: str, concurrency: int, tmp: Path) -> None:
    """Print one line per tool, and the ratio of the two if both ran; both ends of a range are rounds."""
    common = ["--server", url, "--workflow", str(args.workflow), "--concurrency", str(concurrency)]
    last_message = args.last_message or ("executing" if args.server else "execution_success")

    def bare(jobs: int, out: Path) -> list[str]:
        command = [sys.executable, str(Path(__file__).with_name("bare.py")), *common, "--jobs", str(jobs)]
        return [*command, "--output", str(out / "jobs.ndjson"), "--last-message", last_message]

    def comfyload(jobs: int, out: Path) -> list[str]:
        command = [*shlex.split(args.comfyload), "run", *common, "--jobs", str(jobs)]
        return [*command, "--output", str(out / "result.json"), "--run-dir", str(out / "run"), "--quiet"]

    tools: dict[str, Command] = {"bare": bare, "comfyload": comfyload}
    tools = {tool: command for tool, command in tools.items() if tool in (args.tool or tools)}
    per_job: dict[str, list[float]] = {tool: [] for tool in tools}
    for _ in range(args.rounds):
        for tool, command in tools.items():
            low, high = (cpu_of(command, jobs, args, url, tmp) for jobs in (args.n1, args.n2))
            per_job[tool].append((high - low) / (args.n2 - args.n1) * 1e6)
    for tool, values in per_job.items():
        print(f"{name:7} {tool:10} {show(values, 1)} CPU us/job, {concurrency} in flight", flush=True)
    if len(tools) == 2:
        ratios = [ours / theirs for ours, theirs in zip(per_job["comfyload"], per_job["bare"], strict=True)]
        print(f"{name:7} {'ratio':10} {show(ratios, 3)} comfyload / bare, {args.rounds} rounds", flush=True)


def show(values: list[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:>8} ({low} to {high})"


def cpu_of(command: Command, jobs: int, args: argparse.Namespace, url: str, tmp: Path) -> float:
    """CPU seconds of one run, which must have exited 0 and, on a null server, posted exactly its jobs."""
    with tempfile.TemporaryDirectory(dir=tmp) as out:
        line = ["taskset", "--cpu-list", str(args.client_cpu), *command(jobs, Path(out))]
        posted, before = jobs_posted(args, url), children_cpu()
        done = subprocess.run(line, capture_output=True, text=True)
        spent, posted = children_cpu() - before, jobs_posted(args, url) - posted
    if done.returncode != 0:
        raise SystemExit(f"exit {done.returncode}: {shlex.join(line)}\n{(done.stderr or done.stdout)[-2000:]}")
    if not args.server and posted != jobs:
        raise SystemExit(f"{posted} jobs posted instead of {jobs}: {shlex.join(line)}")
    return spent


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of children waited for, so never the null server
    return usage.ru_utime + usage.ru_stime


def jobs_posted(args: argparse.Namespace, url: str) -> int:
    return 0 if args.server else int(json.loads(get(f"{url}/stat"))["jobs"])


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as reply:
        body: bytes = reply.read()
    return body


@contextmanager
def null_server(source: Path, cpu: int, tmp: Path) -> Iterator[str]:
    binary = tmp / "null_server"
    subprocess.run(["gcc", "-O2", "-w", "-o", str(binary), str(source)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["taskset", "--cpu-list", str(cpu), str(binary), str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                get(f"{url}/stat")
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise SystemExit("the null server does not answer")
        yield url
    finally:
        process.terminate()
        process.wait()


def workflow() -> dict[str, Any]:
    """A chain of 55 core image nodes with one seed and one SaveImage: 12 KB when encoded without spaces."""
    steps: list[tuple[str, dict[str, Any]]] = [
        ("ImageBlur", {"blur_radius": 5, "sigma": 1.5}),
        ("ImageSharpen", {"sharpen_radius": 2, "sigma": 1.0, "alpha": 0.6}),
        ("ImageScale", {"upscale_method": "lanczos", "width": 768, "height": 768, "crop": "disabled"}),
    ]
    blank = {"width": 768, "height": 768, "batch_size": 1, "color": 8421504}
    graph: dict[str, Any] = {
        "1": node("EmptyImage", "Blank page", **blank),
        "2": node("ImageAddNoise", "Noise", seed=1, strength=0.5, image=["1", 0]),
    }
    for number in range(3, 55):
        kind, inputs = steps[number % len(steps)]
        title = f"{kind} {number - 2}: one small step of many, so that each can be switched off while the page is tuned"
        graph[str(number)] = node(kind, title, **inputs, image=[str(number - 1), 0])
    graph["55"] = node("SaveImage", "Save", filename_prefix="bench/image", images=["54", 0])
    return graph


def node(class_type: str, title: str, **inputs: object) -> dict[str, Any]:
    return {"inputs": inputs, "class_type": class_type, "_meta": {"title": title}}


if __name__ == "__main__":
    main()
