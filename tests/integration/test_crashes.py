"""A mistake of ours, and streams that cannot be written: one line, the right code, and nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_cli import graph_file
from tests.support.commands import COMMAND, call
from tests.support.servers import simulator

MISTAKE = """
import sys
from comfyload.app.run.session import Session
from comfyload.cli import main

def mistaken(session, line):
    raise KeyError("sekret77 hunter2")

Session._on_line = mistaken
main()
"""


@pytest.fixture(scope="module")
def sim() -> Iterator[str]:
    with simulator() as url:
        yield url


def test_a_mistake_of_ours_has_its_own_code_and_a_file_without_secrets(sim: str, tmp_path: Path) -> None:
    secret = sim.replace("http://", "http://user:hunter2@")
    words = ["run", "--server", secret, "--workflow", graph_file(tmp_path), "-n", "2", "--run-dir", "r"]
    done = subprocess.run(
        [sys.executable, "-c", MISTAKE, *words, "--header", "X-Key=sekret77", "-q"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 70
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: comfyload made a mistake: KeyError: '*** ***' — what was measured is kept; ")
    (file,) = (tmp_path / "r").glob("crash-*.txt")
    assert line.endswith(f"please report it with {file.relative_to(tmp_path)}")
    said = file.read_text(encoding="utf-8")
    assert "KeyError" in said and "session" in said
    assert "sekret77" not in said and "hunter2" not in said
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "r" / "manifest.json").read_text(encoding="utf-8"))["end"] == "crashed"


def test_a_mistake_outside_a_run_leaves_its_file_where_it_was_called(tmp_path: Path) -> None:
    broken = (
        "import comfyload.app.show as s\ns.show_job = lambda *a, **k: 1 / 0\nfrom comfyload.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken, "show", "x", "--job", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 70
    (file,) = tmp_path.glob("comfyload-crash-*.txt")
    assert done.stderr == (
        f"error: comfyload made a mistake: ZeroDivisionError: division by zero — please report it with {file.name}\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("streams", [">&-", "2>&- >/dev/null", ">&- 2>&- <&-", "2>/dev/full >/dev/null"])
def test_streams_that_cannot_be_written_end_no_run(streams: str, sim: str, tmp_path: Path) -> None:
    words = ["run", "--server", sim, "--workflow", graph_file(tmp_path), "-n", "2", "--run-dir", "r", "--as-is"]
    shell = " ".join([*COMMAND, *words, streams])
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, timeout=60, check=False, stderr=subprocess.DEVNULL)
    assert done.returncode in (0, 5)
    assert json.loads((tmp_path / "r" / "manifest.json").read_text(encoding="utf-8"))["end"] == "complete"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_error_that_cannot_be_said_keeps_its_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "run", "--server", ":1", "--workflow", graph_file(tmp_path)],
            cwd=tmp_path, stderr=full, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 4


def test_a_run_directory_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "r" / "manifest.json").mkdir(parents=True)
    done = call("show", "r", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: r is not a run directory: ")


@pytest.mark.skipif(os.name != "posix", reason="SIGPIPE is POSIX's")
@pytest.mark.parametrize("words", ["--help", "run --help", "sim --port 0"])
def test_a_reader_that_went_away_is_no_gate_that_failed(words: str, tmp_path: Path) -> None:
    line = f"{sys.executable} -m comfyload {words} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (141, "")


INTERRUPTED = """
import builtins
from comfyload.__main__ import start
real = builtins.__import__

def interrupted(name, *more):
    if name == "typer":
        raise KeyboardInterrupt
    return real(name, *more)

builtins.__import__ = interrupted
start()
"""


def test_an_interrupt_while_the_program_is_read_leaves_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


NO_ANSWER = """
import typer
from comfyload import cli

def asked():
    typer.confirm("More?")

app = cli.app_of()
app.command()(asked)
cli.main(app)
"""


def test_a_question_without_an_answer_is_no_gate_that_failed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ANSWER, "asked"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 130 and "Traceback" not in done.stderr
