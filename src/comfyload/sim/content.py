"""What the server has and is: files, models, node classes, and facts about its machine."""

import email.parser
import email.policy
import mimetypes
import posixpath
from copy import deepcopy
from typing import Any

from comfyload.comfy.wire.calls import Reply, Request
from comfyload.sim.catalog import MODEL_FOLDERS, OBJECT_INFO
from comfyload.sim.reply import empty, json_reply
from comfyload.sim.state import State

_GIB = 2**30
_MODEL_BYTES = 3 * _GIB  # what a loaded file takes on the GPU
_MODEL_ENDINGS = [".bin", ".ckpt", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft"]
_MODELS_SINCE = 1_780_000_000.0  # wall time, s
_HOME = "/comfyui"
_PACKAGES = {
    "comfyui-frontend-package": "1.49.6",
    "comfyui-workflow-templates": "0.11.44",
    "comfyui-embedded-docs": "0.5.10",
    "comfy-kitchen": "0.2.31",
    "comfy-aimdo": "0.4.13",
}
FILE_KINDS = ("output", "input", "temp")


def object_info(state: State, name: str) -> Reply:
    """All classes, or the one called `name`; an unknown one is an empty object."""
    found = {kind: info for kind, info in OBJECT_INFO.items() if not name or kind == name}
    if "LoadImage" in found:
        found["LoadImage"] = deepcopy(found["LoadImage"])
        found["LoadImage"]["input"]["required"]["image"][0] = list(state.files.inputs())
    return json_reply(found)


def models(folder: str) -> Reply:
    return json_reply(MODEL_FOLDERS[folder]) if folder in MODEL_FOLDERS else empty(404)


def folder_paths() -> dict[str, list[str]]:
    return {
        name: [f"{_HOME}/custom_nodes" if name == "custom_nodes" else f"{_HOME}/models/{name}"]
        for name in MODEL_FOLDERS
    }


def model_folders() -> list[dict[str, Any]]:
    """The folders in the form that the page asks for."""
    shown = {name: paths for name, paths in folder_paths().items() if name not in ("configs", "custom_nodes")}
    return [{"name": name, "folders": paths, "extensions": _MODEL_ENDINGS} for name, paths in shown.items()]


def model_files(folder: str) -> Reply:
    if folder not in MODEL_FOLDERS:
        return empty(404)
    facts = {"pathIndex": 0, "modified": _MODELS_SINCE, "created": _MODELS_SINCE, "size": _MODEL_BYTES}
    return json_reply([{"name": name, **facts} for name in MODEL_FOLDERS[folder]])


def system_stats(state: State) -> dict[str, Any]:
    settings = state.settings
    ram, vram = int(settings.host_ram_gib * _GIB), int(settings.vram_gib * _GIB)
    used = min(vram - _GIB // 2, _GIB // 2 + len(state.timing.loaded) * _MODEL_BYTES)
    device = {
        "name": "cuda:0 Simulated GPU : cudaMallocAsync",
        "type": "cuda",
        **({"index": 0} if settings.since(0, 23) else {}),
        "vram_total": vram,
        "vram_free": vram - used,
        "torch_vram_total": used,
        "torch_vram_free": 0,
    }
    system = {
        "os": "linux",
        "ram_total": ram,
        "ram_free": int(ram * 0.95),
        "comfyui_version": settings.version,
        "required_frontend_version": _PACKAGES["comfyui-frontend-package"],
        "installed_templates_version": _PACKAGES["comfyui-workflow-templates"],
        "required_templates_version": _PACKAGES["comfyui-workflow-templates"],
        "comfy_package_versions": [
            {"name": name, "installed": version, "required": version} for name, version in _PACKAGES.items()
        ],
        "python_version": "3.11.7 (main) [GCC 12.2.0]",
        "pytorch_version": "2.13.0+cu130",
        "embedded_python": False,
        "deploy_environment": "local-git",
        "argv": settings.argv(),
    }
    return {"system": system, "devices": [device]}


def view(state: State, query: dict[str, str]) -> Reply:
    """A file's bytes; `preview` and `channel` are ignored."""
    name, kind = query.get("filename", ""), query.get("type", "output")
    if "filename" not in query:
        return empty(404)
    if not name or name.startswith("/") or ".." in name or kind not in FILE_KINDS:
        return empty(400)
    subfolder = posixpath.normpath(query.get("subfolder") or ".")
    if subfolder.startswith(("..", "/")):
        return empty(403)
    data = state.files.read(kind, "" if subfolder == "." else subfolder, posixpath.basename(name))
    if data is None:
        return empty(404)
    return Reply(
        status=200,
        body=data,
        content_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
        headers={"Content-Disposition": f'filename="{name}"', "Accept-Ranges": "bytes"},
    )


def upload(state: State, request: Request) -> Reply:
    """Store the `image` of a multipart form; `type`, `subfolder` and `overwrite` as a real server reads them."""
    try:
        fields, name, data = _form(request)
    except (LookupError, ValueError):  # the parser of mail falls over some headers
        return empty(400)
    if not name:
        return empty(400)
    kind = fields.get("type", "input")
    kind = kind if kind in FILE_KINDS else "input"
    subfolder = fields.get("subfolder", "")
    if ".." in subfolder or ".." in name:
        return empty(400)
    stored = state.files.upload(kind, subfolder, name, data, fields.get("overwrite") in ("true", "1"))
    return json_reply({"name": stored, "subfolder": subfolder, "type": kind})


def _form(request: Request) -> tuple[dict[str, str], str, bytes]:
    """The text fields of a multipart body, and the name and bytes of its `image`."""
    head = f"Content-Type: {request.content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + (request.body or b""))
    fields: dict[str, str] = {}
    name, data = "", b""
    for part in message.iter_parts():
        field = str(part.get_param("name", header="content-disposition"))
        payload = part.get_payload(decode=True)
        raw = payload if isinstance(payload, bytes) else b""
        if field == "image":
            name, data = part.get_filename() or "", raw
        else:
            fields[field] = raw.decode()
    return fields, name, data
