"""`logs`: rows of probe and applications in order, a line each, through rotation, and text of others never obeyed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from comfyload.app.log_place import LogPlace
from comfyload.app.logs import LogQuery, print_log
from comfyload.cli import app_of
from comfyload.cli.signature import instant
from comfyload.errors import RunFilesError, UsageError
from comfyload.record.metrics import log as metrics_log
from comfyload.record.metrics.files import LogFiles, older_files
from comfyload.record.metrics.log import InOrder, log_row
from comfyload.report.console import Screen
from comfyload.report.logs import Printer

app = app_of()

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
A, B, C = (f"{sign * 8}-0000-4000-8000-000000000000" for sign in "abc")
EVIL = "out of\x1b[31m memory\x07 [bold]x[/bold] <b> \u202e"


@pytest.fixture(autouse=True)
def _greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("COMFYUI_METRICS_LOG", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Rows:
    """Rows as the probe and an application write them."""

    def __init__(self) -> None:
        self.seq = 0

    def probe(self, event: str, at: float, **fields: Any) -> dict[str, Any]:
        self.seq += 1
        own = {"schema": 1, "event": event, "timestamp": stamp(at), "mono_s": at, "boot": "1f2e3d4c", "seq": self.seq}
        return {**own, **fields}


def stamp(at: float) -> str:
    return (BEGAN + timedelta(seconds=at)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def application(event: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"event": event, "status": "ok", "error": None, "timestamp": stamp(at), **fields}


def story() -> list[dict[str, Any]]:
    """A job that goes well, one that runs out of memory, and its retry, which somebody interrupts."""
    probe = Rows().probe
    ended: dict[str, Any] = {"start_mono_s": 1.0, "nodes_run": 5, "nodes_cached": 7, "vram_peak_bytes": None}
    bad = {"level": "error", "error": "out of memory", "exception_type": "OOM", "node": "3", "class_type": "KSampler"}
    return [
        probe("prompt.queued", 1, prompt_id=A, number=1, queue_depth=0, node_count=12),
        probe("prompt.started", 1.01, prompt_id=A, waited_ms=9.2, queue_depth=1),
        probe("sample", 2, queue_depth=1, process={}, gpus=[{"index": 0, "utilisation_percent": 98, "power_w": None}]),
        probe("node", 3, prompt_id=A, node="3", class_type="KSampler", status="run", duration_ms=1990.0),
        probe("prompt.ended", 14, prompt_id=A, status="ok", duration_ms=12990.0, **ended),
        probe("prompt.queued", 14.5, prompt_id=B, number=2, queue_depth=0, node_count=12),
        application("comfyui.queue", 14.2, duration_ms=13051.2, context={"prompt_id": A, "page": 3}),
        probe("node", 16, prompt_id=B, node="3", class_type="KSampler", status="error", duration_ms=1500.0),
        probe("prompt.ended", 16.1, prompt_id=B, status="error", duration_ms=1600.0, **{**ended, **bad}),
        application("comfyui.queue", 16.2, status="error", error=EVIL, context={"prompt_id": B}),
        probe("prompt.queued", 17, prompt_id=C, number=3, queue_depth=0, node_count=12, attempt=2, retry_of=B),
        probe("prompt.ended", 18, prompt_id=C, status="interrupted", duration_ms=None, **ended),
        probe("probe.problem", 19, level="warning", error="17 rows were dropped"),
    ]


def write(path: Path, rows: list[dict[str, Any]], more: bytes = b"") -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + more)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "m.ndjson", story(), b"Traceback:\n")


def shown(
    log: Path, *, width: int = 80, terminal: bool = True, as_json: bool = False, follow: bool = False, **chosen: Any
) -> list[str]:
    """The lines that are printed, without colour."""
    file = io.StringIO()
    console = Screen(file=file, width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    print_log(LogPlace(path=log), LogQuery(**chosen), Printer(console, as_json=as_json), follow=follow)
    return file.getvalue().splitlines()


def events(log: Path, **chosen: Any) -> list[str]:
    return [json.loads(line)["event"] for line in shown(log, as_json=True, **chosen)]


def test_rows_are_shown_in_the_order_of_their_times_without_samples(log: Path) -> None:
    lines = shown(log)
    assert lines[0] == "2026-03-01, local time (UTC+00:00)"
    times = [line.split()[0] for line in lines if line.startswith("12:")]
    assert len(times) == 12 and times == sorted(times)
    assert not any(" sample " in line and line.startswith("12:") for line in lines)
    assert "12:00:03.000 node           aaaaaaaa 3 KSampler 1.99 s run" in lines
    assert "12:00:14.000 prompt.ended   aaaaaaaa 5 run, 7 cached 13.0 s ok" in lines
    at = lines.index("12:00:14.200 comfyui.queue  aaaaaaaa 13.1 s ok page=3")
    assert "prompt.queued  bbbbbbbb 12 nodes" in lines[at + 1]


def test_errors_are_marked_by_a_word_and_counted_by_their_text(log: Path) -> None:
    lines = shown(log)
    assert "12:00:16.100 prompt.ended   bbbbbbbb 3 KSampler 1.60 s ERROR OOM: out of memory" in lines
    assert any(line.endswith(" WARNING 17 rows were dropped") for line in lines)
    assert lines[-4:] == [
        "12 of 13 rows, 1 sample left out (--samples); 2 errors.",
        "ERROR 1 \N{MULTIPLICATION SIGN} OOM: out of memory",
        "ERROR 1 \N{MULTIPLICATION SIGN} out of [31m memory [bold]x[/bold] <b>",
        "1 line without a JSON object; the first is line 14: Traceback:",
    ]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_obeyed(log: Path, width: int) -> None:
    for line in shown(log, width=width, samples=True):
        assert len(line) <= width and line == line.rstrip()
        assert not any(sign in line for sign in "\x1b\x07\u202e")


def test_colour_is_for_terminals_alone_and_adds_nothing_but_colour(log: Path) -> None:
    file = io.StringIO()
    console = Screen(file=file, width=80, force_terminal=True, color_system="standard", legacy_windows=False)
    print_log(LogPlace(path=log), LogQuery(), Printer(console, as_json=False))
    assert "\x1b[1;31mERROR" in file.getvalue()
    from rich.text import Text

    assert [Text.from_ansi(line).plain for line in file.getvalue().splitlines()] == shown(log)
    assert "\x1b" not in "".join(shown(log, terminal=False))


def test_in_a_pipe_each_row_is_one_line_with_its_day_and_its_whole_text(log: Path) -> None:
    lines = shown(log, terminal=False, samples=True)
    assert len(lines) == 13 and all(line.startswith("2026-03-01 12:00:") for line in lines)
    (failed,) = [line for line in lines if "prompt.ended" in line and "ERROR" in line]
    assert failed.endswith("ERROR OOM: out of memory")
    assert any(line.endswith("1 in the queue, GPU 0 98 %") for line in lines)


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({"errors": True}, ["node", "prompt.ended", "comfyui.queue"]),
        ({"events": ["comfyui.*", "probe.*"]}, ["comfyui.queue", "comfyui.queue", "probe.problem"]),
        ({"events": ["sample"]}, ["sample"]),
        ({"prompt": "cc"}, ["prompt.queued", "prompt.ended"]),
        ({"node": "3"}, ["node", "node", "prompt.ended"]),
        ({"last": 2}, ["prompt.ended", "probe.problem"]),
        ({"since": BEGAN + timedelta(seconds=18)}, ["prompt.ended", "probe.problem"]),
        ({"until": BEGAN + timedelta(seconds=1)}, ["prompt.queued"]),
        ({"errors": True, "prompt": "bb", "events": ["prompt.*"]}, ["prompt.ended"]),
    ],
)
def test_rows_are_chosen(log: Path, chosen: dict[str, Any], found: list[str]) -> None:
    assert events(log, **chosen) == found


def test_rows_as_json_are_those_that_were_written(log: Path) -> None:
    lines = shown(log, as_json=True, samples=True)
    written = sorted(story(), key=lambda row: row["timestamp"])
    assert [json.loads(line) for line in lines] == written
    assert not any(sign in line for line in lines for sign in "\x1b\u202e")
    assert shown(log, as_json=True, terminal=False, samples=True) == lines


def test_rows_of_several_writers_are_put_in_order_within_a_bounded_look_back() -> None:
    rows = [log_row({"timestamp": stamp(at)}) for at in (3, 1, 2, 6, 5, 4)]
    order = InOrder(look_back=2)
    out = [row for one in rows for row in order.add(one)] + list(order.rest())
    assert [row.utc for row in out if row.utc] == [BEGAN + timedelta(seconds=at) for at in (1, 2, 3, 4, 5, 6)]
    order = InOrder()
    given = [log_row({"timestamp": stamp(2)}), log_row({"n": 1}), log_row({"timestamp": stamp(1)})]
    assert [list(order.add(row)) for row in given] == [[], [], []]
    assert [row.raw.get("n", 0) for row in order.rest()] == [0, 0, 1]


def test_older_files_are_read_as_far_as_since_asks(tmp_path: Path) -> None:
    log = tmp_path / "m[1].ndjson"
    for number, name in enumerate((f"{log.name}.10", f"{log.name}.2", f"{log.name}.1", log.name)):
        path = write(tmp_path / name, [application(f"e{number}", 60 * number)])
        written = (BEGAN + timedelta(seconds=60 * number)).timestamp()
        os.utime(path, (written, written))
    write(tmp_path / f"{log.name}.gz", [application("no", 0)])
    assert [path.name for path in older_files(log)] == [f"{log.name}.{n}" for n in (10, 2, 1)]
    assert events(log) == ["e3"]
    assert events(log, older=True) == ["e0", "e1", "e2", "e3"]
    since = BEGAN + timedelta(seconds=120)
    assert events(log, since=since) == ["e2", "e3"]
    assert events(log, since=since, older=False) == ["e3"]
    said = shown(log)[-1]
    assert said == f"Older rows are in {log.name}.1 to {log.name}.10: --rotated shows them too."
    log.unlink()
    assert events(log, older=True) == ["e0", "e1", "e2"]
    found = metrics_log.read_log(log, BEGAN, BEGAN + timedelta(hours=1))
    assert [row.event for row in found.rows] == ["e0", "e1", "e2"]


def test_a_log_is_followed_through_rotation_and_cutting(tmp_path: Path) -> None:
    log = tmp_path / "m.ndjson"

    def add(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    add("1\n2\n3")
    with closing(LogFiles(log, older=False)) as files:

        def new(looks: int = 2) -> list[str]:
            return [line.decode().strip() for _ in range(looks) for _, line in files.lines(growing=True)]

        assert new() == ["1", "2"]
        add("3\n")
        assert new() == ["33"]
        add("4\n")
        log.rename(f"{log}.1")
        add("5\n")
        assert new(looks=1) == ["4"]  # a writer may not have noticed the renaming
        with Path(f"{log}.1").open("a") as file:
            file.write("4b\n")
        assert new(looks=1) == ["4b", "5"]
        add("6\n")
        for number in (2, 1):  # twice between two looks
            Path(f"{log}.{number - 1}").rename(f"{log}.{number}") if number > 1 else log.rename(f"{log}.1")
        Path(f"{log}.1").rename(f"{log}.2")
        log.write_text("7\n")
        log.rename(f"{log}.1")
        assert new() == ["6"]  # the name is gone for a moment
        log.write_text("8\n")
        assert new() == ["7", "8"]
        log.write_text("9\n")
        assert new() in (["9"], [])  # of the same length: only a shorter file shows that it was cut
        log.write_text("")
        assert new() == []
        add("10\n")
        assert new() == ["10"]


def test_following_shows_what_comes_and_ends_cleanly_by_ctrl_c(log: Path) -> None:
    words = [sys.executable, "-m", "comfyload", "logs", str(log), "-f", "--json", "--last", "1"]
    # A shell that starts the tests in the background has them ignore it, and what they start would inherit that.
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, heeded)
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "probe.problem"
            log.rename(f"{log}.1")
            write(log, [application("later", 31), application("earlier", 30)])
            assert json.loads(process.stdout.readline())["event"] == "earlier"
            assert json.loads(process.stdout.readline())["event"] == "later"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    unread = "1 line without a JSON object; the first is line 14: Traceback:\n"
    assert (process.returncode, errors) == (0, unread)


def test_following_waits_for_a_log_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "m.ndjson"
    threading.Timer(0.3, lambda: write(log, story()[:1])).start()
    polls = iter(range(20))

    def sleep(seconds: float) -> None:
        if log.exists() and next(polls) > 2:
            raise KeyboardInterrupt
        threading.Event().wait(0.05)

    monkeypatch.setattr("comfyload.app.logs.time.sleep", sleep)
    assert events(log, follow=True) == ["prompt.queued"]


def test_a_runs_own_log_is_shown_by_its_folder_and_each_row_once(tmp_path: Path) -> None:
    import msgspec

    from tests.unit.judge_runs import manifest

    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_bytes(msgspec.json.encode(manifest(1)))
    rows = story()[:3]
    lines = [{"t": 1.5 * n, "source": "probe", "row": row} for n, row in enumerate(rows)]
    lines += [{"t": None, "source": "log", "row": rows[1]}, {"t": 9.0, "source": "log", "row": {"event": "bare"}}]
    write(run / "log.ndjson", lines)
    for target in (run, run / "log.ndjson"):
        done = CliRunner().invoke(app, ["logs", str(target), "--json", "--samples"])
        assert sorted(json.loads(line)["event"] for line in done.stdout.splitlines()) == [
            "bare",
            "prompt.queued",
            "prompt.started",
            "sample",
        ]
    done = CliRunner().invoke(app, ["logs", str(run), "--event", "bare"])
    assert done.stdout.startswith("2026-01-01 00:00:09.000 bare")
    (run / "log.ndjson").unlink()
    with pytest.raises(UsageError, match="has no log of its own"):
        CliRunner().invoke(app, ["logs", str(run)], catch_exceptions=False)
    (tmp_path / "baseline").mkdir()
    write(tmp_path / "baseline" / "comfyui_metrics.ndjson", rows)
    assert len(CliRunner().invoke(app, ["logs", str(tmp_path / "baseline"), "--json"]).stdout.splitlines()) == 2


def test_what_is_not_there_is_named_with_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def refusal(*words: str) -> str:
        with pytest.raises(UsageError) as refused:
            CliRunner().invoke(app, ["logs", *words], catch_exceptions=False)
        assert refused.value.hint and "\n" not in str(refused.value)
        return str(refused.value)

    assert "infra/observability/comfyui_metrics.ndjson; $COMFYUI_METRICS_LOG is not set" in refusal()
    assert "no log at infra" in refusal("--follow"), "nothing is waited for that nobody named"
    assert "nowhere.ndjson" in refusal("nowhere.ndjson")
    assert "neither comfyui_metrics.ndjson nor a run" in refusal(str(tmp_path))
    assert "invalid --since 'soon'" in refusal("x", "--since", "soon")
    monkeypatch.setenv("COMFYUI_METRICS_LOG", "other.ndjson")
    assert "other.ndjson, which $COMFYUI_METRICS_LOG names" in refusal()
    write(tmp_path / "other.ndjson", story())
    assert len(CliRunner().invoke(app, ["logs", "--json"]).stdout.splitlines()) == 12


def test_without_a_name_the_log_of_the_last_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order: the run's --metrics-log, what its server's probe reports, the run's own log."""
    import msgspec

    from comfyload.app import log_place
    from comfyload.app.probe import Running
    from comfyload.errors import ServerUnreachable
    from comfyload.record.options import RunOptions
    from tests.unit.judge_runs import manifest

    monkeypatch.chdir(tmp_path)
    written = write(tmp_path / "server.ndjson", story())
    reported: list[str | None] = [None]

    async def ask(options: RunOptions) -> Running:
        if reported[0] is None:
            raise ServerUnreachable("nobody")
        return Running(url=options.server, log=reported[0])

    monkeypatch.setattr(log_place, "ask", ask)
    made = manifest(1)
    for name, used in (("20260101-checklist/01", None), ("20260102", str(written))):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        options = msgspec.structs.replace(made.options, metrics_log=used)
        begun = {"20260102": "2026-01-02T00:00:00+00:00"}.get(name, made.started_utc)
        one = msgspec.structs.replace(made, options=options, started_utc=begun)
        (run / "manifest.json").write_bytes(msgspec.json.encode(one))
        write(run / "log.ndjson", [{"t": 1.0, "source": "probe", "row": story()[0]}])
    assert log_place.search(None).path == written
    written.rename(tmp_path / "moved.ndjson")
    assert log_place.search(None).path == Path("runs/20260102/log.ndjson")
    with pytest.raises(RunFilesError):
        log_place.search(None, follow=True)  # nobody writes to what a run kept
    reported[0] = str(tmp_path / "moved.ndjson")
    assert log_place.search(None, follow=True).path == tmp_path / "moved.ndjson"
    reported[0] = "/elsewhere/m.ndjson"
    with pytest.raises(RunFilesError, match="not on this machine"):
        log_place.search("127.0.0.1:8188")


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("1.5h", 5400), ("3 d", 259200)])
def test_a_time_ago_is_understood(text: str, seconds: float) -> None:
    assert abs((datetime.now(UTC) - instant(text, "--since")).total_seconds() - seconds) < 5


def test_an_instant_without_an_offset_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    assert instant("2026-03-01T13:00", "--since") == BEGAN == instant("2026-03-01T12:00Z", "--since")


def test_a_reader_that_goes_away_ends_it_quietly(log: Path) -> None:
    write(log, story() * 3000)
    words = f"{sys.executable} -m comfyload logs {log} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (141, "", 1)


def test_a_terminal_that_shows_only_ascii_gets_no_other_signs(log: Path) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", newline="\n", write_through=True)
    write(log, [application("über", 1, context={"titel": "Bücher …"})])
    console = Screen(file=file, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    print_log(LogPlace(path=log), LogQuery(), Printer(console, as_json=False))
    assert b"uber" in raw.getvalue()
