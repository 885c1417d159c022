"""What the server has and is: models, node classes, and facts about its machine."""

from copy import deepcopy
from typing import Any

from comfyload.comfy.wire.calls import Reply
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


def object_info(state: State, name: str) -> Reply:
    """All classes, or the one called `name`; an unknown one is an empty object."""
    found = {kind: info for kind, info in OBJECT_INFO.items() if not name or kind == name}
    for kind in ("LoadImage", "LoadImageMask"):
        if kind in found:
            found[kind] = deepcopy(found[kind])
            found[kind]["input"]["required"]["image"][0] = state.files.inputs()
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
