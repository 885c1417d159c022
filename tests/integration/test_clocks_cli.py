"""Clocks that disagree, made so by libfaketime in a real run: the finding names the clock, and its rate is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfyload.sim import Server
from tests.rig import sleeper
from tests.servers import in_thread

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


@pytest.fixture(scope="module")
def beside() -> Iterator[str]:
    """A server that has this machine's memory, so that it is taken to run here."""
    with in_thread(lambda: Server(host_ram_gib=psutil.virtual_memory().total / 2**30)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    with in_thread(lambda: Server(host_ram_gib=1.0)) as (url, _):
        yield url


def begin(url: str, folder: Path, jobs: int, **environ: str) -> subprocess.Popen[str]:
    (folder / "graph.json").write_text(json.dumps(sleeper(0.2)), encoding="utf-8")
    words = ["run", "--server", url, "--workflow", "graph.json", "--jobs", str(jobs), "--no-telemetry"]
    command = [sys.executable, "-m", "comfyload", *words, "--run-dir", "r", "--output", "out.json"]
    faked = {"LD_PRELOAD": str(FAKETIME), **environ} if environ else {}
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, **faked}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(run: subprocess.Popen[str], folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any], int]:
    """The findings by code, the only row of clocks in the manifest, and the exit code."""
    said, _ = run.communicate(timeout=50)
    assert (folder / "out.json").exists(), said
    findings = json.loads((folder / "out.json").read_text(encoding="utf-8"))["findings"]
    (clocks,) = json.loads((folder / "r" / "manifest.json").read_text(encoding="utf-8"))["clocks"]
    return {finding["code"]: finding for finding in findings}, clocks, run.returncode


def rates(clocks: dict[str, Any]) -> dict[str, float]:
    return {rate["clock"]: rate["rate"] for rate in clocks["rates"]}


@pytest.mark.alone
def test_on_an_untouched_machine_nothing_is_said(beside: str, tmp_path: Path) -> None:
    findings, clocks, _ = ended(begin(beside, tmp_path, 15), tmp_path)
    assert not {"clock_rate", "clock_step", "slept", "server_clock_rate", "server_clock"} & set(findings)
    assert clocks["readings"] >= 6 and all(abs(rate) < 0.001 for rate in rates(clocks).values())


@needs_faketime
@pytest.mark.alone
def test_a_wall_clock_that_is_fast_beside_a_true_monotonic_one(beside: str, tmp_path: Path) -> None:
    run = begin(beside, tmp_path, 15, FAKETIME="+0 x1.058", FAKETIME_DONT_FAKE_MONOTONIC="1")
    findings, clocks, code = ended(run, tmp_path)
    assert rates(clocks)["wall"] == pytest.approx(0.058, abs=0.005)
    assert abs(rates(clocks)["raw"]) < 0.001
    assert findings["clock_rate"]["level"] == "invalid" and code == 5
    assert "The wall clock of the generator's machine ran 5.8 % faster" in findings["clock_rate"]["text"]


@needs_faketime
@pytest.mark.alone
def test_a_server_elsewhere_shows_that_the_monotonic_clock_is_true(elsewhere: str, tmp_path: Path) -> None:
    run = begin(elsewhere, tmp_path, 30, FAKETIME="+0 x1.058", FAKETIME_DONT_FAKE_MONOTONIC="1")
    findings, _, _ = ended(run, tmp_path)
    assert findings["clock_rate"]["level"] == "warning"
    assert "by majority the wall clock is wrong, and latencies stand" in findings["clock_rate"]["text"]


@needs_faketime
@pytest.mark.alone
def test_a_monotonic_clock_that_is_slow_beside_a_true_wall_clock(beside: str, tmp_path: Path) -> None:
    number = {"x86_64": 228, "aarch64": 113}.get(os.uname().machine)
    if number is None:
        pytest.skip("the number of this kernel's clock_gettime is not known here")
    (tmp_path / "sitecustomize.py").write_text(TRUE_WALL.replace("NUMBER", str(number)), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    findings, clocks, code = ended(begin(beside, tmp_path, 15, FAKETIME="+0 x0.945", PYTHONPATH=path), tmp_path)
    assert rates(clocks)["wall"] == pytest.approx(1 / 0.945 - 1, abs=0.005)
    assert findings["clock_rate"]["level"] == "invalid" and code == 5
    assert "5.5 % too short" in findings["clock_rate"]["text"]


@needs_faketime
@pytest.mark.alone
def test_a_wall_clock_that_is_set_by_1_8_seconds_again_and_again(beside: str, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0", encoding="utf-8")
    run = begin(
        beside,
        tmp_path,
        30,
        FAKETIME_TIMESTAMP_FILE=str(offset),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    for number in range(1, 4):
        time.sleep(2.0)
        aside = tmp_path / "next"
        aside.write_text(f"+{1.8 * number:.1f}", encoding="utf-8")
        aside.replace(offset)
    findings, clocks, code = ended(run, tmp_path)
    (wall,) = [rate for rate in clocks["rates"] if rate["clock"] == "wall"]
    assert 2 <= wall["steps"] <= 3 and wall["largest_step_s"] == pytest.approx(1.8, abs=0.05)
    assert wall["rate"] == pytest.approx(1.8 * wall["steps"] / clocks["seconds"], abs=0.005)
    assert findings["clock_rate"]["level"] == "invalid" and code == 5
    assert f"{wall['steps']} steps of +1.8 s on average" in findings["clock_rate"]["text"]
