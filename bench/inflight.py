"""Memory of `comfyload run` per job in flight: its peak with all jobs in flight at once, compared with a run of a few.

A null server takes every job and ends none before the last has come. `max_rss_bytes` is the kernel's ru_maxrss of the
child, so it holds everything: interpreter, imports, the load and the report at its end. `per_job_bytes` is the slope
of that same peak at the end of the load, as the run's self-check kept it: the report's imports would hide a part of it.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import nullcomfy
from compare import wrong_with

FEW = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000, help=f"all in flight at once; above {FEW}")
    parser.add_argument("--seconds", type=float, default=12.0, help="of a job: longer than posting them all takes")
    parser.add_argument("--workflow", type=Path, help="default: a generated graph of 12 KB")
    parser.add_argument(
        "--comfyload", default=f"{shlex.quote(sys.executable)} -m comfyload", help="its command (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.jobs <= FEW:
        parser.error(f"--jobs must be above {FEW}")
    with tempfile.TemporaryDirectory(prefix="comfyload-bench-") as tmp, nullcomfy.running(nullcomfy.SOURCE) as url:
        if args.workflow is None:
            args.workflow = Path(tmp, "workflow.json")
            args.workflow.write_text(json.dumps(nullcomfy.workflow(), indent=2))
        _, few = peak_memory(args, url, FEW, 2.0)
        whole, many = peak_memory(args, url, args.jobs, args.seconds)
    per_job = round((many - few) / (args.jobs - FEW))
    print(json.dumps({"in_flight": args.jobs, "max_rss_bytes": whole, "per_job_bytes": per_job}))


def peak_memory(args: argparse.Namespace, url: str, jobs: int, seconds: float) -> tuple[int, int]:
    """Peak resident bytes of one run as a whole and up to the end of its load, with all jobs on the server at once."""
    nullcomfy.configure(url, f"emit=0&jit=0&dur={seconds * 1000:g}")
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile() as output:
        line = [*shlex.split(args.comfyload), "run", "--server", url, "--workflow", str(args.workflow)]
        line += ["--jobs", str(jobs), "--concurrency", str(jobs), "--timeout", str(60 + seconds), "--quiet"]
        line += ["--output", f"{out}/result.json", "--run-dir", f"{out}/run"]
        process = subprocess.Popen(line, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        result = Path(out, "result.json")
        wrong = wrong_with(process.returncode, result, jobs)
        if wrong:
            output.seek(0)
            raise SystemExit(f"{wrong}: {shlex.join(line)}\n{output.read()[-2000:].decode()}")
        loaded: int = json.loads(result.read_bytes())["manifest"]["self_check"]["max_rss_bytes"]
    at_once = nullcomfy.stat(url, "peak")
    if at_once != jobs:
        raise SystemExit(f"only {at_once} of {jobs} jobs were in flight at once: give more --seconds")
    return usage.ru_maxrss * 1024, loaded


if __name__ == "__main__":
    main()
