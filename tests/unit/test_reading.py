"""What programs wrap around a graph is looked into, and what is no graph is called by its name in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyload.errors import WorkflowError
from comfyload.workflow import parse

GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8}},
    "prompt": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
OTHER: dict[str, Any] = {"5": {"class_type": "EmptyImage", "inputs": {}}}
EDITOR: dict[str, Any] = {"nodes": [{"id": 1, "type": "EmptyImage"}], "links": [], "version": 0.4}
ROW = [3, "5b0c", GRAPH, {"extra_pnginfo": {"workflow": EDITOR}, "client_id": "c"}, ["prompt"]]
ENTRY = {"prompt": ROW, "outputs": {"2": {"images": []}}, "status": {"messages": [["execution_start", {}]]}}


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "wrapped",
    [
        GRAPH,
        {"prompt": GRAPH},
        {"prompt": GRAPH, "client_id": "c", "extra_data": {"extra_pnginfo": {"workflow": EDITOR}}},
        {"input": {"workflow": GRAPH, "images": [{"name": "a.png", "image": "data:…"}]}},
        {"input": {"prompt": GRAPH}},
        {"workflow_json": GRAPH},
        {"workflow": GRAPH},
        {"workflow_json": json.dumps(GRAPH)},
        {"workflow_api": GRAPH, "workflow": EDITOR},
        {"output": GRAPH, "workflow": EDITOR},
        {"prompt": json.dumps(GRAPH)},
        json.dumps(GRAPH),
        json.dumps({"prompt": json.dumps(GRAPH)}),
        ENTRY,
        {"5b0c": ENTRY},
        ROW,
        {"queue_running": [ROW], "queue_pending": []},
        [GRAPH],
        [{"output": GRAPH}],
        {"a": GRAPH, "b": GRAPH},
        {"x": {"y": [{"z": GRAPH}]}},
    ],
)
def test_a_graph_is_found_in_what_is_wrapped_around_it(wrapped: Any) -> None:
    assert parse(text(wrapped), "g").graph == GRAPH


def test_the_body_of_a_post_is_sent_with_its_extra_data_and_other_wrappers_without() -> None:
    extra = {"extra_pnginfo": {"workflow": EDITOR}}
    assert parse(text({"prompt": GRAPH, "extra_data": extra}), "g").extra == {"extra_data": extra}
    assert parse(text({"prompt": GRAPH, "extra_data": None}), "g").extra == {}
    assert parse(text(ENTRY), "g").extra == {}


@pytest.mark.parametrize(
    ("wrapped", "says"),
    [
        ([GRAPH, OTHER], "holds 2 graphs, at [0], [1]"),
        ({"a": ENTRY, "b": {"prompt": [1, "x", OTHER, {}, []]}}, "holds 2 graphs, at a.prompt[2], b.prompt[2]"),
        ([{str(n): OTHER["5"]} for n in range(5)], "holds 5 graphs, at [0], [1], [2] …"),
        (
            {"input": {"workflow": EDITOR}},
            "in the editor's own format, which the server cannot run (at input.workflow)",
        ),
        ({"workflow_json": json.dumps(EDITOR)}, "(at workflow_json)"),
        (EDITOR, "in the editor's own format, which the server cannot run"),
        ({"nodes": [], "links": []}, "the editor's own format"),
        ({"input": {"prompt": "a cat"}}, "node input has no class_type"),
        ([], "holds a JSON list, not a graph"),
        ("a cat", "holds a JSON string, not a graph"),
        ({"1": {"class_type": "A", "inputs": {}}, "_comment": "mine"}, "node _comment is a string"),
        ({"1": {"class_type": "A", "inputs": {}}, "9": {"class_type": "B"}}, "node 9 (B) has no inputs object"),
    ],
)
def test_what_holds_no_graph_or_several_is_refused_with_the_place(wrapped: Any, says: str) -> None:
    refused(text(wrapped), says)


def refused(content: bytes, says: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        parse(content, "g", "dir/g.json")
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("dir/g.json")
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"3": {"class_type": "A", "inputs": {}}, "3": {"class_type": "B", "inputs": {}}}', 'names "3" twice'),
        (b'{"3": {"class_type": "A", "inputs": {"seed": 1, "seed": 2}}}', 'names "seed" twice'),
        (b'{"1": 2, // the loader\n "2": 3}', "has a comment at line 1, column 10"),
        (b'{"1": 2,\n /* the loader */ "2": 3}', "has a comment at line 2"),
        (b'# mine\n{"1": 2}', "has a comment at line 1"),
        (b'{"1": {"class_type": "A", "inputs": {},},}', "has a comma too many at line 1"),
        (b'{"1": [1, 2,\n]}', "has a comma too many at line"),
        (b"{'1': {'class_type': 'A'}}", "has text in single quotes at line 1"),
        (b'{"1": {}}\n{"2": {}}', "holds more than one JSON value, the second at line 2"),
        (b'{"1": {"class_type": "A", "inp', "is not JSON: Unterminated string"),
        (b'{"1": tru}', "has tru at line 1, column 7, which is not a JSON value"),
        (b'{"seed": __SEED__, "x": 1}', "has __SEED__ at line 1, column 10, which is not a JSON value"),
        (b'{"seed": , "x": 1}', "is not JSON: Expecting value at line 1"),
        (b" \n", "is empty"),
        (b'{"1": ' + b"9" * 5000 + b"}", "is not JSON: Exceeds the limit"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "is a PNG picture, not a workflow"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "is a WebP picture"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is a JPEG picture"),
        (b"\x00\x00\x00\x20ftypisom", "is a video"),
        (b"fLaC\x00\x00", "is a sound file"),
    ],
)
def test_what_is_not_quite_json_is_called_by_its_name(content: bytes, says: str) -> None:
    refused(content, says)


def test_not_a_number_is_read_as_servers_do() -> None:
    graph = parse(b'{"1": {"class_type": "A", "inputs": {"x": NaN}, "is_changed": [NaN]}}', "g").graph
    assert graph["1"]["inputs"]["x"] != graph["1"]["inputs"]["x"]


def test_a_link_that_leads_nowhere_is_no_matter_for_the_parser() -> None:
    workflow = parse(text({"1": {"class_type": "A", "inputs": {"x": ["9", 0], "y": ["1", 0]}}}), "g")
    assert workflow.dangling() == [("1", "x")]
    assert workflow.parents("1") == ["1"]
    assert workflow.without(["1"]).graph == {}
