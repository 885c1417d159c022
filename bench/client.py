"""The table of clients, and one run of one of them that did what it should."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench import server
from bench.case import OURS, Setting
from bench.process import Missing, Usage, built, cost_of, needed

INVALID = 5
"""Exit code of a run of comfyload whose numbers do not count."""

OUTRUN = {"generator_late", "generator_busy", "rate_missed", "overload", "dropped_arrivals", "server_clock_rate"}
"""Findings that make it so and are no fault here: the server takes no time, or the client's cpu is too busy."""


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """`jobs`: of a short and of a long run, whose difference is what a job costs. `most`: jobs in flight, at most.

    `needs`: modules that must be installed.
    """

    module: str = ""
    needs: tuple[str, ...] = ()
    jobs: tuple[int, int] = (256, 1256)
    most: int = 512


CLIENTS = {
    OURS: Client(jobs=(500, 5000)),
    "prototype": Client(module="prototype", needs=("httptools", "picows", "uvloop"), jobs=(1000, 12_000)),
    "aiohttp, best": Client(module="aiohttp_best", needs=("orjson", "uvloop"), jobs=(600, 3000)),
    "aiohttp, naive": Client(module="aiohttp_naive", jobs=(600, 2600)),
    "Locust FastHttpUser": Client(module="locust_fast", needs=("locust", "websocket"), most=128),
    "httpx + websockets": Client(
        module="httpx_websockets", needs=("httpx", "orjson", "websockets"), jobs=(256, 756), most=128
    ),
    "threads, requests": Client(module="threads", needs=("requests", "websocket"), jobs=(256, 756), most=64),
    "C, epoll": Client(jobs=(2000, 30_000)),
}


class Ran(NamedTuple):
    """What a run cost, and the folder of its files until the next one."""

    usage: Usage
    folder: Path


@contextmanager
def ran(
    client: str,
    setting: Setting,
    jobs: int,
    in_flight: int,
    *,
    sockets: int = 1,
    fetch: bool = False,
    module: str = "comfyload",
) -> Iterator[Ran]:
    """One run of a closed loop, which has posted exactly its jobs and completed them. `module`: what runs `comfyload`.

    Raises:
        Missing: the client cannot run here, or did not do its work.
    """
    with tempfile.TemporaryDirectory(dir=setting.folder) as name:
        folder = Path(name)
        if client == OURS:
            flags = ["--jobs", str(jobs), "--concurrency", str(in_flight), *(["--fetch"] if fetch else [])]
            command = ours(setting, folder, flags, module)
        else:
            command = theirs(client, setting, jobs, in_flight, folder, sockets, fetch)
        before = server.stat(setting.url, "jobs")
        usage = cost_of(command, setting)
        posted = server.stat(setting.url, "jobs") - before
        if client == OURS:
            check_ours(usage, folder, jobs, command)
        else:
            needed(usage, command)
        if posted != jobs:
            raise Missing(f"{posted:g} jobs posted instead of {jobs}")
        yield Ran(usage, folder)


def per_job(
    client: str,
    setting: Setting,
    in_flight: int,
    *,
    sockets: int = 1,
    fetch: bool = False,
    jobs: tuple[int, int] | None = None,
) -> float:
    """CPU microseconds of a job: the slope between two lengths, so that start-up and the report's start drop out."""
    found = CLIENTS[client]
    short, long = jobs or found.jobs
    in_flight = min(in_flight, found.most)
    if setting.quick:
        short, long, in_flight = short // 4, short // 4 + (long - short) // 8, min(in_flight, 64)
    cpu = []
    for length in (short, long):
        with ran(client, setting, length, in_flight, sockets=sockets, fetch=fetch) as run:
            cpu.append(run.usage.cpu_s)
    return (cpu[1] - cpu[0]) / (long - short) * 1e6


def ours(setting: Setting, folder: Path, flags: Sequence[str], module: str = "comfyload") -> list[str]:
    """`comfyload run` as a user runs it, with all that it does by default; its files go to the folder."""
    where = ["--server", setting.url, "--workflow", str(setting.workflow)]
    files = ["--output", str(folder / "result.json"), "--run-dir", str(folder / "run"), "--quiet"]
    return [sys.executable, "-m", module, "run", *where, "--timeout", "120", *files, *flags]


def check_ours(usage: Usage, folder: Path, jobs: int, command: Sequence[str]) -> dict[str, Any]:
    """The result of a run of comfyload that completed all its jobs.

    Raises:
        Missing: it did not, or is invalid for another reason than that the server outran it.
    """
    if usage.exit_code != INVALID:
        needed(usage, command)
    result: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    invalid = {finding["code"] for finding in result["findings"] if finding["level"] == "invalid"} - OUTRUN
    completed = result["summary"]["completed"]
    if completed != jobs or invalid:
        raise Missing(f"{completed} of {jobs} jobs completed, invalid by {', '.join(sorted(invalid)) or 'nothing'}")
    return result


def theirs(
    client: str, setting: Setting, jobs: int, in_flight: int, folder: Path, sockets: int = 1, fetch: bool = False
) -> list[str]:
    """Another client, with the words that all of them take.

    Raises:
        Missing: a library of it is not installed.
    """
    words = [setting.url, str(setting.workflow), str(jobs), str(in_flight), str(folder / "records.ndjson")]
    words += [str(sockets), str(int(fetch))]
    found = CLIENTS[client]
    if not found.module:
        return [str(built(Path(__file__).parent / "clients" / "epoll.c", setting.folder)), *words]
    if missing := [name for name in found.needs if importlib.util.find_spec(name) is None]:
        raise Missing(f"not installed: {', '.join(missing)}")
    return [sys.executable, "-m", f"bench.clients.{found.module}", *words]
