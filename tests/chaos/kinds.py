"""The kinds of trouble: each has a name, a sentence for the table, how it is made, and how a run may end under it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from comfyload.sim.proxy import Trouble
from tests.chaos.judged import Expected
from tests.chaos.world import World

__all__ = ["KINDS", "Kind", "lacking"]

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
LOST = frozenset({"failed", "lost", "timed_out"})
"""How jobs may end when nobody can answer for them."""

Play = Callable[[World], Coroutine[None, None, None]]


@dataclass(frozen=True)
class Kind:
    """One kind of trouble. `play` makes load and trouble; `needs`: of the machine; `cuts`: it breaks connections."""

    name: str
    what: str
    play: Play
    expected: Expected = Expected()  # noqa: RUF009 - frozen
    needs: tuple[str, ...] = ()
    cuts: bool = False


def lacking(kind: Kind) -> str:
    """What the kind needs and the machine does not have; "" if it can be played."""
    has = {
        "root": os.geteuid() == 0,
        "faketime": FAKETIME is not None,
        "mount": "mount" in kind.needs and _can_unshare(),
        "immutable": "immutable" in kind.needs and _can_be_immutable(),
        "openssl": shutil.which("openssl") is not None,
    }
    return ", ".join(need for need in kind.needs if not has[need])


def _can_unshare() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


async def _beside(world: World, trouble: Play, *more: str) -> None:
    """The load, with trouble while it goes on, and none at its end: what could not be told is told then."""
    made = asyncio.create_task(trouble(world))
    await world.load(*more)
    made.cancel()
    with suppress(asyncio.CancelledError):
        await made


def _network(trouble: Trouble) -> Play:
    """Trouble from the 5th part of the load to the end."""

    async def play(world: World) -> None:
        async def make(world: World) -> None:
            await world.when(0.05)
            world.proxy.trouble = trouble
            if trouble.reset or trouble.lose_reply:  # of a new connection, and the client keeps those that it has
                struck = world.proxy.resets
                world.proxy.cut()
                world.proxy.resets = struck

        await _beside(world, make)

    return play


def _now_and_then(trouble: Trouble, seconds: float) -> Play:
    """Trouble for some seconds, four times over the load."""

    async def play(world: World) -> None:
        async def make(world: World) -> None:
            for share in (0.1, 0.3, 0.5, 0.7):
                await world.when(share)
                world.proxy.trouble = trouble
                if trouble.refuse:
                    world.proxy.cut()
                await asyncio.sleep(seconds)
                world.proxy.trouble = Trouble()

        await _beside(world, make)

    return play


async def _doubled(world: World) -> None:
    async def make(world: World) -> None:
        await world.when(0.05)
        world.proxy.duplicate = 1.0

    await _beside(world, make)
    assert world.proxy.doubled, "the trouble did not strike: no message came twice"


async def _cuts(world: World) -> None:
    async def make(world: World) -> None:
        while True:
            await asyncio.sleep(0.3)
            world.proxy.cut()

    await _beside(world, make)


def _server_killed(*more: str) -> Play:
    async def play(world: World) -> None:
        async def make(world: World) -> None:
            for share in (0.2, 0.5, 0.8):
                await world.when(share)
                await world.kill_server()
                await asyncio.sleep(1.0)
                await world.start_server()

        await _beside(world, make, *more)

    return play


async def _server_killed_with_retries(world: World) -> None:
    (world.folder / "retry.json").write_text('{"deadline_s": 120, "attempts": 5}', encoding="utf-8")
    await _server_killed("--policy", "retry.json")(world)


async def _server_frozen(world: World) -> None:
    async def make(world: World) -> None:
        for share in (0.2, 0.6):
            await world.when(share)
            os.kill(world.server.pid, signal.SIGSTOP)
            await asyncio.sleep(3.0)
            os.kill(world.server.pid, signal.SIGCONT)

    await _beside(world, make)


async def _load_frozen(world: World) -> None:
    async def make(world: World) -> None:
        for share in (0.2, 0.6):
            await world.when(share)
            world.signal(signal.SIGSTOP)
            await asyncio.sleep(3.0)
            world.signal(signal.SIGCONT)

    await _beside(world, make)


def _signals(*numbers: int) -> Play:
    async def play(world: World) -> None:
        async def make(world: World) -> None:
            await world.when(0.4)
            for number in numbers:
                world.signal(number)
                await asyncio.sleep(0.1)

        await _beside(world, make)
        await world.comfyload("resume", str(world.run), "--quiet")

    return play


async def _killed(world: World) -> None:
    """SIGKILL, ten times over the load; each time it is taken up again."""

    async def make(world: World, share: float) -> None:
        await world.when(share)
        await asyncio.sleep(0.02 * world.rng.random())
        world.signal(signal.SIGKILL)

    shares = [(one + 1) / 11 for one in range(10)]
    made = asyncio.create_task(make(world, shares[0]))
    await world.load(pace=None if world.jobs > 2000 else "15/s")  # a short load must not be over before its last kill
    await made
    for share in shares[1:]:
        made = asyncio.create_task(make(world, share))
        await world.comfyload("resume", str(world.run), "--quiet")
        await made
    await world.comfyload("resume", str(world.run), "--quiet")


def _clock(of: str) -> Play:
    """The wall clock is set an hour ahead, and back, while the load goes on."""

    async def play(world: World) -> None:
        async def make(world: World) -> None:
            for share, shift in ((0.3, "+3600"), (0.6, "-3600")):
                await world.when(share)
                (world.folder / f"{of}.clock").write_text(shift, encoding="ascii")

        await _beside(world, make)

    return play


async def _load_clock(world: World) -> None:
    world.env = _faked(world.folder / "load.clock")
    await _clock("load")(world)


async def _server_clock(world: World) -> None:
    await world.kill_server()
    world.server_env.update(_faked(world.folder / "server.clock"))
    await world.start_server()
    await _clock("server")(world)


def _faked(file: Path) -> dict[str, str]:
    """The environment of a process whose wall clock the file moves; the monotonic one stays."""
    file.write_text("+0", encoding="ascii")
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }


async def _full_disk(world: World) -> None:
    """A file system that has room for a third of the records; then there is room again."""
    disk = world.folder / "disk"
    disk.mkdir()
    size = 64 + world.jobs * 2 // 5  # KiB; a record has some 1.2
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)], check=True)
    try:
        world.run = disk / "run"
        await world.load()
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        await world.comfyload("resume", str(world.run), "--quiet")
        shutil.copytree(world.run, world.folder / "run")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
        world.run = world.folder / "run"


async def _read_only_records(world: World) -> None:
    """The records can be written no more, as after a fault of the disk; then they can."""
    records = world.run / "records.ndjson"

    async def make(world: World) -> None:
        await world.when(0.3)
        _immutable(records, True)

    await _beside(world, make)
    _immutable(records, False)
    await world.comfyload("resume", str(world.run), "--quiet")


def _immutable(file: Path, on: bool) -> bool:
    words = ["chattr", "+i" if on else "-i", str(file)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _can_be_immutable() -> bool:
    with tempfile.NamedTemporaryFile(prefix="comfyload-") as file:
        can = shutil.which("chattr") is not None and _immutable(Path(file.name), True)
        if can:
            _immutable(Path(file.name), False)
    return can


SLOW_DISK = """
import os, time
for name in ("write", "fsync"):
    def slow(*words, real=getattr(os, name), seconds=0.002 if name == "write" else 0.5):
        time.sleep(seconds)
        return real(*words)
    setattr(os, name, slow)
"""


async def _slow_disk(world: World) -> None:
    """Each write takes 2 ms, each flush to the disk half a second."""
    (world.folder / "slow").mkdir()
    (world.folder / "slow" / "sitecustomize.py").write_text(SLOW_DISK, encoding="utf-8")
    world.imports.append(world.folder / "slow")
    await world.load()


async def _few_files(world: World) -> None:
    """The process may open no more files, from the middle of the load on; later it may."""

    async def make(world: World) -> None:
        await world.when(0.3)
        assert world.process is not None
        limit = ["prlimit", "--pid", str(world.process.pid)]
        subprocess.run([*limit, "--nofile=8:1024"], check=False)
        world.proxy.cut()
        await asyncio.sleep(1.0)
        subprocess.run([*limit, "--nofile=1024:1024"], check=False)

    await _beside(world, make)


async def _no_name(world: World) -> None:
    """The server's name can be resolved, then not, then again."""
    hosts = world.folder / "hosts"
    known = "127.0.0.1 localhost comfy.test\n"
    hosts.write_text(known, encoding="ascii")
    (world.folder / "nsswitch").write_text("hosts: files\n", encoding="ascii")
    world.url = world.url.replace("127.0.0.1", "comfy.test")
    script = f"mount --bind {hosts} /etc/hosts && mount --bind {world.folder / 'nsswitch'} /etc/nsswitch.conf"

    async def make(world: World) -> None:
        await world.when(0.2)
        hosts.write_text("127.0.0.1 localhost\n", encoding="ascii")
        for _ in range(30):
            world.proxy.cut()
            await asyncio.sleep(0.4)
        hosts.write_text(known, encoding="ascii")

    made = asyncio.create_task(make(world))
    pace = f"{max(20, world.jobs // 60)}/s"  # a resolved name is known for 10 s: the load must take longer
    await world.load(before=("unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh"), pace=pace)
    made.cancel()


async def _certificate_expires(world: World) -> None:
    """TLS before the server, whose certificate expires in the middle of the load and is renewed."""
    from tests.chaos.tls import certificate, tls_front

    good, old = certificate(world.folder, "good", 0), certificate(world.folder, "old", 30)
    async with tls_front(world.proxy, good) as front:
        world.url = front.url

        async def make(world: World) -> None:
            for share in (0.2, 0.6):
                await world.when(share)
                front.show(old)
                world.proxy.cut()
                await asyncio.sleep(2.0)
                front.show(good)

        await _beside(world, make, "--ca-file", str(world.folder / "ca.pem"))


KINDS: tuple[Kind, ...] = (
    Kind("calm", "no trouble at all", _network(Trouble()), Expected(all_complete=True)),
    Kind(
        "delay",
        "each piece of each message comes 2 to 10 ms late",
        _network(Trouble(delay_s=0.002, jitter_s=0.008)),
        Expected(all_complete=True),
    ),
    Kind(
        "throttle", "300 kB/s for each connection", _network(Trouble(bytes_per_s=300_000)), Expected(all_complete=True)
    ),
    Kind(
        "drop",
        "one connection in 20 is cut before the reply to its first request",
        _network(Trouble(lose_reply=0.05, reset=1.0, reset_after_bytes=200_000)),
        Expected(ends=LOST),
        cuts=True,
    ),
    Kind(
        "reset",
        "every connection is reset after up to 200 kB",
        _network(Trouble(reset=1.0, reset_after_bytes=200_000)),
        Expected(ends=LOST),
        cuts=True,
    ),
    Kind(
        "truncate",
        "every connection ends amid a reply, after up to 200 kB",
        _network(Trouble(reset=1.0, reset_after_bytes=200_000, how="close")),
        Expected(ends=LOST),
        cuts=True,
    ),
    Kind(
        "half-close",
        "the server's half of every connection ends, after up to 200 kB",
        _network(Trouble(reset=1.0, reset_after_bytes=200_000, how="half_close")),
        Expected(ends=LOST),
        cuts=True,
    ),
    Kind(
        "stalled-reads",
        "one connection in 4 is read no more after up to 50 kB, and stays open",
        _network(Trouble(reset=0.25, reset_after_bytes=50_000, how="stall")),
        Expected(ends=LOST),
        cuts=True,
    ),
    Kind("duplicate", "every event comes twice", _doubled, Expected(all_complete=True)),
    Kind("cuts", "all connections are reset three times a second", _cuts, Expected(ends=LOST), cuts=True),
    Kind(
        "refuse",
        "no new connection for a second, four times, and those there are cut",
        _now_and_then(Trouble(refuse=True, reset=1.0, reset_after_bytes=1), 1.0),
        Expected(ends=LOST),
        cuts=True,
    ),
    Kind(
        "silence",
        "nothing passes for 3 s, four times",
        _now_and_then(Trouble(silent=True), 3.0),
        Expected(all_complete=True),
    ),
    Kind(
        "server-killed",
        "the server is killed three times, comes back a second later, and its queue is lost",
        _server_killed(),
        Expected(ends=LOST, says="restart"),
    ),
    Kind(
        "server-killed-retry",
        "the same, with a retry policy",
        _server_killed_with_retries,
        Expected(ends=LOST, forgets=True),
    ),
    Kind("server-frozen", "the server stands still for 3 s, twice", _server_frozen, Expected(all_complete=True)),
    Kind("load-frozen", "the load's process stands still for 3 s, twice", _load_frozen, Expected(all_complete=True)),
    Kind("sigterm", "SIGTERM, then resume", _signals(signal.SIGTERM), Expected(first=(130,), ends=("cancelled",))),
    Kind("sigint", "Ctrl-C, then resume", _signals(signal.SIGINT), Expected(first=(130,), all_complete=True)),
    Kind(
        "sigint-twice",
        "Ctrl-C twice, then resume",
        _signals(signal.SIGINT, signal.SIGINT),
        Expected(first=(130,), ends=("cancelled",)),
    ),
    Kind(
        "sighup",
        "the terminal is closed, then resume",
        _signals(signal.SIGHUP),
        Expected(first=(130,), ends=("cancelled",)),
    ),
    Kind("sigkill", "SIGKILL ten times, and resume after each", _killed, Expected(first=(-9,), all_complete=True)),
    Kind(
        "load-clock",
        "the load's wall clock is set an hour ahead, and back by two",
        _load_clock,
        Expected(says="clock_step", all_complete=True),
        needs=("faketime",),
    ),
    Kind(
        "server-clock",
        "the server's wall clock is set an hour ahead, and back by two",
        _server_clock,
        Expected(all_complete=True),
        needs=("faketime",),
    ),
    Kind(
        "full-disk",
        "the disk is full after a third of the load; then there is room, and resume",
        _full_disk,
        Expected(first=(2,), ends=("cancelled",)),
        needs=("root",),
    ),
    Kind(
        "read-only",
        "the records become read-only amid the load; then they can be written, and resume",
        _read_only_records,
        Expected(first=(2,), ends=("cancelled",)),
        needs=("immutable",),
    ),
    Kind("slow-disk", "a write takes 2 ms, a flush half a second", _slow_disk, Expected(all_complete=True)),
    Kind(
        "few-files",
        "no file can be opened for a second, and all connections are cut",
        _few_files,
        Expected(says="generator_fault", ends=LOST),
        needs=("root",),
    ),
    Kind(
        "no-name",
        "the server's name cannot be resolved for 12 s, and all connections are cut",
        _no_name,
        Expected(says="generator_fault", ends=LOST),
        needs=("mount",),
    ),
    Kind(
        "certificate",
        "the server's certificate expires, twice, and is renewed 2 s later",
        _certificate_expires,
        Expected(ends=LOST),
        needs=("openssl", "faketime"),
    ),
)
