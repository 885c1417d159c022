"""Frames that are not ordinary messages: previews, and frames of custom nodes and other senders."""

import base64
import json
import struct
from typing import Any

PREVIEW_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP//////////////////////////////////////////////////////////////////////////"
    "////////////wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AP//Z"
)
"""8x8, grey."""

_PREVIEW, _PREVIEW_WITH_METADATA, _JPEG = 1, 4, 1

ODD_FRAMES: tuple[str | bytes, ...] = (
    '{"type": "crystools.monitor", "data": {"cpu_utilization": 12.5, "gpus": [{"gpu_utilization": NaN}]}}',
    '{"type": "some.pack.update", "data": null}',
    '{"type": "executing", "data": "not an object"}',
    '{"type": "progress", "data": {"value": "three", "max": null, "node": 7}}',
    '["a list", 1]',
    "not json at all",
    b"",
    b"\x00\x00",
    b"\x00\x00\x00\x63a binary type nobody knows",
    '{"data": {"node": null}}',
    '{"type": "logs", "data": {"entries": [{"m": "Prompt executed in 0.16 seconds"}]}}',
)


def preview_frame(metadata: dict[str, Any] | None) -> bytes:
    """A sampler's preview: bare, or with `metadata` for a client that negotiated it."""
    if metadata is None:
        return struct.pack(">II", _PREVIEW, _JPEG) + PREVIEW_JPEG
    header = json.dumps(metadata | {"image_type": "image/jpeg"}).encode()
    return struct.pack(">II", _PREVIEW_WITH_METADATA, len(header)) + header + PREVIEW_JPEG
