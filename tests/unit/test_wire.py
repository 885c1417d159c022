"""Whatever a real server was recorded saying is decoded, and what it might say is not tripped over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from comfyload.comfy.wire.history import decode_history
from comfyload.comfy.wire.messages import decode_message
from comfyload.comfy.wire.queue import decode_job_status, decode_queue_remaining
from tests.support import captures


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(child)


def as_message(value: dict[str, Any]) -> bool:
    return isinstance(value.get("type"), str) and isinstance(value.get("data"), dict)


@pytest.mark.parametrize("name", captures.names())
def test_every_recording_decodes(name: str) -> None:
    decoded = 0
    for value in walk(captures.load(name)):
        if as_message(value):
            message = decode_message(json.dumps(value))
            assert message is not None
            assert message.type == value["type"]
            assert message.data.prompt_id == value["data"].get("prompt_id")
            if "nodes" in value["data"]:
                nodes = value["data"]["nodes"]
                found = message.data.cached_nodes() if isinstance(nodes, list) else list(message.data.node_states())
                assert found == list(nodes)
            decoded += 1
        request, body = value.get("request", ""), value.get("body")
        if isinstance(body, dict) and request.startswith("GET /history") and value.get("status") == 200:
            for prompt_id, entry in body.items():
                history = decode_history(json.dumps(body).encode(), prompt_id)
                assert history is not None
                assert [m.type for m in history.messages] == [m[0] for m in entry["status"]["messages"]]
                assert set(history.outputs) == set(entry["outputs"])
                assert history.create_ms == entry["prompt"][3].get("create_time")
                decoded += 1
        if isinstance(body, dict) and request.startswith("GET /api/jobs/") and value.get("status") == 200:
            assert decode_job_status(json.dumps(body).encode()) == body["status"]
            decoded += 1
        if isinstance(body, dict) and request == "GET /prompt":
            assert decode_queue_remaining(json.dumps(body).encode()) == body["exec_info"]["queue_remaining"]
            decoded += 1
    if name != "job_cancel_endpoint" and name.startswith(
        ("ws_c", "ws_execution", "ws_inter", "ws_progress", "history_f", "history_oom", "job_c", "job_f")
    ):
        assert decoded, f"nothing in {name} was recognised"


def test_a_bare_nan_as_the_server_writes_it_is_read() -> None:
    message = decode_message('{"type":"execution_error","data":{"prompt_id":"a","current_inputs":[NaN,Infinity]}}')
    assert message is not None
    assert message.data.prompt_id == "a"


def test_fields_of_other_types_are_taken_as_ours_where_they_can_be() -> None:
    message = decode_message('{"type":"executing","data":{"prompt_id":"a","node":7,"timestamp":"soon","nodes":3}}')
    assert message is not None
    assert (message.data.node, message.data.timestamp) == ("7", None)


@pytest.mark.parametrize("frame", ["", "[]", "7", "{", '"x"', '{"data":{}}', '{"type":3}', "\u0000", "[" * 50_000])
def test_frames_that_are_no_messages_are_none(frame: str) -> None:
    assert decode_message(frame) is None


@pytest.mark.parametrize("data", ["null", "[1]", '"text"', "{}", '{"status":5}', '{"status":{"exec_info":[]}}'])
def test_custom_messages_of_any_shape_are_let_pass(data: str) -> None:
    message = decode_message(f'{{"type":"crystools.monitor","data":{data}}}')
    assert message is not None
    assert message.data.queue_remaining is None


def test_a_history_with_nan_is_read_like_any_other() -> None:
    body = b"""{"a":{"prompt":[3,"a",{},{"create_time":5},["2"]],"outputs":{"2":{"text":["x"],"bad":null}},
        "status":{"status_str":"error","completed":false,"messages":[["execution_start",{"timestamp":6}],
        ["execution_error",{"timestamp":7,"current_inputs":{"x":[NaN]},"exception_type":"ValueError"}],"odd",[1]]}}}"""
    entry = decode_history(body, "a")
    assert entry is not None
    assert (entry.create_ms, entry.number) == (5, 3.0)
    assert [message.type for message in entry.messages] == ["execution_start", "execution_error"]


def test_an_unknown_id_has_no_entry_and_an_error_page_is_no_history() -> None:
    assert decode_history(b"{}", "a") is None
    with pytest.raises(msgspec.MsgspecError):
        decode_history(b"<html>", "a")
