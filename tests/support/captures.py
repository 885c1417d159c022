"""Recorded traffic of a real ComfyUI, which lies beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "captures"

needs_captures = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recorded traffic at {FOLDER}")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json")) if FOLDER.is_dir() else []


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def messages(name: str) -> list[dict[str, Any]]:
    """The text messages of a WebSocket recording, in order."""
    recorded = load(name)
    rows = recorded["messages"] if isinstance(recorded, dict) else recorded
    return [row["msg"] for row in rows if "type" in row["msg"]]
