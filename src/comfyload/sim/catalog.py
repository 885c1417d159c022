"""Every node class of the simulated server, by name, as ComfyUI 0.33.0 describes it in `/object_info`.

`object_info.json` was captured from a real server, which has some 700 classes more: these are those of common picture
workflows, without descriptions and tooltips, with the simulator's own model files and images in the lists, and with two
classes for tests. SimSleep takes exactly `seconds` (over the server's speed), and its image
costs nothing to save: with PreviewAny or PreviewImage behind it a job of an exact length. SimFail always raises.
"""

import json
from importlib.resources import files
from typing import Any

from comfyload.workflow.object_info import NodeClass

OBJECT_INFO: dict[str, dict[str, Any]] = json.loads(
    files("comfyload.sim").joinpath("object_info.json").read_text(encoding="utf-8")
)


CLASSES = {name: NodeClass(name, info) for name, info in OBJECT_INFO.items()}


def _choices(name: str, key: str) -> list[str]:
    return list(CLASSES[name].inputs[key].choices or ())


INPUT_IMAGES = _choices("LoadImage", "image")

MODEL_FOLDERS: dict[str, list[str]] = {
    "checkpoints": _choices("CheckpointLoaderSimple", "ckpt_name"),
    "configs": [],
    "loras": _choices("LoraLoader", "lora_name"),
    "vae": [name for name in _choices("VAELoader", "vae_name") if name != "pixel_space"],
    "text_encoders": _choices("DualCLIPLoader", "clip_name1"),
    "diffusion_models": _choices("UNETLoader", "unet_name"),
    "clip_vision": [],
    "style_models": [],
    "embeddings": [],
    "diffusers": [],
    "vae_approx": [],
    "controlnet": _choices("ControlNetLoader", "control_net_name"),
    "gligen": [],
    "upscale_models": _choices("UpscaleModelLoader", "model_name"),
    "latent_upscale_models": [],
    "custom_nodes": [],
    "datasets": [],
    "hypernetworks": [],
    "photomaker": [],
    "classifiers": [],
    "model_patches": [],
    "audio_encoders": [],
    "background_removal": [],
    "frame_interpolation": [],
    "geometry_estimation": [],
    "optical_flow": [],
    "detection": [],
}
