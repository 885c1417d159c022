"""Files fetched and uploaded: `/view`, `/upload/image` and `/upload/mask`."""

import email.parser
import email.policy
import json
import mimetypes
import posixpath
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import parse_qsl

from msgspec import Struct

from comfyload.comfy.wire.calls import Reply, Request
from comfyload.sim import reencode
from comfyload.sim.files import KINDS, annotated, place
from comfyload.sim.reply import empty, json_reply, text
from comfyload.sim.state import State

Headers = Mapping[str, str]

_ACTIVE = frozenset({
    "text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "application/javascript",
    "application/x-javascript", "application/ecmascript", "text/css", "image/svg+xml", "application/xml", "text/xml",
    "message/rfc822",
})  # fmt: skip
"""Content types that a browser runs: sent as a download."""


class HeadedRequest(Request, frozen=True, kw_only=True):
    """A request with the headers that it came with."""

    headers: Headers


def view(state: State, request: Request, query: dict[str, str]) -> Reply:
    """A file, whole, in part or re-encoded."""
    headers: Headers = request.headers if isinstance(request, HeadedRequest) else {}
    if "filename" not in query:
        return empty(404)
    name, kind = annotated(query["filename"])
    kind = kind or query.get("type", "output")
    if not name or name.startswith("/") or ".." in name or kind not in KINDS:
        return empty(400)
    folder = place(kind, query.get("subfolder", ""))
    if folder is None:
        return empty(403)
    name = posixpath.basename(name)
    path = posixpath.join(folder, name)
    file, data = state.files.find(kind, path), state.files.read(kind, path)
    if file is None or data is None:
        return empty(404)
    try:
        if "preview" in query:
            return _picture(name, *reencode.preview(data, query["preview"], query.get("channel", "")))
        if query.get("channel") in ("rgb", "a"):
            return _picture(name, reencode.channel(data, query["channel"]), "image/png")
    except reencode.NoPillow as error:
        return text(501, str(error))
    return _part(data, file.modified, *_described(name, headers), headers)


def _picture(name: str, data: bytes, content_type: str) -> Reply:
    headers = {"Content-Disposition": f'filename="{name}"'}
    return Reply(status=200, body=data, content_type=content_type, headers=headers)


def _described(name: str, headers: Headers) -> tuple[str, dict[str, str]]:
    """The content type of a file of that name, and the headers that say how to show it."""
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    shown = {"X-Content-Type-Options": "nosniff", "Content-Disposition": f'filename="{escaped}"'}
    if content_type in _ACTIVE:
        shown |= {"Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"}
        if content_type != "image/svg+xml" or headers.get("Sec-Fetch-Dest") != "image":
            content_type = "application/octet-stream"
            shown["Content-Disposition"] = f"attachment; {shown['Content-Disposition']}"
    return content_type, shown


def _part(data: bytes, modified: int, content_type: str, described: dict[str, str], headers: Headers) -> Reply:
    """What the conditions and the range of a request leave of a file that was `modified` then (ms)."""
    size, seconds = len(data), modified // 1000
    etag = f'"{modified * 1_000_000:x}-{size:x}"'

    def reply(status: int, more: dict[str, str], body: bytes = b"") -> Reply:
        return Reply(status=status, body=body, content_type=content_type, headers=described | more)

    def names(header: str) -> bool:
        listed = [part.strip().removeprefix("W/") for part in headers[header].split(",")]
        return etag in listed or listed == ["*"]

    def newer(header: str) -> bool | None:
        """Than the time that a header names; None if it names none."""
        since = _instant(headers.get(header))
        return None if since is None else seconds > since

    if not names("If-Match") if "If-Match" in headers else newer("If-Unmodified-Since"):
        return reply(412, {})
    facts = {"Etag": etag, "Last-Modified": format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)}
    if names("If-None-Match") if "If-None-Match" in headers else newer("If-Modified-Since") is False:
        return reply(304, facts)
    facts["Accept-Ranges"] = "bytes"
    if "Range" not in headers or newer("If-Range"):
        return reply(200, facts, data)
    part = _range(headers["Range"], size)
    if part is None:
        return reply(416, {"Content-Range": f"bytes */{size}"})
    first, end = part
    return reply(206, facts | {"Content-Range": f"bytes {first}-{end - 1}/{size}"}, data[first:end])


def _range(wanted: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None for what is no range of a file of that size."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:
        return max(0, size - int(found[2])) if int(found[2]) else 0, size
    first, last = int(found[1]), int(found[2]) if found[2] else size - 1
    return (first, min(last + 1, size)) if first < size and first <= last else None


def _instant(stamp: str | None) -> float | None:
    try:
        return None if stamp is None else parsedate_to_datetime(stamp).timestamp()
    except ValueError:
        return None


def upload_image(state: State, request: Request) -> Reply:
    """Store the `image` of a form; `type`, `subfolder` and `overwrite` as a real server reads them.

    Raises:
        ValueError, TypeError, KeyError: a form of another shape (a real server answers 500).
    """
    return _upload(state, _form(request), lambda form: form.data)


def upload_mask(state: State, request: Request) -> Reply:
    """Store the picture that `original_ref` names, with the alpha channel of the form's `image`; nothing if there is
    no such picture.
    """

    def masked(form: Form) -> bytes | None:
        reference = json.loads(form.fields["original_ref"])
        name, kind = annotated(reference["filename"])
        kind = kind or reference.get("type", "output")
        folder = place(kind, reference.get("subfolder", "")) if kind in KINDS else None
        path = None if folder is None or ".." in name else place(kind, folder, name)
        original = None if path is None else state.files.read(kind, path)
        return None if original is None else reencode.masked(original, form.data)

    try:
        return _upload(state, _form(request), masked)
    except reencode.NoPillow as error:
        return text(501, str(error))


class Form(Struct):
    """The text fields of a form, and the name and bytes of its `image`; no name if that is no file."""

    fields: dict[str, str]
    name: str = ""
    data: bytes = b""


def _upload(state: State, form: Form, stored: Callable[[Form], bytes | None]) -> Reply:
    kind, name, files = form.fields.get("type", "input"), form.name, state.files
    if kind not in KINDS:
        raise ValueError(kind)
    if not name:
        if form.fields.get("image"):
            raise ValueError("image is no file")
        return empty(400)
    subfolder = form.fields.get("subfolder", "")
    folder = place(kind, subfolder)
    if folder is None or not place(kind, folder, name):
        return empty(400)
    there = False
    if form.fields.get("overwrite") not in ("true", "1"):
        name, there = files.free_name(kind, folder, name, form.data)
    data = None if there else stored(form)
    if data is not None:
        files.put(kind, folder, name, data)
    return json_reply({"name": name, "subfolder": subfolder, "type": kind})


def _form(request: Request) -> Form:
    if request.content_type.startswith("application/x-www-form-urlencoded"):
        return Form(dict(parse_qsl((request.body or b"").decode(), keep_blank_values=True)))
    if not request.content_type.startswith("multipart/"):
        return Form({})
    head = f"Content-Type: {request.content_type}\r\n\r\n".encode()
    try:
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + (request.body or b""))
        return _parts(message)
    except LookupError as error:  # the parser of mail falls over some headers
        raise ValueError("no form") from error


def _parts(message: EmailMessage) -> Form:
    if not message.is_multipart():
        raise ValueError("no form")
    form = Form({})
    for part in message.iter_parts():
        field = str(part.get_param("name", header="content-disposition"))
        payload = part.get_payload(decode=True)
        raw = payload if isinstance(payload, bytes) else b""
        file_name = (part.get_filename() or "").lstrip("/\\")
        if not file_name:
            form.fields[field] = raw.decode()
        elif field == "image":
            form.name, form.data = file_name, raw
    return form
