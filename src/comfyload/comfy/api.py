"""ComfyUI's calls, typed: one method a route, as far as following and clearing up our own jobs needs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from comfyload.comfy.wire import (
    MAX_FACTS_BYTES,
    HistoryEntry,
    Reply,
    Request,
    TransportError,
    decode_history,
    decode_job_status,
    decode_queue_remaining,
    place_in_queue,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.comfy.transport import Transport
    from comfyload.record.model import Server

__all__ = ["Api", "PromptState"]

PromptState = Literal["pending", "running", "finished", "failed", "cancelled", "absent", "unknown"]
"""Where a prompt is on the server; `unknown` when the server did not say."""

_JOB_STATES: dict[str, PromptState] = {
    "pending": "pending",
    "in_progress": "running",
    "completed": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
}


class Api:
    """Calls to one server, chosen by what it can do. Never the unfiltered history or job list, never `clear`.

    `unread` is told of each reply that is not what ComfyUI answers there.
    """

    def __init__(self, transport: Transport, server: Server, unread: Callable[[str], None] = lambda _: None) -> None:
        self._transport = transport
        self._server = server
        self._unread = unread

    @property
    def lookup_interval_s(self) -> float:
        """How often `prompt_state` of one prompt may be asked: without `/api/jobs` it reads everyone's whole queue."""
        return 0.5 if self._server.jobs_api else 10.0

    async def submit(self, graph: bytes, prompt_id: str, client_id: str, extra_data: bytes, timeout_s: float) -> Reply:
        """POST the prompt.

        Raises:
            TransportError: no reply; its `sent` tells whether the server may have it all the same.
        """
        extra = b',"extra_data":' + extra_data if extra_data else b""
        body = b'{"prompt":%b,"client_id":"%b","prompt_id":"%b"%b}' % (
            graph,
            client_id.encode(),
            prompt_id.encode(),
            extra,
        )
        return await self._transport.call(Request(method="POST", path="prompt", body=body, timeout_s=timeout_s))

    async def history(self, prompt_id: str, timeout_s: float = 30.0) -> HistoryEntry | None:
        """The prompt's history entry, None if the server has none.

        Raises:
            TransportError: no reply, or one that is no history.
        """
        request = Request(method="GET", path=f"history/{_segment(prompt_id)}", timeout_s=timeout_s)
        try:
            reply = await self._transport.call(request)
        except TransportError as error:
            if error.vain:
                self._unread(f"GET /history/{{id}}: {error}")
            raise
        if reply.status != 200:
            raise TransportError(f"GET /history/{{id}} answered {reply.status}", sent=True)
        try:
            entry = decode_history(reply.body, prompt_id)
        except msgspec.MsgspecError as error:
            self._unread(f"GET /history/{{id}}: {error}")
            raise TransportError(f"GET /history/{{id}}: {error}", sent=True, vain=True) from None
        if entry is not None and entry.unread:
            self._unread(f"the history of {prompt_id}: {', '.join(entry.unread)}")
        return entry

    async def prompt_state(self, prompt_id: str) -> PromptState:
        """Where the prompt is now. Without `/api/jobs`: the queue first, then the history, as a prompt moves."""
        try:
            if self._server.jobs_api:
                reply = await self._transport.call(Request(method="GET", path=f"api/jobs/{_segment(prompt_id)}"))
                if reply.status == 404:
                    return "absent"
                return _JOB_STATES.get(decode_job_status(reply.body), "unknown") if reply.status == 200 else "unknown"
            queued = await self._in_queue(prompt_id)
            if queued is not None:
                return queued
            entry = await self.history(prompt_id)
        except TransportError:
            return "unknown"
        except msgspec.MsgspecError as error:
            self._unread(f"where {prompt_id} is: {error}")
            return "unknown"
        if entry is None:
            return "absent"
        kinds = {message.type for message in entry.messages}
        if "execution_interrupted" in kinds:
            return "cancelled"
        return "failed" if "execution_error" in kinds else "finished"

    async def queue_remaining(self) -> int | None:
        """Running plus pending prompts, everyone's; None if the server did not say."""
        try:
            request = Request(method="GET", path="prompt", timeout_s=10, most_bytes=MAX_FACTS_BYTES)
            reply = await self._transport.call(request)
        except TransportError:
            return None
        return decode_queue_remaining(reply.body) if reply.status == 200 else None

    async def alive(self) -> bool:
        """Whether the server answers as itself. It does even when its worker hangs."""
        try:
            request = Request(method="GET", path="system_stats", timeout_s=10, most_bytes=MAX_FACTS_BYTES)
            reply = await self._transport.call(request)
        except TransportError:
            return False
        return reply.status == 200

    async def free(self) -> bool:
        """Have the server unload all models and drop its cache, once what runs has ended and before the next runs."""
        return await self._post("free", {"unload_models": True, "free_memory": True})

    async def delete(self, prompt_ids: list[str]) -> bool:
        """Take pending prompts of ours out of the queue; a running one is not touched."""
        return await self._post("queue", {"delete": prompt_ids})

    async def stop(self, prompt_id: str) -> bool:
        """Stop the prompt if it is running, by its id; False if this server can only stop whoever is running."""
        if self._server.jobs_cancel:
            return await self._post(f"api/jobs/{_segment(prompt_id)}/cancel", {})
        if self._server.interrupt_by_id:
            return await self._post("interrupt", {"prompt_id": prompt_id})
        return False

    async def _in_queue(self, prompt_id: str) -> PromptState | None:
        reply = await self._transport.call(Request(method="GET", path="queue", timeout_s=60))
        if reply.status != 200:
            raise TransportError(f"GET /queue answered {reply.status}", sent=True)
        return place_in_queue(reply.body, prompt_id)

    async def _post(self, path: str, body: dict[str, Any]) -> bool:
        request = Request(method="POST", path=path, body=json.dumps(body).encode(), timeout_s=30)
        try:
            return (await self._transport.call(request)).status == 200
        except TransportError:
            return False


def _segment(prompt_id: str) -> str:
    """An id as one segment of a path: an old server gives ids of its own, and may write into them what it likes."""
    return quote(prompt_id, safe="", errors="surrogatepass")
