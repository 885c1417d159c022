"""What a server may send as JSON: read, or refused by one kind of error, and never more than can be held or written."""

from __future__ import annotations

import json
import math
import tracemalloc
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyload.comfy.inflight import UNKNOWN_LETTERS, InFlight
from comfyload.comfy.reported import MOST_FILES, files_of, outputs_of
from comfyload.comfy.tracker import MOST_NODES, PromptTracker
from comfyload.comfy.wire import lenient
from comfyload.comfy.wire.classes import decode_modules, decode_some
from comfyload.comfy.wire.history import HistoryEntry, _as_written, _part_by_part, decode_history
from comfyload.comfy.wire.lenient import decode_json
from comfyload.comfy.wire.messages import decode_message
from comfyload.comfy.wire.queue import decode_queue, place_in_queue
from comfyload.record.codec import encode
from tests.support.captures import load, names


def _nested(levels: int) -> list[Any]:
    return [_nested(levels - 1)] if levels > 1 else []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"18446744073709551617", 2.0**64),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775809", -(2.0**63)),
        (b"1" + b"0" * 400, float("inf")),
        (b"7" * 5000, float("inf")),
        (b"1e999", float("inf")),
        (b'"caf\xe9"', "caf\udce9"),
        (b'"\\ud83d"', "\ud83d"),
        (b"\xef\xbb\xbf7", 7),
        (b"[" * 90 + b"]" * 90, _nested(90)),
    ],
)
def test_odd_values_are_read_as_what_can_be_written(text: bytes, value: object) -> None:
    found = decode_json(text, Any)
    assert found == value
    kept = None if isinstance(value, float) and math.isinf(value) else value
    assert json.loads(encode({"x": found})) == {"x": kept}


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[" * 200 + b"]" * 200, b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"\xff\xfe\x00"]
)
def test_what_cannot_be_read_is_refused_by_one_kind_of_error(text: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_json(text, Any)


@pytest.mark.parametrize("filling", [b"{},", b"1,", b'"\xf0\x9f\xa6\x8a",'])
def test_what_would_take_hundreds_of_megabytes_is_refused_before_it_does(filling: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError, match="more than is held"):
        decode_json(b"[" + filling * (20_000_000 // len(filling)) + b"1]", Any)


def test_a_large_reply_of_which_little_is_read_is_not_refused() -> None:
    info = {f"Class{n}": {"python_module": f"custom_nodes.p{n % 7}.x", "input": list(range(300))} for n in range(3000)}
    body = json.dumps(info).encode()
    assert body.count(b",") > lenient.MAX_VALUES
    assert decode_modules(body)["Class8"] == "custom_nodes.p1.x"
    assert decode_some(body, ["Class8", "None"]) == {"Class8": info["Class8"]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(JSON)
def test_no_entry_of_a_history_raises(value: Any) -> None:
    good: dict[str, Any] = {"prompt": [1, "id", {}, {"create_time": 5}], "outputs": {}, "status": {"messages": []}}
    for key in good:
        for body in ({"id": good | {key: value}}, {"id": value}, value):
            try:
                entry = decode_history(json.dumps(body).encode(), "id")
            except msgspec.MsgspecError:
                continue
            if entry is not None:
                execution = PromptTracker().execution("completed", done=1.0, end_source="history", entry=entry)
                assert msgspec.json.decode(encode(execution))["outcome"] == "completed"


@given(JSON, st.sampled_from(["node", "nodes", "timestamp", "status", "prompt_id", "exception_message"]))
def test_no_message_ends_the_stream_and_one_that_cannot_be_read_is_named(value: Any, key: str) -> None:
    unread: list[str] = []
    inflight = InFlight(lambda: 1.0, lambda _t, _n: None, "", unread.append)
    for kind in ("executing", "execution_cached", "progress_state", "execution_success", "execution_error", "status"):
        frame, named = json.dumps({"type": kind, "data": {"prompt_id": "id", key: value}}), len(unread)
        inflight.on_frame(frame.encode("utf-8", "surrogatepass"), True)
        message = decode_message(frame)
        assert (message is None) == (len(unread) > named)
        if message is not None:
            with suppress(msgspec.MsgspecError):
                PromptTracker().on_message(message, 1.0)


def test_what_a_history_entry_does_not_tell_is_named() -> None:
    entry = decode_history(
        b'{"id":{"outputs":7,"status":{"messages":[5,["execution_success",{"timestamp":1}]]}}}', "id"
    )
    assert entry is not None
    assert [message.type for message in entry.messages] == ["execution_success"]
    assert [words.partition(" (")[0] for words in entry.unread] == ["its outputs", "1 of its messages"]
    assert decode_history(b'{"id":{"outputs":{},"status":null}}', "id") == HistoryEntry([], {}, None, None)


def test_a_nan_anywhere_in_an_entry_costs_nothing_else() -> None:
    body = b"""{"id":{"prompt":[3.0,"id",{"1":NaN},{"create_time":5}],"outputs":{"3":{"x":[NaN]}},
        "status":{"messages":[["execution_error",{"timestamp":7,"current_inputs":[NaN]}]],"status_str":NaN}}}"""
    entry = decode_history(body, "id")
    assert entry is not None
    assert (entry.number, entry.create_ms, entry.unread) == (3.0, 5, [])
    assert [(message.type, message.data.timestamp) for message in entry.messages] == [("execution_error", 7.0)]
    assert list(entry.outputs) == ["3"]


def test_a_prompt_is_found_in_the_queue_by_its_id_alone() -> None:
    body = b'{"queue_running":[[1,"a",{"x":NaN},{"client_id":"c"}]],"queue_pending":[[2,"b",{}],7]}'
    assert [place_in_queue(body, name) for name in "abc"] == ["running", "pending", None]
    assert decode_queue(body) == ([("a", {"client_id": "c"})], [("b", None)])
    assert decode_queue(body.replace(b"NaN", b"1")) == ([("a", {"client_id": "c"})], [("b", None)])
    with pytest.raises(msgspec.MsgspecError):
        place_in_queue(b"[]", "a")


def test_nodes_events_and_files_without_end_are_kept_to_a_bound() -> None:
    unread: list[str] = []
    inflight = InFlight(lambda: 1.0, lambda _t, _n: None, "", unread.append)
    for number in range(200):
        frame = json.dumps({"type": "executing", "data": {"prompt_id": f"p{number}", "pad": "x" * 100_000}})
        inflight.on_frame(frame.encode(), True)
    assert inflight._unknown_letters <= UNKNOWN_LETTERS
    tracker = PromptTracker()
    for number in range(MOST_NODES + 50):
        message = decode_message(json.dumps({"type": "executing", "data": {"prompt_id": "id", "node": f"n{number}"}}))
        assert message is not None
        tracker.on_message(message, 1.0)
    assert len(tracker.spans) == MOST_NODES
    files = [{"filename": f"{number}.png"} for number in range(MOST_FILES + 50)]
    entry = HistoryEntry([], {"3": {"images": files}, "4": {"images": files}}, None, None)
    first, second = outputs_of(entry)
    assert (first.count, len(first.files), second.count, len(second.files)) == (len(files), MOST_FILES, len(files), 0)
    assert len(files_of(entry)) == MOST_FILES


def test_a_place_in_the_queue_is_told_by_rows_and_by_nothing_inside_them() -> None:
    graph = {"1": {"class_type": "queue_pending", "inputs": {"text": "queue_running", "link": [1, "mine"]}}}
    body = {"queue_running": [[1, "a", graph]], "queue_pending": [[2, "b", graph]]}
    text = json.dumps(body).encode()
    assert [place_in_queue(text, name) for name in ("a", "b", "mine")] == ["running", "pending", None]
    odd = text.replace(b'"mine"', b"NaN")
    assert [place_in_queue(odd, name) for name in ("a", "b", "mine")] == ["running", "pending", None]
    for none in (b"{}", b'{"error": "queue_running"}', b'{"x": []}'):
        with pytest.raises(msgspec.MsgspecError):
            place_in_queue(none, "a")


def test_what_stands_around_the_rows_of_a_queue_takes_no_memory() -> None:
    body = b'{"pad":[%b1],"queue_running":[[1,"a",{},{}]],"queue_pending":[]}' % (b"{}," * 200_000)
    tracemalloc.start()
    try:
        assert place_in_queue(body, "a") == "running" and decode_queue(body) == ([("a", {})], [])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(msgspec.MsgspecError, match="more than is held"):
        decode_queue(b'{"queue_running":[%b1]}' % (b"{}," * 2_000_000))


def _histories() -> list[tuple[str, bytes]]:
    """Replies of real servers, by the id that was looked up."""
    found = []
    for name in names():
        recorded = load(name)
        body = recorded.get("body") if name.startswith("history_") and isinstance(recorded, dict) else None
        if isinstance(body, dict):
            found += [(prompt_id, json.dumps(body).encode()) for prompt_id in body]
    return found


@pytest.mark.parametrize(("prompt_id", "body"), _histories())
def test_a_history_of_a_real_server_is_read_from_its_end_as_part_by_part(prompt_id: str, body: bytes) -> None:
    assert _as_written(body, prompt_id) == _part_by_part(body, prompt_id)


@given(st.sampled_from(_histories()), st.data())
def test_what_is_read_from_the_end_of_a_changed_history_part_by_part_reads_too(
    history: tuple[str, bytes], data: st.DataObject
) -> None:
    """Values anywhere in it are replaced by others; what is not as ComfyUI writes it is read part by part alone."""
    prompt_id, body = history
    value = json.loads(body)
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 3)):
                place = place[key]
                continue
            place[key] = data.draw(JSON)
            break
    changed = json.dumps(value).encode()
    try:
        found = _as_written(changed, prompt_id)
    except (ValueError, RecursionError):
        return
    assert found == _part_by_part(changed, prompt_id)
