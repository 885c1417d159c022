"""Recorded traffic of a real ComfyUI. A recording that is missing fails the test that reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "captures"


def names() -> list[str]:
    """All recordings."""
    found = sorted(path.stem for path in FOLDER.glob("*.json"))
    assert found, f"no recorded traffic in {FOLDER}"
    return found


def load(name: str) -> Any:
    """One recording, as JSON."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def messages(name: str) -> list[dict[str, Any]]:
    """The text messages of a WebSocket recording, in order."""
    recorded = load(name)
    rows = recorded["messages"] if isinstance(recorded, dict) else recorded
    return [row["msg"] for row in rows if "type" in row["msg"]]
