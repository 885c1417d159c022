"""Where the probe listens: what is missing is named, what was there is put back, and two probes do not both listen."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import comfyload_probe
from comfyload_probe.probe import SENTINEL
from tests.pack.comfyui import ComfyUI, Rig, chain, probe_on

PLACES = {
    "PromptQueue.put": "queue.put",
    "PromptQueue.get": "queue.get",
    "PromptQueue.task_done": "queue.task_done",
    "PromptQueue.wipe_queue": "queue.delete",
    "PromptQueue.delete_queue_item": "queue.delete",
    "comfy_execution.progress": "progress",
    "ProgressRegistry": "progress",
    "ProgressRegistry.register_handler": "progress",
    "comfy.model_management": "models",
    "LoadedModel.model_load": "models",
    "LoadedModel.model_unload": "models",
}


def state(comfyui: ComfyUI) -> list[dict[str, Any]]:
    """Everything of ComfyUI that the probe may touch."""
    registry = getattr(comfyui.progress, "ProgressRegistry", object)
    loaded = getattr(comfyui.models, "LoadedModel", object)
    held = (comfyui.queue, type(comfyui.queue), registry, loaded, comfyui.server)
    return [
        {name: value for name, value in vars(one).items() if name not in ("currently_running", "queue", "counter")}
        for one in held
    ]


def test_stopping_puts_back_exactly_what_was_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    before = state(comfyui)
    probe = probe_on(comfyui, tmp_path / "log.ndjson")
    assert probe.start()
    assert state(comfyui) != before
    comfyui.run("Run", "Load")
    probe.stop()
    assert state(comfyui) == before
    assert comfyui.run("Run").completed


@pytest.mark.parametrize("lacking", PLACES)
def test_prompts_run_and_the_gap_is_named_where_a_hook_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: str
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path, {lacking})
    before = state(comfyui)
    probe = probe_on(comfyui, None)
    probe.start()
    rig = Rig(comfyui, probe)
    for kind in ("Run", "Fail", "Interrupt", "Hidden", "Expand", "Load"):
        comfyui.run("Run", kind)
    comfyui.post(chain("Run"), "gone")
    comfyui.delete("gone")
    comfyui.clear()
    started = rig.rows("probe.started")[0]
    hook = PLACES[lacking]
    assert started["hooks"][hook] != "on"
    assert len([lost for lost in started["missing"] if started["hooks"][hook] in lost]) == 1
    others = set(PLACES.values()) - {hook}
    assert {started["hooks"][other] for other in others} == {"on"}
    assert rig.rows()
    assert probe.active
    assert probe.errors == 0
    if hook == "progress":
        assert [row["status"] for row in rig.rows("node")] == ["cached"]
    else:
        assert {row["class_type"] for row in rig.rows("node")} >= {"Run", "Expand", "Load"}
    if hook != "queue.task_done":
        ended = rig.rows("prompt.ended")
        assert [row["status"] for row in ended] == ["ok", "error", "interrupted", "ok", "ok", "ok"]
        assert {row["prompt_id"] for row in ended} == {f"prompt-{n}" for n in range(6)}
        assert all((row["duration_ms"] is None) == (hook == "queue.get") for row in ended)
    probe.stop()
    assert state(comfyui) == before


def test_a_comfyui_without_a_class_for_handlers_takes_a_handler_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path, {"ProgressHandler"})
    probe = probe_on(comfyui, None)
    probe.start()
    comfyui.run("Run")
    assert len(Rig(comfyui, probe).rows("node")) == 1
    probe.stop()


def test_a_second_probe_says_so_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    first, second = probe_on(comfyui, None), probe_on(comfyui, None)
    assert first.start()
    with_first = state(comfyui)
    assert not second.start()
    assert "another comfyload probe" in caplog.text
    assert state(comfyui) == with_first
    comfyui.run("Run")
    assert len(Rig(comfyui, first).rows("prompt.ended")) == 1
    second.stop()
    assert getattr(comfyui.server, SENTINEL) is first
    first.stop()
    assert not hasattr(comfyui.server, SENTINEL)


def test_a_method_that_somebody_wraps_after_us_goes_on_when_we_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    probe.start()
    ours, calls = comfyui.queue.put, []

    def theirs(item: Any) -> Any:
        calls.append(item)
        return ours(item)

    comfyui.queue.put = theirs
    probe.stop()
    assert comfyui.queue.put is theirs
    assert comfyui.run("Run").completed
    assert len(calls) == 1


def test_what_somebody_wrapped_before_us_is_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    original = comfyui.queue.get

    def theirs(timeout: float | None = None) -> Any:
        return original(timeout)

    comfyui.queue.get = theirs
    probe = probe_on(comfyui, None)
    probe.start()
    assert comfyui.run("Run").completed
    probe.stop()
    assert comfyui.queue.get is theirs


def test_what_a_method_raises_reaches_its_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    probe.start()
    comfyui.post(chain("Run"), "same")
    comfyui._number = 0
    with pytest.raises(TypeError):  # the heap compares two graphs
        comfyui.post(chain("Fail"), "same")
    with pytest.raises(KeyError):
        comfyui.queue.task_done(99, {}, None)
    assert len(Rig(comfyui, probe).rows("prompt.queued")) == 1
    assert probe.active
    probe.stop()


def test_the_pack_starts_where_there_is_a_comfyui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COMFYUI_METRICS_LOG", raising=False)
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = comfyload_probe._start()
    assert sorted(comfyui.server.routes.handlers) == [
        f"/comfyload/v1/{name}" for name in ("clock", "environment", "events", "metrics", "overview")
    ]
    comfyui.run("Run")
    rig = Rig(comfyui, probe)
    assert rig.rows("prompt.ended")
    assert rig.rows(readings=True)[0]["event"] == "probe.started"
    assert (tmp_path / "comfyui_metrics.ndjson").exists()
    assert comfyload_probe._start() is None  # it is there already
    probe.stop()


@pytest.mark.parametrize("why", ["no server", "no instance", "off", "broken settings", "no routes"])
def test_the_pack_never_raises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    comfyui = ComfyUI(monkeypatch, tmp_path, {"server"} if why == "no server" else ())
    if why == "no instance":
        monkeypatch.setitem(__import__("sys").modules, "server", object())
    if why == "off":
        monkeypatch.setenv("COMFYLOAD_PROBE_OFF", "1")
    if why == "broken settings":
        __import__("sys").modules["folder_paths"].get_user_directory = lambda: 1 / 0
    if why == "no routes":
        del comfyui.server.routes
    before = state(comfyui)
    probe = comfyload_probe._start()
    assert comfyui.run("Run").completed
    if why == "no routes":
        assert "has no routes" in caplog.text
        probe.stop()
    else:
        assert probe is None
    assert state(comfyui) == before
