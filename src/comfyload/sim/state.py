"""What a server knows: most of it is of one process, and gone when that restarts."""

import random
from collections import Counter
from typing import Any

import msgspec

from comfyload.sim.cache import Cache
from comfyload.sim.files import Files
from comfyload.sim.log import Log, entry
from comfyload.sim.probe import Probe
from comfyload.sim.queue import Queue
from comfyload.sim.settings import Clock, Settings
from comfyload.sim.sockets import Sockets
from comfyload.sim.timing import Timing
from comfyload.sim.userdata import UserData


class State:
    """The clock, all files and the counts a test reads outlive a restart; `boot` makes everything else anew."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rng = random.Random(settings.seed)
        self.clock = Clock()
        self.files = Files(self.rng, self.clock.stamp)
        self.user = UserData()
        self.posts: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.boot()

    def boot(self) -> None:
        """A new process begins."""
        settings = self.settings
        self.files.wipe_temp()
        self.sockets = Sockets(
            {
                "supports_preview_metadata": True,
                "supports_model_type_tags": True,
                "max_upload_size": 100 * 2**20,
                "extension": {"manager": {"supports_v4": True}},
                "node_replacements": True,
                "assets": False,
            }
        )
        self.log = Log()
        self.queue = Queue(self._announce)
        self.cache = Cache(settings.cache, settings.lru, settings.roomy)
        self.timing = Timing(settings.speed, self.rng)
        self.probe: Probe | None = None
        if settings.probe:
            self.probe = Probe(settings, self.clock, self.rng, self.timing, self.queue)
        self.number = 0  # of the next prompt without one of its own
        self.interrupted = False
        self.flags: set[str] = set()  # unload_models, free_memory: for the worker, after the current prompt
        self.client_id: str | None = None  # whose prompt runs or ran last
        self.last_node: str | None = None  # what it runs now

    def status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining}}

    def _announce(self) -> None:
        frame = msgspec.json.encode({"type": "status", "data": {"status": self.status()}}).decode()
        self.sockets.send(frame, None)

    def say(self, line: str) -> None:
        """Write a line to the log, which those who follow it get at once."""
        stamp = self.clock.stamp()
        self.log.write(stamp, line)
        for client_id in list(self.log.readers):
            if self.sockets.find(client_id) is None:
                self.log.readers.discard(client_id)
            else:
                message = {"type": "logs", "data": {"entries": [entry(stamp, line)], "size": None}}
                self.sockets.send(msgspec.json.encode(message).decode(), client_id)

    def handle_flags(self) -> None:
        """What the worker does between prompts."""
        flags, self.flags = self.flags, set()
        if flags:
            self.timing.loaded.clear()
        if "free_memory" in flags:
            self.cache.clear()
