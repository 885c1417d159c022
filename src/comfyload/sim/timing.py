"""How long things take at speed 1: rough figures of a mid-range GPU, with a small seeded jitter."""

import math
import random
from typing import Any

from msgspec import Struct

from comfyload.sim.frames import Frame, number
from comfyload.workflow.graph import closure, is_link

Graph = dict[str, Any]

# Seconds of the first load of a file, by the loader's class and the inputs that name the files.
LOADERS: dict[str, tuple[float, tuple[str, ...]]] = {
    "CheckpointLoaderSimple": (4.0, ("ckpt_name",)),
    "UNETLoader": (5.0, ("unet_name",)),
    "DualCLIPLoader": (2.5, ("clip_name1", "clip_name2")),
    "CLIPLoader": (1.3, ("clip_name",)),
    "VAELoader": (0.4, ("vae_name",)),
    "LoraLoader": (0.5, ("lora_name",)),
    "LoraLoaderModelOnly": (0.4, ("lora_name",)),
    "ControlNetLoader": (1.2, ("control_net_name",)),
    "UpscaleModelLoader": (0.2, ("model_name",)),
}
SAMPLERS = frozenset({"KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"})
STEP_S = 0.09  # one sampler step of one megapixel
CONTROLNET_SHARE = 0.35  # what each control net adds to a step
AGAIN_S = 0.01  # a loader that runs while its file is in memory
RELOAD_SHARE = 0.5  # of the load time: a cached loader's model put back on the GPU

# (seconds a call, seconds a megapixel) of everything else.
_COSTS: dict[str, tuple[float, float]] = {
    "CLIPTextEncode": (0.15, 0.0),
    "VAEDecode": (0.0, 0.35),
    "VAEDecodeTiled": (0.0, 0.45),
    "VAEEncode": (0.0, 0.25),
    "VAEEncodeTiled": (0.0, 0.35),
    "VAEEncodeForInpaint": (0.0, 0.25),
    "SaveImage": (0.0, 0.12),
    "PreviewImage": (0.0, 0.08),
    "SaveLatent": (0.0, 0.03),
    "PreviewAny": (0.0, 0.0),
    "Preview3D": (0.0, 0.0),
    "ImageUpscaleWithModel": (0.0, 0.09),
    "ImageAddNoise": (0.0, 0.03),
    "ImageBlur": (0.0, 0.04),
    "ImageSharpen": (0.0, 0.04),
    "ImageScale": (0.0, 0.02),
    "ImageScaleBy": (0.0, 0.02),
    "ImageScaleToTotalPixels": (0.0, 0.02),
    "LoadImage": (0.03, 0.0),
    "LoadImageMask": (0.03, 0.0),
    "Canny": (0.0, 0.05),
    "SimSleep": (0.0, 0.0),
    "SimFail": (0.0, 0.0),
}
_FEW_MS = (0.003, 0.0)
_JITTER = 0.03  # coefficient of variation, lognormal


class Cost(Struct, frozen=True):
    """`before` seconds, then `steps` of `step` seconds each (0 steps for a node that reports no progress)."""

    before: float
    steps: int = 0
    step: float = 0.0


class Timing:
    """Node times. `loaded` holds the model files in memory, until /free, an OOM or a restart."""

    def __init__(self, speed: float, rng: random.Random) -> None:
        self._speed = speed
        self._rng = rng
        self.loaded: set[str] = set()

    def cost(self, graph: Graph, node_id: str, frame: Frame) -> Cost:
        """What running this node takes now, where it makes `frame`; a loader's file counts as loaded from here on."""
        node = graph[node_id]
        kind = node["class_type"]
        if kind == "SimSleep":
            return Cost(max(0.0, number(graph, node["inputs"].get("seconds"), 0.0)) / self._speed)
        scale = math.exp(self._rng.gauss(-_JITTER * _JITTER / 2.0, _JITTER)) / self._speed
        if kind in LOADERS:
            return Cost(self._load(graph, node_id, 1.0) * scale)
        if kind in SAMPLERS:
            nets = 0
            for ancestor in ancestors(graph, node_id):
                nets += graph[ancestor]["class_type"].startswith("ControlNetApply")
            return Cost(
                self._reload(graph, node_id) * scale,
                steps(graph, node_id),
                STEP_S * frame.mega * (1.0 + CONTROLNET_SHARE * nets) * scale,
            )
        fixed, each = _COSTS.get(kind, _FEW_MS)
        return Cost((fixed + each * frame.mega) * scale)

    def _load(self, graph: Graph, node_id: str, share: float) -> float:
        node = graph[node_id]
        seconds, names = LOADERS[node["class_type"]]
        files = {str(node["inputs"].get(name)) for name in names} - self.loaded
        self.loaded |= files
        return seconds * share * len(files) / len(names) if files else AGAIN_S * share

    def _reload(self, graph: Graph, node_id: str) -> float:
        """A cached loader does not run, so a sampler pays for a model that was unloaded meanwhile."""
        total = 0.0
        for ancestor in ancestors(graph, node_id):
            kind, inputs = graph[ancestor]["class_type"], graph[ancestor]["inputs"]
            if kind in LOADERS and any(str(inputs.get(name)) not in self.loaded for name in LOADERS[kind][1]):
                total += self._load(graph, ancestor, RELOAD_SHARE)
        return total


def ancestors(graph: Graph, node_id: str) -> set[str]:
    """Every node this one depends on."""
    parents = {
        node: [value[0] for value in body["inputs"].values() if is_link(value) and value[0] in graph]
        for node, body in graph.items()
    }
    return closure(parents[node_id], parents)


def steps(graph: Graph, node_id: str) -> int:
    """The steps a sampler takes, from its own inputs or from the scheduler that feeds it."""
    inputs = graph[node_id]["inputs"]
    total = int(number(graph, inputs.get("steps"), 20))
    source = inputs.get("sigmas")
    if is_link(source):
        total = int(number(graph, graph[source[0]]["inputs"].get("steps"), 20))
    first = int(number(graph, inputs.get("start_at_step"), 0))
    last = int(number(graph, inputs.get("end_at_step"), total))
    return max(1, min(last, total) - first)
