"""Clocks that disagree, made so by libfaketime in a real run: the finding names the clock, and its rate is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfyload.sim import Server
from tests.support.rig import sleeper
from tests.support.servers import in_thread

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
TRUE_WALL = """\
import ctypes, time
class Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))
libc = ctypes.CDLL(None)
def wall():
    now = Timespec()
    libc.syscall(NUMBER, 0, ctypes.byref(now))
    return now.s + now.ns / 1e9
time.time = wall
"""
"""A `sitecustomize` that asks the kernel itself for the time of day, behind the back of what fakes all clocks."""

absent = FAKETIME is None and not os.environ.get("CI")
needs_faketime = pytest.mark.skipif(absent, reason="libfaketime is not installed")


pytestmark = pytest.mark.alone
ONLY_WALL = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
CLOCK_GETTIME = {"x86_64": 228, "aarch64": 113}.get(os.uname().machine) if sys.platform == "linux" else None


class Runs:
    """The runs of all tests here, which sleep most of the time and pass side by side."""

    def __init__(self, folder: Path, beside: list[str], elsewhere: str) -> None:
        self.folder = folder
        self.begun: dict[str, subprocess.Popen[str]] = {}
        self.begin("untouched", beside[0], 15)
        if FAKETIME is None:
            return
        self.begin("fast wall", beside[1], 15, FAKETIME="+0 x1.058", **ONLY_WALL)
        self.begin("elsewhere", elsewhere, 30, FAKETIME="+0 x1.058", **ONLY_WALL)
        if CLOCK_GETTIME is not None:
            code = TRUE_WALL.replace("NUMBER", str(CLOCK_GETTIME))
            (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
            path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
            self.begin("slow monotonic", beside[2], 15, FAKETIME="+0 x0.945", PYTHONPATH=path)
        offset = folder / "offset"
        offset.write_text("+0", encoding="utf-8")
        told = {"FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
        self.begin("set", beside[3], 30, **told, **ONLY_WALL)
        records, until = folder / "set" / "r" / "records.ndjson", time.monotonic() + 40
        while time.monotonic() < until and not (records.exists() and records.stat().st_size):
            time.sleep(0.05)
        for number in range(1, 4):
            time.sleep(1.5)
            (folder / "next").write_text(f"+{1.8 * number:.1f}", encoding="utf-8")
            (folder / "next").replace(offset)

    def begin(self, name: str, url: str, jobs: int, **environ: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        (folder / "graph.json").write_text(json.dumps(sleeper(0.2)), encoding="utf-8")
        words = ["run", "--server", url, "--workflow", "graph.json", "--jobs", str(jobs), "--no-telemetry"]
        command = [sys.executable, "-m", "comfyload", *words, "--run-dir", "r", "--output", "out.json"]
        faked = {"LD_PRELOAD": str(FAKETIME), **environ} if environ else {}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.begun[name] = subprocess.Popen(command, cwd=folder, env={**os.environ, **faked}, **pipes)

    def ended(self, name: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any], int]:
        """The findings by code, the only row of clocks in the manifest, and the exit code."""
        run, folder = self.begun[name], self.folder / name
        said, _ = run.communicate(timeout=50)
        assert (folder / "out.json").exists(), said
        findings = json.loads((folder / "out.json").read_text(encoding="utf-8"))["findings"]
        (clocks,) = json.loads((folder / "r" / "manifest.json").read_text(encoding="utf-8"))["clocks"]
        return {finding["code"]: finding for finding in findings}, clocks, run.returncode


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Servers that have this machine's memory, so that they are taken to run here, and one that has not."""
    here = psutil.virtual_memory().total / 2**30
    with ExitStack() as servers:
        beside = [servers.enter_context(in_thread(lambda: Server(host_ram_gib=here)))[0] for _ in range(4)]
        elsewhere, _ = servers.enter_context(in_thread(lambda: Server(host_ram_gib=1.0)))
        begun = Runs(tmp_path_factory.mktemp("clocks"), beside, elsewhere)
        yield begun
        for process in begun.begun.values():
            process.kill()
            process.communicate()


def rates(clocks: dict[str, Any]) -> dict[str, float]:
    return {rate["clock"]: rate["rate"] for rate in clocks["rates"]}


def test_on_an_untouched_machine_nothing_is_said(runs: Runs) -> None:
    findings, clocks, _ = runs.ended("untouched")
    assert not {"clock_rate", "clock_step", "slept", "server_clock_rate", "server_clock"} & set(findings)
    assert clocks["readings"] >= 6 and all(abs(rate) < 0.001 for rate in rates(clocks).values())


@needs_faketime
def test_a_wall_clock_that_is_fast_beside_a_true_monotonic_one(runs: Runs) -> None:
    findings, clocks, code = runs.ended("fast wall")
    assert rates(clocks)["wall"] == pytest.approx(0.058, abs=0.005)
    assert abs(rates(clocks)["raw"]) < 0.001
    assert findings["clock_rate"]["level"] == "invalid" and code == 5
    assert "The wall clock of the generator's machine ran 5.8 % faster" in findings["clock_rate"]["text"]


@needs_faketime
def test_a_server_elsewhere_shows_that_the_monotonic_clock_is_true(runs: Runs) -> None:
    findings, _, _ = runs.ended("elsewhere")
    assert findings["clock_rate"]["level"] == "warning"
    assert "by majority the wall clock is wrong, and latencies stand" in findings["clock_rate"]["text"]


@needs_faketime
@pytest.mark.skipif(CLOCK_GETTIME is None, reason="the number of this kernel's clock_gettime is not known here")
def test_a_monotonic_clock_that_is_slow_beside_a_true_wall_clock(runs: Runs) -> None:
    findings, clocks, code = runs.ended("slow monotonic")
    assert rates(clocks)["wall"] == pytest.approx(1 / 0.945 - 1, abs=0.005)
    assert findings["clock_rate"]["level"] == "invalid" and code == 5
    assert "5.5 % too short" in findings["clock_rate"]["text"]


@needs_faketime
def test_a_wall_clock_that_is_set_by_1_8_seconds_again_and_again(runs: Runs) -> None:
    findings, clocks, code = runs.ended("set")
    (wall,) = [rate for rate in clocks["rates"] if rate["clock"] == "wall"]
    forward = wall["rate"] * clocks["seconds"]
    settings = round(forward / 1.8)
    assert 2 <= settings <= 3 and forward == pytest.approx(1.8 * settings, abs=0.15)
    assert 1 <= wall["steps"] <= settings  # a machine that stalls reads the clock after two settings at once
    largest = 1.8 * (settings - wall["steps"] + 1)
    assert wall["largest_step_s"] == pytest.approx(largest, abs=0.05)
    assert findings["clock_rate"]["level"] == "invalid" and code == 5
    number = "one step" if wall["steps"] == 1 else f"{wall['steps']} steps"
    assert f"{number} of +{1.8 * settings / wall['steps']:.1f} s" in findings["clock_rate"]["text"]
