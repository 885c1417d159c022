"""What the server has and is: models, node classes, and facts about its machine."""

from copy import deepcopy
from typing import Any

from comfyload.comfy.wire.calls import Reply
from comfyload.sim.catalog import MODEL_FOLDERS, OBJECT_INFO
from comfyload.sim.reply import empty, json_reply
from comfyload.sim.state import State

_GIB = 2**30
_MODEL_BYTES = 3 * _GIB  # what a loaded file takes on the GPU


def object_info(state: State, name: str) -> Reply:
    """All classes, or the one called `name`; an unknown one is an empty object."""
    found = {kind: info for kind, info in OBJECT_INFO.items() if not name or kind == name}
    for kind in ("LoadImage", "LoadImageMask"):
        if kind in found:
            found[kind] = deepcopy(found[kind])
            found[kind]["input"]["required"]["image"][0] = state.files.inputs()
    return json_reply(found)


def models(folder: str) -> Reply:
    if not folder:
        return json_reply(list(MODEL_FOLDERS))
    return json_reply(MODEL_FOLDERS[folder]) if folder in MODEL_FOLDERS else empty(404)


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
        "required_frontend_version": "1.49.6",
        "comfy_package_versions": [],
        "python_version": "3.11.7 (main) [GCC 12.2.0]",
        "pytorch_version": "2.13.0+cu130",
        "embedded_python": False,
        "deploy_environment": "local-git",
        "argv": settings.argv(),
    }
    return {"system": system, "devices": [device]}
