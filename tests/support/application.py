"""An application as there are many: a synchronous back end that talks to one ComfyUI over plain HTTP, and polls.

It knows nothing of events, retries or several servers. A job has failed for it if `status` has the key `error`, which
ComfyUI never sets.
"""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

HTTP_S, HEALTH_S, POLL_S = 30.0, 5.0, 2.0


class PageFailed(Exception):
    """The page was not made, and why."""


class Application:
    """`limit_s`: how long it waits for a page, and `poll_s`, how long between two looks."""

    def __init__(self, url: str, limit_s: float = 60.0, poll_s: float = POLL_S) -> None:
        self._url = url
        self._limit_s = limit_s
        self._poll_s = poll_s

    def page(self, graph: dict[str, Any]) -> bytes:
        """Make one page; its picture.

        Raises:
            PageFailed: it was not made.
        """
        with urlopen(f"{self._url}/system_stats", timeout=HEALTH_S) as reply:
            assert reply.status == 200
        prompt_id = self._post("prompt", {"prompt": graph, "client_id": "application"})["prompt_id"]
        until = time.monotonic() + self._limit_s
        while time.monotonic() < until:
            entry = self._get(f"history/{prompt_id}").get(prompt_id, {})
            if entry.get("outputs"):
                return self._picture(entry["outputs"])
            if "error" in entry.get("status", {}):
                raise PageFailed(entry["status"]["error"])
            time.sleep(self._poll_s)
        raise PageFailed(f"not done within {self._limit_s:g} s")

    def upload(self, name: str, content: bytes) -> str:
        """Put an image there, by the field `image` alone; what a graph calls it."""
        head = f'--X\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--X--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=X"}
        with urlopen(Request(f"{self._url}/upload/image", data=body, headers=kind), timeout=HTTP_S) as reply:
            return str(json.load(reply)["name"])

    def _picture(self, outputs: dict[str, Any]) -> bytes:
        """The first that is not `temp`, else a temporary one."""
        images = [image for output in outputs.values() for image in output.get("images", [])]
        saved = [image for image in images if image["type"] != "temp"]
        image = (saved or images)[0]
        query = urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
        with urlopen(f"{self._url}/view?{query}", timeout=HTTP_S) as reply:
            return bytes(reply.read())

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = Request(
            f"{self._url}/{path}", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=HTTP_S) as reply:
            return dict(json.load(reply))

    def _get(self, path: str) -> dict[str, Any]:
        with urlopen(f"{self._url}/{path}", timeout=HTTP_S) as reply:
            return dict(json.load(reply))
