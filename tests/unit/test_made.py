"""What jobs made is counted as what it is, each once, and a job that made less than its like is named."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from comfyload.app.library import made
from comfyload.cli.progress import LiveCounts
from comfyload.comfy.outputs import fetch_outputs
from comfyload.comfy.reported import files_of, outputs_of
from comfyload.comfy.wire.calls import Download, Reply, Request
from comfyload.comfy.wire.history import HistoryEntry
from comfyload.judge.comparison.compare import compare
from comfyload.judge.comparison.history import history
from comfyload.judge.findings.table import Finding
from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import GateSet, parse_gate
from comfyload.judge.observations import observations
from comfyload.judge.summary import Summary, measure, summarise
from comfyload.record.kinds import IMAGE_SUFFIXES, kind_of
from comfyload.record.model import Execution, Fetch, NodeFacts, Output, Record
from comfyload.report.blocks import workflows
from comfyload.report.comparison import comparison_page
from comfyload.report.history import history_page
from comfyload.report.made import made_rows, rate_label
from comfyload.report.render.markdown import as_markdown
from comfyload.report.sections import jobs_table
from comfyload.sim import Server
from tests.support.rig import play
from tests.unit.judge_runs import FACTS, failed, job, manifest

# --- kinds


@pytest.mark.parametrize(
    ("file", "key", "animated", "kind"),
    [
        ("output/a.png", "images", False, "image"),
        ("temp//B.PNG", "images", False, "image"),
        *((f"output/a{suffix}", "images", False, "image") for suffix in (".exr", ".jxl", ".svg", ".apng", ".heic")),
        *((f"output/a{suffix}", "images", False, "image") for suffix in (".jp2", ".tga", ".hdr", ".avif", ".tiff")),
        ("output/a.webp", "images", True, "video"),
        ("output/a.png", "images", True, "video"),
        ("output/a.webp", "images", False, "image"),
        ("output/a.gif", "gifs", False, "video"),
        ("output/a.mp4", "gifs", False, "video"),
        ("output/a.mp4", "images", True, "video"),
        ("output/a.webm", "images", False, "video"),
        ("output/a.mkv", "videos", False, "video"),
        ("output/a.flac", "audio", False, "audio"),
        ("output/a.opus", "audio", False, "audio"),
        ("output/a.glb", "result", False, "3d"),
        ("output/a.ply", "3d", False, "3d"),
        ("output/a.latent", "latents", False, "latent"),
        ("output/a.txt", "files", False, "text"),
        ("output/a.safetensors", "loras", False, "other"),
        ("output/a.b/c", "audio", False, "audio"),
        ("output/a.b/c", "strange", False, "other"),
    ],
)
def test_a_file_is_what_its_name_says_and_its_node_where_that_leaves_it_open(
    file: str, key: str, animated: bool, kind: str
) -> None:
    assert kind_of(file, key, animated=animated) == kind


def test_no_ending_is_of_two_kinds() -> None:
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)
    assert all(kind_of(f"x{suffix}") == "image" for suffix in IMAGE_SUFFIXES)


# --- what a server reports


def _entry(outputs: dict[str, Any]) -> HistoryEntry:
    return HistoryEntry(messages=[], outputs=outputs, create_ms=0, number=1)


HEX = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("reported", "count", "files"),
    [
        # Preview3D of ComfyUI 0.33.0: path, camera, background; and of 0.3.64, without a background.
        ({"result": ["3d/ComfyUI_00001_.glb", None, None]}, 1, ["output/3d/ComfyUI_00001_.glb"]),
        ({"result": ["x.glb", {"position": {"x": 1}}]}, 1, ["output/x.glb"]),
        ({"result": ["a/b/x.GLTF", None, "temp/bg_1.png"]}, 2, ["output/a/b/x.GLTF", "temp/bg_1.png"]),
        ({"result": ["3d\\sub\\x.glb", None, None]}, 1, ["output/3d/sub/x.glb"]),
        ({"result": ["3d/x.glb [temp]", None, None]}, 1, ["temp/3d/x.glb"]),
        # These three put their file into temp and do not say so.
        ({"result": [f"preview3d_advanced_{HEX}.glb", None, []]}, 1, [f"temp/preview3d_advanced_{HEX}.glb"]),
        ({"result": [f"preview_splat_{HEX}.ply", None, []]}, 1, [f"temp/preview_splat_{HEX}.ply"]),
        ({"result": [f"preview3d_{HEX}.glb", None, None]}, 1, [f"output/preview3d_{HEX}.glb"]),
        # No files of ours: nothing, a text, a path that the server gives to nobody.
        ({"result": ["", None, None]}, 0, []),
        ({"result": ["a cat"]}, 1, []),
        ({"result": ["/home/x/y.glb"]}, 1, []),
        ({"result": ["C:\\x\\y.glb"]}, 1, []),
        ({"result": ["https://x/y.glb"]}, 1, []),
        ({"result": ["../x/y.glb"]}, 1, []),
        ({"text": ["see 3d/x.glb"]}, 1, []),
        ({"text": ["x.glb"]}, 1, []),
        ({"3d": [{"filename": "g.glb", "subfolder": "mesh", "type": "output"}]}, 1, ["output/mesh/g.glb"]),
        ({"images": [{"filename": "a.png", "subfolder": "", "type": None}, None]}, 1, ["output/a.png"]),
        ({"images": []}, 0, []),
        ({"audio": {"filename": "a.flac"}}, 1, ["output/a.flac"]),
        (
            {"gifs": [{"filename": "v.mp4", "subfolder": "", "type": "temp", "format": "video/h264-mp4"}]},
            1,
            ["temp/v.mp4"],
        ),
    ],
)
def test_what_a_node_reports_is_files_and_nothing_is_no_thing(
    reported: dict[str, Any], count: int, files: list[str]
) -> None:
    entry = _entry({"2": reported})
    (output,) = outputs_of(entry)
    assert (output.count, output.files) == (count, files)
    assert [f"{type_}/{f'{folder}/' if folder else ''}{name}" for name, folder, type_ in files_of(entry)] == files


def test_animated_is_said_of_the_pictures_beside_it() -> None:
    entry = _entry({"2": {"images": [{"filename": "a.webp"}], "animated": [True]}, "3": {"animated": [False]}})
    (output,) = outputs_of(entry)
    assert output.animated and output.kind == "images"


class _Transport:
    """Answers every request with the same bytes, and keeps what was asked."""

    name = "http://server/"

    def __init__(self, status: int = 200) -> None:
        self.requests: list[str] = []
        self.status = status

    async def download(self, path: str, timeout_s: float) -> Download:
        self.requests.append(path)
        return Download(status=self.status, head=b"glTF", bytes=4, expected=4)

    async def call(self, request: Request) -> Reply:
        self.requests.append(request.path)
        return Reply(status=200, body=b"glTF")


def test_a_model_reported_as_a_bare_path_is_fetched_and_checked() -> None:
    entry, transport = _entry({"2": {"result": ["3d/x y.glb", None, None]}}), _Transport(404)
    (fetch,) = asyncio.run(fetch_outputs(transport, entry, lambda: 0.0, 1.0))  # type: ignore[arg-type]
    assert transport.requests == ["view?filename=x+y.glb&subfolder=3d&type=output"]
    assert (fetch.file, fetch.problem) == ("output/3d/x y.glb", "HTTP 404")


def test_a_program_is_given_the_model_too() -> None:
    execution = Execution(outcome="completed", outputs=outputs_of(_entry({"2": {"result": ["3d/x.glb", None]}})))
    transport = _Transport()
    assert made.files_of(execution, previews=False) == ["output/3d/x.glb"]
    assert asyncio.run(made.download(transport, "output/3d/x.glb")) == b"glTF"  # type: ignore[arg-type]
    assert transport.requests == ["view?filename=x.glb&subfolder=3d&type=output"]


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_fetches_looks_for_the_model(there: bool) -> None:
    def before(server: Server) -> None:
        if there:
            server._state.files.put("output", "3d", "a.glb", b"glTF")

    graph = {"1": {"class_type": "Preview3D", "inputs": {"model_file": "3d/a.glb"}}}
    played, _ = play(graph=graph, jobs=1, fetch=True, before=before)
    (run,) = (record.execution for record in played.records)
    assert [output.files for output in run.outputs] == [["output/3d/a.glb"]]
    assert run.fetches[0].file == "output/3d/a.glb" and (run.outcome == "completed") == there
    assert there or (run.failure is not None and run.failure.message == "output/3d/a.glb: HTTP 404")


# --- counts


def _images(index: int, saved: int = 1, previews: int = 0) -> list[Output]:
    files = [f"output/r/{index}_{number}.png" for number in range(saved)]
    shown = [f"temp/{index}_{number}.png" for number in range(previews)]
    found = [Output(node="9", kind="images", count=saved, files=files)]
    return [*found, Output(node="10", kind="images", count=previews, files=shown)] if previews else found


def _run(*outputs: list[Output], seconds: float = 10.0, **changes: Any) -> list[Record]:
    return [job(i, seconds * i, seconds, outputs=out, **changes) for i, out in enumerate(outputs)]


def _sum(records: list[Record], **changes: Any) -> Summary:
    return summarise(manifest(len(records), **changes), records)


def test_the_headline_counts_what_was_saved_and_previews_stand_apart() -> None:
    summary = _sum(_run(*(_images(i, 1, 1) for i in range(12))))
    flat = summary.summary
    assert (flat["images"], flat["previews"]) == (12, 12) and flat["images_per_minute"] == pytest.approx(6.0)
    assert summary.statistics["images_per_minute"].unit == "images/min"
    assert made_rows(summary) == [("Images", "12 new, 12 previews")] and rate_label(summary) == "Images/min"
    assert (summary.workflows["book"].images, summary.workflows["book"].previews) == (12, 12)
    assert summary.images_by_type == {"output": 12, "temp": 12}


def test_a_run_that_only_shows_is_measured_by_its_previews_and_says_so() -> None:
    records = _run(*([Output(node="9", kind="images", count=1, files=[f"temp/{i}.png"])] for i in range(12)))
    summary = _sum(records)
    assert (summary.summary["images"], summary.summary["previews"]) == (0, 12)
    assert summary.summary["images_per_minute"] == pytest.approx(6.0)
    assert summary.statistics["images_per_minute"].unit == "previews/min"
    assert made_rows(summary) == [("Images", "0 saved, 12 previews")] and rate_label(summary) == "Previews/min"
    gates = GateSet(gates=[parse_gate("images_per_minute >= 5"), parse_gate("previews == 12")])
    run = measure("r", manifest(12), records)
    assert [verdict.verdict for verdict in judge(gates, run)] == ["PASS*", "PASS"]


def test_previews_do_not_stand_in_for_what_should_have_been_saved() -> None:
    empty = [[Output(node="9", kind="images", count=0), *_images(i, 0, 1)[1:]] for i in range(12)]
    assert _sum(_run(*empty)).summary["images_per_minute"] is None
    videos = [
        [Output(node="8", kind="gifs", count=1, files=[f"output/{i}.mp4"]), *_images(i, 0, 1)[1:]] for i in range(3)
    ]
    assert _sum(_run(*videos)).summary["images_per_minute"] is None


def test_every_kind_has_a_count_and_a_row() -> None:
    def made(i: int) -> list[Output]:
        return [
            Output(node="1", kind="images", count=1, files=[f"output/{i}.webm"], animated=True),
            Output(node="2", kind="gifs", count=1, files=[f"temp/{i}.gif"]),
            Output(node="3", kind="audio", count=1, files=[f"output/{i}.flac"]),
            Output(node="4", kind="result", count=1, files=[f"output/3d/{i}.glb"]),
            Output(node="5", kind="latents", count=1, files=[f"output/{i}.latent"]),
            Output(node="6", kind="text", count=1),
            Output(node="7", kind="text", count=1),
            Output(node="7", kind="files", count=1, files=[f"output/{i}.txt"]),
            Output(node="8", kind="weights", count=1, files=[f"output/{i}.safetensors"]),
        ]

    summary = _sum(_run(made(0), made(1)))
    flat = summary.summary
    keys = ("images", "previews", "videos", "audio_files", "files_3d", "latents", "texts", "other_files")
    assert [flat[key] for key in keys] == [0, 0, 4, 2, 2, 2, 4, 2]
    assert dict(made_rows(summary)) == {
        "Videos": "2 new, 2 previews",
        "Audio files": "2 new",
        "3D files": "2 new",
        "Latents": "2 new",
        "Texts": "2 new, 2 shown",
        "Other files": "2 new",
    }
    assert rate_label(summary) is None and flat["images_per_minute"] is None


def test_a_model_that_one_node_saves_and_another_shows_is_one() -> None:
    both = [
        Output(node="1", kind="3d", count=1, files=["output/m/a.glb"]),
        Output(node="2", kind="result", count=1, files=["output/m/a.glb"]),
    ]
    assert _sum(_run(both)).summary["files_3d"] == 1


def test_a_model_or_an_input_that_is_only_shown_again_is_no_damage() -> None:
    for kind, file in (("result", "output/3d/same.glb"), ("images", "input/same.png")):
        same = [Output(node="9", kind=kind, count=1, files=[file])]
        summary = _sum(_run(*[same] * 4))
        assert "repeated_files" not in {finding.code for finding in summary.findings}
        assert summary.summary["files_3d" if kind == "result" else "previews"] == 1


def test_a_video_that_comes_again_is_found_as_an_image_is() -> None:
    same = [Output(node="9", kind="gifs", count=1, files=["output/same.mp4"])]
    summary = _sum(_run(*[same] * 4, nodes=[]))
    (found,) = (finding for finding in summary.findings if finding.code == "repeated_files")
    assert found.level == "invalid" and "nothing new" in found.text and summary.summary["videos"] == 1


def test_progress_counts_what_is_saved() -> None:
    tally = LiveCounts()
    for record in _run(_images(0, 2, 3), [Output(node="9", kind="gifs", count=1, files=["output/a.webp"])]):
        tally.add(record)
    assert tally.images == 2


def test_progress_counts_what_the_summary_counts_where_a_file_comes_again() -> None:
    records = _run(_images(0, 2), _images(0, 2), _images(5))
    tally = LiveCounts()
    for record in records:
        tally.add(record)
    assert tally.images == _sum(records).summary["images"] == 3


def test_the_page_names_what_each_job_made() -> None:
    made = {"video": {"output": 1}, "image": {"output": 2, "temp": 1}}
    one: dict[str, Any] = dict.fromkeys(("latency_s", "queue_wait_s", "execution_s", "failure"))
    one |= {"index": 0, "warmup": False, "censored": False, "outcome": "completed", "cache": "fresh", "made": made}
    table = jobs_table([one, {**one, "made": {}}], "Jobs")
    assert table is not None and table.columns[6].title == "made"
    assert [row[6].words for row in table.rows] == ["2 images, 1 preview, 1 video", "–"]


# --- fewer than their like


def _finding(records: list[Record], **changes: Any) -> Finding | None:
    found = [one for one in _sum(records, **changes).findings if one.code == "fewer_outputs"]
    assert len(found) <= 1
    return found[0] if found else None


NONE = [Output(node="9", kind="images", count=0)]


@pytest.mark.parametrize("nothing", [NONE, []], ids=["an empty list", "no word of it"])
def test_jobs_that_made_no_image_though_their_like_did_are_named(nothing: list[Output]) -> None:
    records = _run(*(nothing if i in (3, 7, 11) else _images(i) for i in range(12)))
    found = _finding(records)
    assert found is not None and found.level == "warning"
    assert found.text == "3 of 12 jobs made no image although similar jobs did (job 3, 7, 11)."
    assert _sum(records).summary["success_rate"] == 1.0 and _sum(records).summary["images"] == 9


def test_most_jobs_may_be_the_ones_without() -> None:
    found = _finding(_run(*(_images(i) if i < 2 else NONE for i in range(12))))
    assert found is not None and found.text.startswith("10 of 12 jobs made no image although")


def test_a_run_in_which_no_job_made_anything_says_so_if_each_reported_it() -> None:
    found = _finding(_run(*[NONE] * 3))
    assert found is not None
    assert found.text == "3 of 3 jobs made no image: their output nodes reported an empty list (job 0, 1, 2)."
    assert _finding(_run(*[[]] * 3)) is None  # a graph whose output nodes report nothing, as of weights that are saved


def test_jobs_that_made_nothing_of_several_kinds_are_said_to_have_made_no_output() -> None:
    def both(i: int) -> list[Output]:
        return [*_images(i), Output(node="8", kind="gifs", count=1, files=[f"output/{i}.mp4"])]

    found = _finding(_run(*(both(i) if i % 4 else [] for i in range(12))))
    assert found is not None and found.text.startswith("3 of 12 jobs made no output although")


def test_a_size_is_said_only_of_what_was_fetched() -> None:
    fetch = Fetch(file="output/r/0_0.png", bytes=2_000, seconds=0.1)
    text = Output(node="8", kind="text", count=1)
    assert made_rows(_sum(_run([*_images(0), text], fetches=[fetch]))) == [
        ("Images", "1 new, 2 kB fetched"),
        ("Texts", "1 shown"),
    ]


def test_failed_cached_and_warm_up_jobs_have_no_like() -> None:
    records = _run(*(_images(i) for i in range(12)))
    records[3] = failed(3, 30.0, 10.0)
    records[4] = job(4, 40.0, 10.0, outputs=[], cached=["3", "9"])
    records[0] = job(0, 0.0, 10.0, outputs=NONE, warmup=True)
    assert _finding(records, warmup=1) is None


def test_an_output_that_shows_the_same_in_every_job_is_not_compared() -> None:
    facts = structs.replace(FACTS, constant=["10"])
    records = _run(*(_images(i, 1, 1 if i == 0 else 0) for i in range(12)))
    assert _finding(records, workflows=[facts]) is None
    assert _finding(records) is None  # one job that made more leaves no others short


def test_a_batch_whose_size_is_a_value_of_the_job_varies_by_right() -> None:
    sizes = [4] * 11 + [2]
    records = _run(*(_images(i, size) for i, size in enumerate(sizes)))
    assert _finding(records) is not None
    varied = [structs.replace(r, values={**r.values, "5.batch_size": sizes[i]}) for i, r in enumerate(records)]
    assert _finding(varied) is None


def test_a_switch_that_is_a_value_of_the_job_turns_outputs_off_by_right() -> None:
    on = [i % 4 != 3 for i in range(12)]
    records = _run(*(_images(i) if on[i] else [] for i in range(12)))
    assert _finding(records) is not None
    assert _finding([structs.replace(r, values={**r.values, "7.save": on[i]}) for i, r in enumerate(records)]) is None


@pytest.mark.parametrize("often", [2, 4, 6])
def test_a_branch_chosen_by_the_seed_leaves_no_job_short(often: int) -> None:
    def branch(i: int) -> list[Output]:
        (output,) = _images(i)
        return [output if i % often else structs.replace(output, node="12", count=1)]

    assert _finding(_run(*(branch(i) for i in range(24)))) is None


def test_a_detector_that_finds_now_one_now_three_leaves_no_job_short() -> None:
    counts = [1 + i * 7 % 3 for i in range(30)]
    assert _finding(_run(*(_images(i, count) for i, count in enumerate(counts)))) is None
    none_at_all = [0 if i == 5 else count for i, count in enumerate(counts)]
    found = _finding(_run(*(_images(i, count) for i, count in enumerate(none_at_all))))
    assert found is not None and found.text.startswith("1 of 30 jobs made no image") and "(job 5)" in found.text


def test_a_node_that_made_less_is_named_beside_one_that_did_not() -> None:
    facts = structs.replace(FACTS, nodes={**FACTS.nodes, "10": NodeFacts(class_type="PreviewImage", output=True)})
    records = _run(*(_images(i, 1, 0 if i == 4 else 1) for i in range(12)))
    found = _finding(records, workflows=[facts])
    assert found is not None
    assert found.text == "1 of 12 jobs made no image at node 10 (PreviewImage) although similar jobs did (job 4)."
    fewer = _finding(_run(*(_images(i, 3 if i == 7 else 4) for i in range(12))))
    assert fewer is not None
    assert fewer.text == "1 of 12 jobs made 3 images at node 9 (SaveImage) where similar jobs made 4 (job 7)."


def test_a_filter_before_the_saving_leaves_a_preview_and_is_found_however_often_it_refuses() -> None:
    refused = [Output(node="9", kind="images", count=0)]
    records = _run(*([*refused, *_images(i, 0, 1)[1:]] if i % 2 else _images(i, 1, 1) for i in range(12)))
    found = _finding(records)
    assert found is not None
    assert found.text == "6 of 12 jobs saved no image although similar jobs did (job 1, 3, 5, 7, 9, …)."


def test_an_extra_picture_that_the_seed_decides_on_leaves_the_others_not_short() -> None:
    def extra(i: int) -> list[Output]:
        return [
            *_images(i),
            *([Output(node="12", kind="images", count=1, files=[f"output/x{i}.png"])] if i % 3 else []),
        ]

    assert _finding(_run(*(extra(i) for i in range(24)))) is None


def test_each_workflow_has_its_own_like() -> None:
    other = structs.replace(FACTS, name="text", sha256="1" * 64)
    text = [Output(node="9", kind="text", count=1)]
    records = _run(*(_images(i) if i % 2 else text for i in range(12)))
    mixed = [structs.replace(r, workflow="book" if i % 2 else "text") for i, r in enumerate(records)]
    assert _finding(mixed, workflows=[FACTS, other]) is None
    mixed[4] = structs.replace(mixed[4], execution=structs.replace(mixed[4].execution, outputs=[]))
    found = _finding(mixed, workflows=[FACTS, other])
    assert found is not None and found.text == "1 of 6 jobs of text made no text although similar jobs did (job 4)."


def test_an_older_run_that_counted_a_model_as_three_things_has_no_job_short() -> None:
    old = [Output(node="2", kind="result", count=3)]
    assert _finding(_run(*[old] * 4)) is None


def test_jobs_that_all_differ_are_gathered_in_bounded_memory() -> None:
    records = [
        structs.replace(r, values={"1.a": i % 1024, "1.b": i // 2 % 1024})
        for i, r in enumerate(_run(*(_images(i, 1 + i % 200) for i in range(3000)), seconds=1.0))
    ]
    assert _finding(records) is None


def _previews(name: str, seconds: float, users: int = 1) -> Any:
    shown = [[Output(node="9", kind="images", count=1, files=[f"temp/{i}.png"])] for i in range(12)]
    records = [
        structs.replace(r, workflow=("book", "other")[i % 2]) for i, r in enumerate(_run(*shown, seconds=seconds))
    ]
    other = structs.replace(FACTS, name="other", sha256="1" * 64)
    return measure(name, manifest(12, users, run_id=name, workflows=[FACTS, other]), records)


def test_whatever_compares_runs_of_previews_calls_them_that() -> None:
    a, b = _previews("a", 10.0), _previews("b", 5.0)
    text = as_markdown(comparison_page(compare([a], [b])), all=True)
    assert "previews/min" in text and "images/min" not in text
    assert any(row.unit == "previews/min" for row in compare([a], [b]).rows)
    assert any("previews a minute 6.00 to 12.0" in one.text for one in observations([a, _previews("c", 5.0, users=2)]))
    table = workflows(a.summary)
    assert table is not None and [column.title for column in table.columns][6] == "prev/min"
    (series,) = history([("x", "2026-01-01", a), ("y", "2026-01-02", b)], ["images_per_minute"])
    assert "previews/min" in as_markdown(history_page([series]))
