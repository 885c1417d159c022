"""A Page as JSON: the words that people read, for programs that show them. Charts are left out."""

from __future__ import annotations

from typing import Any

import msgspec

from comfyload.report.page import Page


def as_json(page: Page) -> dict[str, Any]:
    """The page with its names as keys; what is empty is left out."""
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(page, charts=[]))
    return plain
