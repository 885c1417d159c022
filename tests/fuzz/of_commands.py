"""Run directories to which something happened, and every command that reads one: a line, an exit code, no traceback."""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
from typer.testing import CliRunner

from comfyload.cli import app_of
from comfyload.errors import ComfyloadError
from comfyload.record.codec import encode_pretty
from comfyload.record.options import RunOptions
from comfyload.visible import visible
from tests.fuzz.of_files import RUN, run_directory
from tests.fuzz.of_input import GRAPH, scratch
from tests.fuzz.target import Target
from tests.unit.judge_runs import manifest

app = app_of()

__all__ = ["COMMANDS", "MISHAPS", "PAGES", "TARGETS", "run_command"]

NOBODY = "http://127.0.0.1:9"
"""Where no server is: nothing leaves this machine."""

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "show": lambda run: ["show", str(run)],
    "salvage": lambda run: ["show", "--salvage", str(run), "-o", str(run.parent / "load.json")],
    "show-json": lambda run: ["show", "--json", str(run)],
    "show-job": lambda run: ["show", "--job", "0", str(run)],
    "salvage-job": lambda run: ["show", "--job", "2", "--json", "--salvage", str(run)],
    "check": lambda run: ["check", str(run), "--junit", str(run.parent / "junit.xml")],
    "compare": lambda run: ["compare", str(run), str(run_directory(run.parent / "whole"))],
    "export": lambda run: [
        "export",
        str(run),
        "--csv",
        str(run.parent / "x.csv"),
        "--prometheus",
        str(run.parent / "p"),
    ],
    "cleanup": lambda run: ["cleanup", str(run), "--server", NOBODY],
    "resume": lambda run: ["resume", str(run), "--server", NOBODY, "--quiet"],
}
PAGES: dict[str, Callable[[Path], list[str]]] = {
    "save": lambda run: ["baseline", "save", str(run), "--archive", str(run.parent / "archive")],
    "report": lambda run: ["report", str(run), "--html", str(run.parent / "report.html")],
}
CODES = {0, 1, 2, 3, 4, 5, 130}


def _huge(file: Path) -> None:
    with file.open("wb") as opened:
        opened.write(b" " * 4096)
        opened.truncate(1 << 30)


def _fifo(file: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)


def _loop(file: Path) -> None:
    with contextlib.suppress(OSError):  # Windows lets not everybody make a link
        file.symlink_to(file.name)


MISHAPS: dict[str, Callable[[Path], object]] = {
    "gone": lambda file: None,
    "a directory": Path.mkdir,
    "a FIFO": _fifo,
    "a loop": _loop,
    "empty": Path.touch,
    "huge": _huge,
    "blank lines": lambda file: file.write_bytes(b"\n" * 1000),
}


@cache
def _unfinished() -> bytes:
    """A manifest with which a run can be taken up again."""
    options = {
        "server": NOBODY,
        "workflows": [{"file": str(_workflow())}],
        "plan": {"load": {"kind": "closed"}, "jobs": 4},
    }
    return encode_pretty(manifest(4, end=None, ended_utc=None, options=msgspec.convert(options, RunOptions)))


@cache
def _workflow() -> Path:
    file = scratch() / "w.json"
    file.write_bytes(msgspec.json.encode(GRAPH))
    return file


def run_command(command: str, spoil: Callable[[Path], object]) -> int:
    """Run `command` on a run that was spoilt; its exit code.

    Raises:
        AssertionError: it does not say in one line what is wrong, or has no code of its own for it.
    """
    folder = scratch() / "commands"
    shutil.rmtree(folder, ignore_errors=True)
    changed = {"manifest": _unfinished()} if command in ("resume", "cleanup") else {}
    run = run_directory(folder / "run", **changed)
    spoil(run)
    result = CliRunner().invoke(app, (COMMANDS | PAGES)[command](run))
    error = result.exception
    if isinstance(error, ComfyloadError):
        assert error.message and "\n" not in visible(error.message)
        assert not error.lines, "a refusal of several lines"
        return error.exit_code
    if error is not None and not isinstance(error, SystemExit):
        raise error
    assert result.exit_code in CODES, f"exit code {result.exit_code}: {result.output[-300:]}"
    return result.exit_code


def _damaged(known: list[str]) -> Callable[[bytes], None]:
    """The content of one file, and behind it which command and which file."""

    def feed(data: bytes) -> None:
        content, _, chosen = data.rpartition(b"\n#")
        command, _, name = chosen.decode("latin-1").partition(" ")
        drawn = zlib.crc32(chosen)
        command = command if command in known else known[drawn % len(known)]
        name = name if name in RUN else list(RUN)[drawn // 64 % len(RUN)]
        run_command(command, lambda run: (run / name).write_bytes(content))

    return feed


def _seeds(known: list[str]) -> list[bytes]:
    found = []
    for command in known:
        for name, content in RUN.items():
            begun = _unfinished() if name == "manifest.json" and command in ("resume", "cleanup") else content
            found.append(begun + f"\n#{command} {name}".encode())
    return found


TARGETS = [
    Target(name="commands", what="commands on a run directory with a damaged file", feed=_damaged(list(COMMANDS)),
           seeds=_seeds(list(COMMANDS)), slow=True),
    Target(name="pages", what="report and baseline save on one", feed=_damaged(list(PAGES)),
           seeds=_seeds(list(PAGES)), slow=True, most_bytes=600 << 20, most_s=10.0),
]  # fmt: skip
