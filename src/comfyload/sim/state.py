"""What one server process knows: all of this, except the files it saved, is gone when it restarts."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import msgspec
from msgspec import Struct

from comfyload.sim.cache import Cache
from comfyload.sim.files import Files
from comfyload.sim.probe import Probe
from comfyload.sim.queue import Queue
from comfyload.sim.sockets import Sockets
from comfyload.sim.timing import Timing

__all__ = ["Clock", "Lasting", "Settings", "State", "Truth"]


class Settings(Struct, frozen=True, kw_only=True):
    """How the server is set up; see `Server` for the meanings."""

    speed: float
    cache: str
    lru: int
    version: str
    seed: int
    previews: bool
    race_s: float  # already over speed, as is overhead_s
    overhead_s: float
    host_ram_gib: float
    vram_gib: float
    probe: bool

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
        self._epoch = time.time()
        self._start: float | None = None

    def now(self) -> float:
        """Loop time, s."""
        return asyncio.get_running_loop().time()

    def stamp(self) -> int:
        """Wall time, whole ms."""
        now = self.now()
        if self._start is None:
            self._start = now
        return int((self._epoch + now - self._start) * 1000)


class Truth(Struct, kw_only=True):
    """One execution as it was. Times are loop times in seconds, None for what did not happen.

    `end` is when success or failure was announced, `finished` when the history was written and the last event sent.
    `outcome` is "" while it runs, then completed, failed, interrupted or died (with the worker or the process).
    """

    prompt_id: str
    number: float
    ordinal: int  # from 1, over the server's whole life
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


class Lasting:
    """What outlives a restart: the clock, the files, and the counts a test reads."""

    def __init__(self, settings: Settings) -> None:
        self.rng = random.Random(settings.seed)
        self.clock = Clock()
        self.files = Files(self.rng)
        self.posts: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()


class State:
    """One process."""

    def __init__(self, settings: Settings, lasting: Lasting) -> None:
        self.settings = settings
        self.rng = lasting.rng
        self.clock = lasting.clock
        self.files = lasting.files
        self.posts = lasting.posts
        self.calls = lasting.calls
        self.sockets = Sockets(
            {
                "supports_preview_metadata": True,
                "supports_model_type_tags": True,
                "max_upload_size": 100 * 2**20,
                "node_replacements": True,
                "assets": False,
            }
        )
        self.queue = Queue(self._announce)
        self.cache = Cache(settings.cache, settings.lru, settings.roomy)
        self.timing = Timing(settings.speed, lasting.rng)
        self.probe = self._probe() if settings.probe else None
        self.number = 0  # of the next prompt without one of its own
        self.interrupted = False
        self.flags: set[str] = set()  # unload_models, free_memory: for the worker, after the current prompt
        self.client_id: str | None = None  # whose prompt runs or ran last
        self.last_node: str | None = None  # what it runs now

    def _probe(self) -> Probe:
        timing, queue = self.timing, self.queue
        return Probe(self.settings, self.clock, self.rng, lambda: len(timing.loaded), lambda: queue.remaining)

    def status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    def _announce(self) -> None:
        frame = msgspec.json.encode({"type": "status", "data": {"status": self.status()}}).decode()
        self.sockets.send(frame, None)

    def handle_flags(self) -> None:
        """What the worker does between prompts."""
        flags, self.flags = self.flags, set()
        if flags:
            self.timing.loaded.clear()
        if "free_memory" in flags:
            self.cache.clear()
