"""The files of a job, for a program: in the graph's order, and downloaded."""

import asyncio
from collections.abc import Iterable

from msgspec import structs

from comfyload.clock import stopwatch
from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import MAX_FILE_BYTES, Request, Transport, TransportError
from comfyload.errors import ComfyloadError
from comfyload.record.model import Execution

DOWNLOAD_TRIES = 4
FILE_S = 300.0


def in_order_of(nodes: Iterable[str], execution: Execution) -> Execution:
    """The execution, its outputs in the order of these nodes; the server lists them as they ended, cached ones first.

    Nodes that a node expanded into count as that node: `7.0.2` is of 7. Within a node the server's order is kept.
    """
    places = {node: place for place, node in enumerate(nodes)}

    def place(node: str) -> int:
        return places.get(node, places.get(node.partition(".")[0], len(places)))

    return structs.replace(execution, outputs=sorted(execution.outputs, key=lambda output: place(output.node)))


def files_of(execution: Execution, *, previews: bool) -> list[str]:
    """The names of its files, each once. `previews`: also those in `temp`, which the server keeps until it restarts."""
    files = dict.fromkeys(file for output in execution.outputs for file in output.files)
    return [file for file in files if previews or not file.startswith("temp/")]


async def download_all(transport: Transport, files: list[str]) -> list[tuple[str, bytes]]:
    """The files, each with its contents.

    Raises:
        ComfyloadError: one could not be downloaded, or they are too large together for memory.
    """
    found: list[tuple[str, bytes]] = []
    for file in files:
        found.append((file, await download(transport, file)))
        if sum(len(content) for _, content in found) > MAX_FILE_BYTES:
            many = f"the files of this job are more than {MAX_FILE_BYTES >> 20} MiB together"
            raise ComfyloadError(many, "download them by their names, from the server's /view")
    return found


async def download(transport: Transport, file: str) -> bytes:
    """The contents of `type/subfolder/name`.

    Raises:
        ComfyloadError: it could not be downloaded, after several attempts.
    """
    kind, _, path = file.partition("/")
    subfolder, _, name = path.rpartition("/")
    where, problem, watch = api_of(transport).view_path(name, subfolder, kind), "", stopwatch()
    for attempt in range(DOWNLOAD_TRIES):
        if attempt:
            await asyncio.sleep(0.5 * 2**attempt)
        left = FILE_S - watch()
        if left <= 0.0:
            break
        try:
            reply = await transport.call(Request(method="GET", path=where, timeout_s=left, file=True))
        except TransportError as error:
            problem = str(error)
            if error.vain:
                break
            continue
        if reply.status == 200:
            return reply.body
        problem = f"HTTP {reply.status}"
        if reply.status < 500:
            break
    raise ComfyloadError(f"{file} could not be downloaded: {problem}", "is the file still on the server?")
