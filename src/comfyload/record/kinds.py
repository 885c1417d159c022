"""The kind of a job's output file, by the key under which its node reported it and by the ending of its name."""

from typing import Literal, get_args

Kind = Literal["image", "video", "audio", "3d", "latent", "text", "other"]
"""`video` includes animations; `other` is anything else, such as weights or an archive."""

KINDS: tuple[Kind, ...] = get_args(Kind)

KIND_WORDS: dict[Kind, tuple[str, str]] = {
    "image": ("image", "images"),
    "video": ("video", "videos"),
    "audio": ("audio file", "audio files"),
    "3d": ("3D file", "3D files"),
    "latent": ("latent", "latents"),
    "text": ("text", "texts"),
    "other": ("other file", "other files"),
}
"""One, and several of them."""

_SUFFIXES: dict[Kind, str] = {
    "image": "png jpg jpeg webp gif bmp tif tiff avif apng exr hdr jxl svg heic heif jp2 j2k tga psd ico jfif qoi dds "
    "ppm pgm pbm pnm dng",
    "video": "mp4 webm mov mkv avi m4v mpg mpeg ogv wmv flv mxf",
    "audio": "wav mp3 flac ogg opus m4a aac oga aif aiff wma mid",
    "3d": "glb gltf obj fbx stl ply usd usda usdc usdz splat ksplat spz sog 3mf dae vrm bvh",
    "latent": "latent",
    "text": "txt md json jsonl csv tsv srt vtt lrc xml yaml yml html log",
}
_KIND_OF_SUFFIX = {f".{suffix}": kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}

IMAGE_SUFFIXES = tuple(suffix for suffix, kind in _KIND_OF_SUFFIX.items() if kind == "image")

_KEYS: dict[Kind, str] = {
    "image": "images a_images b_images",
    "video": "gifs video videos",
    "audio": "audio audios",
    "3d": "3d mesh model_file result",
    "latent": "latents",
    "text": "text",
}
"""Keys of ComfyUI's own nodes and of wide-spread packs; `result` is Preview3D's, `gifs` VHS_VideoCombine's."""

_KIND_OF_KEY = {key: kind for kind, keys in _KEYS.items() for key in keys.split()}

_MOVING = (".gif", ".webp", ".png", ".apng", ".avif")
"""Picture formats that may be animations; only the node shows which are."""

SHOWING = ("result", "mesh", "model_file")
"""Keys of nodes that show a file, which another node or an earlier job may have made."""

BARE = (*SHOWING, "3d")
"""Keys under which a bare string may name a file."""

SHOWN = "shown"
"""In place of a folder, for an output without a file, such as a text."""


def kind_of(file: str, key: str = "images", *, animated: bool = False) -> Kind:
    """The kind of a file, by its name; by the key if the name has no ending, or for possible animations."""
    suffix = suffix_of(file)
    if suffix in _MOVING and (animated or key == "gifs"):
        return "video"
    return _KIND_OF_SUFFIX.get(suffix) or ("other" if suffix else kind_under(key) or "other")


def kind_under(key: str) -> Kind | None:
    """The usual kind under a key; None: not known."""
    return _KIND_OF_KEY.get(key)


def suffix_of(file: str) -> str:
    """The ending of a name with its dot, in small letters; "" for none."""
    suffix = file[file.rfind(".") :] if "." in file else ""
    return "" if "/" in suffix or "\\" in suffix else suffix.lower()
