"""A server that answers what it likes: a simulated one whose histories and frames are changed on their way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from comfyload.comfy.wire.calls import OnFrame, Reply, Request
from comfyload.sim import Server
from tests.support.direct import Direct


class Hostile(Direct):
    """`change`: of an entry of the history, given with its prompt's id; `frames`: what is sent in place of one frame."""

    def __init__(
        self,
        server: Server,
        change: Callable[[dict[str, Any]], Any] = lambda entry: entry,
        frames: Callable[[bytes, bool], list[tuple[bytes, bool]]] = lambda frame, is_text: [(frame, is_text)],
        body: Callable[[str, bytes], bytes] = lambda _path, body: body,
    ) -> None:
        super().__init__(server)
        self._change, self._frames, self._body = change, frames, body

    async def call(self, request: Request) -> Reply:
        reply = await super().call(request)
        if request.path.startswith("history/") and len(reply.body) > 2:
            ((prompt_id, entry),) = json.loads(reply.body).items()
            return Reply(
                status=200, body=json.dumps({prompt_id: self._change(entry)}).encode(), content_type="application/json"
            )
        return Reply(status=reply.status, body=self._body(request.path, reply.body), content_type=reply.content_type)

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        def each(frame: bytes, is_text: bool) -> None:
            for changed, changed_is_text in self._frames(frame, is_text):
                on_frame(changed, changed_is_text)

        await super().events(client_id, each)
