"""Results of runs that go on, are damaged, hostile or lost, and of archives with strange contents."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from comfyload.errors import UsageError
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.record.lock import alone_in
from comfyload.record.model import Fact, Line, Manifest, Sent
from comfyload.record.options import RunOptions
from comfyload.record.run import RunWriter
from comfyload.web.file_state import archive_state, baseline_state, run_state
from comfyload.web.label import LABEL, label_of, write_label
from comfyload.web.plans import Plans
from comfyload.web.results import THROTTLE
from comfyload.web.worker import Worker
from tests.support.commands import call
from tests.support.computing import HERE
from tests.support.dashboard import UI, page
from tests.support.result_tab import Tab, opened, working
from tests.unit.chart_runs import EVIL, hostile_manifest, varied
from tests.unit.judge_runs import failed, job, manifest, one_by_one

pytestmark = pytest.mark.timeout(240)  # what is judged is judged in a process that gives way to others

SECONDS = [0.5, 0.6, 0.55, 0.52, 0.58, 0.61, 0.49, 0.5, 0.62, 0.57]


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[asyncio.Runner, Worker]]:
    with working() as found:
        yield found


@pytest.fixture
def tab(tmp_path: Path, shared: tuple[asyncio.Runner, Worker]) -> Iterator[Tab]:
    (tmp_path / "runs").mkdir()
    with opened(tmp_path / "runs", tmp_path / "archive", *shared) as tab:
        yield tab


def write(path: Path, lines: Sequence[Line], run: Manifest | None = None) -> RunWriter:
    writer = RunWriter(path, run or manifest(len(lines)))
    for line in lines:
        writer.write_line(line)
    return writer


def made(path: Path, lines: Sequence[Line], run: Manifest | None = None) -> Path:
    write(path, lines, run).close()
    return path


def going_on(**changes: Any) -> Manifest:
    return manifest(200, end=None, ended_utc=None, self_check=None, **changes)


def settled(tab: Tab, path: Path, ready: Callable[[dict[str, Any]], bool], within_s: float = 20.0) -> dict[str, Any]:
    """Where the run stands, as soon as it is as awaited."""
    until = time.monotonic() + within_s
    while not ready(found := tab.live(path)):
        assert time.monotonic() < until, found
        tab.sleep(0.05)
    return found


# --- a run that goes on


@pytest.mark.long
def test_a_run_that_goes_on_is_judged_by_the_jobs_that_have_ended(tab: Tab) -> None:
    path = tab.folder / "live"
    ended = one_by_one(SECONDS)
    broken = failed(10, ended[-1].due + 1.0, 0.5, message="mat1 and mat2")
    under_way = Sent(index=11, prompt_id="id-11", due=broken.due + 1.0)
    with alone_in(path), write(path, [*ended, broken, under_way], going_on()) as writer:
        found = tab.read("runs/live/page")
        assert found["running"] and not found["salvaged"]
        states = found["page"]["states"]
        assert states[0]["word"] == "VALID", "jobs that are under way are no fault"
        assert "decided_early" not in {remark.get("code") for remark in found["page"]["remarks"]}
        assert "unfinished" not in found["page"]["short"]

        stand = tab.live(path)
        assert stand["as_of_s"] == broken.execution.done
        assert [tile["key"] for tile in stand["tiles"]] == ["images_per_minute", "p50_latency_s", "max_latency_s"]
        (error,) = stand["errors"]
        assert error == {
            "t_s": broken.execution.done, "index": 10, "kind": "execution_error RuntimeError", "node": "KSampler",
            "text": "mat1 and mat2", "count": 1,
        }  # fmt: skip
        gates = {gate["words"]: gate for gate in stand["gates"]}
        latency = gates["p95_latency_s <= 45"]
        assert latency["verdict"] in ("ok", "INCONCLUSIVE") and latency["reason"]
        assert gates["unexpected_errors == 0"]["verdict"] == "FAIL"
        assert {node["class"] for node in stand["nodes"]} == {"KSampler", "SaveImage"}

        writer.write_line(job(11, under_way.due, 0.5))
        later = settled(tab, path, lambda now: now["as_of_s"] > stand["as_of_s"])
        assert later["as_of_s"] == under_way.due + 0.5
    assert tab.changed.count(path) == 2


def test_what_is_missing_for_a_proof_is_said_in_clean_jobs(tab: Tab) -> None:
    path = tab.folder / "live"
    with alone_in(path), write(path, one_by_one(SECONDS), going_on()):
        gates = {gate["words"]: gate["why"] for gate in tab.live(path)["gates"]}
    assert gates["p95_latency_s <= 45"] == "49 more clean jobs would prove it"
    assert gates["success_rate >= 98 %"].endswith("more clean jobs would prove it")


def test_a_run_is_judged_by_the_gates_with_which_it_was_started(tab: Tab) -> None:
    """Of a run from a terminal nothing says which they were: then by the default ones."""
    path = made(tab.folder / "own", one_by_one(SECONDS))
    other = made(tab.folder / "other", one_by_one(SECONDS))
    Plans(tab.folder).start("own", RunOptions(), GateSet(gates=[parse_gate("p95_latency_s <= 0.1")]))
    found = tab.live(path)
    assert found["own_gates"]
    assert [(gate["words"], gate["verdict"]) for gate in found["gates"]] == [("p95_latency_s <= 0.1", "FAIL")]
    (table,) = [table for table in tab.read("runs/own/page")["page"]["tables"] if table["key"] == "gates"]
    assert [row[1]["words"] for row in table["rows"]] == ["p95_latency_s <= 0.1"]
    found = tab.live(other)
    assert not found["own_gates"] and [gate["words"] for gate in found["gates"]] == list(DEFAULT_GATES)


def test_a_run_without_a_job_yet_has_dashes_and_no_alarm(tab: Tab) -> None:
    path = tab.folder / "live"
    with alone_in(path), write(path, [Sent(index=0, prompt_id="id-0", due=0.0)], going_on()):
        stand = tab.live(path)
        assert stand["remarks"] == [] and stand["errors"] == [] and stand["nodes"] == []
        assert {gate["verdict"] for gate in stand["gates"]} <= {"INCONCLUSIVE", "PASS", "ok"}
        assert stand["tiles"][0]["words"] == "–"
        page = tab.read("runs/live/page")
        assert all(chart["withheld"] for chart in page["charts"])
        name = page["charts"][0]["name"]
        assert "no picture" in tab.read(f"runs/live/charts/{name}.svg", 404)["error"]


def test_a_run_that_nobody_holds_has_no_end(tab: Tab) -> None:
    path = made(tab.folder / "lost", one_by_one(SECONDS), going_on())
    found = tab.read("runs/lost/page")
    assert not found["running"]
    assert found["page"]["states"][0]["word"] == "INVALID"
    assert "has no end" in found["page"]["remarks"][0]["text"]
    assert tab.live(path)["states"][0]["word"] == "INVALID"


def test_a_run_is_not_measured_again_and_again(tab: Tab) -> None:
    path = tab.folder / "live"
    jobs = one_by_one([0.5] * 200)
    with alone_in(path), write(path, jobs[:10], going_on()) as writer:
        first = tab.live(path)
        known = tab.results._live[path]
        assert known.due > time.monotonic(), f"{THROTTLE} times what it took"
        for record in jobs[10:]:
            writer.write_line(record)
        assert tab.live(path) == first and not tab.results._measuring
        known.due = 0.0
        assert tab.live(path) == first, "who asks does not wait"
        assert path in tab.results._measuring
        later = settled(tab, path, lambda now: now != first)
        assert later["as_of_s"] == jobs[-1].execution.done
        tab.results._live[path].due = 0.0
        assert tab.live(path) == later and not tab.results._measuring, "nothing has changed"
    assert tab.changed == [path, path]


# --- damage


def test_damaged_lines_are_left_out_as_show_salvage_leaves_them_out(tab: Tab) -> None:
    path = made(tab.folder / "torn", one_by_one(SECONDS))
    lines = (path / "records.ndjson").read_bytes().splitlines(keepends=True)
    (path / "records.ndjson").write_bytes(b"".join([*lines[:3], b'{"line": "rec', b"\n", *lines[4:]]))
    found = tab.read("runs/torn/page")
    shown = json.loads(call("show", "torn", "--salvage", "--all", "--json", cwd=tab.folder).stdout)
    assert found["salvaged"]
    for part in ("states", "tiles", "facts", "short"):
        assert found["page"][part] == shown[part], part
    assert found["page"]["states"][0]["word"] == "INVALID"
    texts = {remark.get("code", ""): remark["text"] for remark in found["page"]["remarks"]}
    assert "line 4" in texts["damaged_lines"]
    assert len(json.loads(tab.get("runs/torn/jobs.json")[0])) == 9
    assert "damaged_lines" in {remark["code"] for remark in tab.live(path)["remarks"]}
    assert "is damaged" in tab.read("compare?a=torn&b=torn", 422)["error"]


def test_a_manifest_that_cannot_be_read_is_said(tab: Tab) -> None:
    path = made(tab.folder / "one", one_by_one(SECONDS))
    tab.read("runs/one/page")
    find = tab.results._find
    (path / "manifest.json").write_text("{")
    tab.results._find = lambda _: path
    assert "is damaged" in tab.read("runs/one/page", 422)["error"]
    stand = tab.live(path)
    assert "is damaged" in stand["problem"] and stand["tiles"] == [] and stand["as_of_s"] is None
    shutil.rmtree(path)
    assert "not a run directory" in tab.read("runs/one/page", 422)["error"]
    tab.results._find = find
    tab.read("runs/one/page", 404)


def test_an_invalid_run_says_so_first(tab: Tab) -> None:
    made(tab.folder / "bad", [failed(index, float(index), 0.5) for index in range(5)])
    found = tab.read("runs/bad/page")["page"]
    assert found["states"][0]["word"] == "INVALID" and found["remarks"][0]["level"] == "invalid"
    made(tab.folder / "good", one_by_one(SECONDS))
    refused = tab.read("compare?a=bad&b=good", 409)
    assert "valid" in refused["accept"]


def test_hostile_names_stay_text(tab: Tab) -> None:
    records = varied()
    made(tab.folder / "evil", list(records), hostile_manifest())
    found = tab.read("runs/evil/page")
    assert EVIL in found["page"]["title"]
    for chart in found["charts"]:
        if not chart["withheld"]:
            assert b"<script" not in tab.get(f"runs/evil/charts/{chart['name']}.svg")[0]
    content, headers = tab.get("runs/evil/jobs.csv")
    assert headers["Content-Disposition"] == 'attachment; filename="evil-jobs.csv"'
    assert content
    few = json.loads(tab.get("runs/evil/jobs.json?state=attention")[0])
    assert {job["outcome"] for job in few} == {"failed", "timed_out"}
    assert [job["index"] for job in json.loads(tab.get("runs/evil/jobs.json?kind=timeout")[0])] == [17]


# --- labels


@pytest.mark.long
def test_a_label_is_kept_in_the_run_and_nothing_else_of_it_changes(tab: Tab) -> None:
    path = made(tab.folder / "one", one_by_one(SECONDS))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert tab.read("runs/one/page")["label"] == ""
    text = "after the <b>update</b>\n café \udce9"
    assert tab.post("runs/one/label", {"label": text})["label"] == r"after the <b>update</b> café \udce9"
    assert tab.read("runs/one/page")["label"] == r"after the <b>update</b> café \udce9"
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.name != LABEL} == before
    assert "101" in tab.post("runs/one/label", {"label": "x" * 101}, 422)["error"]
    assert tab.post("runs/one/label", {"label": 7}, 422)["error"] == "the label is not a text"
    assert tab.post("runs/none/label", {"label": "x"}, 404)["error"] == "there is no run 'none'"
    assert tab.post("runs/one/label", {"label": " "}) == {"id": "one", "label": ""}
    assert not (path / LABEL).exists()
    assert tab.changed == [path, path]
    tab.post("runs/one/label", {"label": "kept"})
    kept = tab.post("archive", {"runs": ["one"]}, 201)["name"]
    assert label_of(tab.folder.parent / "archive" / kept / "runs" / "one") == "kept"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_label_is_no_way_to_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / LABEL).symlink_to(tmp_path / "secret")
    assert label_of(tmp_path) == ""
    assert write_label(tmp_path, "mine") == "mine" == label_of(tmp_path)
    assert (tmp_path / "secret").read_text() == "secret"
    (tmp_path / LABEL).unlink()
    os.mkfifo(tmp_path / LABEL)
    assert label_of(tmp_path) == ""
    (tmp_path / LABEL).unlink()
    (tmp_path / LABEL).mkdir()
    assert label_of(tmp_path) == ""
    with pytest.raises(UsageError, match="cannot write"):
        write_label(tmp_path, "x")


# --- the archive


@pytest.mark.long
def test_an_archive_with_strange_contents(tab: Tab) -> None:
    base = tab.folder.parent / "archive"
    made(tab.folder / "one", one_by_one(SECONDS))
    name = tab.post("archive", {"runs": ["one"], "name": "good"}, 201)["name"]
    (base / "2020-01-01-torn" / "runs").mkdir(parents=True)
    (base / "2020-01-01-torn" / "manifest.json").write_text("{")
    (base / "2020-01-02").mkdir()
    stated = {"summary": {"total_jobs": 12, "success_rate": 1.0}}
    (base / "2020-01-02" / "load_small.json").write_text(json.dumps(stated))
    (base / "2020-01-02" / "README.md").write_text("# By hand <b>\n")
    (base / "notes").mkdir()
    (base / "promoted").write_text("2019-01-01-gone\n")

    found = tab.read("archive")
    assert [(row["name"], row["state"]) for row in found["baselines"]] == [
        (name, "kept"), ("2020-01-02", "by hand"), ("2020-01-01-torn", "damaged"),
    ]  # fmt: skip
    assert found["promoted"] is None and "2019-01-01-gone" in found["problem"]
    assert "damaged: " in found["baselines"][2]["words"]
    assert "is damaged" in tab.read("archive/2020-01-01-torn/page", 422)["error"]
    by_hand = tab.read("archive/2020-01-02/page")
    assert by_hand["readme"] == "# By hand <b>\n" and by_hand["state"] == "by hand"
    assert by_hand["page"]["notes"] == ["load_small.json: 12 jobs, 100 % success"]
    assert "made by hand" in tab.read("compare?a=baseline:2020-01-02&b=one", 422)["error"]
    for other in ("notes", "nothing", "..", "..%2Fruns%2Fone", "%2Fetc"):
        tab.get(f"archive/{other}/page", 404)
    assert tab.post("archive/promote", {"name": name}) == {"promoted": name}
    assert tab.read("archive")["problem"] == ""
    assert tab.read("archive/promoted/page")["page"]["title"] == name


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.long
def test_a_link_that_leads_out_of_the_archive_is_no_baseline(tab: Tab) -> None:
    base, elsewhere = tab.folder.parent / "archive", tab.folder.parent / "elsewhere"
    made(tab.folder / "one", one_by_one(SECONDS))
    name = tab.post("archive", {"runs": ["one"], "name": "good"}, 201)["name"]
    (base / name).rename(elsewhere)
    (base / name).symlink_to(elsewhere)
    for path in (f"archive/{name}/page", f"compare?a=baseline:{name}&b=one", f"archive/{name}/charts/flow.svg"):
        assert "there is no baseline" in tab.read(path, 404)["error"]
    assert tab.read("trend")["series"] == []
    (base / name).unlink()
    elsewhere.rename(base / name)
    run = base / name / "runs" / "one"
    run.rename(elsewhere)
    run.symlink_to(elsewhere)
    assert "leads out of it" in tab.read(f"archive/{name}/page", 422)["error"]


def test_without_an_archive_all_else_works(tmp_path: Path, shared: tuple[asyncio.Runner, Worker]) -> None:
    (tmp_path / "runs").mkdir()
    made(tmp_path / "runs" / "one", one_by_one(SECONDS))
    made(tmp_path / "runs" / "two", one_by_one(SECONDS), manifest(10, run_id="other"))
    with opened(tmp_path / "runs", None, *shared) as tab:
        assert tab.read("archive") == {"folder": None, "promoted": None, "problem": "", "baselines": []}
        assert tab.read("compare?a=one&b=two")["page"]["title"] == "B against A"
        assert tab.read("trend")["series"] == []
        for path in ("compare?a=baseline:x&b=two", "archive/x/page", "archive/x/charts/flow.svg"):
            assert tab.read(path, 404)["error"] == "there is no archive of baselines"
        tab.post("archive", {"runs": ["one"]}, 404)
        tab.post("archive/promote", {"name": "x"}, 404)


# --- trends and environments


def test_a_trend_marks_its_steps_in_the_page_and_in_the_picture(tab: Tab) -> None:
    levels = [1.0, 1.01, 0.99, 1.0, 1.3, 1.31, 1.29]
    for day, level in enumerate(levels, 1):
        run = manifest(10, run_id=f"run-{day}", started_utc=f"2026-01-{day:02}T00:00:00+00:00")
        made(tab.folder / f"day-{day}", one_by_one([level * seconds for seconds in SECONDS]), run)
    query = "&".join(f"run=day-{day}" for day in range(1, 8))
    found = tab.read(f"trend?{query}&metric=p50_execution_s")
    (series,) = found["series"]
    assert [point["name"] for point in series["points"]] == [f"day-{day}" for day in range(1, 8)]
    assert [(step["at"], step["verdict"]) for step in series["steps"]] == [(4, "slower")]
    assert found["page"]["states"][0]["word"] == "1 step in 1 series"
    (chart,) = found["charts"]
    assert "At day-5, step: +30" in chart["description"] and not chart["withheld"]
    picture, _ = tab.get(f"trend.svg?{query}&metric=p50_execution_s&n=0&theme=dark")
    assert b"%, slower" in picture and b"#d55e00" in picture
    assert "there is no picture" in tab.read(f"trend.svg?{query}&n=99", 404)["error"]
    with (tab.folder / "day-2" / "records.ndjson").open("ab") as records:
        records.write(b"{\n")
    rest = tab.read(f"trend?{query}&metric=p50_execution_s")
    assert "day-2" in rest["left_out"][0] and len(rest["left_out"]) == 1 and found["left_out"] == []
    assert rest["series"], "one that is damaged does not hide the others"
    one = tab.read("trend?run=day-1&metric=p50_execution_s")
    assert one["charts"][0]["withheld"] == "a trend needs two points"
    assert one["page"]["states"][0]["word"] == "A trend needs two runs"
    tab.read("trend?run=none", 404)
    tab.read(f"trend?{'&'.join(['run=day-1'] * 201)}", 400)


def test_what_is_unknown_of_one_is_no_difference(tab: Tab) -> None:
    ours = {"gpu.0.model": Fact(value="A", source="nvml"), "host.cpu": Fact(source="not told")}
    theirs = {"gpu.0.model": Fact(value="B", source="nvml"), "host.cpu": Fact(value="i9", source="this machine")}
    for name, facts in (("one", ours), ("two", theirs)):
        made(tab.folder / name, one_by_one(SECONDS), manifest(10, environment=facts))
    found = tab.read("environment?a=one&b=two")
    tables = {table["key"]: table["rows"] for table in found["page"]["tables"]}
    assert [[cell["words"] for cell in row] for row in tables["differs"]] == [["gpu.0.model", "A", "B"]]
    assert [[cell["words"] for cell in row] for row in tables["one"]] == [["host.cpu", "unknown", "i9"]]
    assert found["page"]["states"][0]["sentence"] == "1 fact of 2 known differ."


# --- the state of files


def test_a_state_changes_with_every_file(tmp_path: Path) -> None:
    run = made(tmp_path / "runs" / "one", one_by_one(SECONDS))
    states = [run_state(run)]
    with (run / "records.ndjson").open("ab") as file:
        file.write(b"{}\n")
    states.append(run_state(run))
    (run / "log.ndjson").write_bytes(b"")
    states.append(run_state(run))
    with ExitStack() as stack:
        stack.enter_context(alone_in(run))
        states.append(run_state(run))
    os.utime(run / "manifest.json", ns=(1, 1))
    states.append(run_state(run))
    assert len(set(states)) == len(states)
    assert run_state(tmp_path / "none") == (False, False, *[(-1, 0)] * 4)

    base = tmp_path / "archive"
    kept = [archive_state(base)]
    (base / "2026-01-01-x" / "runs").mkdir(parents=True)
    kept.append(archive_state(base))
    (base / "2026-01-01-x" / "README.md").write_text("x")
    kept.append(archive_state(base))
    (base / "promoted").write_text("2026-01-01-x\n")
    kept.append(archive_state(base))
    assert len(set(kept)) == len(kept)
    before = baseline_state(base, "2026-01-01-x")
    (base / "2026-01-01-x" / "runs" / "records.ndjson").write_text("x")
    assert baseline_state(base, "2026-01-01-x") != before
    assert baseline_state(base, "..") == baseline_state(base, "../runs") == ()


def test_files_of_jobs_are_few(tab: Tab) -> None:
    path = made(tab.folder / "one", one_by_one(SECONDS))
    for state in ("done", "attention", "ended", "pending", "rendering", "failed"):
        tab.get(f"runs/one/jobs.csv?state={state}")
    assert len(list(tab.worker.folder.iterdir())) == 4
    content = tab.get("runs/one/jobs.csv?state=done")[0]
    with (path / "records.ndjson").open("ab") as file:
        file.write(b"")
    os.utime(path / "records.ndjson")
    assert tab.get("runs/one/jobs.csv?state=done")[0] == content


def test_a_page_does_not_wait_for_files_of_jobs(tmp_path: Path) -> None:
    made(tmp_path / "runs" / "one", one_by_one(SECONDS))

    async def main() -> None:
        async with page(tmp_path) as found:
            exporting = asyncio.create_task(
                found.dashboard._exporter.answer(f"{HERE}:number", str(tmp_path / "log"), 1, 60.0)
            )
            file = asyncio.create_task(found.ask(f"{UI}/runs/one/jobs.csv"))
            for path in ("runs/one/page", "runs/one/charts/flow.svg", "archive"):
                assert (await found.ask(f"{UI}/{path}")).status == 200
            assert not exporting.done() and not file.done()
            file.cancel()
            await asyncio.wait([file])
        with pytest.raises(asyncio.CancelledError):
            await exporting

    asyncio.run(main())
