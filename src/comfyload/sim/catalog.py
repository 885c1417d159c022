"""Every node class of the simulated server, by name."""

from __future__ import annotations

from comfyload.sim.catalog_images import IMAGE_CLASSES, INPUT_IMAGES
from comfyload.sim.catalog_models import (
    CHECKPOINTS,
    CONTROLNETS,
    LORAS,
    MODEL_CLASSES,
    TEXT_ENCODERS,
    UNETS,
    UPSCALERS,
    VAES,
)

__all__ = ["CLASSES", "INPUT_IMAGES", "MODEL_FOLDERS"]

CLASSES = {node.name: node for node in [*MODEL_CLASSES, *IMAGE_CLASSES]}

MODEL_FOLDERS: dict[str, list[str]] = {
    "checkpoints": CHECKPOINTS,
    "configs": [],
    "loras": LORAS,
    "vae": [name for name in VAES if name != "pixel_space"],
    "text_encoders": TEXT_ENCODERS,
    "diffusion_models": UNETS,
    "clip_vision": [],
    "style_models": [],
    "embeddings": [],
    "controlnet": CONTROLNETS,
    "upscale_models": UPSCALERS,
}
