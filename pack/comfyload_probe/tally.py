"""The counters since the server's start: a fold over the rows."""

from __future__ import annotations

from typing import Any

__all__ = ["Tally"]

CLASS_LIMIT = 200
_S = 1e-3


class Tally:
    """What a scraper asks for. One thread adds, any may read."""

    def __init__(self) -> None:
        self.prompts = {"ok": 0, "error": 0, "interrupted": 0}
        self.nodes = {"run": 0, "cached": 0, "error": 0, "interrupted": 0}
        self.node_seconds: dict[str, list[float]] = {}
        self.prompt_seconds: list[float] = [0, 0.0]
        self.models_loaded = 0
        self.sample: dict[str, Any] | None = None

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        event = row["event"]
        if event == "node":
            self.nodes[row["status"]] += 1
            if row["status"] == "run" and row["duration_ms"] is not None:
                self._spent(row["class_type"] or "unknown", _S * row["duration_ms"])
        elif event == "prompt.ended":
            self.prompts[row["status"]] += 1
            if row["duration_ms"] is not None:
                _more(self.prompt_seconds, _S * row["duration_ms"])
        elif event == "sample":
            self.sample = row
        elif event == "model" and row["action"] == "loaded":
            self.models_loaded += 1

    def numbers(self) -> dict[str, Any]:
        """A copy of the counters; seconds as [how many, their sum]."""
        return {
            "prompts": dict(self.prompts),
            "nodes": dict(self.nodes),
            "node_seconds": {name: list(spent) for name, spent in list(self.node_seconds.items())},
            "prompt_seconds": list(self.prompt_seconds),
            "models_loaded": self.models_loaded,
            "sample": self.sample,
        }

    def _spent(self, class_type: str, seconds: float) -> None:
        if class_type not in self.node_seconds and len(self.node_seconds) >= CLASS_LIMIT - 1:
            class_type = "other"
        _more(self.node_seconds.setdefault(class_type, [0, 0.0]), seconds)


def _more(spent: list[float], seconds: float) -> None:
    spent[0] += 1
    spent[1] += seconds
