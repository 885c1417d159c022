"""Who watches a run while it goes on, and who may end it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from comfyload.record.model import Line, Manifest, Observation, Record

if TYPE_CHECKING:
    from pathlib import Path


class Viewer:
    """Who watches a run while it goes on; this one shows nothing. All calls are made on the event loop and must not
    block.
    """

    def began(self, manifest: Manifest, path: Path, expected: int | None) -> None: ...
    def counting(self) -> None: ...
    def line(self, line: Line) -> None: ...
    def queue(self, remaining: int) -> None: ...
    def noticed(self, observation: Observation) -> None: ...
    def stopping(self, how: str) -> None: ...
    def ended(self) -> None: ...


class Ender(Protocol):
    """Ends a run early; `why` is the reason, for people."""

    @property
    def why(self) -> str: ...
    def should_stop(self, record: Record, manifest: Manifest, path: Path) -> bool: ...
