"""Prompts complete whatever breaks inside the probe, and one that keeps breaking goes off and says so."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyload_probe import logfile, tracker
from comfyload_probe import probe as probes
from comfyload_probe.probe import Probe
from tests.pack.comfyui import ComfyUI, Rig, chain, probe_on
from tests.pack.test_probe_hooks import state

KINDS = ("Run", "Cached", "Expand", "Load", "Twice", "Overlap")


def boom(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("broken")


def work(comfyui: ComfyUI, prompts: int = 6) -> None:
    """All kinds of prompts, all of which end as they should."""
    for _ in range(prompts):
        assert comfyui.run(*KINDS).completed
    assert not comfyui.run("Fail").completed
    assert not comfyui.run("Interrupt").completed
    comfyui.post(chain("Run"), "gone")
    assert comfyui.delete("gone")
    comfyui.post(chain("Run"))
    comfyui.clear()
    assert comfyui.work() == []
    assert comfyui.queue.currently_running == {}


def gone_off(probe: Probe) -> None:
    assert probe._going_off is not None
    probe._going_off.join(5)
    assert not probe.active


@pytest.mark.parametrize(
    "broken",
    ["queued", "deleted", "started", "ended", "node_started", "node_finished", "model_before", "model_after", "now"],
)
def test_a_callback_that_raises_switches_the_probe_off_and_no_prompt_notices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    before = state(comfyui)
    probe = probe_on(comfyui, None)
    probe.start()
    monkeypatch.setattr(probe, broken, boom)
    for _ in range(3):
        work(comfyui)
    gone_off(probe)
    rows = Rig(comfyui, probe).rows("probe.disabled")
    assert len(rows) == 1
    assert "5 errors in" in rows[0]["error"]
    assert "switches itself off" in "".join(one.getMessage() for one in caplog.records if one.levelno == logging.ERROR)
    del before[-1], (after := state(comfyui))[-1]  # the sentinel stays until the process ends
    assert after == before
    work(comfyui)
    assert len(Rig(comfyui, probe).rows("probe.disabled")) == 1
    probe.stop()


def test_everything_raising_at_once_harms_no_prompt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    probe.start()
    monkeypatch.setattr(probe, "_failed", boom)
    monkeypatch.setattr(probe.journal, "put", boom)
    for name in ("_emit", "queued", "started", "ended", "node_started", "node_finished", "model_before"):
        monkeypatch.setattr(probe, name, boom)
    work(comfyui)
    probe.stop()


def test_errors_that_are_far_apart_do_not_switch_it_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    probe.start()
    at = iter(20.0 * n for n in range(100))
    monkeypatch.setattr(probes, "time", type("Time", (), {"perf_counter": lambda: next(at), "time": time.time}))
    for _ in range(20):
        probe.guard("test", boom)
    assert probe.active
    assert probe.errors == 20
    probe.stop()


@pytest.mark.parametrize("unix_s", [-1e300, float("nan"), float("inf"), 0.0, 1e300])
def test_a_wall_clock_that_shows_nonsense_makes_valid_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unix_s: float
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, tmp_path / "log.ndjson")
    probe.start()
    monkeypatch.setattr(probes, "time", type("Time", (), {"perf_counter": time.perf_counter, "time": lambda: unix_s}))
    work(comfyui)
    assert len(Rig(comfyui, probe).rows("prompt.ended")) == 8
    assert probe.errors == 0
    written = b"".join(one.read_bytes() for one in tmp_path.glob("log.ndjson*"))
    assert len(written.splitlines()) == probe.journal.last_seq
    probe.stop()


def test_clocks_that_raise_cost_the_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    probe.start()
    monkeypatch.setattr(probes, "time", type("Time", (), {"perf_counter": boom, "time": boom}))
    monkeypatch.setattr(probe._tracker, "_clock", boom)
    work(comfyui)
    probe.stop()


def full(*args: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(*args: Any) -> Any:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(("call", "fails"), [("write", full), ("open", read_only)])
def test_prompts_and_the_ring_go_on_without_a_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, fails: Callable[..., Any]
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    monkeypatch.setattr(
        logfile, "os", type("Os", (), {name: getattr(os, name) for name in dir(os)} | {call: staticmethod(fails)})
    )
    probe = probe_on(comfyui, tmp_path / "log.ndjson")
    probe.start()
    work(comfyui)
    rig = Rig(comfyui, probe)
    assert len(rig.rows("prompt.ended")) == 8
    problems = rig.rows("probe.problem")
    assert len(problems) == 1
    assert "cannot be written" in problems[0]["error"]
    assert probe.journal.dropped == probe.journal.last_seq
    assert probe.active
    probe.stop()


def test_dev_full_is_survived_for_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, Path("/dev/full"))
    probe.start()
    work(comfyui)
    assert "No space left" in Rig(comfyui, probe).rows("probe.problem")[0]["error"]
    probe.stop()


@pytest.mark.parametrize("broken", ["gpus", "sampler", "environment", "vram"])
def test_prompts_complete_where_a_reading_cannot_even_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    if broken == "vram":
        comfyui.models.get_torch_device = boom
    else:
        monkeypatch.setitem(__import__("sys").modules, f"comfyload_probe.{broken}", None)
    probe = probe_on(comfyui, None, environ={"COMFYLOAD_PROBE_SAMPLE_HZ": "20"})
    assert probe.start()
    probe.facts()
    if broken != "vram":
        assert broken in probe.hooks.states
        assert any("ImportError" in lost or "ModuleNotFoundError" in lost for lost in probe.hooks.missing)
    work(comfyui)
    assert len(Rig(comfyui, probe).rows("prompt.ended")) == 8
    probe.stop()


def test_rows_that_keep_failing_to_be_written_switch_it_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    monkeypatch.setattr(probe._tally, "add", boom)
    probe.start()
    work(comfyui)
    rig = Rig(comfyui, probe)
    rig.rows()
    gone_off(probe)
    assert "journal" in rig.rows("probe.disabled")[0]["error"]
    work(comfyui)
    probe.stop()


def test_a_driver_that_hangs_is_told_of_and_that_it_came_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probes, "SILENT_AFTER_S", 0.3)
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None, environ={"COMFYLOAD_PROBE_SAMPLE_HZ": "20"})
    hangs, errors = threading.Event(), []
    probe.start()
    rig = Rig(comfyui, probe)
    monkeypatch.setattr(probe._gpus, "read", lambda: hangs.wait(20) and [])
    for wanted in ("no sample for", "samples again"):
        until = time.perf_counter() + 10
        while not any(wanted in said for said in errors) and time.perf_counter() < until:
            errors = [row["error"] for row in rig.rows("probe.problem")]
        assert wanted in errors[-1]
        hangs.set()
    work(comfyui)
    probe.stop()


@pytest.mark.parametrize("broken", ["journal.start", "hooks.attach", "_prepare_readings", "_say_hello"])
def test_a_probe_that_cannot_start_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    before = state(comfyui)
    probe = probe_on(comfyui, None)
    owner, _, name = broken.rpartition(".")
    monkeypatch.setattr(getattr(probe, owner) if owner else probe, name, boom)
    with pytest.raises(RuntimeError):
        probe.start()
    assert state(comfyui) == before
    work(comfyui)


def test_a_worker_that_dies_again_and_again_leaves_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    probe.start()
    for _ in range(1000):
        comfyui.post(chain("Run"))
        comfyui.queue.get(timeout=0)
    assert len(probe._tracker._running) == len(probe._tracker._by_id) == tracker.RUNNING_LIMIT
    assert probe.active
    probe.stop()
