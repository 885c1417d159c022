"""What the probe costs a real ComfyUI: the same server with its hooks on and off by turns (ABBA), run after run.

Usage: `python bench/probe_overhead.py COMFYUI --python PYTHON [--pairs 8] [--jobs 100] [--workflow FILE]`. COMFYUI is
its folder, PYTHON the one that runs it. A base directory of its own is made and removed. Switching within one process
leaves out what restarts of a server differ by, which is more than what is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
SWITCH = """
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {}


@PromptServer.instance.routes.post("/bench/probe/{state}")
async def switch(request):
    import sys

    module = next(m for name, m in sys.modules.items() if name.endswith("comfyload_probe.probe"))
    probe = getattr(PromptServer.instance, module.SENTINEL, None)
    if request.match_info["state"] == "off":
        if probe is not None:
            switch.settings = probe.settings
            probe.stop()
    elif probe is None:
        assert module.Probe(switch.settings, PromptServer.instance).start()
    return web.json_response({"on": getattr(PromptServer.instance, module.SENTINEL, None) is not None})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--port", type=int, default=8397)
    parser.add_argument("--workflow", type=Path, default=ROOT / "infra/comfyui/samples/smoke_small.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for name in ("input", "output", "temp", "user", "models", "custom_nodes/bench_switch"):
            (base / name).mkdir(parents=True)
        shutil.copytree(ROOT / "pack/comfyload_probe", base / "custom_nodes/comfyload_probe")
        (base / "custom_nodes/bench_switch/__init__.py").write_text(SWITCH)
        compare(options, base)


def compare(options: argparse.Namespace, base: Path) -> None:
    url = f"http://127.0.0.1:{options.port}"
    command = [str(options.python.absolute()), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(options.port)]
    command += ["--disable-api-nodes", "--base-directory", str(base), "--database-url", f"sqlite:///{base}/user/c.db"]
    with (
        (base / "log").open("w") as log,
        subprocess.Popen(command, cwd=options.comfyui, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(url, server)
            run(options, url, base / "warm", 60)
            sides: dict[str, list[tuple[float, float]]] = {"on": [], "off": []}
            for pair in range(options.pairs):
                for state in ("on", "off") if pair % 2 == 0 else ("off", "on"):
                    switch(url, state)
                    sides[state].append(measure(options, url, base / f"{pair}{state}", server.pid))
            show(sides)
        finally:
            server.terminate()


def measure(options: argparse.Namespace, url: str, folder: Path, pid: int) -> tuple[float, float]:
    """Jobs per second over the wall clock, and seconds of the server's CPU for each job."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    summary = run(options, url, folder, options.jobs)
    after = process.cpu_times()
    assert summary["completed"] == options.jobs and not summary["cached"], summary
    cpu = after.user + after.system - before.user - before.system
    return summary["completed"] / summary["wall_clock_s"], cpu / options.jobs


def run(options: argparse.Namespace, url: str, folder: Path, jobs: int) -> dict[str, float]:
    """One run of a closed load, without telemetry; its summary."""
    words = [sys.executable, "-m", "comfyload", "run", "--server", url, "--workflow", str(options.workflow), "--quiet"]
    words += ["--jobs", str(jobs), "--concurrency", "2", "--no-telemetry", "--run-dir", str(folder)]
    subprocess.run([*words, "--output", f"{folder}.json"], check=False)
    return dict(json.loads(Path(f"{folder}.json").read_text())["summary"])


def switch(url: str, state: str) -> None:
    request = urllib.request.Request(f"{url}/bench/probe/{state}", method="POST")
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert json.load(reply)["on"] == (state == "on")


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        if server.poll() is not None:
            sys.exit("ComfyUI ended; is this its folder, and its Python?")
        try:
            urllib.request.urlopen(f"{url}/system_stats", timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    sys.exit("ComfyUI did not answer within two minutes")


def show(sides: dict[str, list[tuple[float, float]]]) -> None:
    """Ratios on / off with Student's 95 % interval of the paired logarithms."""
    for place, what in enumerate(("jobs per second", "server CPU per job")):
        pairs = [(on[place], off[place]) for on, off in zip(sides["on"], sides["off"], strict=True)]
        logs = [math.log(on / off) for on, off in pairs]
        half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        middle = statistics.mean(logs)
        change, low, high = (100 * math.expm1(x) for x in (middle, middle - half, middle + half))
        on, off = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{what}: on {on:.5g}, off {off:.5g}, {change:+.2f} % ({low:+.2f} to {high:+.2f}), {len(logs)} pairs")


if __name__ == "__main__":
    main()
