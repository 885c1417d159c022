"""Readings of the server's machine, where that is this one: CPU, memory, disks, network, and the server's process."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from comfyload.telemetry.local_server import LocalServer
from comfyload.telemetry.thread import ThreadSource


class HostReadings(ThreadSource):
    """psutil, in a thread."""

    name = "host"
    interval_s = 0.5
    timeout_s = 5.0

    def __init__(self, local: LocalServer, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._local = local
        self._machine: Machine | None = None

    def _values(self) -> dict[str, float | None]:
        if self._machine is None:
            self._machine = Machine(self._local.listener.pid)
        return self._machine.values()


class Machine:
    """This machine's counters. Made and read in one thread: psutil keeps the last reading by thread."""

    def __init__(self, server_pid: int | None) -> None:
        self._process: psutil.Process | None = None
        if server_pid is not None:
            with suppress(psutil.Error):
                self._process = psutil.Process(server_pid)
        self._disks = _real(Path("/sys/block"))
        self._cards = _real(Path("/sys/class/net"))
        self._loopback = {name for name, card in psutil.net_if_stats().items() if "loopback" in card.flags.split(",")}
        self._before: dict[str, tuple[float, int]] = {}

    def values(self) -> dict[str, float | None]:
        """`host.*` and `server.*` by name; a rate is since the last call, and is not there at the first.

        `server.cpu_percent` is of one core: 200 is two of them.
        """
        memory = psutil.virtual_memory()
        values: dict[str, float | None] = {
            "host.cpu_percent": psutil.cpu_percent(),
            "host.ram_used_bytes": memory.total - memory.available,
            "host.ram_available_bytes": memory.available,
        }
        values |= self._rates()
        return values | self._server()

    def _rates(self) -> dict[str, float | None]:
        """Of whole disks and real network cards: the bytes of partitions and bridges would count twice."""
        now = time.monotonic()
        rates: dict[str, float | None] = {}
        disks, cards = psutil.disk_io_counters(perdisk=True) or {}, psutil.net_io_counters(pernic=True)
        cards = {name: count for name, count in cards.items() if name not in self._loopback}
        for name, counters, real, field in (
            ("host.disk_read_bytes_per_s", disks, self._disks, "read_bytes"),
            ("host.disk_write_bytes_per_s", disks, self._disks, "write_bytes"),
            ("host.net_received_bytes_per_s", cards, self._cards, "bytes_recv"),
            ("host.net_sent_bytes_per_s", cards, self._cards, "bytes_sent"),
        ):
            counted = [counters[one] for one in counters if not real or one in real]
            if not counted:
                continue
            count = sum(int(getattr(one, field)) for one in counted)
            then, before = self._before.get(name, (now, count))
            self._before[name] = now, count
            if now > then:
                rates[name] = (count - before) / (now - then) if count >= before else None
        return rates

    def _server(self) -> dict[str, float | None]:
        if self._process is None:
            return {}
        try:
            with self._process.oneshot():
                cpu = self._process.cpu_percent()
                return {"server.rss_bytes": self._process.memory_info().rss, "server.cpu_percent": cpu}
        except psutil.Error:  # it has ended; a process that replaced it is not looked for
            return {"server.rss_bytes": None, "server.cpu_percent": None}


def _real(folder: Path) -> set[str]:
    """Names of devices with hardware behind them, as Linux lists them; empty where there is no such list."""
    try:
        return {entry.name for entry in folder.iterdir() if (entry / "device").exists()}
    except OSError:
        return set()
