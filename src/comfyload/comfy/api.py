"""The calls that a client makes to a server, whatever the server's dialect. `api_of` chooses the dialect."""

from collections.abc import Callable
from typing import Protocol

from comfyload.comfy.comfyui import ComfyApi
from comfyload.comfy.wire.calls import Reply, Transport
from comfyload.comfy.wire.history import HistoryEntry
from comfyload.comfy.wire.queue import PromptState
from comfyload.record.model import Server


class Api(Protocol):
    """Calls to one server. Those that return a `Reply` raise `TransportError` when there is none; the others do not,
    but for `history`.
    """

    @property
    def lookup_interval_s(self) -> float:
        """How often `prompt_state` of one prompt may be called without a burden for the server."""

    async def submit(
        self, graph: bytes, prompt_id: str, client_id: str, extra_data: bytes, timeout_s: float, targets: bytes = b""
    ) -> Reply:
        """Send a prompt. The error's `sent` says whether the server may have it although no reply came."""

    async def history(self, prompt_id: str, timeout_s: float = 30.0) -> HistoryEntry | None:
        """The history entry of a prompt that has ended; None: the server has none.

        Raises:
            TransportError: no reply, or not a history.
        """

    async def prompt_state(self, prompt_id: str) -> PromptState:
        """Where the prompt is now."""

    async def queue_remaining(self) -> int | None:
        """How many prompts run and wait, everyone's; None: not known."""

    async def alive(self) -> bool:
        """Whether the server answers. It does even when its worker hangs."""

    async def free(self) -> bool:
        """Unload all models and drop the cache before the next prompt runs."""

    async def delete(self, prompt_ids: list[str]) -> bool:
        """Remove our waiting prompts from the queue; a running one is not touched."""

    async def stop(self, prompt_id: str) -> bool:
        """Stop the prompt if it runs; False: this server can only stop whichever prompt runs, which is not done."""

    async def stats(self) -> Reply:
        """The server's facts: version, flags, memory, devices."""

    async def queue_info(self) -> Reply:
        """How long the queue is."""

    async def features(self) -> Reply:
        """The server's feature flags."""

    async def has_jobs(self) -> bool:
        """Whether prompts can be looked up one by one."""

    async def node_class(self, name: str) -> Reply:
        """The description of one node class."""

    async def node_classes(self) -> Reply:
        """The description of every node class: megabytes, which block the server's event loop for 0.2 s or more."""

    def view_path(self, filename: str, subfolder: str, kind: str) -> str:
        """The path and query under which the server gives out a file."""

    async def upload(self, name: str, content: bytes, subfolder: str = "") -> Reply:
        """Store an input image; one of the same name is not overwritten."""

    async def probe(self, path: str, timeout_s: float, most_bytes: int) -> Reply:
        """What the instrumentation pack answers at `path`."""


def api_of(transport: Transport, server: Server | None = None, unread: Callable[[str], None] = lambda _: None) -> Api:
    """The calls in the dialect of a server; None: of one that is not identified yet.

    Another dialect is another class, chosen here. `unread` is called for each reply that cannot be read.
    """
    return ComfyApi(transport, server or Server(url=""), unread)
