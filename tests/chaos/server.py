"""A simulated ComfyUI that writes down what it does, so that it is known when it was killed: `PORT FILE SPEED`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from comfyload.sim import Server
from comfyload.sim.http import serve

if TYPE_CHECKING:
    from comfyload.comfy.wire.calls import Reply, Request
    from comfyload.sim.queue import Item
    from comfyload.sim.state import State

__all__ = ["Counted", "counts", "in_process"]


class Counted(Server):
    """A server with a file that gets a line for each prompt posted, begun and ended; it outlives the process."""

    def __init__(self, file: Path, speed: float) -> None:
        super().__init__(speed=speed, race_s=0.002 * speed)
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def call(self, request: Request) -> Reply:
        reply = await super().call(request)
        if request.method == "POST" and request.path.split("?")[0] == "prompt" and reply.status == 200:
            self._tell("posted", msgspec.json.decode(reply.body)["prompt_id"])
        return reply

    async def _execute(self, state: State, item: Item) -> None:
        self._tell("begun", item.prompt_id)
        await super()._execute(state, item)
        self._tell(self.truth.pop().outcome, item.prompt_id)

    def _tell(self, what: str, prompt_id: str) -> None:
        os.write(self._file, f"{what} {prompt_id}\n".encode())


def counts(file: Path) -> dict[str, Counter[str]]:
    """How often each prompt was posted, begun, completed, failed and interrupted."""
    found: dict[str, Counter[str]] = {
        what: Counter() for what in ("posted", "begun", "completed", "failed", "interrupted")
    }
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            what, _, prompt_id = line.partition(" ")
            found[what][prompt_id] += 1
    return found


@contextmanager
def in_process(file: Path, speed: float) -> Iterator[str]:
    """The same in a process of its own, for the time of the context; yields its address."""
    command = [sys.executable, "-m", "tests.chaos.server", "0", str(file), str(speed)]
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, root / "src")))}
    with subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _main(port: int, file: Path, speed: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Counted(file, speed) as server, serve(server, port=port) as url:
        print(url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
