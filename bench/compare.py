"""Client CPU per job of `comfyload run` and of `bare.py`, run in turn against the same server.

The server has one cpu and the client another. Each tool runs at two job counts, and the slope between them,
(cpu(n2) - cpu(n1)) / (n2 - n1), is its CPU per job: imports, checks before the run and the report drop out.
The unit is CPU time (user + system of the child process), which a busy machine disturbs less than wall time.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nullcomfy

Command = Callable[[int, Path], list[str]]

INVALID = 5  # exit code of a run whose numbers do not count
OUTRUN = {"generator_late"}  # findings that make it so and that are the null server's doing


@dataclass(frozen=True, kw_only=True)
class Emission:
    """How the null server sends a job's messages, which alone changes the client's cost several-fold."""

    settings: str
    concurrency: int


EMISSIONS = {
    "burst": Emission(settings="emit=0&dur=0", concurrency=128),  # all in one send, at once
    "sep": Emission(settings="emit=1&dur=0", concurrency=128),  # one send each, at once
    "spread": Emission(settings="emit=2&dur=200&jit=0.5", concurrency=512),  # over 150-250 ms, each its own wake-up
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--null-server-source",
        type=Path,
        default=nullcomfy.SOURCE,
        help="C file of a null server: built, pinned and started (default: %(default)s)",
    )
    target.add_argument("--server", help="a server that runs already; pin it yourself")
    parser.add_argument("--emit", action="append", choices=EMISSIONS, help="null server only; default: all three")
    parser.add_argument("--tool", action="append", choices=("bare", "comfyload"), help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n1", type=int, default=1000, help="jobs of the short run")
    parser.add_argument("--n2", type=int, default=4000, help="jobs of the long run")
    parser.add_argument("--concurrency", type=int, help="default: 128, spread: 512; with --server: 4")
    parser.add_argument("--client-cpu", type=int, default=0)
    parser.add_argument("--server-cpu", type=int, default=1)
    parser.add_argument("--workflow", type=Path, help="default: a generated graph of 12 KB")
    parser.add_argument(
        "--comfyload", default=f"{shlex.quote(sys.executable)} -m comfyload", help="its command (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.n2 <= args.n1:
        parser.error("--n2 must be above --n1")
    cpus = {args.client_cpu} if args.server else {args.client_cpu, args.server_cpu}
    if not cpus <= os.sched_getaffinity(0):
        parser.error(f"this process may not use all of the cpus {sorted(cpus)}")
    with tempfile.TemporaryDirectory(prefix="comfyload-bench-") as tmp:
        if args.workflow is None:
            args.workflow = Path(tmp, "workflow.json")
            args.workflow.write_text(json.dumps(nullcomfy.workflow(), indent=2))
        if args.server:
            measure("server", args, args.server, args.concurrency or 4, Path(tmp))
            return
        with nullcomfy.running(args.null_server_source, args.server_cpu) as url:
            for name in args.emit or EMISSIONS:
                nullcomfy.configure(url, EMISSIONS[name].settings)
                measure(name, args, url, args.concurrency or EMISSIONS[name].concurrency, Path(tmp))


def measure(name: str, args: argparse.Namespace, url: str, concurrency: int, tmp: Path) -> None:
    """Print one line per tool, and the ratio of the two if both ran; both ends of a range are rounds."""
    common = ["--server", url, "--workflow", str(args.workflow), "--concurrency", str(concurrency)]

    def bare(jobs: int, out: Path) -> list[str]:
        command = [sys.executable, str(Path(__file__).with_name("bare.py")), *common, "--jobs", str(jobs)]
        return [*command, "--output", str(out / "jobs.ndjson")]

    def comfyload(jobs: int, out: Path) -> list[str]:
        command = [*shlex.split(args.comfyload), "run", *common, "--jobs", str(jobs), "--timeout", "60"]
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
    """CPU seconds of one run, which must have succeeded and, on a null server, posted exactly its jobs."""
    with tempfile.TemporaryDirectory(dir=tmp) as out:
        line = ["taskset", "--cpu-list", str(args.client_cpu), *command(jobs, Path(out))]
        posted, before = jobs_posted(args, url), children_cpu()
        done = subprocess.run(line, capture_output=True, text=True)
        spent, posted = children_cpu() - before, jobs_posted(args, url) - posted
        wrong = wrong_with(done.returncode, Path(out, "result.json"), jobs)
    if wrong:
        raise SystemExit(f"{wrong}: {shlex.join(line)}\n{(done.stderr or done.stdout)[-2000:]}")
    if not args.server and posted != jobs:
        raise SystemExit(f"{posted} jobs posted instead of {jobs}: {shlex.join(line)}")
    return spent


def wrong_with(code: int, result: Path, jobs: int) -> str:
    """Why a run cannot be used, "" if it can. A null server outruns any client, so that much may make it invalid."""
    if code not in (0, INVALID) or not result.exists():  # bare.py has no result, and stops at the first failure
        return f"exit {code}" if code else ""
    written = json.loads(result.read_bytes())
    findings = {finding["code"] for finding in written["findings"] if finding["level"] == "invalid"}
    completed = written["summary"]["completed"]
    if completed == jobs and findings <= OUTRUN:
        return ""
    return f"{completed} of {jobs} jobs completed, invalid by {', '.join(sorted(findings)) or 'nothing'}"


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of children waited for, so never the null server
    return usage.ru_utime + usage.ru_stime


def jobs_posted(args: argparse.Namespace, url: str) -> int:
    return 0 if args.server else nullcomfy.stat(url, "jobs")


if __name__ == "__main__":
    main()
