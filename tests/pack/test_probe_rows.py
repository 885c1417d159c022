"""What a prompt leaves in the log: each row by its event, all of them valid against the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pack.comfyui import ComfyUI, Rig, chain, probe_on, valid
from tests.pack.standin import fake_torch, loaded


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Rig]:
    loaded(monkeypatch, "torch", None)
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, tmp_path / "log.ndjson")
    assert probe.start()
    yield Rig(comfyui, probe)
    probe.stop()


def events(rig: Rig) -> list[tuple[str, str | None]]:
    return [(row["event"], row.get("node") if row["event"] == "node" else row.get("status")) for row in rig.rows()]


def test_a_prompt_is_queued_started_run_node_by_node_and_ended(rig: Rig) -> None:
    rig.comfyui.run("Run", "Cached", "Run")
    expected = [("prompt.queued", None), ("prompt.started", None), ("node", "1"), ("node", "2"), ("node", "3")]
    assert events(rig) == [*expected, ("prompt.ended", "ok")]
    queued, started, *nodes, ended = rig.rows()
    assert (queued["queue_depth"], queued["node_count"], started["queue_depth"]) == (0, 3, 0)
    assert [(node["class_type"], node["status"]) for node in nodes] == [
        ("Run", "run"),
        ("Cached", "cached"),
        ("Run", "run"),
    ]
    assert nodes[1]["start_mono_s"] is nodes[1]["duration_ms"] is None
    assert (ended["nodes_run"], ended["nodes_cached"]) == (2, 1)
    assert started["mono_s"] == ended["start_mono_s"] <= nodes[0]["start_mono_s"] <= ended["mono_s"]
    assert started["waited_ms"] == pytest.approx(1e3 * (started["mono_s"] - queued["mono_s"]), abs=1e-3)


def test_a_cached_node_that_nobody_asks_for_has_its_row_too(rig: Rig) -> None:
    rig.comfyui.run("Hidden", "Cached")
    assert [(row["node"], row["status"]) for row in rig.rows("node")] == [("2", "cached"), ("1", "cached")]
    assert rig.rows("prompt.ended")[0]["nodes_cached"] == 2


def test_a_failed_node_is_the_error_of_its_prompt(rig: Rig) -> None:
    rig.comfyui.run("Run", "Fail", "Run")
    assert [(row["node"], row["status"]) for row in rig.rows("node")] == [("1", "run"), ("2", "error")]
    ended = rig.rows("prompt.ended")[0]
    assert (ended["status"], ended["level"], ended["node"], ended["class_type"]) == ("error", "error", "2", "Fail")
    assert ended["exception_type"] == "RuntimeError"
    assert ended["error"].startswith("it cannot be done!!!")
    assert len(ended["error"]) == 500


def test_an_interrupted_node_is_no_error(rig: Rig) -> None:
    rig.comfyui.run("Run", "Interrupt")
    assert [(row["node"], row["status"]) for row in rig.rows("node")] == [("1", "run"), ("2", "interrupted")]
    ended = rig.rows("prompt.ended")[0]
    assert ended["status"] == "interrupted"
    assert "level" not in ended


def test_success_with_an_error_among_the_messages_is_an_error(rig: Rig) -> None:
    rig.comfyui.post(chain("Run"), "lies")
    item, item_id = rig.comfyui.queue.get(timeout=0)
    messages = [["execution_error", {"prompt_id": item[1], "node_id": "1", "exception_message": "a cycle"}]]
    rig.comfyui.queue.task_done(item_id, {}, status=type("S", (), {"status_str": "success", "messages": messages}))
    assert (rig.rows("prompt.ended")[0]["status"], rig.rows("prompt.ended")[0]["error"]) == ("error", "a cycle")


def test_a_node_that_starts_twice_has_one_row_from_its_first_start(rig: Rig) -> None:
    rig.comfyui.run("Twice")
    assert len(rig.rows("node")) == 1


def test_nodes_that_overlap_each_have_their_own_time(rig: Rig) -> None:
    rig.comfyui.run("Overlap", "Run")
    rows = {row["node"]: row for row in rig.rows("node")}
    assert rows["1"]["start_mono_s"] < rows["2"]["start_mono_s"]
    assert rows["1"]["mono_s"] > rows["2"]["mono_s"]


def test_a_node_inside_another_names_the_one_that_shows_it(rig: Rig) -> None:
    rig.comfyui.run("Expand")
    inner, outer = rig.rows("node")
    assert (inner["node"], inner["display_node"], outer["node"]) == ("1.0.0.1", "1", "1")
    assert "display_node" not in outer


def test_what_expanded_to_a_failure_failed_with_it(rig: Rig) -> None:
    rig.comfyui.run("ExpandFail")
    assert [(row["node"], row["status"]) for row in rig.rows("node")] == [("1", "error"), ("1.0.0.1", "error")]


def test_an_open_node_that_did_not_fail_itself_was_interrupted_by_the_failure(rig: Rig) -> None:
    rig.comfyui.run("Overlap", "Fail")
    assert {row["node"]: row["status"] for row in rig.rows("node")} == {"1": "interrupted", "2": "error"}


def test_models_are_told_with_their_prompt_and_node(rig: Rig) -> None:
    rig.comfyui.run("Load", prompt_id="p")
    put, taken = rig.rows("model")
    assert (put["action"], put["bytes"], put["model"], put["device"]) == ("loaded", 1000, "BaseModel", "cuda:0")
    assert (taken["action"], taken["bytes"], taken["prompt_id"], taken["node"]) == ("unloaded", 400, "p", "1")
    rig.comfyui.model(5).model_load()
    assert rig.rows("model")[-1]["prompt_id"] is None


def test_the_queue_is_counted_before_and_behind_a_prompt(rig: Rig) -> None:
    for _ in range(3):
        rig.comfyui.post(chain("Run"))
    rig.comfyui.work()
    assert [row["queue_depth"] for row in rig.rows("prompt.queued")] == [0, 1, 2]
    assert [row["queue_depth"] for row in rig.rows("prompt.started")] == [2, 1, 0]


@pytest.mark.parametrize("how", ["delete", "clear"])
def test_a_deleted_prompt_is_forgotten(rig: Rig, how: str) -> None:
    kept = rig.comfyui.post(chain("Run"), "kept")
    if how == "delete":
        rig.comfyui.post(chain("Run"), "gone")
        assert rig.comfyui.delete("gone")
        assert not rig.comfyui.delete("gone")
        assert len(rig.probe._tracker._waiting) == 1
        rig.comfyui.work()
        assert [row["prompt_id"] for row in rig.rows("prompt.started")] == [kept]
    else:
        rig.comfyui.clear()
    assert not rig.probe._tracker._waiting


def test_the_same_id_twice_is_two_prompts(rig: Rig) -> None:
    for _ in range(2):
        rig.comfyui.post(chain("Run"), "same")
    rig.comfyui.work()
    assert [row["status"] for row in rig.rows("prompt.ended")] == ["ok", "ok"]
    assert all(row["waited_ms"] is not None for row in rig.rows("prompt.started"))
    assert len(rig.rows("node")) == 2


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"attempt": 2, "retry_of": "first"}, {"attempt": 2, "retry_of": "first"}),
        ({"attempt": 1}, {"attempt": 1}),
        ({"attempt": True, "retry_of": 7}, {}),
        ({"attempt": -1, "retry_of": ""}, {}),
        ({"attempt": 10**400}, {}),
        (["attempt"], {}),
        ("attempt", {}),
        (None, {}),
    ],
)
def test_the_senders_attempt_is_kept_where_it_has_the_known_shape(rig: Rig, said: Any, kept: dict[str, Any]) -> None:
    rig.comfyui.run("Run", extra={"comfyload": said})
    row = rig.rows("prompt.queued")[0]
    assert {key: row[key] for key in ("attempt", "retry_of") if key in row} == kept


def test_nothing_of_a_workflow_is_in_any_row(rig: Rig) -> None:
    graph = chain("Run", "Fail")
    graph["1"] |= {"inputs": {"text": "SECRET", "image": "SECRET.png"}, "_meta": {"title": "SECRET"}}
    rig.comfyui.post(graph, extra={"client_id": "SECRET", "api_key_comfy_org": "SECRET"})
    rig.comfyui.work()
    assert "SECRET" not in json.dumps(rig.rows())


def test_a_hostile_number_or_id_makes_a_valid_row(rig: Rig) -> None:
    rig.comfyui._number = float("nan")  # type: ignore[assignment]
    rig.comfyui.post(chain("Run"), "\ud800" + "x" * 5000)
    rig.comfyui.work()
    assert [len(row["prompt_id"]) for row in rig.rows("prompt.ended")] == [200]
    assert rig.rows("prompt.queued")[0]["number"] is None


def test_vram_is_that_of_the_node_also_where_nodes_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = fake_torch(("GPU-1", "card", 2**30))
    peaks = iter([300, 500, 200])
    torch.cuda.reset_peak_memory_stats = lambda: None
    torch.cuda.memory_stats_as_nested_dict = lambda: {"allocated_bytes": {"all": {"current": 100, "peak": next(peaks)}}}
    loaded(monkeypatch, "torch", torch)
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    probe.start()
    rig = Rig(comfyui, probe)
    comfyui.run("Overlap", "Run")
    rows = {row["node"]: row for row in rig.rows("node")}
    assert (rows["1"]["vram_peak_bytes"], rows["2"]["vram_peak_bytes"]) == (500, 500)
    assert rows["1"]["vram_allocated_bytes"] == 100
    assert rig.rows("prompt.ended")[0]["vram_peak_bytes"] == 500
    probe.stop()


def test_an_allocator_that_does_not_tell_costs_its_columns_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch = fake_torch(("GPU-1", "card", 2**30))

    def refuses() -> None:
        raise RuntimeError("not supported by this backend")

    torch.cuda.reset_peak_memory_stats = refuses
    loaded(monkeypatch, "torch", torch)
    comfyui = ComfyUI(monkeypatch, tmp_path)
    probe = probe_on(comfyui, None)
    probe.start()
    for _ in range(10):
        comfyui.run("Run")
    assert probe.active
    assert Rig(comfyui, probe).rows("node")[-1]["vram_peak_bytes"] is None
    probe.stop()


def test_numbers_have_no_holes_and_the_file_has_the_same_rows(rig: Rig, tmp_path: Path) -> None:
    for _ in range(20):
        rig.comfyui.run("Run", "Run")
    rows = rig.rows(readings=True)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert [json.loads(line) for line in (tmp_path / "log.ndjson").read_text().splitlines()] == rows


@pytest.mark.parametrize(
    "change",
    [
        {"duration_ms": "12"},
        {"status": "done"},
        {"extra": 1},
        {"seq": 0},
        {"timestamp": "2026-01-01 00:00:00"},
        {"start_mono_s": True},
    ],
)
def test_the_schema_is_strict(rig: Rig, change: dict[str, Any]) -> None:
    rig.comfyui.run("Run")
    row = rig.rows("node")[0]
    assert not valid(row | change)
    assert not any(valid({key: held for key, held in row.items() if key != gone}) for gone in row)


def test_an_ok_prompt_with_an_error_is_invalid(rig: Rig) -> None:
    rig.comfyui.run("Run")
    assert not valid(rig.rows("prompt.ended")[0] | {"error": "x"})
