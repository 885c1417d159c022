"""Files of tenants who are kept apart: each sees its own alone. Uploads are kept here, and brought to whichever server
gets a job with them.
"""

from __future__ import annotations

import json
import mimetypes
import posixpath
import re
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import MAX_FILE_BYTES, Reply, Request, TransportError
from comfyload.gateway.files import RESULTS, Files, named, parted_name
from comfyload.gateway.fleet import Fleet, Member
from comfyload.gateway.inputs import FETCH_S, InputFiles, stored_as
from comfyload.gateway.passing import Passing
from comfyload.gateway.uploads import UPLOAD_S

MOST_NAME = 200
_NAME = re.compile(r'[^\x00-\x1f\x7f/\\"\ud800-\udfff]+')


class TenantFiles:
    """`owns`: whether a job of the tenant made the file of that full name."""

    def __init__(
        self, files: Files, fleet: Fleet, inputs: InputFiles, passing: Passing, owns: Callable[[str, str], bool]
    ) -> None:
        self._files = files
        self._fleet = fleet
        self._inputs = inputs
        self._passing = passing
        self._owns = owns

    async def view(self, request: web.Request, tenant: str) -> web.StreamResponse:
        """A file that the tenant uploaded, or that a job of it made."""
        full = self._files.full_name(request.query)
        _, kind, folder, name = parted_name(full)
        kept = self._files.content(posixpath.join(folder, name), tenant) if kind == "input" else None
        if kept is not None:
            return web.Response(body=kept, content_type=mimetypes.guess_type(name)[0] or "application/octet-stream")
        if not self._owns(tenant, full):
            return web.Response(status=404)
        server, query = self._files.view(dict(request.query))
        query = {key: query[key] for key in ("preview", "channel", "rand") if key in query}
        query |= {"filename": name, "type": kind, "subfolder": folder}
        return await self._passing.view_at(request, server, query)

    async def upload(self, request: web.Request, tenant: str) -> web.Response:
        """Keep a picture, or what a server makes of one of the tenant's pictures and the mask that came."""
        form = await request.post()
        opened = [field for field in form.values() if isinstance(field, web.FileField)]
        try:
            image = form.get("image")
            if not isinstance(image, web.FileField) or not image.filename:
                return web.Response(status=400)
            kind, subfolder, name = str(form.get("type", "input")), str(form.get("subfolder", "")), image.filename
            if not _is_name(name) or not all(map(_is_name, subfolder.split("/") if subfolder else ())):
                return web.Response(status=400)
            content = image.file.read()
            if request.path.endswith("/mask"):
                reference = _reference_in(form.get("original_ref"))
                made = await self._masked(reference, content, posixpath.splitext(name)[1], tenant)
                if made.status != 200:
                    return web.Response(status=made.status, body=made.body)
                content = made.body
            overwrite = str(form.get("overwrite", "")) in ("true", "1")
            stored = self._files.store(name, subfolder, content, overwrite=overwrite, tenant=tenant)
            return web.json_response({"name": stored, "subfolder": subfolder, "type": kind})
        finally:
            for field in opened:
                field.file.close()

    async def _masked(self, reference: dict[str, str], mask: bytes, ending: str, tenant: str) -> Reply:
        """The picture with the mask, as a server composes it that has the picture or is given it; or why there is none.

        The server keeps it among its temporary files, where no tenant can name it.
        """
        full = self._files.full_name(reference)
        server, kind, folder, name = parted_name(full)
        upload = named(posixpath.join(folder, name), kind)
        if kind in RESULTS and self._owns(tenant, full):
            home = self._fleet.home
            holder = self._fleet.get(server) if server else home
            members, upload = [] if holder is None else [holder], ""
        elif kind == "input" and not server and self._files.digest(upload, tenant) is not None:
            home = self._fleet.home
            members = [*([] if home is None else [home]), *(each for each in self._fleet.joined if each is not home)]
        else:
            return Reply(status=404, body=b"there is no such picture")
        why = "no server answers"
        for member in members:
            try:
                if upload:
                    folder, name = posixpath.split(await self._inputs.put(member, upload, tenant))
                return await self._composed(member, {"filename": name, "subfolder": folder, "type": kind}, mask, ending)
            except TransportError as error:
                why = f"{member.name} does not answer: {error}"
        return Reply(status=503, body=why.encode())

    async def _composed(self, member: Member, picture: dict[str, str], mask: bytes, ending: str) -> Reply:
        """The picture, which the server has, with the mask.

        Raises:
            TransportError: the server does not answer.
        """
        fields = {"type": "temp", "subfolder": "comfyload-masks", "original_ref": json.dumps(picture)}
        body, content_type = _form(fields, f"{uuid.uuid4().hex}{ending}", mask)
        reply = await member.transport.call(
            Request(method="POST", path="upload/mask", body=body, content_type=content_type, timeout_s=UPLOAD_S)
        )
        stored = stored_as(reply)
        if stored is None:
            return reply if reply.status != 200 else Reply(status=502, body=b"the server did not say what it stored")
        folder, name = posixpath.split(stored)
        where = api_of(member.transport).view_path(name, folder, "temp")
        # A ComfyUI that has not got the picture says that it stored something, and stores nothing.
        return await member.transport.call(
            Request(method="GET", path=where, timeout_s=FETCH_S, file=True, most_bytes=MAX_FILE_BYTES)
        )


def _is_name(text: str) -> bool:
    """Whether it is the name of one file or folder, on any system."""
    return text not in ("", ".", "..") and len(text) <= MOST_NAME and _NAME.fullmatch(text) is not None


def _reference_in(text: Any) -> dict[str, str]:
    """What a form for a mask says of the picture to which it belongs.

    Raises:
        ValueError: it says nothing that can be read.
    """
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except RecursionError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("filename"), str):
        raise ValueError("no picture is named")
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _form(fields: dict[str, str], name: str, content: bytes) -> tuple[bytes, str]:
    """A form with a file, and its content type."""
    mark = f"comfyload-{uuid.uuid4().hex}"
    texts = "".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()
    )
    head = f'{texts}--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    return b"".join((head.encode(), content, f"\r\n--{mark}--\r\n".encode())), f"multipart/form-data; boundary={mark}"
