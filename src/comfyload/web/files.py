"""The page's own files: those that are there at the start, by their names. No path of a call reaches the disk."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from comfyload.web.answers import Refused

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"

KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}
"""Files of other kinds are not served."""

_PACKED = ("text/", "application/", "image/svg")


class _File(Struct, frozen=True, kw_only=True):
    content: bytes
    packed: bytes | None
    kind: str
    tag: str


class PageFiles:
    """What lies in the folder; links are left out."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            file.relative_to(folder).as_posix(): _read(file)
            for file in sorted(folder.rglob("*"))
            if file.suffix in KINDS and file.is_file() and not file.is_symlink()
        }

    async def index(self, request: web.Request) -> web.Response:
        return self._answer(request, INDEX)

    async def file(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["name"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        found = self._files.get(name)
        if found is None:
            raise Refused(404, "the page has no such file")
        headers = {"Vary": "Accept-Encoding"}
        body = found.content
        if found.packed is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
            body, headers["Content-Encoding"] = found.packed, "gzip"
        text = found.kind.startswith("text/")
        made = web.Response(body=body, content_type=found.kind, charset="utf-8" if text else None, headers=headers)
        made.etag = found.tag
        return made


def _read(file: Path) -> _File:
    content, kind = file.read_bytes(), KINDS[file.suffix]
    packed = gzip.compress(content, mtime=0) if kind.startswith(_PACKED) else None
    return _File(content=content, packed=packed, kind=kind, tag=hashlib.blake2b(content, digest_size=12).hexdigest())
