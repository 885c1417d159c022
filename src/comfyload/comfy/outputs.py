"""Downloads a job's outputs as a user would, keeps none of them, and says what is wrong with any."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from comfyload.comfy.reported import files_of
from comfyload.comfy.wire import TransportError
from comfyload.record.kinds import suffix_of
from comfyload.record.model import Fetch

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.comfy.transport import Transport
    from comfyload.comfy.wire import Download, HistoryEntry

__all__ = ["fetch_outputs"]

_BOXES = ((4, b"ftyp"),)
_OGG, _EBML, _TIFF = ((0, b"OggS"),), ((0, b"\x1a\x45\xdf\xa3"),), ((0, b"II*\x00"), (0, b"MM\x00*"))
_PNG, _JPEG, _RIFF = ((0, b"\x89PNG\r\n\x1a\n"),), ((0, b"\xff\xd8\xff"),), ((0, b"RIFF"),)

SIGNATURES: dict[str, tuple[tuple[int, bytes], ...]] = {
    ".png": _PNG,
    ".apng": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _RIFF,
    ".gif": ((0, b"GIF87a"), (0, b"GIF89a")),
    ".bmp": ((0, b"BM"),),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".exr": ((0, b"\x76\x2f\x31\x01"),),
    ".hdr": ((0, b"#?"),),
    ".jxl": ((0, b"\xff\x0a"), (4, b"JXL ")),
    ".jp2": ((4, b"jP  "),),
    ".avif": _BOXES,
    ".heic": _BOXES,
    ".mp4": _BOXES,
    ".m4a": _BOXES,
    ".webm": _EBML,
    ".mkv": _EBML,
    ".wav": (*_RIFF, (0, b"RF64")),
    ".flac": ((0, b"fLaC"), (0, b"ID3")),
    ".ogg": _OGG,
    ".opus": _OGG,
    ".mp3": ((0, b"ID3"), (0, b"\xff")),
    ".glb": ((0, b"glTF"),),
    ".ply": ((0, b"ply"),),
}
"""How a file of that name begins: any of these bytes, each at its place."""


async def fetch_outputs(
    transport: Transport, entry: HistoryEntry, clock: Callable[[], float], timeout_s: float
) -> list[Fetch]:
    """Every file of the job, one after the other; seconds from the request to the last byte."""
    fetched = []
    for filename, subfolder, kind in files_of(entry):
        query = urlencode({"filename": filename, "subfolder": subfolder, "type": kind})
        name = f"{kind}/{subfolder}/{filename}" if subfolder else f"{kind}/{filename}"
        began = clock()
        try:
            download = await transport.download(f"view?{query}", timeout_s)
        except TransportError as error:
            fetched.append(Fetch(file=name, bytes=0, seconds=clock() - began, problem=str(error)))
        else:
            problem = _problem(download, filename)
            fetched.append(Fetch(file=name, bytes=download.bytes, seconds=clock() - began, problem=problem))
    return fetched


def _problem(download: Download, filename: str) -> str:
    """What is wrong with the file, "" if nothing is: its status, its length, or that it is not what its name says."""
    if download.status != 200:
        return f"HTTP {download.status}"
    if download.expected is not None and download.expected != download.bytes:
        return f"{download.bytes} of {download.expected} bytes"
    if download.bytes == 0:
        return "empty"
    signatures = SIGNATURES.get(suffix_of(filename), ())
    if signatures and not any(download.head.startswith(begin, at) for at, begin in signatures):
        return f"does not start as a {filename.rpartition('.')[2]} file does"
    return ""
