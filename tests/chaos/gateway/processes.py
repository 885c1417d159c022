"""The processes of a play: two servers, the gateway before them, and one of them that dies at a point."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from yarl import URL

from comfyload import clock
from comfyload.app.gateway import GatewayOptions, serve_gateway
from comfyload.gateway.fleet import ServerConfig
from comfyload.record.policy import Breaker, Policy
from comfyload.retry.policy import decode
from comfyload.sim.http import serve
from tests.chaos.forked import begin
from tests.chaos.gateway.points import Mortal, watch_gateway
from tests.chaos.points import Point

__all__ = ["POLICY", "SERVERS", "Processes"]

SERVERS = 2
SPEED = 4.0
POLICY: Policy = decode(b'{"deadline_s": 60, "attempts": 5, "liveness_s": 5, "breaker": {"open_s": 0.3}}')
assert Breaker(open_s=0.3) == POLICY.breaker


class Processes:
    """`folder` holds the ledger and a file for each server of what it has executed.

    `dying`: which process dies: `gateway`; `server`, the first of them; or `both`, the server when the gateway does,
    and for longer. `points_file`: gets a line for each point that it comes to.
    """

    def __init__(self, folder: Path, dying: str, kill_at: Point | None, points_file: Path | None = None) -> None:
        self.folder, self.dying, self._kill_at, self._points_file = folder, dying, kill_at, points_file
        self.ports = [_free_port() for _ in range(SERVERS + 1)]
        self.killed = 0
        self.servers: list[int] = []
        self.gateway = 0

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def left(self) -> Path:
        """The ledger as a gateway left it that was killed; it is not there where none was."""
        return self.folder / "left"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[-1]}"

    def executed(self, number: int) -> Path:
        return self.folder / f"server{number}.log"

    def start(self) -> None:
        self.servers = [self._begin_server(number) for number in range(SERVERS)]
        for port in self.ports[:SERVERS]:
            _wait_for(port)
        self.gateway = self._begin_gateway()

    def look(self) -> list[str]:
        """Start again what was killed; what ended otherwise, in words."""
        broken = []
        for number, pid in enumerate(self.servers):
            code = _code(pid)
            if code is not None:
                broken += self._died("server", code)
                time.sleep(0.2)
                self.servers[number] = self._begin_server(number)
        code = _code(self.gateway)
        if code is not None:
            broken += self._died("gateway", code)
            if self.dying == "both":
                os.kill(self.servers[0], signal.SIGKILL)
                os.waitpid(self.servers[0], 0)
            self.gateway = self._begin_gateway()
            if self.dying == "both":
                _wait_for(self.ports[-1])
                time.sleep(0.5)
                self.servers[0] = self._begin_server(0)
        return broken

    def stop(self) -> list[str]:
        """Stop the gateway as an operator does, again if it is killed then, and end the servers."""
        broken = []
        for _ in range(2):
            _wait_for(self.ports[-1])
            os.kill(self.gateway, signal.SIGTERM)
            code = os.waitstatus_to_exitcode(os.waitpid(self.gateway, 0)[1])
            self.gateway = 0
            if code == 0:
                break
            broken += self._died("gateway", code)
            self.gateway = self._begin_gateway()
        return broken

    def end(self) -> None:
        for pid in (*self.servers, self.gateway):
            if pid and _code(pid) is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _died(self, what: str, code: int) -> list[str]:
        if code == -signal.SIGKILL and self.dying in (what, "both") and not self.killed:
            self.killed += 1
            self._kill_at = self._points_file = None
            if what == "gateway" and self.ledger.exists():
                shutil.copytree(self.ledger, self.left)
            return []
        return [f"the {what} ended with {code}"]

    def _begin_gateway(self) -> int:
        urls = [URL(f"http://127.0.0.1:{port}/") for port in self.ports[:SERVERS]]
        given = [ServerConfig(name=f"gpu{number}", url=url) for number, url in enumerate(urls, 1)]
        options = GatewayOptions(servers=given, policy=POLICY, ledger=self.ledger, port=self.ports[-1], drain_s=5.0)

        def work() -> int:
            if self.dying in ("gateway", "both"):
                watch_gateway(self._kill_at, self._points_file)
            clock.run(serve_gateway(options, lambda _: None))
            return 0

        return begin(work)

    def _begin_server(self, number: int) -> int:
        mortal = self.dying == "server" and number == 0

        async def work() -> int:
            kill_at, points_file = (self._kill_at, self._points_file) if mortal else (None, None)
            async with (
                Mortal(self.executed(number), SPEED, kill_at, points_file) as server,
                serve(server, port=self.ports[number]),
            ):
                await asyncio.Event().wait()
            return 0

        return begin(lambda: asyncio.run(work()))


def _code(pid: int) -> int | None:
    """How the process ended; None: it has not."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _free_port() -> int:
    """One below those that the system gives to connections: it stays free while a process is killed and started."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def _wait_for(port: int) -> None:
    """Until something listens there, at most ten seconds."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
