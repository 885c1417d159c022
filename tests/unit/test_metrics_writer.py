"""An application's rows: one for each stage, whatever happens in it, and none lost or torn among several processes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import comfyload
from comfyload.record.metrics import writer as metrics_writer
from comfyload.record.metrics.files import LogFiles, older_files
from comfyload.record.metrics.log import row_of_line


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("COMFYUI_METRICS_LOG", raising=False)
    return tmp_path / "logs" / "comfyui_metrics.ndjson"


def rows(path: Path) -> list[dict[str, Any]]:
    with closing(LogFiles(path)) as files:
        return [json.loads(line) for _, line in files.lines()]


def test_a_stage_writes_one_row_when_it_ends(log: Path) -> None:
    before = datetime.now(UTC)
    with comfyload.stage("render", prompt_id="p1", log=log, page=3) as s:
        assert not log.exists()
        s.note(prompt_id="p2", seed=7)
    (row,) = rows(log)
    assert list(row) == ["event", "status", "error", "duration_ms", "timestamp", "context"]
    assert (row["event"], row["status"], row["error"]) == ("render", "ok", None)
    assert row["context"] == {"page": 3, "seed": 7, "prompt_id": "p2"}
    assert 0 <= row["duration_ms"] < 60_000
    assert row["timestamp"].endswith("Z") and before <= datetime.fromisoformat(row["timestamp"]) <= datetime.now(UTC)


def test_an_exception_passes_through_and_is_told(log: Path) -> None:
    with pytest.raises(KeyError), comfyload.stage("render", log=log):
        raise KeyError("seed")
    with pytest.raises(RuntimeError), comfyload.stage("render", log=log):
        raise RuntimeError
    first, second = rows(log)
    assert (first["status"], first["error"], first["exception"]) == ("error", "'seed'", "KeyError")
    assert (second["error"], second["exception"]) == ("RuntimeError", "RuntimeError")


def test_a_stage_that_is_cancelled_is_no_error(log: Path) -> None:
    async def main() -> None:
        async def work() -> None:
            async with comfyload.stage("render", log=log) as s:
                s.note(page=1)
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with comfyload.stage("render", log=log):
            pass

    asyncio.run(main())
    cancelled, ok = rows(log)
    assert (cancelled["status"], cancelled["error"], cancelled["exception"]) == ("interrupted", None, "CancelledError")
    assert ok["status"] == "ok"
    read = row_of_line(json.dumps(cancelled).encode())
    assert read is not None and read.error is None


def test_an_event_is_written_at_once(log: Path) -> None:
    comfyload.log_event("comfyui.queue", duration_ms=12.3, prompt_id="p", log=log, page=1)
    comfyload.log_event("comfyui.queue", error="gone", log=str(log))
    comfyload.log_event("comfyui.queue", error=ValueError("bad"), status="warning", log=log)
    first, second, third = rows(log)
    assert first["context"] == {"page": 1, "prompt_id": "p"} and first["duration_ms"] == 12.3
    assert (second["status"], second["error"], second["context"]) == ("error", "gone", {})
    assert (third["status"], third["error"], third["exception"]) == ("warning", "bad", "ValueError")


def test_whatever_is_no_json_becomes_its_text_and_nothing_is_endless(log: Path) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    endless: list[Any] = []
    endless.append(endless)
    comfyload.log_event(
        "x",
        log=log,
        path=Path("a/b"),
        nan=float("nan"),
        odd=Odd(),
        long="ü" * 5000,
        many=list(range(1000)),
        endless=endless,
        lone="\ud800",
        big=1 << 80,
        mapping={1: {"a"}, None: (True, None)},
    )
    (line,) = log.read_bytes().splitlines()
    context = json.loads(line)["context"]
    assert context["path"] == str(Path("a/b")) and context["nan"] == "nan" and context["lone"] == "\ud800"
    assert context["odd"] == "a Odd without a text"
    assert len(context["long"]) == 2000 and len(context["many"]) == 100 and context["big"] == str(1 << 80)
    assert context["mapping"] == {"1": "{'a'}", "None": [True, None]}
    assert len(line) < 50_000


def test_the_file_is_named_by_the_call_then_by_the_variable_then_by_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYUI_METRICS_LOG", "b/v.ndjson")
    comfyload.log_event("x", log="a/c.ndjson")
    comfyload.log_event("x")
    assert Path("a/c.ndjson").exists() and Path("b/v.ndjson").exists()
    monkeypatch.delenv("COMFYUI_METRICS_LOG")
    metrics_writer._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            comfyload.log_event("x")
    assert not Path("infra").exists()  # an application that runs elsewhere finds no folders that it never asked for
    assert len(caplog.records) == 1 and "$COMFYUI_METRICS_LOG names the log" in caplog.text
    Path("infra/observability").mkdir(parents=True)
    comfyload.log_event("x")
    assert len(rows(Path("infra/observability/comfyui_metrics.ndjson"))) == 1


def test_what_cannot_be_written_is_said_once_and_never_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            comfyload.log_event("x", log=tmp_path / "file" / "below")
            comfyload.log_event("x", log="a\0b")
    assert len(caplog.records) == 2


def test_a_full_log_is_renamed_and_the_oldest_dropped(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_METRICS_LOG_MAX_MB", "0.001")
    monkeypatch.setenv("COMFYUI_METRICS_LOG_KEEP", "2")
    for n in range(60):
        comfyload.log_event("x", log=log, n=n, text="x" * 100)
        assert log.stat().st_size <= 0.001 * 2**20
    assert [path.name for path in older_files(log)] == [f"{log.name}.2", f"{log.name}.1"]
    numbers = [row["context"]["n"] for row in rows(log)]
    assert numbers == list(range(numbers[0], 60)) and 8 <= len(numbers) < 20


def test_a_log_whose_first_row_is_old_is_renamed(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.parent.mkdir()
    week_ago = datetime.now(UTC) - timedelta(hours=169)
    log.write_text(json.dumps({"event": "old", "timestamp": week_ago.isoformat()}) + "\n")
    comfyload.log_event("new", log=log)
    assert [row["event"] for row in map(json.loads, log.read_text().splitlines())] == ["new"]
    assert [row["event"] for row in rows(log)] == ["old", "new"]
    log.write_text('{"event": "no time"}\n')
    comfyload.log_event("new", log=log)
    assert len(log.read_text().splitlines()) == 2


def test_while_another_rotates_nobody_waits(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_METRICS_LOG_MAX_MB", "0.001")
    comfyload.log_event("first", log=log, text="x" * 900)
    with metrics_writer.locked(log) as ours:
        assert ours
        comfyload.log_event("second", log=log, text="x" * 900)
    assert older_files(log) == [] and len(rows(log)) == 2
    comfyload.log_event("third", log=log)
    assert len(older_files(log)) == 1 and len(rows(log)) == 3


def test_a_row_never_continues_a_line_that_was_left_torn(log: Path) -> None:
    log.parent.mkdir()
    log.write_text('{"event": "x", "timest')
    os.utime(log, (1e9, 1e9))
    comfyload.log_event("whole", log=log)
    torn, whole = log.read_text().splitlines()
    assert torn == '{"event": "x", "timest' and json.loads(whole)["event"] == "whole"


def test_threads_lose_and_tear_nothing(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_METRICS_LOG_MAX_MB", "0.002")
    monkeypatch.setenv("COMFYUI_METRICS_LOG_KEEP", "1000")

    def work(who: int) -> None:
        for n in range(100):
            comfyload.log_event("x", log=log, who=who, n=n)

    threads = [Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [(row["context"]["who"], row["context"]["n"]) for row in rows(log)]
    assert sorted(found) == [(who, n) for who in range(4) for n in range(100)]


WRITER = """
import sys, comfyload
who = int(sys.argv[1])
for n in range(500):
    with comfyload.stage("x", who=who) as s:
        s.note(n=n, text="y" * (n % 300))
"""


def test_four_processes_with_a_tiny_log_lose_and_tear_nothing(log: Path) -> None:
    environment = {
        **os.environ,
        "COMFYUI_METRICS_LOG": str(log),
        "COMFYUI_METRICS_LOG_MAX_MB": "0.004",
        "COMFYUI_METRICS_LOG_KEEP": "1000",
    }
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(who)], env=environment) for who in range(4)]
    assert [writer.wait(timeout=50) for writer in writers] == [0] * 4
    assert len(older_files(log)) > 1
    found = [(row["context"]["who"], row["context"]["n"]) for row in rows(log)]
    assert sorted(found) == [(who, n) for who in range(4) for n in range(500)]
    for who in range(4):
        assert [n for one, n in found if one == who] == list(range(500))


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import comfyload, sys; print(sorted(name for name in sys.modules if name.startswith('comfyload')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['comfyload']"
    heavy = "import sys; from comfyload import stage; print({'msgspec', 'numpy', 'aiohttp', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    with pytest.raises(AttributeError):
        _ = comfyload.nothing
