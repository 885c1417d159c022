"""`python -m bench` works: it starts its server and clients, and what comes out can be true."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CPUS = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
NOTHING_ELSE = "not installed: "

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(len(CPUS) < 2 or shutil.which("gcc") is None, reason="it needs Linux, two cpus and gcc"),
]


@pytest.mark.timeout(240)
def test_a_quick_run_measures_what_it_can(tmp_path: Path) -> None:
    parts = [word for part in ("completion", "first-job", "sockets") for word in ("--only", part)]
    cpus = ["--client-cpu", str(CPUS[0]), "--server-cpu", str(CPUS[1])]
    command = [sys.executable, "-m", "bench", "--quick", *parts, *cpus, "--json", str(tmp_path / "bench.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads((tmp_path / "bench.json").read_bytes())
    assert [line for line in result["left_out"] if NOTHING_ELSE not in line] == []
    found = {(row["part"], row["client"], row["unit"]): row["values"][0] for row in result["rows"]}
    for client in ("comfyload", "aiohttp, naive", "C, epoll"):
        assert 0 < found["completion", client, "p50, µs"] <= found["completion", client, "p99, µs"] < 10e6
    assert found["first-job", "comfyload", "ms"] > 5 * found["first-job", "C, epoll", "ms"] > 0
    assert found["sockets", "comfyload", "CPU µs"] > 0
    assert done.stdout.count("| comfyload |") == 4
