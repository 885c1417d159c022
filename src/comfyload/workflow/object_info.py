"""Node classes as `/object_info` describes them: types and bounds of inputs, outputs, and the pack of each."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from msgspec import Struct

HEAVY = frozenset(
    [
        "MODEL", "CLIP", "VAE", "CLIP_VISION", "CONTROL_NET", "UPSCALE_MODEL", "STYLE_MODEL", "GLIGEN", "PHOTOMAKER",
        "LORA_MODEL", "AUDIO_ENCODER", "LATENT_UPSCALE_MODEL", "MODEL_PATCH", "INTERPOLATION_MODEL", "SAMPLER",
        "SIGMAS",
    ]
)  # fmt: skip
"""Types of outputs that are loaded or set up once and reused by every job of a warm server."""


class InputSpec(Struct, frozen=True, kw_only=True):
    """A declared input: `kind` is its type (`INT`, `STRING`, `IMAGE`, …), or the list of choices that it allows."""

    kind: str | list[Any]
    options: dict[str, Any] = {}
    required: bool = False

    @property
    def dynamic(self) -> bool:
        """Whether it stands for other inputs, which depend on the values given (`COMFY_AUTOGROW_V3`, …)."""
        kind = self.kind
        return isinstance(kind, str) and kind.startswith("COMFY_") and not kind.startswith("COMFY_MATCHTYPE")

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Least and greatest value, or None if the server gives no such pair of integers."""
        low, high = self.options.get("min"), self.options.get("max")
        return (low, high) if isinstance(low, int) and isinstance(high, int) and low <= high else None

    @property
    def choices(self) -> list[Any] | None:
        """The values it allows, of an input that is a list; None for any other."""
        if isinstance(self.kind, list):
            return self.kind
        listed = self.options.get("options") if self.kind == "COMBO" else None
        return listed if isinstance(listed, list) else None


MEDIA = frozenset(["LATENT", "IMAGE", "MASK", "VIDEO", "AUDIO", "MESH", "VOXEL", "NOISE"])
PLAIN = frozenset(["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "*"])


class NodeClass:
    """One class as the server describes it; every property has a value even without a description."""

    def __init__(self, name: str, info: Mapping[str, Any] | None) -> None:
        self.name = name
        self.known = info is not None
        self._info: Mapping[str, Any] = info or {}

    @property
    def output(self) -> bool | None:
        """Whether it is an output node; None: not described."""
        value = self._info.get("output_node")
        return value if isinstance(value, bool) else None

    @property
    def pack(self) -> str | None:
        """`python_module`: `nodes`, `comfy_extras.…`, `custom_nodes.<folder>`."""
        module = self._info.get("python_module")
        return module if isinstance(module, str) else None

    @property
    def core(self) -> bool:
        """Whether the class is ComfyUI's own: it then treats its inputs as ComfyUI's own functions do."""
        return self.pack == "nodes" or (self.pack or "").startswith(("comfy_extras.", "comfy_api_nodes."))

    @property
    def heavy(self) -> bool:
        """Whether it prepares something that jobs share (a loader, a LoRA), which must not be repeated per job."""
        types, name = self._types, self.name.lower()
        if not types:
            return "load" in name
        if types & HEAVY or any(kind.endswith(("MODEL", "VAE")) for kind in types):
            return True
        return "loader" in name and not types & (MEDIA | PLAIN)

    @property
    def sampler(self) -> bool:
        """Whether it makes the image: a sampler by name that puts out latents or media."""
        name = self.name.lower()
        if "sampler" not in name:
            return False
        types = self._types
        return bool(types & MEDIA) if types else not name.endswith(("select", "selector", "loader"))

    @property
    def loads(self) -> bool:
        """Whether it must not be repeated in each job: it loads or patches a model, and makes no image itself."""
        return self.heavy and not self.sampler

    @property
    def plain(self) -> bool | None:
        """Whether its outputs are only numbers, texts or its inputs; None: not described."""
        return self._types <= PLAIN if self._types else None

    @cached_property
    def slots(self) -> tuple[Any, ...] | None:
        """The types of its outputs, in order; None: not described."""
        types = self._info.get("output")
        return tuple(types) if isinstance(types, list) else None

    @cached_property
    def inputs(self) -> dict[str, InputSpec]:
        """The declared inputs, required ones first; those that are not understood are left out."""
        declared = self._info.get("input")
        found: dict[str, InputSpec] = {}
        for group in ("required", "optional"):
            inputs = declared.get(group) if isinstance(declared, dict) else None
            for key, spec in inputs.items() if isinstance(inputs, dict) else ():
                if isinstance(spec, list) and spec and isinstance(spec[0], str | list):
                    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
                    found.setdefault(key, InputSpec(kind=spec[0], options=options, required=group == "required"))
        return found

    def spec(self, key: str) -> InputSpec | None:
        """The declaration of an input, or None if the server gives none.

        `mode.seed` is an input of the option of `mode` that is chosen: the first option that declares it counts.
        """
        if key in self.inputs:
            return self.inputs[key]
        name, _, rest = key.partition(".")
        outer = self.inputs.get(name) if rest else None
        options = outer.options.get("options") if outer is not None else None
        for option in options if isinstance(options, list) else ():
            inner = NodeClass(self.name, {"input": option.get("inputs")} if isinstance(option, dict) else None)
            if (found := inner.spec(rest)) is not None:
                return found
        return None

    @property
    def _types(self) -> frozenset[str]:
        return frozenset(kind for kind in self.slots or () if isinstance(kind, str))


class ObjectInfo:
    """The classes that a server described; any other name gives a `NodeClass` without a description."""

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
        return packs_of(node.pack for node in self._classes.values())


def packs_of(modules: Iterable[str | None]) -> list[str]:
    """Folders under `custom_nodes` among the modules that classes come from."""
    return sorted({m.split(".")[1][:200] for m in modules if m and m.startswith("custom_nodes.")})
