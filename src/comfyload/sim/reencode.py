"""Pictures read and written in other forms, by Pillow, which only the extra `sim` brings."""

import io
import struct
from typing import Any

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


class NoPillow(Exception):
    """Pillow is not installed; the text says what to do."""

    def __init__(self) -> None:
        super().__init__(
            "this simulator re-encodes pictures with Pillow, which is not here: pip install 'comfyload[sim]'"
        )


def size_of(content: bytes) -> tuple[int, int] | None:
    """Width and height of a picture; a guess for other forms than PNG without Pillow; None for what is no picture."""
    if content[:4] == b"\x89PNG" and content[12:16] == b"IHDR" and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return int(width), int(height)
    if not content.startswith(_IMAGES):
        return None
    try:
        return tuple(_open(content).size)
    except NoPillow:
        return 1024, 1024
    except ValueError:
        return None


def preview(content: bytes, wanted: str, channel: str) -> tuple[bytes, str]:
    """As the `preview` of a query wants it (`webp;50`, `jpeg`), and its content type."""
    first, last = wanted.split(";")[0], wanted.split(";")[-1]
    form = first if first in ("webp", "jpeg") and "a" not in channel else "webp"
    image = _open(content)
    if form == "jpeg" or channel == "rgb":
        image = image.convert("RGB")
    return _saved(image, form, quality=int(last) if last.isdigit() else 90), f"image/{form}"


def channel(content: bytes, wanted: str) -> bytes:
    """A PNG of the colours alone (`rgb`), or of the alpha channel alone (`a`)."""
    image = _open(content)
    if wanted == "rgb":
        return _saved(image.convert("RGB"), "png")
    opaque = image if image.mode == "RGBA" else image.convert("RGB").convert("RGBA")
    alpha = opaque.getchannel("A")
    return _saved(_with_alpha(image.convert("RGBA").point(lambda _: 0), alpha), "png")


def masked(content: bytes, mask: bytes) -> bytes:
    """The picture with the alpha channel of `mask`, and with its own texts."""
    from PIL.PngImagePlugin import PngInfo

    image, info = _open(content), PngInfo()
    for name, value in getattr(image, "text", {}).items():
        info.add_text(name, value)
    alpha = _open(mask).convert("RGBA").getchannel("A")
    return _saved(_with_alpha(image.convert("RGBA"), alpha), "png", pnginfo=info)


def _with_alpha(image: Any, alpha: Any) -> Any:
    image.putalpha(alpha)
    return image


def _open(content: bytes) -> Any:
    """A Pillow image.

    Raises:
        NoPillow: it is not installed.
        ValueError: no picture.
    """
    try:
        from PIL import Image
    except ImportError:
        raise NoPillow from None
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except OSError as error:
        raise ValueError(str(error)) from error
    return image


def _saved(image: Any, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()
