"""Events of the jobs under way, passed on to their clients under the jobs' own ids."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comfyload.comfy.wire.calls import Reply
from comfyload.gateway.forms import Entry, dumps
from comfyload.gateway.job import ClientJob
from comfyload.gateway.sockets import ClientSocket, Sockets

ENDS = (b"execution_success", b"execution_error", b"execution_interrupted")
OF_STEPS = (b"progress", b"progress_state")
TO_ALL = (b"progress", b"progress_state", b"execution_interrupted")
"""What ComfyUI sends to every socket for a prompt without a client id; nobody gets the rest."""

KEPT_FRAME = 1 << 20
"""A larger message is sent once, and not again to a socket that is opened later."""

MOST_ENDS, MOST_END_BYTES = 64, 32 << 20
"""Of one attempt."""

OF_COMFYUI = {
    b"status", b"feature_flags", b"logs", b"progress", b"progress_state", b"executing", b"executed",
    b"execution_start", b"execution_cached", b"execution_success", b"execution_error", b"execution_interrupted",
}  # fmt: skip
"""Its own messages: those without the id of a prompt are about none, but for `executing`."""

_TYPE = re.compile(rb'\s*\{\s*"type":\s*"([A-Za-z0-9_.-]+)"')
_ID = re.compile(rb'"prompt_id":\s*"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"')
_PROMPT_ID = re.compile(rb'"prompt_id":\s*"([^"\\]{1,64})"')
_NO_NODE = re.compile(rb'"node":\s*null')
_STAMP = re.compile(rb'"timestamp":\s*(\d{1,16})')

UNTOLD_S, MOST_UNTOLD, MOST_UNTOLD_CLIENTS = 60.0, 100, 1_000
"""How long ends are kept for a client that had no socket, how many, and for how many clients."""

PREVIEW, PREVIEW_WITH_METADATA = 1, 4
_FORMATS = {"image/jpeg": 1, "image/png": 2}


@dataclass(slots=True, eq=False)
class LiveAttempt:
    """What is known of a job on one server. `answer`: to its POST. `ends`: the messages of its end, which are held back
    until it is known that it is not sent again.
    """

    job: ClientJob
    server: str
    answer: asyncio.Future[Reply]
    history: bytes = b""
    start: bytes = b""
    progress: bytes = b""
    executing: bytes = b""
    ends: list[bytes] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether its server said that it has done it."""
        return any(b'"execution_success"' in frame[:60] for frame in self.ends)

    def hold(self, frame: bytes) -> None:
        """Keep a message of its end."""
        if len(self.ends) < MOST_ENDS and sum(map(len, self.ends)) + len(frame) <= MOST_END_BYTES:
            self.ends.append(frame)


class EventRelay:
    """The attempts under way. `tagged`: what a node reported, with the names by which clients find its files.
    `skew_ms`: what makes a stamp of a server's clock one of ours.
    """

    def __init__(
        self,
        sockets: Sockets,
        tagged: Callable[[Any, str, ClientJob], Any],
        skew_ms: Callable[[str], int],
        on_start: Callable[[ClientJob], None],
    ) -> None:
        self._sockets = sockets
        self._tagged = tagged
        self._skew_ms = skew_ms
        self._on_start = on_start
        self._attempts: dict[str, LiveAttempt] = {}
        self._running: dict[str, LiveAttempt] = {}
        self._untold: OrderedDict[tuple[str, str], list[tuple[float, list[bytes]]]] = OrderedDict()
        """Since when, and ends that clients did not get, as they had no socket open, by tenant and client id."""
        self.unread = 0

    def begin(self, job: ClientJob, server: str, attempt_id: str) -> LiveAttempt:
        """The job is being sent to the server of that name."""
        found = LiveAttempt(job, server, asyncio.get_running_loop().create_future())
        self._attempts[attempt_id] = found
        return found

    def get(self, attempt_id: str) -> LiveAttempt | None:
        return self._attempts.get(attempt_id)

    def forget(self, attempt_id: str) -> None:
        """The attempt is over."""
        found = self._attempts.pop(attempt_id, None)
        if found is None:
            return
        if self._running.get(found.server) is found:
            del self._running[found.server]
        if not found.answer.done():
            found.answer.cancel()

    # --- events

    def on_frame(self, server: str, frame: bytes, is_text: bool) -> None:
        if not is_text:
            self._on_preview(server, frame)
            return
        found = _TYPE.match(frame)
        if found is None:
            return
        kind, attempt = found[1], self._attempt_in(server, frame)
        if attempt is None and (kind == b"executing" or kind not in OF_COMFYUI) and _PROMPT_ID.search(frame) is None:
            # A node's own message, or what a socket hears first that was opened anew: of the prompt that runs there.
            attempt = self._running.get(server)
            frame = frame if attempt is None or kind != b"executing" else _with_id(frame, attempt.job.attempt_id)
        if attempt is None:
            return
        job = attempt.job
        if job.attempt_id != job.id:
            frame = frame.replace(job.attempt_id.encode(), job.id.encode())
        skew = self._skew_ms(server) if kind.startswith(b"execution_") else 0
        if skew:
            frame = _STAMP.sub(lambda stamp: b'"timestamp": %d' % (int(stamp[1]) + skew), frame, count=1)
        stamped = kind in ENDS and _STAMP.search(frame) is not None
        if stamped or attempt.ends or (kind == b"executing" and _NO_NODE.search(frame)):
            attempt.hold(frame)
            return
        if kind == b"execution_start":
            self._started(attempt, frame)
        elif kind == b"executing":
            attempt.executing = frame if len(frame) <= KEPT_FRAME else b""
        elif kind == b"progress_state":
            attempt.progress = frame if len(frame) <= KEPT_FRAME else b""
        elif kind == b"executed":
            frame = self._tag(frame, server, job)
        if job.client_id is None and kind not in TO_ALL:
            return
        newest_of = f"{kind.decode()} {job.id}" if kind in OF_STEPS else ""
        self._sockets.send(job.tenant, job.client_id, frame, newest_of=newest_of)

    def on_history(self, attempt_id: str, body: bytes) -> None:
        found = self._attempts.get(attempt_id)
        if found is not None:
            found.history = body

    def on_answer(self, attempt_id: str, reply: Reply) -> None:
        found = self._attempts.get(attempt_id)
        if found is not None and not found.answer.done():
            found.answer.set_result(reply)

    def _attempt_in(self, server: str, frame: bytes) -> LiveAttempt | None:
        """The attempt on that server that a message is about."""
        ids = {found[1] for found in _ID.finditer(frame)}
        if len(ids) > 1:  # its outputs name other prompts
            try:
                ids = {json.loads(frame)["data"]["prompt_id"].encode()}
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                return None
        attempt = self._attempts.get(ids.pop().decode()) if ids else None
        return attempt if attempt is not None and attempt.server == server else None

    def _started(self, attempt: LiveAttempt, frame: bytes) -> None:
        attempt.start = frame if len(frame) <= KEPT_FRAME else b""
        self._running[attempt.server] = attempt
        stamp = _STAMP.search(frame)
        attempt.job.began = True
        if attempt.job.started_ms is None:
            attempt.job.started_ms = int(stamp[1]) if stamp else int(time.time() * 1000)
        self._on_start(attempt.job)

    def _tag(self, frame: bytes, server: str, job: ClientJob) -> bytes:
        try:
            message = json.loads(frame)
            data = message["data"]
            tagged = self._tagged(data.get("output"), server, job)
            return frame if tagged is data.get("output") else dumps(message | {"data": data | {"output": tagged}})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return frame

    def _on_preview(self, server: str, frame: bytes) -> None:
        """A picture of the prompt that runs there, or a text of one of its nodes."""
        kind, head, picture = int.from_bytes(frame[:4], "big"), b"", b""
        if kind == PREVIEW_WITH_METADATA:
            length = int.from_bytes(frame[4:8], "big")
            head, picture = frame[8 : 8 + length], frame[8 + length :]
        running = self._running.get(server)
        attempt = self._attempt_in(server, head) if _ID.search(head) else running
        if attempt is None or attempt is not running or attempt.ends:
            return
        job, plain = attempt.job, frame
        if kind == PREVIEW_WITH_METADATA:
            if job.attempt_id != job.id:
                head = head.replace(job.attempt_id.encode(), job.id.encode())
                frame = frame[:8] + head + picture
            plain = b"".join((PREVIEW.to_bytes(4, "big"), _format_in(head).to_bytes(4, "big"), picture))
        self._sockets.send_preview(job.tenant, job.client_id, frame, plain, job.id)

    # --- beginnings and ends

    def tell_end(self, job: ClientJob, ends: list[bytes], entry: Entry) -> None:
        """Send how a job ended: its server's events, or ours where no server sent any."""
        kind = entry["status"]["messages"][-1][0]
        if not any(f'"{kind}"'.encode() in frame[:60] for frame in ends):
            ends = _frames_of_end(job.id, entry)
        elif not any(_NO_NODE.search(frame) for frame in ends):
            ends = [*ends, dumps(_no_node(job.id))]
        if job.client_id is not None and not self._sockets.of(job.tenant, job.client_id):
            self._owe(job.tenant, job.client_id, ends)
        for frame in ends:
            self._sockets.send(job.tenant, job.client_id, frame)

    def owe_end(self, tenant: str, client_id: str, job_id: str, entry: Entry) -> None:
        """Tell the client how the job ended as soon as it opens a socket."""
        self._owe(tenant, client_id, _frames_of_end(job_id, entry))

    def _owe(self, tenant: str, client_id: str, ends: list[bytes]) -> None:
        untold = self._untold.setdefault((tenant, client_id), [])
        untold.append((asyncio.get_running_loop().time(), ends))
        del untold[:-MOST_UNTOLD]
        if len(self._untold) > MOST_UNTOLD_CLIENTS:
            self._untold.popitem(last=False)

    def greet(self, socket: ClientSocket, jobs: list[ClientJob]) -> None:
        """Tell a socket that was just opened which of its client's jobs ended while it had none, and what those under
        way do, as if it had been there.
        """
        now = asyncio.get_running_loop().time()
        for since, frames in self._untold.pop((socket.tenant, socket.client_id), []):
            for frame in frames if now - since < UNTOLD_S else []:
                socket.push(frame, True)
        for job in jobs:
            attempt = self._attempts.get(job.attempt_id)
            later = (attempt.progress, attempt.executing) if attempt is not None else ()
            start = attempt.start if attempt is not None else b""
            data = {"prompt_id": job.id, "timestamp": job.started_ms}
            for frame in (start or dumps({"type": "execution_start", "data": data}), *later):
                if frame:
                    socket.push(frame, True)


def _frames_of_end(job_id: str, entry: Entry) -> list[bytes]:
    kind, data = entry["status"]["messages"][-1]
    return [dumps({"type": kind, "data": data}), dumps(_no_node(job_id))]


def _no_node(job_id: str) -> Entry:
    return {"type": "executing", "data": {"node": None, "prompt_id": job_id}}


def _with_id(frame: bytes, attempt_id: str) -> bytes:
    """An `executing` that says which prompt it is about."""
    try:
        message = json.loads(frame)
        return dumps(message | {"data": message["data"] | {"prompt_id": attempt_id}})
    except (ValueError, KeyError, TypeError):
        return frame


def _format_in(head: bytes) -> int:
    try:
        return _FORMATS.get(json.loads(head).get("image_type"), 1)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return 1
