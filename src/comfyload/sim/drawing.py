"""The bytes of what a job saved, made when somebody fetches them: a PNG, or a latent as safetensors."""

import json
import struct
import zlib
from typing import Any

import numpy as np

from comfyload.sim.frames import Frame

_STRIP_BYTES = 2**16  # of pixels: more than deflate looks back
_NOISE_BITS = 4  # of 8: a picture of a model is packed to about half of its pixels' bytes


def png(frame: Frame, seed: bytes, texts: dict[str, Any]) -> bytes:
    """A picture of the frame's size and colour, or of noise; `texts` stand in it, as JSON."""
    head = struct.pack(">IIBBBBB", frame.width, frame.height, 8, 2, 0, 0, 0)
    chunks = [_chunk(b"IHDR", head)]
    chunks += [
        _chunk(b"tEXt", f"{name}\0{json.dumps(value)}".encode("latin-1", "replace")) for name, value in texts.items()
    ]
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks, _chunk(b"IDAT", _pixels(frame, seed)), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))])


def _pixels(frame: Frame, seed: bytes) -> bytes:
    """All rows, packed. One strip of them comes again and again, so that a large picture costs a few milliseconds."""
    row = 1 + 3 * frame.width  # a zero first: no filter
    rows = min(frame.height, _STRIP_BYTES // row + 1)
    if frame.colour is None:
        grey = 128 - 2 ** (_NOISE_BITS - 1)
        strip = _noise(seed).integers(grey, grey + 2**_NOISE_BITS, (rows, row), np.uint8)
        strip[:, 0] = 0
        strategy = zlib.Z_HUFFMAN_ONLY
    else:
        line = b"\0" + frame.colour.to_bytes(3) * frame.width
        strip = np.frombuffer(line * rows, np.uint8).reshape(rows, row)
        strategy = zlib.Z_DEFAULT_STRATEGY
    packed, checksum = [b"\x78\x01"], 1
    times, rest = divmod(frame.height, rows)
    for part, count in ((strip.tobytes(), times), (strip[:rest].tobytes(), 1)):
        deflate = zlib.compressobj(1, zlib.DEFLATED, -15, 9, strategy)
        packed += [deflate.compress(part) + deflate.flush(zlib.Z_FULL_FLUSH)] * count
        for _ in range(count):
            checksum = zlib.adler32(part, checksum)
    return b"".join([*packed, b"\x03\x00", struct.pack(">I", checksum)])  # an empty last block, and the sum


def latent(frame: Frame, seed: bytes, texts: dict[str, Any]) -> bytes:
    """A batch of latents as one tensor."""
    shape = [frame.batch, frame.channels, frame.height // 8, frame.width // 8]
    plain = frame.colour is not None
    values = np.zeros(shape, np.float32) if plain else _noise(seed).standard_normal(shape, np.float32)
    head = {
        "__metadata__": {name: json.dumps(value) for name, value in texts.items()},
        "latent_format_version_0": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
        "latent_tensor": {"dtype": "F32", "shape": shape, "data_offsets": [0, values.nbytes]},
    }
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + values.astype("<f4").tobytes()


def _noise(seed: bytes) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(seed)))
