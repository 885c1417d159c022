"""Text that servers, workflows and file systems may hold: kept as it is, shown as text, by every writer and command."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from pyarrow import parquet
from typer.testing import CliRunner

from comfyload.app.run.launch import run
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.viewer import Viewer
from comfyload.cli import app_of
from comfyload.cli.progress import RunProgress
from comfyload.clock import run as run_clock
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.record.codec import decode
from comfyload.record.model import Fact, Fetch, LogLine, NodeFacts, Observation, Output, Record, Sample, Sent
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RunReader, RunWriter
from comfyload.report.console import Screen
from comfyload.sim import Server
from comfyload.visible import visible, visible_lines
from tests.integration.test_cli import graph_file
from tests.support.rig import sleeper
from tests.support.servers import in_thread
from tests.unit.judge_runs import FACTS, failed, job, manifest

app = app_of()

EVIL = "é\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e\x00\r\n[/b][red]<b>&\udce9\ud83d\u2028"
NAME = "caf\udce9.png"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def hostile_run(path: Path) -> list[Any]:
    """A run directory with such text wherever a server or a workflow can write some."""
    first = job(0, 0.0, 1.0, outputs=[Output(node=EVIL, kind="images", count=1, files=[f"output/{NAME}"])])
    first = structs.replace(
        first,
        workflow=EVIL,
        prompt_id=EVIL,
        values={EVIL: EVIL, "3.seed": 1},
        execution=structs.replace(
            first.execution,
            cached=[EVIL],
            fetches=[Fetch(file=NAME, bytes=0, seconds=0.1, problem=EVIL)],
            nodes=[structs.replace(first.execution.nodes[0], node=EVIL)],
        ),
    )
    second = structs.replace(
        failed(1, 1.0, 1.0, type=EVIL, message=EVIL, node=EVIL, node_class=EVIL), workflow=EVIL, values={}
    )
    rest = [structs.replace(job(index, float(index), 0.5), workflow=EVIL) for index in range(2, 6)]
    lines: list[Sent | Record] = [Sent(index=0, prompt_id=EVIL, due=0.0), first, second, *rest]
    plain = manifest(6)
    odd = structs.replace(
        plain,
        name=EVIL,
        server=structs.replace(
            plain.server,
            comfyui_version=EVIL,
            argv=[EVIL],
            system={EVIL: EVIL},
            devices=[{"name": EVIL, "type": "cuda"}],
            packs=[EVIL],
        ),
        workflows=[structs.replace(FACTS, name=EVIL, nodes={**FACTS.nodes, EVIL: NodeFacts(class_type=EVIL)})],
        observations=[Observation(t=0.0, code="preflight", text=EVIL)],
        environment={f"note.{EVIL}": Fact(value=EVIL, source=EVIL)},
    )
    with RunWriter(path, odd) as writer:
        for line in lines:
            writer.write_line(line)
        writer.write_sample(Sample(t=0.0, source=EVIL, name=EVIL, value=1.0))
        writer.write_log(LogLine(t=0.0, source="probe", row={EVIL: EVIL}))
    return [odd, *lines]


def invoke(*words: str | Path) -> str:
    """A command in this process: all it prints. Nothing of it may steer a terminal."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 1, 3, 5), done.output
    assert STEERING.search(done.output) is None, repr(done.output)
    return done.output


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    path = tmp_path_factory.mktemp("hostile") / "run"
    return path, hostile_run(path)


def test_a_run_directory_gives_back_what_was_written(there: tuple[Path, list[Any]]) -> None:
    path, (odd, *lines) = there
    reader = RunReader(path)
    assert reader.manifest == odd
    assert list(reader.lines()) == lines
    assert [sample.name for sample in reader.samples()] == [EVIL]
    assert [row.row for row in reader.log()] == [{EVIL: EVIL}]
    for file in path.iterdir():
        file.read_bytes().decode()


@pytest.mark.parametrize(
    "words",
    [
        ["show", "RUN"],
        ["show", "RUN", "--job", "0"],
        ["show", "RUN", "--job", "1"],
        ["show", "RUN", "--job", "1", "--json"],
        ["show", "RUN", "--json"],
        ["check", "RUN"],
        ["check", "RUN", "--json"],
        ["compare", "RUN", "RUN"],
        ["compare", "RUN", "RUN", "--json"],
        ["capacity", "RUN", "--p95", "45s"],
        ["show", "RUN", "-o", "-"],
    ],
)
def test_what_a_command_prints_is_text(words: list[str], there: tuple[Path, list[Any]]) -> None:
    out = invoke(*(there[0] if word == "RUN" else word for word in words))
    if words[0] == "show" and "--job" in words:
        assert "PWNED" in out
    if "--json" in words:
        json.loads(out)


def test_every_file_that_is_written_is_text(there: tuple[Path, list[Any]], tmp_path: Path) -> None:
    run_dir = there[0]
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "xml", "csv", "parquet", "prom", "otlp")}
    invoke("show", run_dir, "-o", files["json"])
    invoke("report", run_dir, "--html", files["html"])
    invoke("check", run_dir, "--junit", files["xml"])
    invoke(
        *("export", run_dir, "--csv", files["csv"], "--parquet", files["parquet"]),
        *("--prometheus", files["prom"], "--otlp", files["otlp"]),
    )
    document = json.loads(files["json"].read_bytes())
    assert document["jobs"][0]["files"] == [f"output/{NAME}"]
    assert document["jobs"][0]["values"] == {EVIL: EVIL, "3.seed": 1}
    assert document["manifest"]["server"]["comfyui_version"] == EVIL
    page = files["html"].read_text(encoding="utf-8")
    assert STEERING.search(page) is None
    assert "<b>&" not in page
    with files["csv"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["files"] == r'["output/caf\\udce9.png"]'
    assert parquet.read_table(files["parquet"]).column("files")[0].as_py() == [r"output/caf\udce9.png"]
    assert STEERING.search(files["xml"].read_text(encoding="utf-8")) is None
    for kind, written in files.items():
        if kind != "parquet":
            written.read_bytes().decode()


def test_a_baseline_of_it_can_be_kept_shown_and_verified(there: tuple[Path, list[Any]], tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    invoke("baseline", "save", there[0], "--name", "odd", "--archive", archive)
    invoke("baseline", "list", "--archive", archive)
    invoke("baseline", "verify", "odd", "--archive", archive)
    invoke("baseline", "show", "odd", "--json", "--archive", archive)
    invoke("trend", "--archive", archive)
    (readme,) = archive.glob("*/README.md")
    assert STEERING.search(readme.read_text(encoding="utf-8")) is None


def graph_of(class_type: str) -> dict[str, Any]:
    return {
        "1": {"class_type": class_type, "inputs": {class_type: class_type}, "_meta": {"title": class_type}},
        class_type: {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


@pytest.mark.parametrize(
    "words",
    [
        ["doctor"],
        ["doctor", "--json"],
        ["run"],
        ["run", "--dry-run", "--no-preflight"],
        ["run", "--dry-run", "--no-preflight", "--json"],
    ],
)
def test_a_workflow_steers_no_terminal(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with in_thread(lambda: Server()) as (url, _):
        words = [*words, "--server", url, "--workflow", graph_file(tmp_path, graph_of(EVIL))]
        done = CliRunner().invoke(app, words, env={"COLUMNS": "200", "NO_COLOR": "1"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        message = getattr(done.exception, "message", None)
        assert message is not None, done.exception
        assert STEERING.search(visible_lines(message)) is None
        assert "\n[/b]" not in message  # a break from outside makes no line
        return
    assert "PWNED" in done.output or "--dry-run" in words
    assert STEERING.search(done.output) is None, repr(done.output)


def odd_server(version: str, name: str) -> Callable[[], Server]:
    """Its files are named in Latin-1, as `os.fsdecode` gives them, and it says odd things of itself."""

    def made() -> Server:
        server = Server(speed=50)
        plain = server.call

        async def call(request: Request) -> Reply:
            reply = await plain(request)
            body = reply.body
            if request.path.startswith("system_stats"):
                document = json.loads(body)
                document["system"]["comfyui_version"] = version
                body = json.dumps(document).encode()
            if request.path.startswith("history/"):
                document = json.loads(body)
                for entry in document.values():
                    for output in entry["outputs"].values():
                        for image in output.get("images", []):
                            image["filename"] = name
                body = json.dumps(document).encode()
            return structs.replace(reply, body=body)

        server.call = call  # type: ignore[method-assign]
        return server

    return made


@pytest.mark.parametrize("fetch", [False, True])
def test_a_file_named_in_latin_1_is_an_output_like_any_other(fetch: bool, tmp_path: Path) -> None:
    said: list[str] = []

    class Listening(RunProgress):
        def say(self, text: str) -> None:
            said.append(text)

    with in_thread(odd_server("0.33.0", NAME)) as (url, _):
        options = RunOptions(
            server=url,
            workflows=[WorkflowChoice(file=graph_file(tmp_path, sleeper(0.05)))],
            plan=Plan(load=Closed(concurrency=2), jobs=4, fetch=fetch),
            run_dir=str(tmp_path / "run"),
            telemetry=False,
        )
        run_clock(run(options, Listening(Screen(stderr=True))))
    records = [line for line in RunReader(tmp_path / "run").lines() if isinstance(line, Record)]
    assert len(records) == 4
    assert all(NAME in file for record in records for output in record.execution.outputs for file in output.files)
    if fetch:
        assert {fetched.problem for record in records for fetched in record.execution.fetches} <= {"HTTP 404", ""}
    invoke("show", tmp_path / "run")


def test_a_version_makes_no_line_of_its_own(tmp_path: Path) -> None:
    with in_thread(odd_server("0.33.0\n\nVALID. All is well.", "a.png")) as (url, _):
        done = CliRunner().invoke(app, ["doctor", "--server", url], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert r"0.33.0\n\nVALID. All is well." in done.output
        options = RunOptions(
            server=url,
            workflows=[WorkflowChoice(file=graph_file(tmp_path, sleeper(0.05)))],
            plan=Plan(load=Closed(concurrency=2), jobs=2),
            run_dir=str(tmp_path / "run"),
            telemetry=False,
        )
        run_clock(run(options, Viewer()))
    assert "\nVALID. All is well." not in invoke("show", tmp_path / "run")


def test_what_is_visible() -> None:
    assert visible("a\x1b[2J\n\t\x9b\u202e\udce9é\U0001f600") == r"a\u001b[2J\n\t\u009b\u202e\udce9é" + "\U0001f600"
    assert visible_lines('{"a": "\x7f\u2028"}\n') == '{"a": "\\u007f\\u2028"}\n'
    assert json.loads(visible_lines(json.dumps({"a": EVIL}, ensure_ascii=False)).replace("\n", r"\n")) == {"a": EVIL}


def test_a_screen_prints_nothing_that_steers(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table("head")
    table.add_row(Text(EVIL, style="red"))
    for part in (Text(EVIL), table, Panel(Text(EVIL))):
        Screen(width=300).print(part)
    out = capsys.readouterr().out
    assert STEERING.search(out) is None
    assert r"\u001b]0;PWNED" in out


def test_damage_is_still_damage() -> None:
    import msgspec

    with pytest.raises(msgspec.MsgspecError):
        decode(b'{"t": "\\udce9", "source"', msgspec.json.Decoder(Sample))
    with pytest.raises(msgspec.MsgspecError):
        decode(b'{"t": "\\udce9", "source": 1, "name": 2, "value": 3}', msgspec.json.Decoder(Sample))
