"""Runs commands against scenarios: each in a process of its own, forked from one that has everything loaded.

A fork saves the seconds that Python and numpy take to start; what runs in it is the command line's own `main`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile.server import Scenario
from tests.support.rig import SLEEPER

__all__ = ["MOST_MB", "Done", "Driver", "faults_of", "prepare_dead_run"]

MOST_MB = 300
GONE_S = 10.0
"""How long a server is out of reach before its jobs are lost; a tenth of what it is, or the table took half an hour."""
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LATE, ALL = "partly the generator's", re.compile(r"\b(\d+) of \1 completed")
"""A run in which all went well on a machine that is busy with others."""

UNREAD = "The server sent what cannot be read"
TRACES = ("Traceback", "Exception in thread", "Task exception was never", "Unclosed", "object at 0x", "never awaited")
ALLOWED = {"run": {0, 2, 4, 5}, "doctor": {0, 2, 3, 4}, "resume": {0, 2, 4, 5}, "connect": {0, 1, 2, 4}, "show": {0, 5}}
"""By command, the exit codes that the documentation has for what a server can do."""


@dataclass
class Done:
    """How one command ended. `code` None: it had to be killed."""

    scenario: str
    command: str
    code: int | None
    seconds: float
    mb: float
    out: str
    err: str
    folder: Path
    faults: list[str] = field(default_factory=list)


def arguments(command: str, scenario: Scenario, url: str) -> list[str]:
    """The command line; `connect` is no command and has none."""
    if command == "doctor":
        return ["doctor", "--server", url, "--workflow", "g.json"]
    if command == "resume":
        return ["resume", "r", "--server", url, "--workflow", "g.json"]
    few = ["--jobs", "3", "--concurrency", "2"]
    more = ["--timeout", "2", "--fetch", "--run-dir", "r", "-o", "out.json"]
    return ["run", "--server", url, "--workflow", "g.json", *few, *more, *scenario.arguments]


def _connect(url: str) -> int:
    """A program that uses the library."""
    import comfyload
    from comfyload.errors import ComfyloadError
    from comfyload.visible import visible

    try:
        with comfyload.connect(url) as comfy:
            done = comfy.run("g.json", deadline_s=4.0)
            sys.stdout.write(visible(f"{done.outcome} {done.failure}\n") + "\n")
            if done.outcome == "completed":
                comfy.fetch(done)
            return 0 if done.outcome == "completed" else 1
    except ComfyloadError as error:
        sys.stderr.write(f"error: {visible(str(error))}\n")
        return error.exit_code


def _child(job: dict[str, Any]) -> None:
    """Within the fork: run the command and leave."""
    import traceback

    os.chdir(job["folder"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="strict", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    os.environ |= job["env"]
    code = 1
    try:
        if job["command"] == "connect":
            code = _connect(job["url"])
        else:
            from comfyload.cli import main

            sys.argv = ["comfyload", *job["argv"]]
            main()
            code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def forker() -> None:
    """The process that forks: a job a line on standard input, its end a line on standard output. It has no threads."""
    for name in (
        "app.run.launch",
        "app.run.resume",
        "app.doctor",
        "app.summary",
        "app.check",
        "report.html",
        "report.charts",
        "cli.progress",
        "app.library.connect",
        "judge.summary",
    ):
        with contextlib.suppress(ImportError):
            __import__(f"comfyload.{name}")
    import typer.main

    from comfyload.app.run import session
    from comfyload.cli import app_of
    from comfyload.comfy.timeouts import Timeouts

    session.Timeouts = partial(Timeouts, unreachable_s=GONE_S)  # type: ignore[misc, assignment]

    typer.main.get_command(app_of())  # loads what it needs
    under_way: dict[int, tuple[str, float, float]] = {}
    os.set_blocking(0, False)
    buffered = b""
    over = False
    while not over or under_way:
        try:
            data = os.read(0, 1 << 16)
            over = data == b""
            buffered += data
        except BlockingIOError:
            pass
        *lines, buffered = buffered.split(b"\n")
        for line in lines:
            job = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _child(job)
            under_way[pid] = job["id"], time.monotonic(), job["bound_s"]
        while under_way:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                break
            name, began, _ = under_way.pop(pid)
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            answer = {"id": name, "code": code, "seconds": time.monotonic() - began, "mb": usage.ru_maxrss / 1024}
            os.write(1, json.dumps(answer).encode() + b"\n")
        for pid, (_, began, bound_s) in under_way.items():
            if time.monotonic() - began > bound_s:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


class Driver:
    """Commands on their way. `at_once`: how many run beside each other; most of them wait."""

    def __init__(self, url: str, folder: Path, at_once: int) -> None:
        self._url, self._folder = url, folder
        self._places = asyncio.Semaphore(at_once)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Driver:
        code = "from tests.hostile.drive import forker; forker()"
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer)

    async def command(self, scenario: Scenario, command: str, dead: Path | None = None) -> Done:
        """Run one command against one scenario, then `show` what it left; with what is wrong about either."""
        async with self._places:
            folder = self._folder / f"{scenario.name}~{command}"
            folder.mkdir(parents=True)
            (folder / "g.json").write_text(json.dumps(SLEEPER))
            (folder / "in.png").write_bytes(b"\x89PNG\r\n\x1a\n")
            if command == "resume":
                assert dead is not None
                shutil.copytree(dead, folder / "r")
            url = f"{self._url}/{scenario.name}~{command}"
            done = await self._one(scenario, command, arguments(command, scenario, url), url, folder)
            done.faults += faults_of(done, scenario)
            if (folder / "r" / "manifest.json").exists() and done.code is not None:
                shown = await self._one(scenario, "show", ["show", "r"], url, folder)
                done.faults += [f"show: {fault}" for fault in faults_of(shown, scenario)]
                done.faults += list(_unreadable_lines(folder / "r"))
            return done

    async def _one(self, scenario: Scenario, command: str, argv: list[str], url: str, folder: Path) -> Done:
        assert self._process is not None and self._process.stdin is not None
        env = {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}
        job = {
            "id": f"{scenario.name}~{command}~{time.monotonic_ns()}",
            "command": command,
            "argv": argv,
            "url": url,
            "env": env,
            "folder": str(folder),
            "bound_s": scenario.bound_s,
        }
        answer = self._waiting[str(job["id"])] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        await self._process.stdin.drain()
        ended = await answer
        out, err = ((folder / name).read_bytes() for name in ("stdout", "stderr"))
        for name in ("stdout", "stderr"):
            (folder / name).rename(folder / f"{command}.{name}")
        return Done(
            scenario.name,
            command,
            ended["code"],
            ended["seconds"],
            ended["mb"],
            out.decode("utf-8", "surrogateescape"),
            err.decode("utf-8", "surrogateescape"),
            folder,
        )


def faults_of(done: Done, scenario: Scenario) -> Iterator[str]:
    """What is wrong about how a command ended."""
    if done.code is None:
        yield f"killed after {done.seconds:.0f} s"
        return
    printed = done.out + done.err
    for trace in TRACES:
        if trace in printed:
            yield f"{trace}: {_last(printed, trace)}"
    right = scenario.codes.get(done.command, ())
    if done.code not in ALLOWED[done.command]:
        yield f"exit code {done.code}"
    elif right and done.code not in right and not (done.code == 5 and LATE in printed and ALL.search(printed)):
        yield f"exit code {done.code}, not {' or '.join(map(str, right))}: {' '.join(printed.split())[:500]}"
    if done.mb > MOST_MB:
        yield f"{done.mb:.0f} MB"
    if (steering := STEERING.search(printed)) is not None:
        yield f"prints {steering[0]!r}"
    if done.command in ("run", "resume", "connect") and done.code in (2, 4):
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        if len(errors) != 1 or len(errors[0]) > 2000:
            yield f"{len(errors)} errors of {sum(map(len, errors))} letters: {done.err[-100:]!r}"
        elif done.command != "connect" and " — " not in done.err and "Nothing was submitted" not in done.err:
            yield f"no hint: {errors[0][:100]}"
    if done.command == "run" and scenario.unreadable and UNREAD not in printed and not ALL.search(printed):
        yield "does not say what could not be read"
    if done.command == "run" and scenario.says and not any(word in printed for word in scenario.says):
        yield f"does not say {scenario.says[0]!r}"


def _unreadable_lines(path: Path) -> Iterator[str]:
    """What our own reader refuses of a run directory."""
    from comfyload.record.run import RunReader

    try:
        reader = RunReader(path)
        for part in (reader.lines(), reader.samples(), reader.log()):
            for _ in part:
                pass
    except Exception as error:  # noqa: BLE001 - it is the result
        yield f"the run cannot be read: {type(error).__name__}: {error}"[:200]
    if (size := sum(file.stat().st_size for file in path.iterdir() if file.is_file())) > 64 << 20:
        yield f"a run directory of {size >> 20} MiB"


def _last(printed: str, trace: str) -> str:
    after = printed[printed.index(trace) :].splitlines()
    found = [line for line in after if line and not line.startswith((" ", "Traceback", "+", "|"))]
    return (found[0] if found else after[-1])[:160]


def prepare_dead_run(url: str, folder: Path) -> Path:
    """The directory of a run whose process was killed while a job of it ran."""
    import subprocess

    folder.mkdir(parents=True)
    (folder / "g.json").write_text(json.dumps(SLEEPER))
    argv = [
        "run",
        "--server",
        f"{url}/dead~run",
        "--workflow",
        "g.json",
        "-n",
        "4",
        "-c",
        "2",
        "--run-dir",
        "r",
        "--no-telemetry",
        "--timeout",
        "2",
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            str(Path(p).resolve()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p
        )
    }
    with subprocess.Popen(
        [sys.executable, "-m", "comfyload", *argv],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        records, until = folder / "r" / "records.ndjson", time.monotonic() + 20
        while time.monotonic() < until and (not records.exists() or records.read_bytes().count(b'"sent"') < 2):
            time.sleep(0.02)
        process.kill()
    return folder / "r"


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
