"""A request, its reply, the largest sizes of replies, and what carries them: sockets, or a simulator in process."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

MAX_BODY_BYTES = 48 << 20
"""All replies that are read at one time, together and unpacked. The largest that we know is the queue, which holds
every waiting graph."""

MAX_FACTS_BYTES = 1 << 20
"""A reply whose facts are kept in the run directory."""

MAX_MESSAGE_BYTES = 32 << 20
"""A message of the event stream: a picture, if a node sends its output that way."""

MAX_FILE_BYTES = 128 << 20
"""All files that are kept in memory at one time, together."""

MAX_DOWNLOAD_BYTES = 2 << 30
"""A file that is read and thrown away."""


OnFrame = Callable[[bytes, bool], None]
"""Takes a message of the event stream as it arrives, and whether it is text."""


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """One HTTP call. `path` is relative to the server's base (`prompt`, `history/ID`), with its query.

    `file`: a file is requested, which may be larger than other replies and may be redirected. `most_bytes`: a larger
    reply is not read to its end, unless it has `echo_bytes` more, of what we sent ourselves.
    """

    method: str
    path: str
    body: bytes | None = None
    content_type: str = "application/json"
    timeout_s: float = 30.0
    file: bool = False
    most_bytes: int = MAX_BODY_BYTES
    echo_bytes: int = 0


class Reply(Struct, frozen=True, kw_only=True, gc=False):
    """The answer, whole. `body` is the decoded (uncompressed) entity."""

    status: int
    body: bytes
    content_type: str = ""
    headers: dict[str, str] = {}


class Download(Struct, frozen=True, kw_only=True, gc=False):
    """An entity read to its end and thrown away: `head` is its first 16 bytes, `expected` its Content-Length."""

    status: int
    head: bytes
    bytes: int
    expected: int | None
    content_type: str = ""


class TransportError(Exception):
    """No reply. `sent` False: the request certainly never reached the server; True: it may have.

    `ours`: a fault of our own machine, not of the server. `vain`: the reply is too large or cannot be read, so that
    another attempt is useless. `refused`: nothing listens at the server's address.
    """

    def __init__(
        self, message: str, *, sent: bool, ours: bool = False, vain: bool = False, refused: bool = False
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.ours = ours
        self.vain = vain
        self.refused = refused


class Transport(Protocol):
    """One server, reachable. Every method raises `TransportError` when there is no answer, or it breaks off."""

    async def call(self, request: Request) -> Reply:
        """One HTTP exchange, body read whole."""

    async def download(self, path: str, timeout_s: float) -> Download:
        """GET `path`, reading its body as a stream and keeping none of it."""

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        """Open the WebSocket of `client_id` and hand each message to `on_frame`, until the server closes it."""
