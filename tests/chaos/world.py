"""One play: a server and a network that can go bad, a load on them in a process of its own, and what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.doubles import DoublingProxy
from tests.support.rig import sleeper

__all__ = ["Done", "World", "world"]

ROOT = Path(__file__).parents[2]
SPEED = 200.0
SOON_S = 0.05


@dataclass
class Done:
    """A process of ours that has ended: its command, exit code, standard error and most memory, in MiB."""

    command: str
    code: int
    said: str
    peak_mib: float


@dataclass
class World:
    """What a kind of trouble can lay hands on. `jobs` are sent; `proxy` stands between them and the server."""

    folder: Path
    jobs: int
    proxy: DoublingProxy
    port: int
    server: asyncio.subprocess.Process
    rng: random.Random
    imports: list[Path] = field(default_factory=lambda: [ROOT / "src", ROOT / "pack"])
    env: dict[str, str] = field(default_factory=dict)
    server_env: dict[str, str] = field(default_factory=dict)
    url: str = ""
    process: asyncio.subprocess.Process | None = None
    done: list[Done] = field(default_factory=list)
    run: Path = Path()

    @property
    def ledger(self) -> Path:
        return self.folder / "executed.log"

    # --- the load

    async def comfyload(self, *words: str, before: tuple[str, ...] = ()) -> Done:
        """Run one command to its end. `before`: what the command line is put behind, as a shell would."""
        self.process = None
        self.process = process = await asyncio.create_subprocess_exec(
            *before, sys.executable, "-m", "comfyload", *words,
            cwd=self.folder, env={**os.environ, **self.env, "PYTHONPATH": os.pathsep.join(map(str, self.imports))},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        peak = asyncio.create_task(_peak_mib(process.pid))
        _, said = await process.communicate()
        peak.cancel()
        with suppress(asyncio.CancelledError):
            await peak
        done = Done(
            words[0], process.returncode or 0, said.decode("utf-8", "replace"), max(_PEAKS.pop(process.pid, [0]))
        )
        self.done.append(done)
        return done

    async def load(self, *more: str, before: tuple[str, ...] = (), pace: str | None = None) -> Done:
        """The load of this play: 16 jobs in flight, or at a pace."""
        how = ["-c", "16"] if pace is None else ["--rate", pace]
        return await self.comfyload(
            "run", "--server", self.url, "--workflow", "graph.json", "-n", str(self.jobs), *how, "--quiet",
            "--run-dir", str(self.run), "--no-telemetry", "--timeout", "30", *more, before=before,
        )  # fmt: skip

    async def when(self, share: float) -> None:
        """Until so much of the load has ended; at once if its process has."""
        while self.ended() < share * self.jobs and self.running():
            await asyncio.sleep(SOON_S)

    def ended(self) -> int:
        with suppress(OSError):
            return (self.run / "records.ndjson").read_bytes().count(b'{"line":"record"')
        return 0

    def running(self) -> bool:
        """Whether a command is under way, or about to be."""
        return self.process is None or self.process.returncode is None

    def signal(self, number: int) -> None:
        if self.process is not None and self.running():
            os.kill(self.process.pid, number)

    # --- the server

    async def kill_server(self) -> None:
        """By SIGKILL: its queue and its history are gone."""
        self.server.kill()
        await self.server.wait()

    async def start_server(self) -> None:
        self.server = await _server(self.port, self.ledger, self.server_env)

    async def queue(self) -> list[str]:
        """Ids of the prompts that the server holds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /queue HTTP/1.0\r\nConnection: close\r\n\r\n")
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        held = json.loads(body)
        return [row[1] for row in [*held["queue_running"], *held["queue_pending"]]]


@asynccontextmanager
async def world(
    folder: Path, jobs: int, seed: int, server_env: Mapping[str, str] | None = None
) -> AsyncIterator[World]:
    """A server, a proxy before it and a workflow; all of them end with the context."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").write_text(json.dumps(sleeper(0.1)), encoding="utf-8")
    server = await _server(0, folder / "executed.log", {})
    assert server.stdout is not None
    port = int((await server.stdout.readline()).decode().rpartition(":")[2])
    rng = random.Random(seed)
    async with DoublingProxy("127.0.0.1", port, rng) as proxy:
        made = World(folder=folder, jobs=jobs, proxy=proxy, port=port, server=server, rng=rng)
        made.url, made.run = proxy.url, folder / "run"
        try:
            yield made
        finally:
            for process in (made.server, made.process):
                if process is not None and process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGCONT)
                        process.kill()
                    await process.wait()


async def _server(port: int, ledger: Path, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.server", str(port), str(ledger), str(SPEED),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, env={**os.environ, **env, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
    )  # fmt: skip


_PEAKS: dict[int, list[float]] = {}


async def _peak_mib(pid: int) -> None:
    """Read how much memory the process has had at most, until it ends."""
    seen = _PEAKS.setdefault(pid, [0.0])
    while True:
        with suppress(OSError, StopIteration):
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            seen[0] = max(seen[0], int(line.split()[1]) / 1024)
        await asyncio.sleep(0.1)
