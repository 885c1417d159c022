"""Downloads a job's outputs as a user would, keeps none of them, and reports what is wrong with any."""

from collections.abc import Callable

from comfyload.comfy.api import api_of
from comfyload.comfy.reported import files_of
from comfyload.comfy.wire.calls import Download, Transport, TransportError
from comfyload.comfy.wire.history import HistoryEntry
from comfyload.record.kinds import suffix_of
from comfyload.record.model import Fetch

SIGNATURES = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".webp": (b"RIFF",),
    ".gif": (b"GIF87a", b"GIF89a"),
    ".bmp": (b"BM",),
    ".tif": (b"II*\x00", b"MM\x00*"),
    ".tiff": (b"II*\x00", b"MM\x00*"),
}


async def fetch_outputs(
    transport: Transport, entry: HistoryEntry, clock: Callable[[], float], timeout_s: float
) -> list[Fetch]:
    """Every file of the job, one after the other; seconds from the request to the last byte."""
    api, fetched = api_of(transport), []
    for filename, subfolder, kind in files_of(entry):
        name = f"{kind}/{subfolder}/{filename}" if subfolder else f"{kind}/{filename}"
        began, size = clock(), 0
        try:
            download = await transport.download(api.view_path(filename, subfolder, kind), timeout_s)
            size, problem = download.bytes, _problem(download, filename)
        except TransportError as error:
            problem = str(error)
        fetched.append(Fetch(file=name, bytes=size, seconds=clock() - began, problem=problem))
    return fetched


def _problem(download: Download, filename: str) -> str:
    """What is wrong with the file, "" if nothing is: its status, its length, or a format that does not fit its name."""
    if download.status != 200:
        return f"HTTP {download.status}"
    if download.expected is not None and download.expected != download.bytes:
        return f"{download.bytes} of {download.expected} bytes"
    if download.bytes == 0:
        return "empty"
    signatures = SIGNATURES.get(suffix_of(filename))
    if signatures and not download.head.startswith(signatures):
        return f"does not start as a {filename.rpartition('.')[2]} file does"
    return ""
