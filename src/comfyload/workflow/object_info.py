"""What `/object_info` says of a node class: bounds of its inputs, what it puts out, which pack it is from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["HEAVY", "NodeClass", "ObjectInfo"]

HEAVY = frozenset(
    [
        "MODEL",
        "CLIP",
        "VAE",
        "CLIP_VISION",
        "CONTROL_NET",
        "UPSCALE_MODEL",
        "STYLE_MODEL",
        "GLIGEN",
        "PHOTOMAKER",
        "LORA_MODEL",
        "AUDIO_ENCODER",
        "LATENT_UPSCALE_MODEL",
        "MODEL_PATCH",
        "INTERPOLATION_MODEL",
        "SAMPLER",
        "SIGMAS",
    ]
)
"""Types of outputs that are loaded or set up once and reused by every job of a warm server."""

MEDIA = frozenset(["LATENT", "IMAGE", "MASK", "VIDEO", "AUDIO", "MESH", "VOXEL", "NOISE"])


class NodeClass:
    """One class as the server describes it; every question has an answer even if the server gave none."""

    def __init__(self, name: str, info: Mapping[str, Any] | None) -> None:
        self.name = name
        self.known = info is not None
        self._info: Mapping[str, Any] = info or {}

    @property
    def output(self) -> bool | None:
        """Whether it is an output node; None if the server did not say."""
        value = self._info.get("output_node")
        return value if isinstance(value, bool) else None

    @property
    def pack(self) -> str | None:
        """`python_module`: `nodes`, `comfy_extras.…`, `custom_nodes.<folder>`."""
        module = self._info.get("python_module")
        return module if isinstance(module, str) else None

    @property
    def heavy(self) -> bool:
        """Whether it prepares something that jobs share (a loader, a LoRA): to repeat it per job would be wrong."""
        types = self._output_types()
        return bool(types & HEAVY) if types else "load" in self.name.lower()

    @property
    def sampler(self) -> bool:
        """Whether it makes the image: a sampler by name that puts out latents or media."""
        name = self.name.lower()
        if "sampler" not in name:
            return False
        types = self._output_types()
        return bool(types & MEDIA) if types else not name.endswith(("select", "selector", "loader"))

    def bounds(self, key: str) -> tuple[int, int] | None:
        """Least and greatest value of an integer input, or None if the server gives none."""
        described = self._info.get("input")
        for group in ("required", "optional"):
            inputs = described.get(group) if isinstance(described, dict) else None
            spec = inputs.get(key) if isinstance(inputs, dict) else None
            if isinstance(spec, list) and len(spec) > 1 and isinstance(spec[1], dict):
                low, high = spec[1].get("min"), spec[1].get("max")
                if isinstance(low, int) and isinstance(high, int) and low <= high:
                    return low, high
        return None

    def _output_types(self) -> frozenset[str]:
        types = self._info.get("output")
        return frozenset(t for t in types if isinstance(t, str)) if isinstance(types, list) else frozenset()


class ObjectInfo:
    """The classes a server described; asking for another gives a `NodeClass` that knows nothing."""

    def __init__(self, classes: Mapping[str, Any] | None = None) -> None:
        self._classes = {
            name: NodeClass(name, info) for name, info in (classes or {}).items() if isinstance(info, dict)
        }

    def __getitem__(self, name: str) -> NodeClass:
        return self._classes.get(name) or NodeClass(name, None)

    def __len__(self) -> int:
        return len(self._classes)

    def packs(self) -> list[str]:
        """Folders under `custom_nodes` that the described classes come from."""
        modules = (node.pack for node in self._classes.values())
        return sorted({m.split(".")[1] for m in modules if m and m.startswith("custom_nodes.")})
