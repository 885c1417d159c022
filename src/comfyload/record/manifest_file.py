"""Reads `manifest.json` of a run, and other files that have a format."""

from pathlib import Path
from typing import TypeVar

import msgspec

from comfyload.errors import RunFilesError, file_errors
from comfyload.record.bounds import moment
from comfyload.record.codec import decode
from comfyload.record.journal import read_whole
from comfyload.record.model import FORMAT, Manifest

T = TypeVar("T")

MANIFEST = "manifest.json"
PARTED = FORMAT + 1
"""Version of a run of which a journal has several files: readers of the first one would see one of them."""
_MOST_MANIFEST_BYTES = 64 << 20
"""A manifest may hold the graph of each workflow."""


def content_of(manifest: Path) -> bytes:
    """The bytes of a manifest.

    Raises:
        RunFilesError: the folder has none.
    """
    with file_errors(f"{manifest.parent} is not a run directory: {MANIFEST}", "give the folder of a run"):
        return read_whole(manifest, _MOST_MANIFEST_BYTES)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a run.

    Raises:
        RunFilesError: it is not there, or is damaged, or of a newer version.
    """
    content = content_of(path)
    try:
        manifest = decode_versioned(content, Manifest, PARTED, path)
        for text in (manifest.started_utc, manifest.ended_utc, manifest.zero_utc, manifest.began_utc):
            if isinstance(text, str):
                moment(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RunFilesError(f"{path} is damaged: {error}") from None
    return manifest


class _Versioned(msgspec.Struct):
    format: int


def decode_versioned(content: bytes, kind: type[T], newest: int, file: Path) -> T:
    """The contents of a manifest, whose format is looked at first.

    Raises:
        RunFilesError: a newer version wrote it.
        msgspec.MsgspecError, ValueError: it is damaged.
    """
    version = decode(content, msgspec.json.Decoder(_Versioned)).format
    if version > newest:
        raise RunFilesError(f"{file} has format {version}; this comfyload reads up to {newest}", "update comfyload")
    return decode(content, msgspec.json.Decoder(kind))
