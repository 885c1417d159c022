"""How a simulated server is set up, its clock, and what it really did."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct


@dataclass(kw_only=True, eq=False)
class Settings:
    """How a server is set up.

    Args:
        speed: how many times faster than a mid-range GPU it is.
        cache: `ram` (the default of new servers), `classic`, `lru` or `none`.
        lru: how many results `lru` keeps.
        version: the ComfyUI version it behaves as.
        seed: of all its randomness.
        previews: whether samplers send preview images (a prompt's `extra_data.preview_method` overrides it).
        race_s: the history entry is written up to this long after `execution_success` is sent, over `speed`.
        overhead_s: what the server spends on each prompt besides its nodes, over `speed`.
        host_ram_gib, vram_gib: the machine's memory; more than 128 GiB let the `ram` cache keep old results.
        probe: whether it has the instrumentation pack, with a GPU to read.
        frontend: the folder of ComfyUI's page, of which `index.html` is; None for a page that says what this is.
    """

    speed: float = 1.0
    cache: str = "ram"
    lru: int = 100
    version: str = "0.33.0"
    seed: int = 0
    previews: bool = False
    race_s: float = 0.011
    overhead_s: float = 0.0
    host_ram_gib: float = 64.0
    vram_gib: float = 24.0
    probe: bool = False
    frontend: Path | None = None

    def since(self, *version: int) -> bool:
        """Whether this server is of that version or newer."""
        return tuple(int(part) for part in self.version.split(".")[:3]) >= version

    @property
    def roomy(self) -> bool:
        """Whether the default cache has memory to keep old results in: only on hosts of more than 128 GiB."""
        return 0.95 * self.host_ram_gib >= min(self.host_ram_gib, 128.0)

    def argv(self) -> list[str]:
        flags = {"ram": [], "classic": ["--cache-classic"], "lru": ["--cache-lru", str(self.lru)]}
        previews = ["--preview-method", "auto"] if self.previews else []
        return ["main.py", "--listen", *flags.get(self.cache, ["--cache-none"]), *previews]


class Clock:
    """The server's wall clock: it starts at the real one and runs on the event loop's time."""

    def __init__(self) -> None:
        self._epoch: float | None = None
        self._start = 0.0

    def now(self) -> float:
        """Loop time, s."""
        return asyncio.get_running_loop().time()

    def stamp(self) -> int:
        """Wall time, whole ms."""
        now = self.now()
        if self._epoch is None:
            self._epoch, self._start = time.time(), now
        return int((self._epoch + now - self._start) * 1000)


class Truth(Struct, kw_only=True):
    """One execution as it was. Times are loop times in seconds, None for what did not happen.

    `end` is when success or failure was announced, `finished` when the history was written and the last event sent.
    `outcome` is "" while it runs, then completed, failed, interrupted or died (with the worker or the process).
    """

    prompt_id: str
    number: float
    client_id: str | None
    created: float
    started: float
    ended: float | None = None
    finished: float | None = None
    cached: list[str] = []
    executed: list[str] = []
    spans: dict[str, tuple[float, float]] = {}
    outcome: str = ""
    posts: int = 0
