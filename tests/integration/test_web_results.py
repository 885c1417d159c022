"""Results over HTTP: Pages, pictures, comparisons, trends and baselines of real runs, as a tab reads them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.support.commands import call
from tests.support.result_tab import Tab, opened, working
from tests.support.rig import sleeper
from tests.support.servers import simulator

pytestmark = pytest.mark.timeout(240)  # what is judged is judged in a process that gives way to others

RAN = (0, 5)
"""The generator shares its cores with other tests: whether it was in time is not the question of these."""
SVG = "{http://www.w3.org/2000/svg}svg"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Two runs of 24 jobs on a simulated server, one of them in a folder, and one of a slower workflow; no archive."""
    folder = tmp_path_factory.mktemp("runs")
    with simulator(speed=1) as url:
        for name, seconds in (("one", 0.04), ("ab/a", 0.04), ("slow", 0.08)):
            (folder / "graph.json").write_text(json.dumps(sleeper(seconds)), encoding="utf-8")
            words = ["-n", "24", "--warmup", "1", "--run-dir", name, "--name", "sleeper", "-q", "--timeout", "30"]
            done = call("run", "--server", url, "--workflow", "graph.json", *words, cwd=folder)
            assert done.returncode in RAN, done.stderr
    with working() as shared, opened(folder, folder / "archive", *shared) as tab:
        yield tab


def words_of(page: dict[str, Any], table: str) -> list[list[str]]:
    (found,) = (one for one in page["tables"] if one["key"] == table)
    return [[cell["words"] for cell in row] for row in found["rows"]]


@pytest.mark.long
def test_the_page_of_a_run_is_what_show_prints_and_more(tab: Tab) -> None:
    found = tab.read("runs/one/page")
    shown = json.loads(call("show", "one", "--all", "--json", cwd=tab.folder).stdout)
    page = found["page"]
    assert (found["id"], found["label"], found["running"], found["salvaged"]) == ("one", "", False, False)
    for part in ("title", "subtitle", "states", "tiles", "short", "bars", "facts"):
        assert page[part] == shown[part], part
    assert page["tables"][: len(shown["tables"])] == shown["tables"]
    assert [table["key"] for table in page["tables"][len(shown["tables"]) :]] == ["environment", "origin"]
    assert [row[1] for row in words_of(page, "gates")] == [
        "success_rate >= 98 %", "p95_latency_s <= 45", "unexpected_errors == 0",
    ]  # fmt: skip
    names = [chart["name"] for chart in found["charts"]]
    assert names == ["latency", "distribution", "flow", "gpu", "nodes", "waterfall"]
    assert all(chart["title"] and chart["description"] for chart in found["charts"])


def test_a_run_in_a_folder_has_an_id_with_an_escaped_slash(tab: Tab) -> None:
    assert tab.read("runs/ab%2Fa/page")["id"] == "ab/a"
    for path in ("runs/ab%2F..%2Fone/page", "runs/..%2Fruns%2Fone/page", "runs/nothing/page", "runs/%2E%2E/page"):
        content, _ = tab.get(path, 404)
        assert b"Traceback" not in content
    refused = tab.read("runs/nothing/page", 404)
    assert refused == {"error": "there is no run 'nothing'", "hint": "it may have been moved or removed"}


def test_what_a_tab_has_is_not_sent_again(tab: Tab) -> None:
    for path in ("runs/one/page", "runs/one/charts/flow.svg", "runs/one/jobs.csv", "compare?a=one&b=ab/a", "archive"):
        content, headers = tab.get(path)
        assert content and headers["ETag"] and headers["Cache-Control"] == "private, no-cache"
        nothing, again = tab.get(path, 304, **{"If-None-Match": headers["ETag"]})
        assert nothing == b"" and again["ETag"] == headers["ETag"]
        assert tab.get(path, 200, **{"If-None-Match": '"other"'})[0] == content


def test_pictures_are_svg_in_light_and_dark(tab: Tab) -> None:
    for chart in tab.read("runs/one/page")["charts"]:
        path = f"runs/one/charts/{chart['name']}.svg"
        assert not chart["withheld"], chart
        light, headers = tab.get(path)
        dark, _ = tab.get(f"{path}?theme=dark")
        assert headers["Content-Type"] == "image/svg+xml"
        assert light != dark and ET.fromstring(light).tag == ET.fromstring(dark).tag == SVG
        assert b"#a3adb7" in dark and b"#57606a" in light and b"<script" not in light
    refused = tab.read("runs/one/charts/nothing.svg", 404)
    assert refused["error"] == "there is no picture 'nothing'" and "latency" in refused["hint"]


def test_jobs_are_the_ones_that_export_writes(tab: Tab) -> None:
    call("export", "one", "--csv", "jobs.csv", cwd=tab.folder)
    content, headers = tab.get("runs/one/jobs.csv")
    assert content == (tab.folder / "jobs.csv").read_bytes()
    assert headers["Content-Disposition"] == 'attachment; filename="one-jobs.csv"'
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    found, headers = tab.get("runs/ab%2Fa/jobs.json")
    jobs = json.loads(found)
    assert len(jobs) == 25 and {job["outcome"] for job in jobs} == {"completed"}
    assert headers["Content-Disposition"] == 'attachment; filename="ab_a-jobs.json"'


def test_jobs_are_filtered_as_the_list_is(tab: Tab) -> None:
    jobs = json.loads(tab.get("runs/one/jobs.json")[0])
    one = json.loads(tab.get("runs/one/jobs.json?text=7")[0])
    assert one == [job for job in jobs if job["index"] == 7]
    assert json.loads(tab.get("runs/one/jobs.json?state=done&workflow=graph")[0]) == jobs
    assert json.loads(tab.get("runs/one/jobs.json?state=attention")[0]) == []
    rows = list(csv.DictReader(io.StringIO(tab.get("runs/one/jobs.csv?kind=timeout")[0].decode())))
    assert rows == []


def test_a_comparison_is_that_of_the_command(tab: Tab) -> None:
    found = tab.read("compare?a=one&b=ab%2Fa")
    shown = json.loads(call("compare", "one", "ab/a", "--json", cwd=tab.folder).stdout)
    assert found["rows"] == shown["rows"]
    assert found["page"]["title"] == "B against A"
    assert [line["value"]["words"] for line in found["page"]["facts"]] == ["one (1 run)", "a (1 run)"]
    assert found["page"]["states"][0]["word"]
    several = tab.read("compare?a=one&a=one&b=ab%2Fa&b=ab%2Fa&paired=1&margin=0.1")
    assert several["page"]["subtitle"] == ["interleaved pairs"]


def test_what_cannot_be_compared_is_refused_with_its_keys(tab: Tab) -> None:
    refused = tab.read("compare?a=one&b=slow", 409)
    assert refused["error"] == "these runs are not comparable" and refused["accept"] == ["workflow"]
    (difference,) = refused["differences"]
    assert difference["key"] == "workflow" and difference["a"] != difference["b"] and difference["why"]
    accepted = tab.read("compare?a=one&b=slow&accept=workflow")["page"]
    assert words_of(accepted, "accepted")[0][0] == "workflow"
    assert tab.read("compare?a=one&b=slow&accept=colour", 409)["accept"] == ["workflow"]
    assert "colour" in tab.read("compare?a=one&b=ab%2Fa&accept=colour", 422)["error"]
    assert tab.read("compare?a=one", 400)["error"] == "a comparison needs two sides"
    assert tab.read("compare?a=one&b=none", 404)["error"] == "there is no run 'none'"
    assert tab.read("compare?a=one&b=slow&margin=7", 400)["error"] == "margin is not a number from 0.001 to 1"


def test_environments_are_compared_fact_by_fact(tab: Tab) -> None:
    same = tab.read("environment?a=one&b=slow")
    assert same["differs"] == 0 and same["page"]["states"][0]["word"] == "THE SAME"
    shutil.copytree(tab.folder / "one", tab.folder / "updated")
    manifest = json.loads((tab.folder / "updated" / "manifest.json").read_text())
    manifest["environment"]["comfyui.version"]["value"] = "0.34.0"
    manifest["environment"]["note.enclosure"] = {"value": "Razer <b>", "source": "note"}
    del manifest["environment"]["tool.version"]
    (tab.folder / "updated" / "manifest.json").write_text(json.dumps(manifest))
    found = tab.read("environment?a=one&b=updated")
    assert found["differs"] == 1 and found["page"]["states"][0]["word"] == "DIFFERENT"
    assert words_of(found["page"], "differs") == [["comfyui.version", "0.33.0", "0.34.0"]]
    assert sorted(words_of(found["page"], "one")) == [
        ["enclosure", "unknown", "Razer <b>"], ["tool.version", "0.1.0", "unknown"],
    ]  # fmt: skip
    shutil.rmtree(tab.folder / "updated")


def test_where_an_ended_run_stands(tab: Tab) -> None:
    found = tab.live(tab.folder / "one")
    page = tab.read("runs/one/page")["page"]
    assert [tile["words"] for tile in found["tiles"]] == [tile["value"]["words"] for tile in page["tiles"]]
    assert [state["word"] for state in found["states"]] == [state["word"] for state in page["states"]]
    assert [gate["verdict"] for gate in found["gates"]] == [row[3] for row in words_of(page, "gates")]
    assert [gate["why"] for gate in found["gates"]] == [row[4] for row in words_of(page, "gates")]
    assert [node["class"] for node in found["nodes"]] == ["SimSleep", "SaveImage"]
    assert found["nodes"][0]["runs"] == 24 and 0 < found["nodes"][0]["part"] <= 1
    assert found["as_of_s"] > 0.9 and found["errors"] == [] and found["problem"] == ""


@pytest.mark.long
def test_a_baseline_from_nothing_to_promoted(tab: Tab) -> None:
    """Saved, listed, read, compared with, and made the default."""
    base = tab.folder / "archive"
    assert not base.exists()
    assert tab.read("archive") == {"folder": str(base), "promoted": None, "problem": "", "baselines": []}
    assert tab.read("trend")["series"] == []
    assert tab.read("compare?a=baseline:promoted&b=one", 404)["error"] == "no baseline is promoted yet"
    assert not base.exists(), "reading makes nothing"

    saved = tab.post("archive", {"runs": ["one"], "name": "first", "notes": {"enclosure": "A box <b>"}}, 201)
    name = saved["name"]
    assert name.endswith("-first") and (base / name / "README.md").is_file()
    assert saved["page"]["title"] == name and len(words_of(saved["page"], "gates")) == 3
    assert call("baseline", "verify", name, "--archive", "archive", cwd=tab.folder).returncode == 0
    (row,) = tab.read("archive")["baselines"]
    assert (row["name"], row["state"], row["promoted"], row["words"]) == (name, "kept", False, "1 run: sleeper")
    assert row["notes"] == {"enclosure": "A box <b>"}
    assert row["runs"][0]["name"] == "sleeper" and row["runs"][0]["load"] == "1 in flight"

    again = tab.post("archive", {"runs": ["one"], "name": "first"}, 409)
    assert "already there" in again["error"] and "choose another name" in again["hint"]
    assert tab.post("archive/promote", {"name": name}) == {"promoted": name}
    found = tab.read("archive")
    assert found["promoted"] == name and found["baselines"][0]["promoted"]
    compared = tab.read("compare?a=baseline:promoted&b=ab%2Fa")
    assert compared["page"]["facts"][0]["value"]["words"] == f"{name} (1 run)"
    assert "enclosure" in json.dumps(tab.read(f"environment?a=baseline:{name}&b=one")["page"])

    page = tab.read(f"archive/{name}/page")
    assert (page["name"], page["state"], page["runs"]) == (name, "kept", [])
    assert page["page"]["title"] == name and len(page["charts"]) == 6
    picture, _ = tab.get(f"archive/{name}/charts/latency.svg?theme=dark")
    assert ET.fromstring(picture).tag == SVG

    two = tab.post("archive", {"runs": ["ab/a", "slow"], "name": "two"}, 201)["name"]
    page = tab.read(f"archive/{two}/page")
    assert [run["n"] for run in page["runs"]] == [0, 1] and len({run["label"] for run in page["runs"]}) == 2
    one = tab.read(f"archive/{two}/page?run=1")
    assert one["page"]["title"] == page["runs"][1]["label"] and len(one["charts"]) == 6
    assert tab.get(f"archive/{two}/charts/flow.svg?run=1")[0] != tab.get(f"archive/{two}/charts/flow.svg?run=0")[0]
    assert tab.read(f"archive/{two}/page?run=7", 404)["hint"] == "it has 2 runs"
    assert tab.read(f"archive/{two}/page?run=x", 400)["error"] == "run is not a number"

    through = tab.read("trend?metric=p50_latency_s")
    assert [len(series["points"]) for series in through["series"]] == [3]
    assert tab.read("trend?metric=nothing", 422)["error"] == "there is no number 'nothing'"


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"no json", 400, "the body is not a JSON object"),
        (b"[1]", 400, "the body is not a JSON object"),
        (b" " * 70_000, 400, "the body is larger than 64 KiB"),
        ({}, 422, "there is no run to keep"),
        ({"runs": "one"}, 422, "there is no run to keep"),
        ({"runs": [1]}, 422, "there is no run to keep"),
        ({"runs": ["one"], "name": 7}, 422, "there is no run to keep"),
        ({"runs": ["one"], "notes": {"a": 1}}, 422, "there is no run to keep"),
        ({"runs": ["one"] * 201}, 422, "a baseline has at most 200 runs"),
        ({"runs": ["../one"]}, 404, "there is no run '../one'"),
        ({"runs": ["one"], "name": "../x"}, 422, "'../x' cannot name a baseline"),
        ({"runs": ["one"], "name": "promoted"}, 422, "'promoted' cannot name a baseline"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_words(tab: Tab, body: Any, status: int, error: str) -> None:
    before = sorted(tab.folder.rglob("*"))
    assert tab.post("archive", body, status)["error"] == error
    assert sorted(tab.folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["", "promoted", 7, None])
def test_what_cannot_be_promoted_is_refused(tab: Tab, name: Any) -> None:
    assert tab.post("archive/promote", {"name": name}, 422)["error"] == "no baseline is named"


@pytest.mark.parametrize("name", ["..", "../archive", "/etc", "2026-01-01-x/../../one", "nothing", "\0"])
def test_a_baseline_is_looked_up_and_never_a_path(tab: Tab, name: str) -> None:
    assert "there is no baseline" in tab.post("archive/promote", {"name": name}, 404)["error"]
