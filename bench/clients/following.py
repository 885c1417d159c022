"""One job as ComfyUI's own example does it, for the clients that block: POST, follow one socket to the end, history."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[str, str, bytes | None], bytes]
"""Method, path and body of a request; returns the body of the reply."""


def job(call: Call, receive: Callable[[], str | bytes], graph: dict[str, Any], client_id: str, *, fetch: bool) -> str:
    """Returns the line of JSON that is kept of it."""
    sent = time.monotonic_ns()
    body = json.dumps({"prompt": graph, "client_id": client_id}).encode()
    prompt_id = json.loads(call("POST", "/prompt", body))["prompt_id"]
    events = []
    while True:
        message = json.loads(receive())
        events.append((message["type"], time.monotonic_ns()))
        data = message["data"]
        if message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
            break
    done = time.monotonic_ns()
    status = json.loads(call("GET", f"/history/{prompt_id}", None))[prompt_id]["status"]["status_str"]
    if fetch:
        call("GET", f"/view?filename={prompt_id}", None)
    line = {"prompt_id": prompt_id, "sent_ns": sent, "done_ns": done, "events": events, "status": status}
    return json.dumps(line) + "\n"
