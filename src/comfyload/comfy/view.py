"""The address under which a server gives a file of its own."""

from __future__ import annotations

from urllib.parse import urlencode

__all__ = ["view_path"]


def view_path(filename: str, subfolder: str, kind: str) -> str:
    """The route and query of a file. A name that is no Unicode, as Linux allows, goes out as the bytes that it is."""
    parts = {"filename": filename, "subfolder": subfolder, "type": kind}
    return f"view?{urlencode({key: _octets(value) for key, value in parts.items()})}"


def _octets(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair, which no bytes of a file's name are read as
        return text.encode("utf-8", "surrogatepass")
