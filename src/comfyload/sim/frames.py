"""What the images and latents of a graph are like: size, batch and colour. Their other values are not computed."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from comfyload.sim.catalog import CLASSES
from comfyload.workflow.graph import is_link

Graph = dict[str, Any]

READS_FILE = frozenset({"LoadImage", "LoadImageMask", "LoadImageOutput"})
_CARRIERS = ("latent_image", "samples", "pixels", "image", "images", "image1", "source", "mask")
_BY_FACTOR = ("ImageScaleBy", "LatentUpscaleBy")
_PARTICULAR = frozenset({*_BY_FACTOR, "ImageScale", "LatentUpscale", "ImageBlur", "ImageSharpen", "Canny"})
_LATENT_CHANNELS = {"EmptyLatentImage": 4, "EmptySD3LatentImage": 16}
_KEEPS_COLOUR = frozenset({
    "ImageScale", "ImageScaleBy", "ImageScaleToTotalPixels", "ImageCrop", "ImageBlur", "ImageSharpen", "ImageInvert",
    "ImageBatch", "SaveImage", "PreviewImage", "LatentUpscale", "LatentUpscaleBy", "RepeatLatentBatch", "SaveLatent",
})  # fmt: skip
_MEGA = 1024 * 1024
_MOST = 2.0**24


class Frame(Struct, frozen=True, gc=False):
    """An image, or a latent of `channels` and an eighth of the size.

    `colour` is that of every pixel; None where a model or noise made them. `free`: what a SimSleep makes, so that
    nothing done with it takes time.
    """

    width: int
    height: int
    batch: int = 1
    colour: int | None = None
    channels: int = 4
    free: bool = False

    @property
    def mega(self) -> float:
        """Megapixels to work on."""
        return 0.0 if self.free else self.width * self.height * self.batch / _MEGA

    @property
    def image_bytes(self) -> int:
        """Of three channels of 32 bits."""
        return 12 * self.width * self.height * self.batch

    @property
    def latent_bytes(self) -> int:
        return 4 * self.channels * self.batch * (self.width // 8) * (self.height // 8)


UNKNOWN = Frame(1024, 1024)


def number(graph: Graph, value: object, default: float) -> float:
    """A widget's number, also when a PrimitiveInt supplies it."""
    if is_link(value) and graph.get(value[0], {}).get("class_type") == "PrimitiveInt":
        value = graph[value[0]]["inputs"].get("value")
    return float(value) if isinstance(value, int | float) and -1e300 < value < 1e300 else default


def _widgets(graph: Graph, node_id: str) -> Callable[[str, float], float]:
    """A node's numbers, by name and with a default. No check has looked at those of a node that only an undeclared link
    leads to.
    """
    inputs = graph[node_id]["inputs"]

    def given(name: str, default: float) -> float:
        return max(-_MOST, min(_MOST, number(graph, inputs.get(name), default)))

    return given


def source_of(graph: Graph, node_id: str) -> str | None:
    """The node whose image or latent this one works on."""
    inputs = graph[node_id]["inputs"]
    return next((inputs[name][0] for name in _CARRIERS if is_link(inputs.get(name))), None)


def frame_of(graph: Graph, node_id: str, frames: Mapping[str, Frame]) -> Frame:
    """What a node makes or handles, where `frames` are those of the nodes before it."""
    kind, inputs = graph[node_id]["class_type"], graph[node_id]["inputs"]
    given = _widgets(graph, node_id)
    if kind in ("SimSleep", "SimFail"):
        return Frame(8, 8, free=True)
    if kind == "EmptyImage":
        size = max(1, int(given("width", 512))), max(1, int(given("height", 512)))
        return Frame(*size, batch=int(given("batch_size", 1)), colour=int(given("color", 0)) & 0xFFFFFF)
    if kind in _LATENT_CHANNELS:
        size = _eighths(given("width", 512)), _eighths(given("height", 512))
        return Frame(*size, batch=int(given("batch_size", 1)), colour=0, channels=_LATENT_CHANNELS[kind])
    source = frames.get(source_of(graph, node_id) or "", UNKNOWN)
    width, height = _size(kind, source, given)
    batch, colour = source.batch, source.colour if kind in _KEEPS_COLOUR else None
    if kind == "RepeatLatentBatch":
        batch *= int(given("amount", 1))
    elif kind == "ImageInvert" and colour is not None:
        colour ^= 0xFFFFFF
    elif kind == "ImageBatch":
        other = inputs.get("image2")
        second = frames.get(other[0], UNKNOWN) if is_link(other) else UNKNOWN
        batch, colour = batch + second.batch, colour if colour == second.colour else None
    return Frame(max(1, width), max(1, height), batch, colour, source.channels, source.free)


def _size(kind: str, source: Frame, given: Callable[[str, float], float]) -> tuple[int, int]:
    width, height = source.width, source.height
    match kind:
        case "ImageScaleBy":
            return round(width * given("scale_by", 1.0)), round(height * given("scale_by", 1.0))
        case "ImageScale":
            return _fitted(width, height, int(given("width", 0)), int(given("height", 0)))
        case "ImageScaleToTotalPixels":
            scale = (given("megapixels", 1.0) * _MEGA / (width * height)) ** 0.5
            step = max(1, int(given("resolution_steps", 1)))
            return round(width * scale / step) * step, round(height * scale / step) * step
        case "ImageUpscaleWithModel":
            return 4 * width, 4 * height
        case "ImageCrop":
            left, top = min(given("x", 0), width - 1), min(given("y", 0), height - 1)
            return int(min(given("width", 512), width - left)), int(min(given("height", 512), height - top))
        case "ImagePadForOutpaint":
            return width + int(given("left", 0) + given("right", 0)), height + int(given("top", 0) + given("bottom", 0))
        case "LatentUpscaleBy":
            scale = given("scale_by", 1.0)
            return 8 * round(width // 8 * scale), 8 * round(height // 8 * scale)
        case "LatentUpscale":
            wanted = _fitted(width, height, int(given("width", 0)), int(given("height", 0)))
            return wanted if wanted == (width, height) else (_eighths(max(64, wanted[0])), _eighths(max(64, wanted[1])))
        case "VAEEncode" | "VAEEncodeTiled" | "VAEEncodeForInpaint":
            return _eighths(width), _eighths(height)
    return width, height


def _eighths(length: float) -> int:
    return int(length) // 8 * 8


def _fitted(width: int, height: int, wanted_width: int, wanted_height: int) -> tuple[int, int]:
    """A side of 0 keeps the proportions."""
    if wanted_width == 0 and wanted_height == 0:
        return width, height
    if wanted_width == 0:
        return max(1, round(width * wanted_height / height)), wanted_height
    if wanted_height == 0:
        return wanted_width, max(1, round(height * wanted_width / width))
    return wanted_width, wanted_height


def misfit(graph: Graph, node_id: str, frames: Mapping[str, Frame], made: Frame, memory: int) -> tuple[str, str] | None:
    """Type and message of the error that a node raises for the values of its widgets, the size of its image or that of
    what it would make, in a `memory` of so many bytes.
    """
    kind, inputs = graph[node_id]["class_type"], graph[node_id]["inputs"]
    slots = CLASSES[kind].slots or ()
    needed = made.image_bytes if "IMAGE" in slots else made.latent_bytes if "LATENT" in slots else 0
    if needed > memory:
        return "RuntimeError", f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {needed} bytes\n"
    if kind not in _PARTICULAR:
        return None
    source = frames.get(source_of(graph, node_id) or "", UNKNOWN)
    given = _widgets(graph, node_id)
    if kind in ("ImageBlur", "ImageSharpen"):
        radius = given("blur_radius" if kind == "ImageBlur" else "sharpen_radius", 1)
        if radius >= min(source.width, source.height):
            shown = f"[{source.batch}, 3, {source.height}, {source.width}]"
            return "RuntimeError", f"Padding of {radius:.0f} must be smaller than the sides of the input {shown}\n"
    elif kind == "Canny" and given("low_threshold", 1) > given("high_threshold", 1):
        shown = f"{given('low_threshold', 1)} > {given('high_threshold', 1)}"
        return "kornia.core.exceptions.BaseError", f"Invalid thresholds, low is above high: {shown}\n"
    elif _nothing_left(kind, source, made, inputs.get("crop"), given("scale_by", 1)):
        if inputs.get("upscale_method") != "lanczos":
            return "RuntimeError", "Input and output sizes must be greater than 0\n"
        if kind in _BY_FACTOR:
            return "ValueError", "height and width must be > 0\n"
    return None


def _nothing_left(kind: str, source: Frame, made: Frame, crop: object, factor: float) -> bool:
    """Whether an image is scaled to nothing, or so long that nothing is left once it is cut to the new proportions."""
    if kind in _BY_FACTOR:
        unit = 8 if kind == "LatentUpscaleBy" else 1
        return not all(round(side // unit * factor) for side in (source.width, source.height))
    if kind not in ("ImageScale", "LatentUpscale") or crop != "center":
        return False
    ratio = source.width / source.height / (made.width / made.height)
    side, share = (source.width, 1 / ratio) if ratio > 1 else (source.height, ratio)
    return side <= 2 * round((side - side * share) / 2)
