"""The open sockets of clients: what each still has to be sent. A slow reader holds up only itself."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque

from msgspec import Struct

MOST_FRAMES, MOST_BYTES = 10_000, 32 << 20
"""Of a reader that does not read; then it is cut off."""

MOST_TOGETHER = 128 << 20
"""Of all readers; beyond, the one that has most unread is cut off."""

BACKLOG = 32
"""So many unsent frames show that a reader is slow: from then on only the newest progress of a job is kept."""

STATUS_S = 0.25
"""ComfyUI sends its queue's length three times a prompt, and each makes its page read the list of jobs twice."""

TRY_AGAIN_LATER = 1013


class _Cell(Struct, gc=False):
    frame: bytes
    is_text: bool


class Unread:
    """Bytes that readers have not read yet, of one or of all."""

    def __init__(self) -> None:
        self.bytes = 0


class ClientSocket:
    """One socket of an application or a browser. `closed`: the code with which to close it; None: it is open. `of_all`:
    what all sockets have unread.
    """

    def __init__(self, client_id: str, tenant: str) -> None:
        self.of_all = Unread()
        self.client_id = client_id
        self.tenant = tenant
        self.with_metadata = False
        self.closed: int | None = None
        self.waiting: deque[_Cell] = deque()
        self._latest: dict[str, _Cell] = {}
        self.bytes = 0
        self._something = asyncio.Event()
        self.over = asyncio.Event()
        """Set when it is closed."""

    def push(self, frame: bytes, is_text: bool, newest_of: str = "") -> None:
        """`newest_of`: of frames of this name a slow reader needs only the newest."""
        if self.closed is not None:
            return
        if newest_of and len(self.waiting) > BACKLOG and newest_of in self._latest:
            cell = self._latest[newest_of]
            self._count(len(frame) - len(cell.frame))
            cell.frame = frame
            return
        cell = _Cell(frame, is_text)
        if newest_of:
            self._latest[newest_of] = cell
        self.waiting.append(cell)
        self._count(len(frame))
        if len(self.waiting) > MOST_FRAMES or self.bytes > MOST_BYTES:
            self.close(TRY_AGAIN_LATER)
        self._something.set()

    def _count(self, more: int) -> None:
        self.bytes += more
        self.of_all.bytes += more

    def close(self, code: int) -> None:
        if self.closed is None:
            self.closed = code
            self.waiting.clear()
            self._latest.clear()
            self._count(-self.bytes)
            self._something.set()
            self.over.set()

    async def next(self) -> tuple[bytes, bool] | None:
        """The next frame, and whether it is text; None: the socket is to be closed."""
        while not self.waiting:
            if self.closed is not None:
                return None
            self._latest.clear()
            self._something.clear()
            await self._something.wait()
        cell = self.waiting.popleft()
        self._count(-len(cell.frame))
        if not self.waiting:
            self._latest.clear()
        return cell.frame, cell.is_text


class Sockets:
    """All of them, by tenant and client id: two with one id both get everything."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], list[ClientSocket]] = {}
        self._unread = Unread()

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def add(self, socket: ClientSocket) -> None:
        socket.of_all = self._unread
        self._unread.bytes += socket.bytes
        self._open.setdefault((socket.tenant, socket.client_id), []).append(socket)

    def remove(self, socket: ClientSocket) -> None:
        same = self._open.get((socket.tenant, socket.client_id), [])
        if socket in same:
            same.remove(socket)
            self._unread.bytes -= socket.bytes
            socket.of_all = Unread()
        if not same:
            self._open.pop((socket.tenant, socket.client_id), None)

    def of(self, tenant: str, client_id: str | None) -> list[ClientSocket]:
        """The sockets of a client; None: all of the tenant's."""
        if client_id is not None:
            return self._open.get((tenant, client_id), [])
        return [socket for (name, _), same in self._open.items() if name == tenant for socket in same]

    def send(self, tenant: str, client_id: str | None, frame: bytes, *, newest_of: str = "") -> None:
        for socket in self.of(tenant, client_id):
            socket.push(frame, True, newest_of)
        self._relieve()

    def send_preview(self, tenant: str, client_id: str | None, with_metadata: bytes, plain: bytes, job: str) -> None:
        """A picture of a job under way, in the form that each socket negotiated."""
        for socket in self.of(tenant, client_id):
            socket.push(with_metadata if socket.with_metadata else plain, False, f"preview {job}")
        self._relieve()

    def send_status(self, tenant: str, remaining: int) -> None:
        """How many jobs the tenant has here."""
        frame = status_frame(remaining)
        for socket in self.of(tenant, None):
            socket.push(frame, True, "status")

    def _relieve(self) -> None:
        """Cut off the slowest readers while all together have too much unread."""
        while self._unread.bytes > MOST_TOGETHER:
            slowest = max((each for same in self._open.values() for each in same), key=lambda socket: socket.bytes)
            slowest.close(TRY_AGAIN_LATER)

    def close(self, code: int) -> None:
        for same in self._open.values():
            for socket in same:
                socket.close(code)


class QueueLengths:
    """How many jobs each tenant has here, sent to its sockets where that changes, but not more often than they need."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._jobs = Counter[str]()
        self._changed: set[str] = set()

    def __getitem__(self, tenant: str) -> int:
        return self._jobs[tenant]

    def add(self, tenant: str, jobs: int) -> None:
        """So many jobs came, or went; 0: one of them began."""
        self._jobs[tenant] += jobs
        self._changed.add(tenant)

    async def run(self) -> None:
        """Tell what changes, until cancelled."""
        while True:
            await asyncio.sleep(STATUS_S)
            changed, self._changed = self._changed, set()
            for tenant in changed:
                self._sockets.send_status(tenant, self._jobs[tenant])


def status_frame(remaining: int, sid: str | None = None) -> bytes:
    data: dict[str, object] = {"status": {"exec_info": {"queue_remaining": remaining}}}
    return json.dumps({"type": "status", "data": data | ({"sid": sid} if sid is not None else {})}).encode()
