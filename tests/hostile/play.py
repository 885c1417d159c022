"""Plays scenarios: the server in one process, commands in others."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.hostile.drive import Done, Driver, prepare_dead_run
from tests.hostile.malice import deflated, gzipped
from tests.hostile.server import Hostile, Job, Scenario, Socket, serve
from tests.hostile.table import scenarios

__all__ = ["listening", "play", "server_main"]

AT_ONCE = 10


async def _hang(_socket: Socket, _job: Job) -> None:
    await asyncio.sleep(3600)


def known() -> dict[str, Scenario]:
    own = [
        Scenario(name="dead", what="every job runs for ever", job=_hang),
        Scenario(name="good", what="a ComfyUI as it should be"),
    ]
    return scenarios() | {one.name: one for one in own}


async def server_main() -> None:
    """Serve all scenarios until standard input ends; the address is the first line of standard output."""
    gzipped(), deflated()  # which takes a second, during which nobody is served
    server, url = await serve(Hostile(known()))
    print(url, flush=True)  # noqa: T201
    async with server:
        await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def listening() -> AsyncIterator[str]:
    code = "import asyncio; from tests.hostile.play import server_main; asyncio.run(server_main())"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


async def play(
    chosen: dict[str, Scenario], folder: Path, *, at_once: int = AT_ONCE, say: Callable[[Done], None] = lambda _: None
) -> list[Done]:
    """Every scenario against every command that it has codes for. Those that may take long begin first."""
    async with listening() as url:
        dead = await asyncio.to_thread(prepare_dead_run, url, folder / "dead")

        async with Driver(url, folder, at_once) as driver:

            async def one(scenario: Scenario, command: str) -> Done:
                done = await driver.command(scenario, command, dead)
                say(done)
                return done

            ordered = sorted(chosen.values(), key=lambda scenario: -scenario.bound_s)
            return list(await asyncio.gather(*(one(s, command) for s in ordered for command in s.codes)))
