"""From a prompt's messages to its Execution: recorded traffic in, the truth out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyload.comfy.submit_error import classify_refusal, node_errors_of
from comfyload.comfy.tracker import PromptTracker, failure_of
from comfyload.comfy.wire.history import HistoryEntry, decode_history
from comfyload.comfy.wire.messages import Message, decode_message
from comfyload.record.model import Execution
from tests.support import captures


def entry_of(name: str) -> tuple[str, HistoryEntry]:
    body = captures.load(name)["body"]
    prompt_id = next(iter(body))
    entry = decode_history(json.dumps(body).encode(), prompt_id)
    assert entry is not None
    return prompt_id, entry


def message(kind: str, **data: Any) -> Message:
    decoded = decode_message(json.dumps({"type": kind, "data": {"prompt_id": "p", **data}}))
    assert decoded is not None
    return decoded


def follow_recording(name: str, prompt_id: str) -> tuple[PromptTracker, bool]:
    tracker, over = PromptTracker(), False
    for at, raw in enumerate(captures.messages(name)):
        if raw["data"].get("prompt_id") == prompt_id:
            decoded = decode_message(json.dumps(raw))
            assert decoded is not None
            over = tracker.on_message(decoded, float(at)) or over
    return tracker, over


def close(tracker: PromptTracker, entry: HistoryEntry) -> Execution:
    outcome, failure = tracker.verdict(entry)
    return tracker.execution(outcome, done=tracker.ended_at, end_source="events", failure=failure, entry=entry)


def test_a_cold_run_gives_spans_for_every_node_in_order() -> None:
    prompt_id, entry = entry_of("history_success")
    tracker, over = follow_recording("ws_cold_run", prompt_id)
    done = close(tracker, entry)
    assert over
    assert done.outcome == "completed"
    assert [span.node for span in done.nodes] == ["1", "2", "5", "3", "4"]
    assert all(span.end is not None and span.end > span.start for span in done.nodes)
    assert done.executions == 1
    assert done.first_event is not None
    assert done.started == done.first_event
    assert done.done is not None
    assert done.done > max(span.end or 0 for span in done.nodes)


def test_queue_wait_and_execution_are_by_the_servers_clock() -> None:
    _, entry = entry_of("history_success")
    server = close(PromptTracker(), entry).server
    assert (server.start_ms or 0) - (server.create_ms or 0) == 1
    assert (server.end_ms or 0) - (server.start_ms or 0) == 314


def test_outputs_name_their_files_and_types() -> None:
    _, entry = entry_of("history_success")
    outputs = {output.node: output for output in close(PromptTracker(), entry).outputs}
    assert outputs["4"].files == ["output/lt_small_00002_.png"]
    assert outputs["5"].files == ["temp/ComfyUI_temp_lapgt_00001_.png"]


def test_a_cached_rerun_has_all_nodes_cached_and_no_spans() -> None:
    prompt_id, entry = entry_of("history_cached")
    tracker, over = follow_recording("ws_cached_rerun", prompt_id)
    done = close(tracker, entry)
    assert over
    assert done.outcome == "completed"
    assert sorted(done.cached) == ["1", "2", "3", "4", "5"]
    assert done.nodes == []


def test_a_failed_prompt_names_node_class_and_message() -> None:
    prompt_id, entry = entry_of("history_failed")
    tracker, over = follow_recording("ws_execution_error", prompt_id)
    done = close(tracker, entry)
    assert over
    assert (done.outcome, done.failure and done.failure.kind) == ("failed", "execution_error")
    assert done.failure is not None
    assert (done.failure.node, done.failure.node_class, done.failure.type) == ("4", "ImageBlur", "RuntimeError")
    assert "Padding size" in done.failure.message


def test_out_of_memory_is_a_class_of_its_own() -> None:
    _, entry = entry_of("history_oom")
    assert close(PromptTracker(), entry).failure is not None
    failure = close(PromptTracker(), entry).failure
    assert failure is not None
    assert failure.kind == "oom"


def test_an_interrupted_prompt_is_told_from_a_failed_one_by_its_message() -> None:
    _, entry = entry_of("history_interrupted")
    failure = close(PromptTracker(), entry).failure
    assert failure is not None
    assert failure.kind == "interrupted"


def test_a_success_that_has_an_error_among_its_messages_is_a_failure() -> None:
    status = captures.load("history_success_with_execution_error")["history_status"]
    body = {"p": {"prompt": [1, "p", {}, {}, []], "outputs": {}, "status": status}}
    entry = decode_history(json.dumps(body).encode(), "p")
    assert status["status_str"] == "success"
    assert entry is not None
    done = close(PromptTracker(), entry)
    assert (done.outcome, done.failure and done.failure.type) == ("failed", "graph.DependencyCycleError")


def test_an_error_without_a_timestamp_is_not_the_end() -> None:
    tracker = PromptTracker()
    tracker.on_message(message("execution_start", timestamp=1), 0.0)
    assert not tracker.on_message(message("execution_error", exception_type="ExecutionBlocked"), 0.1)
    tracker.on_message(message("execution_success", timestamp=9), 0.2)
    assert tracker.on_message(message("executing", node=None), 0.3)
    entry = HistoryEntry(messages=[message("execution_success", timestamp=9)], outputs={}, create_ms=0, number=1)
    assert close(tracker, entry).outcome == "completed"


def test_parallel_and_expanded_nodes_have_their_own_spans() -> None:
    tracker = PromptTracker()
    for at, states in enumerate(
        [
            {"2": "running"},
            {"2": "running", "2.0.0.1": "running"},
            {"2": "running", "2.0.0.1": "finished"},
            {"2": "finished"},
        ]
    ):
        tracker.on_message(message("progress_state", nodes={n: {"state": s} for n, s in states.items()}), float(at))
    spans = {
        span.node: (span.start, span.end) for span in tracker.execution("completed", done=9, end_source="events").nodes
    }
    assert spans == {"2": (0.0, 3.0), "2.0.0.1": (1.0, 2.0)}


@pytest.mark.parametrize(("second_start", "executions"), [(1000, 1), (7000, 2)])
def test_a_second_execution_is_told_from_an_event_told_twice(second_start: int, executions: int) -> None:
    tracker = PromptTracker()
    for at, stamp in ((0.0, 1000), (5.0, second_start)):
        tracker.on_message(message("execution_start", timestamp=stamp), at)
    assert tracker.execution("completed", done=6, end_source="events").executions == executions


@pytest.mark.parametrize(
    ("name", "kind", "node"),
    [
        ("prompt_400_node_errors", "validation", "2"),
        ("prompt_400_missing_node_class", "missing_node", "1"),
        ("prompt_400_invalid_prompt_id", "invalid_id", None),
        ("prompt_400_no_outputs", "validation", None),
        ("prompt_400_no_prompt", "validation", None),
        ("prompt_dangling_link", "validation", "2"),
        ("prompt_link_bad_slot", "validation", "2"),
    ],
)
def test_refusals_are_classified_by_their_body(name: str, kind: str, node: str | None) -> None:
    reply = captures.load(name)
    failure = classify_refusal(reply["status"], json.dumps(reply["body"]).encode())
    assert (failure.kind, failure.node) == (kind, node)
    assert failure.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[
            (500, "server_error"),
            (503, "server_error"),
            (499, "http"),
            (412, "http"),
            (413, "too_large"),
            (414, "http"),
        ],
        *[(401, "auth"), (403, "auth"), (407, "auth"), (402, "http"), (404, "http"), (406, "http"), (408, "http")],
    ],
)
def test_replies_that_are_no_json_are_classified_by_their_status(status: int, kind: str) -> None:
    failure = classify_refusal(status, b"<html>gateway</html>")
    assert (failure.kind, failure.status) == (kind, status)


def test_which_outputs_were_dropped_is_said() -> None:
    def said(*dropped: str) -> str:
        error = {"errors": [{"message": "bad", "details": "width"}], "dependent_outputs": list(dropped)}
        body = {"prompt_id": "p", "number": 1, "node_errors": {"3": error}}
        failure = node_errors_of(json.dumps(body).encode())[1]
        assert failure is not None and failure.status == 200
        return failure.message

    assert said("9") == "accepted, but output 9 was dropped: bad: width"
    assert said("9", "11") == "accepted, but outputs 9, 11 were dropped: bad: width"
    assert said() == "accepted, but outputs were dropped: bad: width"


def test_a_200_that_dropped_outputs_is_no_success() -> None:
    reply = captures.load("prompt_200_with_node_errors_partial")
    _, failure = node_errors_of(json.dumps(reply["body"]).encode())
    assert failure is not None
    assert (failure.kind, failure.node, failure.node_class) == ("partial_validation", "3", "PreviewImage")
    tracker = PromptTracker()
    tracker.partial = failure
    _, entry = entry_of("history_success")
    assert close(tracker, entry).outcome == "failed"


@pytest.mark.parametrize(
    ("type_", "text", "kind"),
    [
        ("torch.OutOfMemoryError", "Allocation on device 0 would exceed allowed memory.", "oom"),
        ("RuntimeError", "MPS backend out of memory", "oom"),
        # On a real server, of a node that asked for more than the host has.
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory", "oom"),
        ("torch.AcceleratorError", "CUDA error: out of memory", "oom"),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", "cuda"),
        ("re.error", "missing ), unterminated subpattern at position 0", "execution_error"),
    ],
)
def test_what_a_node_says_tells_the_kind_of_its_failure(type_: str, text: str, kind: str) -> None:
    error = message("execution_error", exception_type=type_, exception_message=text)
    assert failure_of(error).kind == kind


def test_a_node_that_the_server_took_from_its_cache_has_no_span() -> None:
    """`progress_state` names cached nodes too, as finished."""
    tracker = PromptTracker()
    tracker.on_message(message("progress_state", nodes={"1": {"state": "running"}, "2": {"state": "running"}}), 0.0)
    tracker.on_message(message("progress_state", nodes={"1": {"state": "finished"}, "2": {"state": "finished"}}), 1.0)
    tracker.on_message(message("execution_cached", nodes=["1"]), 1.0)
    done = tracker.execution("completed", done=2.0, end_source="events")
    assert done.cached == ["1"] and [span.node for span in done.nodes] == ["2"]


def test_where_events_and_history_tell_other_times_the_history_is_right() -> None:
    tracker = PromptTracker()
    tracker.on_message(message("execution_start", timestamp=1000), 0.0)
    tracker.on_message(message("execution_success", timestamp=9000), 8.0)
    entry = HistoryEntry(
        messages=[message("execution_start", timestamp=2000), message("execution_success", timestamp=5000)],
        outputs={},
        create_ms=1500,
        number=1,
    )
    server = close(tracker, entry).server
    assert (server.create_ms, server.start_ms, server.end_ms) == (1500, 2000, 5000)
    alone = tracker.execution("completed", done=9.0, end_source="events").server
    assert (alone.create_ms, alone.start_ms, alone.end_ms) == (None, 1000, 9000)
