"""How an input image gets onto a server, and how a graph then names it."""

import copy
from pathlib import Path
from typing import Any

import msgspec

from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import Transport, TransportError
from comfyload.comfy.wire.lenient import decode_json
from comfyload.errors import ServerUnreachable, UsageError, file_errors
from comfyload.workflow.graph import Workflow


async def upload_image(transport: Transport, path: Path) -> str:
    """Put a file into the server's input folder; returns the name that a graph has to use for it.

    Nothing is overwritten: the same bytes keep their name, others get a number behind it.

    Raises:
        UsageError: the file cannot be read, or the server does not take it.
        ServerUnreachable: no reply came.
    """
    content = _read(path)
    try:
        reply = await api_of(transport).upload(path.name, content)
    except TransportError as error:
        raise ServerUnreachable(f"--upload {path}: {error}", "is the server still there?") from None
    if reply.status != 200:
        limited = reply.status == 413
        hint = "the server limits it: --max-upload-size" if limited else "put it into the server's input folder"
        raise UsageError(f"--upload {path}: the server answers HTTP {reply.status}", hint)
    try:
        stored = decode_json(reply.body, dict[str, Any])
    except msgspec.MsgspecError:
        stored = {}
    name, subfolder = stored.get("name"), stored.get("subfolder")
    if not isinstance(name, str) or not name:
        raise UsageError(f"--upload {path}: the server does not say where it put the file", "is it a ComfyUI?")
    return f"{subfolder}/{name}" if isinstance(subfolder, str) and subfolder else name


def rename_inputs(workflow: Workflow, old: str, new: str) -> Workflow:
    """The workflow with every literal input that is `old` made `new`: the server stored the file under another name."""
    if old == new:
        return workflow
    graph = copy.deepcopy(workflow.graph)
    for body in graph.values():
        for key, value in body["inputs"].items():
            if value == old:
                body["inputs"][key] = new
    return Workflow(workflow.name, graph, workflow.extra)


def _read(path: Path) -> bytes:
    with file_errors(f"--upload {path}", "give a file that can be read", UsageError):
        return path.read_bytes()
