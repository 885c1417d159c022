"""Where a process can be killed: each boundary between it and the server, or the disk, by name and turn."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from comfyload.comfy.http import Http
from comfyload.comfy.wire.calls import OnFrame
from comfyload.record import growing, lock

__all__ = ["Point", "event_of", "passing", "put_in_place", "route_of", "watch"]

Point = tuple[str, int]
"""A boundary by its name, and the how-many-th time that the process comes to it, from 1."""


def passing(kill_at: Point | None, points_file: Path | None) -> tuple[Callable[[str], None], Callable[[str], bool]]:
    """What notes that the process comes to a boundary, and kills it there at that point; and what says whether the next
    time would be that.
    """
    passed: Counter[str] = Counter()
    file = None if points_file is None else os.open(points_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def pass_by(name: str) -> None:
        passed[name] += 1
        if file is not None:
            os.write(file, f"{name}\n".encode())
        if (name, passed[name]) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def dies_at(name: str) -> bool:
        return kill_at is not None and kill_at == (name, passed[name] + 1)

    return pass_by, dies_at


def put_in_place(owner: object, **parts: object) -> None:
    """Let all of this process use these parts of a module or a class instead of its own."""
    for name, part in parts.items():
        setattr(owner, name, part)


def watch(kill_at: Point | None, points_file: Path | None = None) -> Callable[[str], None]:
    """From here on this process is killed by SIGKILL at that point. Returns what notes that it comes to another.

    `points_file` gets a line for each point that it comes to.

    To be called in a process of its own: it changes the classes that all of the process uses.
    """
    pass_by, dies_at = passing(kill_at, points_file)
    _watch_journal(pass_by, dies_at)
    _watch_files(pass_by)
    _watch_calls(pass_by)
    return pass_by


def _watch_journal(pass_by: Callable[[str], None], dies_at: Callable[[str], bool]) -> None:
    write = growing._write_whole

    def written(descriptor: int, line: bytearray) -> None:
        what = _kind_of_line(bytes(line))
        pass_by(f"{what}: not written")
        if dies_at(f"{what}: half written"):
            os.write(descriptor, line[: len(line) // 2])
        pass_by(f"{what}: half written")
        write(descriptor, line)
        pass_by(f"{what}: written")

    put_in_place(growing, _write_whole=written)


def _kind_of_line(line: bytes) -> str:
    if line.startswith(b'{"line":"sent"'):
        return "line of a job to be sent"
    return "line of a job that ended" if line.startswith(b'{"line":"record"') else "line of a reading"


def _watch_files(pass_by: Callable[[str], None]) -> None:
    replace, unlink, sync, sign = Path.replace, Path.unlink, os.fsync, lock._sign

    def replaced(self: Path, target: Any) -> Path:
        pass_by("manifest: written aside")
        found = replace(self, target)
        pass_by("manifest: in place")
        return found

    def unlinked(self: Path, missing_ok: bool = False) -> None:
        if self.name == lock.LOCK:
            pass_by("lock: about to go")
        unlink(self, missing_ok)
        if self.name == lock.LOCK:
            pass_by("lock: gone")

    def synced(descriptor: int) -> None:
        pass_by("disk: before a flush")
        sync(descriptor)

    def signed(descriptor: int) -> None:
        pass_by("lock: taken, without a name")
        sign(descriptor)
        pass_by("lock: taken")

    put_in_place(Path, replace=replaced, unlink=unlinked)
    put_in_place(os, fsync=synced)
    put_in_place(lock, _sign=signed)


def _watch_calls(pass_by: Callable[[str], None]) -> None:
    call, download, events = Http.call, Http.download, Http.events

    async def called(self: Http, request: Any) -> Any:
        name = f"{request.method} {route_of(request.path)}"
        pass_by(f"{name}: not sent")
        reply = await call(self, request)
        pass_by(f"{name}: answered")
        return reply

    async def downloaded(self: Http, path: str, timeout_s: float) -> Any:
        pass_by("GET view: not sent")
        found = await download(self, path, timeout_s)
        pass_by("GET view: fetched")
        return found

    async def listened(self: Http, client_id: str, on_frame: OnFrame) -> None:
        def seen(frame: bytes, is_text: bool) -> None:
            name = event_of(frame, is_text)
            pass_by(f"event {name}: not seen")
            on_frame(frame, is_text)
            pass_by(f"event {name}: seen")

        await events(self, client_id, seen)

    put_in_place(Http, call=called, download=downloaded, events=listened)


def route_of(path: str) -> str:
    """The path without ids and queries."""
    parts = path.partition("?")[0].split("/")
    return "/".join("ID" if len(part) == 36 and part.count("-") == 4 else part for part in parts)


def event_of(frame: bytes, is_text: bool) -> str:
    return str(msgspec.json.decode(frame)["type"]) if is_text else "preview"
