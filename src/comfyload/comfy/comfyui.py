"""ComfyUI's API: every route that we call, one method each, but for those that only `examine` calls."""

import json
import mimetypes
import re
import secrets
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from comfyload.comfy.wire.calls import MAX_BODY_BYTES, MAX_FACTS_BYTES, Reply, Request, Transport, TransportError
from comfyload.comfy.wire.history import HistoryEntry, decode_history
from comfyload.comfy.wire.queue import PromptState, decode_job_status, decode_queue_remaining, place_in_queue
from comfyload.record.model import Server

Call = Coroutine[Any, Any, Reply]

_PLAIN = re.compile(r"[A-Za-z0-9_.-]*").fullmatch
_NO_SUCH_JOB = "00000000-0000-4000-8000-000000000000"

_JOB_STATES: dict[str, PromptState] = {
    "pending": "pending",
    "in_progress": "running",
    "completed": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
}


class ComfyApi:
    """The `Api` of a ComfyUI, by what its version can do. The whole history, the whole list of jobs and `clear` are
    never called.
    """

    def __init__(self, transport: Transport, server: Server, unread: Callable[[str], None]) -> None:
        self._transport = transport
        self._server = server
        self._unread = unread
        self._longest = 0
        """Bytes of the longest graph that was submitted: its history holds it, with up to three bytes for each."""

    @property
    def lookup_interval_s(self) -> float:
        """Without `/api/jobs`, `prompt_state` reads the whole queue, everyone's graphs included."""
        return 0.5 if self._server.jobs_api else 10.0

    # Without `await` where a call is only passed on: each step between costs a job some thousand instructions.

    def submit(
        self, graph: bytes, prompt_id: str, client_id: str, extra_data: bytes, timeout_s: float, targets: bytes = b""
    ) -> Call:
        self._longest = max(self._longest, len(graph))
        extra = b',"extra_data":' + extra_data if extra_data else b""
        if targets:
            extra += b',"partial_execution_targets":' + targets
        ids = b',"client_id":"%b","prompt_id":"%b"' % (client_id.encode(), prompt_id.encode())
        body = b"".join((b'{"prompt":', graph, ids, extra, b"}"))
        return self._transport.call(Request(method="POST", path="prompt", body=body, timeout_s=timeout_s))

    async def history(self, prompt_id: str, timeout_s: float = 30.0) -> HistoryEntry | None:
        try:
            path = f"history/{_segment(prompt_id)}"
            request = Request(method="GET", path=path, timeout_s=timeout_s, echo_bytes=3 * self._longest)
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
        """Without `/api/jobs`: the queue first, then the history, since that is how a prompt moves."""
        try:
            if self._server.jobs_api:
                reply = await self._get(f"api/jobs/{_segment(prompt_id)}", 30.0)
                if reply.status == 404:
                    return "absent"
                return _JOB_STATES.get(decode_job_status(reply.body), "unknown") if reply.status == 200 else "unknown"
            reply = await self._get("queue", 60.0)
            if reply.status != 200:
                return "unknown"
            queued = place_in_queue(reply.body, prompt_id)
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
        try:
            reply = await self.queue_info(timeout_s=10)
        except TransportError:
            return None
        return decode_queue_remaining(reply.body) if reply.status == 200 else None

    async def alive(self) -> bool:
        try:
            return (await self.stats(timeout_s=10)).status == 200
        except TransportError:
            return False

    async def free(self) -> bool:
        return await self._post("free", {"unload_models": True, "free_memory": True})

    async def delete(self, prompt_ids: list[str]) -> bool:
        return await self._post("queue", {"delete": prompt_ids})

    async def stop(self, prompt_id: str) -> bool:
        if self._server.jobs_cancel:
            return await self._post(f"api/jobs/{_segment(prompt_id)}/cancel", {})
        if self._server.interrupt_by_id:
            return await self._post("interrupt", {"prompt_id": prompt_id})
        return False

    def stats(self, timeout_s: float = 15.0) -> Call:
        return self._get("system_stats", timeout_s, MAX_FACTS_BYTES)

    def queue_info(self, timeout_s: float = 15.0) -> Call:
        return self._get("prompt", timeout_s, MAX_FACTS_BYTES)

    def features(self) -> Call:
        return self._get("features", 15.0, MAX_FACTS_BYTES)

    async def has_jobs(self) -> bool:
        """A server without the route answers 404 in plain text; one with it says in JSON that there is no such job."""
        try:
            reply = await self._get(f"api/jobs/{_NO_SUCH_JOB}", 15.0)
        except TransportError:
            return False
        return reply.status == 404 and reply.body.lstrip().startswith(b"{")

    def node_class(self, name: str) -> Call:
        return self._get(f"object_info/{_segment(name)}", 15.0)

    def node_classes(self) -> Call:
        return self._get("object_info", 15.0)

    def view_path(self, filename: str, subfolder: str, kind: str) -> str:
        """A name that is not Unicode, as Linux allows, goes out as the bytes that it is."""
        parts = {"filename": filename, "subfolder": subfolder, "type": kind}
        return f"view?{urlencode({key: _octets(value) for key, value in parts.items()})}"

    async def upload(self, name: str, content: bytes, subfolder: str = "") -> Reply:
        body, content_type = _multipart(name, content, subfolder)
        request = Request(method="POST", path="upload/image", body=body, content_type=content_type, timeout_s=300)
        return await self._transport.call(request)

    def probe(self, path: str, timeout_s: float, most_bytes: int) -> Call:
        return self._get(f"comfyload/v1/{path}", timeout_s, most_bytes)

    def _get(self, path: str, timeout_s: float, most_bytes: int = MAX_BODY_BYTES) -> Call:
        return self._transport.call(Request(method="GET", path=path, timeout_s=timeout_s, most_bytes=most_bytes))

    async def _post(self, path: str, body: dict[str, Any]) -> bool:
        request = Request(method="POST", path=path, body=json.dumps(body).encode(), timeout_s=30)
        try:
            return (await self._transport.call(request)).status == 200
        except TransportError:
            return False


def _octets(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair, which no bytes of a file's name are read as
        return text.encode("utf-8", "surrogatepass")


def _segment(name: str) -> str:
    """A name or an id as one segment of a path: a server that chooses ids itself may write anything into them."""
    return name if _PLAIN(name) else quote(name, safe="", errors="surrogatepass")


def _multipart(name: str, content: bytes, subfolder: str) -> tuple[bytes, str]:
    """The form as a browser sends it, and its content type."""
    boundary = f"comfyload-{secrets.token_hex(16)}"
    quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    fields = {"type": "input"} | ({"subfolder": subfolder} if subfolder else {})
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{quoted}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    )
    body = head.encode("utf-8", "surrogateescape") + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
