"""What a job made, from the server that has it: only configured servers are called, and pictures are shown.

In a gateway these are its servers, and it says who may have what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from aiohttp import web

from comfyload.comfy.address import redacted
from comfyload.comfy.api import api_of
from comfyload.comfy.http import Http
from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.errors import ServerUnreachable
from comfyload.gateway.fleet import ServerConfig
from comfyload.gateway.made import NotGiven
from comfyload.web.answers import Refused, Route, answer
from comfyload.web.gateways import Inside
from comfyload.web.job import job_of
from comfyload.web.runs import Runs

MOST_BYTES = 64 << 20
"""Of one output."""

TIMEOUT_S = 30.0
AT_ONCE = 8
"""Outputs that are read at one time, so that a page of thumbnails does not hold up the server under test."""

SHOWN = {
    ".png": ("image/png", b"\x89PNG\r\n\x1a\n"),
    ".jpg": ("image/jpeg", b"\xff\xd8\xff"),
    ".jpeg": ("image/jpeg", b"\xff\xd8\xff"),
    ".webp": ("image/webp", b"RIFF"),
    ".gif": ("image/gif", b"GIF8"),
}
"""Pictures that a browser shows, with what they begin with; anything else is only saved, as it could hold a script."""


class Outputs:
    """The handlers. `servers`: those that are configured; no other is called. `inside`: we stand in a gateway."""

    def __init__(self, runs: Runs, servers: Sequence[ServerConfig]) -> None:
        self.inside: Inside | None = None
        self._runs = runs
        self._servers = {redacted(server.url): server for server in servers}
        self._room = asyncio.Semaphore(AT_ONCE)

    def routes(self, ui: str) -> list[Route]:
        job = f"{ui}/runs/{{id}}/jobs/{{index:[0-9]{{1,15}}}}"
        return [("GET", f"{job}.json", self._whole), ("GET", f"{job}/outputs/{{n:[0-9]{{1,6}}}}", self._output)]

    async def _whole(self, request: web.Request) -> web.Response:
        """The job as JSON, with each attempt."""
        return answer(await self._job(request))

    async def _output(self, request: web.Request) -> web.Response:
        job, n = await self._job(request), int(request.match_info["n"])
        if n >= len(job["outputs"]):
            raise Refused(404, f"the job has no output {n}")
        file = job["outputs"][n]["file"]
        if "/" not in file:
            raise Refused(404, "it is no file")
        try:
            async with self._room:
                reply = await self._fetched(request, job, file)
        except NotGiven as error:
            raise Refused(404, str(error)) from None
        except (TransportError, ServerUnreachable) as error:
            raise Refused(502, f"the server does not give it: {error}") from None
        if reply.status != 200:
            why = "has it no more" if reply.status == 404 else "does not give it"
            raise Refused(404, f"the server {why} (HTTP {reply.status})")
        return _shown(file.rpartition("/")[2], reply.body)

    async def _job(self, request: web.Request) -> dict[str, Any]:
        entry = await self._runs.find(request.match_info["id"])
        index = int(request.match_info["index"])
        found = await self._runs.look(entry, partial(job_of, index=index))
        if found is None:
            raise Refused(404, f"the run has no job {index}")
        return found

    async def _fetched(self, request: web.Request, job: dict[str, Any], file: str) -> Reply:
        """What the job's server answers to a call for the file `kind/folder/name`."""
        limits: dict[str, Any] = {"timeout_s": TIMEOUT_S, "most_bytes": MOST_BYTES}
        if self.inside is not None:
            return await self.inside.made(request, job["id"], job["server"], file, **limits)
        server = self._servers.get(job["server"])
        if server is None:
            raise Refused(404, "its server is not among those of the dashboard", "begin it with --server URL")
        kind, *folders, name = file.split("/")
        async with Http.connect(
            server.url, server.headers, ca_file=server.ca_file, insecure=server.insecure, connect_s=5.0
        ) as http:
            path = api_of(http).view_path(name, "/".join(folders), kind)
            return await http.call(Request(method="GET", path=path, **limits))


def _shown(name: str, content: bytes) -> web.Response:
    kind, begin = SHOWN.get(PurePosixPath(name).suffix.lower(), ("", b""))
    if kind and content.startswith(begin):
        return web.Response(body=content, content_type=kind)
    saved = {"Content-Disposition": "attachment"}
    return web.Response(body=content, content_type="application/octet-stream", headers=saved)
