"""Chips, lists and single jobs of a run, against what a person would count by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json, structs

from comfyload.record.lock import alone_in
from comfyload.record.model import Attempt, Output, Record, Span
from comfyload.record.run import RunWriter
from comfyload.web.badges import BADGES, STATES, JobState
from comfyload.web.follow import RunFollower
from comfyload.web.job import job_of
from comfyload.web.rows import MOST_ROWS, JobRow, errors, rows
from comfyload.web.states import MOST_CHIPS, Filter, View, chips
from tests.unit.judge_runs import FACTS, failed, job, manifest
from tests.unit.test_web_follow import caught_up, retry, sent, under_way

ENDS = ["completed", "failed", "lost", "timed_out", "cancelled", "dropped", "cached", "censored", "retrying", "sent"]


def attempts(number: int, outcome: Any) -> list[Attempt]:
    return [Attempt(server=f"http://{n}", prompt_id=f"{n}", outcome=outcome) for n in range(number)]


def made(index: int, end: str, workflow: str, node: str, tries: int, book: int | None) -> Record:
    due = float(index)
    if end in ("completed", "cached"):
        record = job(index, due, 2.0, cached=["9"] if end == "cached" else [], attempts=attempts(tries, "completed"))
    else:
        kind = {"failed": "execution_error", "timed_out": "timeout"}.get(end, end)
        outcome: Any = "cancelled" if end == "censored" else end
        record = failed(
            index, due, 2.0, outcome, kind=kind, node_class=node, message=f"{node} broke", retry_after_s=None
        )
        record = structs.replace(record, execution=structs.replace(record.execution, attempts=attempts(tries, outcome)))
    return structs.replace(record, workflow=workflow, book=book, censored=end == "censored")


JOBS = st.lists(
    st.tuples(
        st.sampled_from(ENDS),
        st.sampled_from(["book", "cover", "ünï"]),
        st.sampled_from(["KSampler", "VAEDecode", ""]),
        st.integers(0, 4),
        st.sampled_from([None, 0, 1]),
    ),
    max_size=25,
)
FILTERS = st.builds(
    Filter,
    state=st.sampled_from(["", *BADGES, *(state.key for state in STATES), "no such"]),
    attempt=st.integers(0, 5),
    kind=st.sampled_from(["", "execution_error", "timeout", "no such"]),
    workflow=st.sampled_from(["", "book", "ünï", "no such"]),
    server=st.sampled_from(["", "http://1", "no such"]),
    node=st.sampled_from(["", "KSampler", "no such"]),
    book=st.sampled_from([None, 0, 7]),
    text=st.sampled_from(["", "KSAMPLER", "3", "id-2", "xyz"]),
)


def passes(row: JobRow, record: Record | None, flt: Filter) -> bool:
    """What the filter means, of one job."""
    failure = None if record is None else record.execution.failure
    return (
        not flt.nothing
        and flt.state in ("", row.badge, row.fine)
        and row.attempt >= flt.attempt
        and flt.kind in ("", failure.kind if failure else None)
        and flt.workflow in ("", row.workflow)
        and flt.server in ("", row.server)
        and flt.node in ("", failure.node_class if failure else None)
        and flt.book in (None, row.book)
        and (
            flt.text == ""
            or flt.text == str(row.index)
            or flt.text == row.id
            or (failure is not None and flt.text.casefold() in failure.message.casefold())
        )
    )


@settings(max_examples=150, deadline=None)
@given(JOBS, FILTERS)
def test_every_chip_counts_the_jobs_that_are_seen_with_it(tmp_path_factory: Any, jobs: Any, flt: Filter) -> None:
    path = tmp_path_factory.mktemp("run")
    ended: dict[int, Record] = {}
    with alone_in(path), under_way(path, workflows=[FACTS, structs.replace(FACTS, name="cover")]) as writer:
        for index, (end, *rest) in enumerate(jobs):
            writer.write_line(sent(index, float(index)))
            if end == "retrying":
                writer.write_event(retry(index, 0.0, 1e6, attempt=2 + index % 3))
            elif end != "sent":
                ended[index] = made(index, end, *rest)
                writer.write_line(ended[index])
        follower = caught_up(path)
        every = rows(follower, Filter(), limit=MOST_ROWS)[1]
        seen = [row for row in every if passes(row, ended.get(row.index), flt)]
        total, page = rows(follower, flt, limit=MOST_ROWS)
        assert [row.index for row in page] == [row.index for row in seen]
        assert total == len(seen)
        found = chips(follower, flt)
        for chip in found:
            with_it = Filter.parse({**flt.query(), chip.group: chip.key})
            assert chip.count == rows(follower, with_it)[0], chip
            assert chip.on == (flt.query().get(chip.group) == chip.key)
        assert {chip.group for chip in found if chip.on} == flt.query().keys() - {"text"}
        assert len({(chip.group, chip.key) for chip in found}) == len(found)
        assert sum(View(follower).counts().values()) == len(jobs)


def run_of(path: Path, *records: Record, **changes: Any) -> RunFollower:
    with RunWriter(path, manifest(**changes)) as writer:
        for record in records:
            writer.write_line(record)
    return caught_up(path)


# --- filters


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, Filter()),
        ({"state": " attention ", "unknown": "1"}, Filter(state="attention")),
        ({"attempt": "2", "book": "0"}, Filter(attempt=2, book=0)),
        ({"attempt": "x"}, Filter(nothing=True)),
        ({"book": "-1"}, Filter(nothing=True)),
        ({"book": "٣"}, Filter(nothing=True)),
        ({"attempt": "9" * 400}, Filter(nothing=True)),
        ({"attempt": "", "state": "", "kind": None}, Filter()),
        ({"attempt": 3, "text": 17}, Filter(attempt=3, text="17")),
        ({"state": ["done"], "book": 1.5, "node": True}, Filter(nothing=True)),
    ],
)
def test_a_query_is_read_leniently(given_: dict[str, object], expected: Filter) -> None:
    assert Filter.parse(given_) == expected


def test_a_wrong_value_matches_no_job(tmp_path: Path) -> None:
    follower = run_of(tmp_path, job(0, 0.0, 1.0), failed(1, 1.0, 1.0))
    for wrong in (
        {"attempt": "x"},
        {"state": "Done"},
        {"kind": "x"},
        {"workflow": "\ud800"},
        {"book": "99999999999999"},
    ):
        assert rows(follower, Filter.parse(wrong)) == (0, [])
        assert all(chip.count == 0 or not chip.on for chip in chips(follower, Filter.parse(wrong)))


def test_a_job_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    ids = ["0a1b2c3d-0000-5000-8000-00000000000f", "0a1b2c3d-ffff-5000-8000-000000000000", "of-another-kind"]
    follower = run_of(tmp_path, *(structs.replace(job(n, 1.0 * n, 1.0), prompt_id=name) for n, name in enumerate(ids)))

    def found(text: str) -> list[int]:
        return [row.index for row in rows(follower, Filter(text=text), order="due")[1]]

    assert found("0a1b2c3d") == [0, 1]
    assert found("0A1B2C3D-0000") == [0] == found(ids[0])
    assert found("of-another-kind") == [2] and found("of-another") == []
    assert found("1") == [1] and found("nothing of it") == []


def test_of_many_names_the_most_frequent_have_chips(tmp_path: Path) -> None:
    records = [failed(n, 1.0 * n, 1.0, node_class=f"Node{min(n, 60)}") for n in range(70)]
    follower = run_of(tmp_path, *records)
    shown = [chip for chip in chips(follower, Filter(node="Node59")) if chip.group == "node"]
    assert len(shown) == MOST_CHIPS
    assert shown[0].key == "Node59" and shown[0].on and shown[1].key == "Node60" and shown[1].count == 10


# --- lists


def test_orders_and_pages_of_the_list(tmp_path: Path) -> None:
    records = [job(2, 0.0, 5.0), job(0, 1.0, 9.0), failed(1, 0.5, 2.0, "dropped", kind="dropped")]
    dropped = structs.replace(records[2].execution, sent=None, done=None)
    follower = run_of(tmp_path, *records[:2], structs.replace(records[2], execution=dropped))

    def order(name: Any, offset: int = 0, limit: int = 100) -> list[int]:
        return [row.index for row in rows(follower, Filter(), offset, limit, name)[1]]

    assert order("newest") == [1, 0, 2]
    assert order("due") == [2, 1, 0]
    assert order("slowest") == [0, 2, 1]
    assert order("newest", 1, 1) == [0] and order("newest", 3) == [] and order("newest", -5, -1) == []
    (row,) = rows(follower, Filter(state="dropped"))[1]
    assert (row.ended_s, row.latency, row.attempt) == (None, None, 0)


def test_reasons_of_failures_are_grouped_and_the_newest_comes_first(tmp_path: Path) -> None:
    records = [failed(n, 1.0 * n, 1.0, message=f"broke {n % 2}") for n in range(5)]
    follower = run_of(tmp_path, *records, job(9, 9.0, 1.0), failed(10, 2.5, 0.1, "cancelled", kind="cancelled"))
    found = errors(follower)
    assert [(each.text, each.count, each.index, each.t_s) for each in found] == [
        ("broke 0", 3, 4, 5.0),
        ("broke 1", 2, 3, 4.0),
    ]
    assert [each.node for each in errors(follower, 1)] == ["KSampler"]
    assert errors(run_of(tmp_path / "none", job(0, 0.0, 1.0))) == []


# --- one job


def test_a_job_that_was_retried_shows_each_attempt_and_the_rule_that_decided(tmp_path: Path) -> None:
    tried = [
        Attempt(server="http://a", prompt_id="id-0", outcome="failed", sent=0.1, done=1.0, failure=None),
        Attempt(server="http://b", prompt_id="later", outcome="completed", sent=15.0, done=17.0, executed_ms=1900),
    ]
    with under_way(tmp_path) as writer:
        writer.write_event(retry(0, 1.0, 14.0))
        writer.write_event(retry(0, 1.0, 14.0))  # written again by the next process
        writer.write_line(job(0, 0.0, 17.0, attempts=tried, cached=["4"]))
    found = job_of(caught_up(tmp_path), 0)
    assert found is not None
    first, second = found["attempts"]
    assert (first["rule"], first["wait_s"], first["until_s"], first["of"]) == (retry(0, 0, 0).rule, 14.0, 15.0, 3)
    assert (second["id"], second["server"], second["words"], second["executed_s"]) == (
        "later",
        "http://b",
        "completed",
        1.9,
    )
    assert second["rule"] == "" and found["attempt"] == 2
    assert [(node["node"], node["class"], node["cached"]) for node in found["nodes"]] == [
        ("3", "KSampler", False),
        ("9", "SaveImage", False),
        ("4", "CheckpointLoaderSimple", True),
    ]
    assert found["outputs"] == [{"node": "9", "file": "output/run/book_00000_.png", "kind": "image"}]
    durations = {each["key"]: each["seconds"] for each in found["durations"]}
    assert durations["latency"] == 17.0 and found["latency"] == 17.0
    assert found["values"] == {"3.seed": 0}


def test_a_job_under_way_shows_what_failed_before(tmp_path: Path) -> None:
    with alone_in(tmp_path), under_way(tmp_path) as writer:
        writer.write_line(sent(0))
        writer.write_line(sent(1))
        writer.write_event(retry(0, 1.0, 1e6))
        follower = caught_up(tmp_path)
        retrying, fresh = job_of(follower, 0), job_of(follower, 1)
    assert retrying is not None and fresh is not None
    assert [(each["attempt"], each["kind"], each["words"]) for each in retrying["attempts"]] == [
        (1, "oom", "failed"),
        (2, None, "under way"),
    ]
    assert retrying["message"] == "out of memory" and retrying["until_s"] == 1.0 + 1e6
    assert [each["id"] for each in fresh["attempts"]] == ["id-1"] and fresh["message"] == ""
    assert retrying.keys() == fresh.keys()


def test_the_server_s_message_is_whole_and_can_be_written_as_json(tmp_path: Path) -> None:
    text = "broke \udc80 " + "x" * 5_000
    record = failed(0, 0.0, 1.0, message=text)
    odd = structs.replace(record, execution=structs.replace(record.execution, nodes=[Span("3", 0.5, None)]))
    follower = run_of(tmp_path, odd)
    found = job_of(follower, 0)
    assert found is not None
    assert found["message"] == text.replace("\udc80", r"\udc80")
    assert found["nodes"] == [{"node": "3", "class": "KSampler", "begin_s": 0.5, "end_s": None, "cached": False}]
    (only,) = found["attempts"]
    assert (only["attempt"], only["kind"], only["node_class"]) == (1, "execution_error", "KSampler")
    assert json.encode(found) and json.encode(rows(follower, Filter())) and json.encode(chips(follower, Filter()))


def test_a_job_that_was_never_sent_has_no_attempt(tmp_path: Path) -> None:
    dropped = failed(0, 0.0, 1.0, "dropped", kind="dropped")
    never = structs.replace(dropped.execution, sent=None, acknowledged=None, done=None, nodes=[])
    follower = run_of(tmp_path, structs.replace(dropped, execution=never))
    found = job_of(follower, 0)
    assert found is not None and found["attempts"] == [] and found["fine"] == "dropped"
    assert job_of(follower, 1) is None
    (tmp_path / "records.ndjson").write_bytes(b"")
    assert job_of(follower, 0) is None, "its line is gone"


def test_files_of_several_nodes_are_numbered_through(tmp_path: Path) -> None:
    outputs = [
        Output(node="9", kind="images", count=2, files=["output/a.png", "output/b.webp"]),
        Output(node="8", kind="text", count=1),
        Output(node="7", kind="gifs", count=1, files=["temp/c.mp4"]),
    ]
    found = job_of(run_of(tmp_path, job(0, 0.0, 1.0, outputs=outputs)), 0)
    assert found is not None
    assert [(each["file"], each["kind"]) for each in found["outputs"]] == [
        ("output/a.png", "image"),
        ("output/b.webp", "image"),
        ("temp/c.mp4", "video"),
    ]


def test_every_state_has_a_badge_and_its_own_key() -> None:
    keys = [*BADGES, *(state.key for state in STATES)]
    assert len(set(keys)) == len(keys), "a filter takes either"
    assert all(isinstance(state, JobState) and state.badge in BADGES for state in STATES)
