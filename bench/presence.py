"""What our presence costs a real server: its time for a job of `comfyload run`, and for one of next to nobody.

    python bench/presence.py --server http://127.0.0.1:8188 --workflow graph.json --pairs 10 --jobs 40

By turns (A B B A), blocks of jobs are sent by the least client there can be (A: every prompt posted at once, no
WebSocket, the last one's history args for now and then) and by `comfyload run` at its default settings (B). The times
are the server's own: from the end of a block's first counted job to the end of its last. So both keep its queue filled,
and nothing that happens on our side is in them.

Times of whole jobs differ by more than our presence costs. For a server on this machine the CPU time of its event loop
is printed too, which serves us and all others: its thread is the only one that our presence occupies, and its time is
the most that it can take from the jobs.
"""

import argparse
import copy
import json
import math
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from scipy import stats

from comfyload.record.model import Record
from comfyload.record.run import RunReader

ASK_EVERY_S = 1.0
WARMUP = 2


class Block(msgspec.Struct, frozen=True):
    """Seconds of the server's wall clock, and of its event loop's CPU (None if it is elsewhere), for each job."""

    wall_s: float
    loop_s: float | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--workflow", type=Path, required=True, help="in API format; some tenths of a second a job")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=40, help="of each block, besides 2 to warm up")
    parser.add_argument("flags", nargs="*", help="more flags of comfyload run, after --")
    args = parser.parse_args()
    graph = json.loads(args.workflow.read_bytes())
    server = _process(args.server)
    pairs: list[tuple[Block, Block]] = []
    for pair in range(-1, args.pairs):  # the first warms the server up
        blocks = {}
        for side in "ab" if pair % 2 == 0 else "ba":
            ends, loop_s = bare(args, graph, server) if side == "a" else ours(args, server)
            ends = sorted(ends)[WARMUP:]
            jobs = args.jobs + WARMUP
            blocks[side] = Block(
                (ends[-1] - ends[0]) / 1000 / (len(ends) - 1), None if loop_s is None else loop_s / jobs
            )
        if pair >= 0:
            pairs.append((blocks["a"], blocks["b"]))
            bare_ms, ours_ms = (1000 * blocks[side].wall_s for side in "ab")
            loops = " and ".join(f"{1000 * (blocks[side].loop_s or math.nan):.2f}" for side in "ab")
            print(
                f"pair {pair + 1}: {bare_ms:.1f} ms a job bare, {ours_ms:.1f} ours; event loop {loops} ms", flush=True
            )
    tell("server's time for a job", [(a.wall_s, b.wall_s) for a, b in pairs])
    if server is not None:
        tell_loop(pairs)
    print(f"load of this machine: {' '.join(f'{one:.1f}' for one in psutil.getloadavg())} on {psutil.cpu_count()} cpus")
    return 0


def tell(what: str, pairs: Sequence[tuple[float, float]]) -> None:
    """The geometric mean of b/a, with its 95 % interval by Student's t over the pairs."""
    logs = [math.log(b / a) for a, b in pairs]
    mean, sem = sum(logs) / len(logs), float(stats.sem(logs))
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * sem
    low, middle, high = (100 * math.expm1(value) for value in (mean - half, mean, mean + half))
    print(f"{what}: {middle:+.2f} % with us, 95 % interval {low:+.2f} to {high:+.2f} %, {len(pairs)} pairs")


def tell_loop(pairs: Sequence[tuple[Block, Block]]) -> None:
    """What our presence adds to the CPU time of the event loop, in milliseconds a job and as a share of one."""
    more = [1000 * ((b.loop_s or math.nan) - (a.loop_s or math.nan)) for a, b in pairs]
    mean = sum(more) / len(more)
    half = float(stats.t.ppf(0.975, len(more) - 1) * stats.sem(more))
    job_ms = 1000 * sum(a.wall_s for a, _ in pairs) / len(pairs)
    shares = (100 * value / job_ms for value in (mean, mean - half, mean + half))
    print(
        f"server's event loop: {mean:+.2f} ms a job with us, 95 % interval {mean - half:+.2f} to "
        f"{mean + half:+.2f} ms; "
        "{:+.2f} % of a job, {:+.2f} to {:+.2f} %".format(*shares)
    )


def bare(
    args: argparse.Namespace, graph: dict[str, Any], server: psutil.Process | None
) -> tuple[list[float], float | None]:
    """When its jobs ended, in ms of the server's clock, and the CPU seconds of the server's event loop meanwhile."""
    block, before = uuid.uuid4().hex[:8], _cpu(server)
    ids = [_post(args.server, _varied(graph, block)) for _ in range(args.jobs + WARMUP)]
    while not _history(args.server, ids[-1]):
        time.sleep(ASK_EVERY_S)
    spent = _cpu(server) - before
    entries = (_history(args.server, prompt_id)[prompt_id] for prompt_id in ids)
    return [_end_ms(entry) for entry in entries], None if server is None else spent


def ours(args: argparse.Namespace, server: psutil.Process | None) -> tuple[list[float], float | None]:
    """The same of a `comfyload run`, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        run, before = Path(folder) / "run", _cpu(server)
        words = ["--server", args.server, "--workflow", str(args.workflow), "--run-dir", str(run), "--quiet"]
        load = ["--jobs", str(args.jobs), "--warmup", str(WARMUP), "--concurrency", "2", *args.flags]
        done = subprocess.run([sys.executable, "-m", "comfyload", "run", *words, *load], check=False)
        if done.returncode not in (0, 5):
            raise SystemExit(f"comfyload run ended with {done.returncode}")
        ends = [line.execution.server.end_ms for line in RunReader(run).lines() if isinstance(line, Record)]
        return [end for end in ends if end is not None], None if server is None else _cpu(server) - before


def _varied(graph: dict[str, Any], block: str) -> dict[str, Any]:
    """A job that no other one's results serve, saved in a folder of the block's own, as ours are."""
    graph = copy.deepcopy(graph)
    for node in graph.values():
        for name, value in node["inputs"].items():
            if name in ("seed", "noise_seed") and isinstance(value, int):
                node["inputs"][name] = random.getrandbits(48)
            elif name == "filename_prefix":
                node["inputs"][name] = f"presence/{block}/{value}"
    return graph


def _post(server: str, graph: dict[str, Any]) -> str:
    body = json.dumps({"prompt": graph}).encode()
    request = urllib.request.Request(f"{server}/prompt", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(json.load(reply)["prompt_id"])


def _history(server: str, prompt_id: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server}/history/{prompt_id}", timeout=60) as reply:
        return dict(json.load(reply))


def _end_ms(entry: dict[str, Any]) -> float:
    ends = [data["timestamp"] for name, data in entry["status"]["messages"] if name == "execution_success"]
    if not ends:
        raise SystemExit("a job failed: look at the server's log")
    return float(ends[0])


def _process(server: str) -> psutil.Process | None:
    """The process that listens there, if it is on this machine."""
    port = int(server.rpartition(":")[2].strip("/"))
    for found in psutil.net_connections("tcp"):
        if found.status == psutil.CONN_LISTEN and found.laddr[1:] == (port,) and found.pid is not None:
            return psutil.Process(found.pid)
    return None


def _cpu(server: psutil.Process | None) -> float:
    """CPU seconds of the server's first thread, in which ComfyUI's event loop runs; its jobs run in another."""
    if server is None:
        return math.nan
    schedstat = Path(f"/proc/{server.pid}/task/{server.pid}/schedstat")
    if schedstat.exists():
        return int(schedstat.read_text(encoding="ascii").split()[0]) / 1e9
    return next(one.user_time + one.system_time for one in server.threads() if one.id == server.pid)


if __name__ == "__main__":
    sys.exit(main())
