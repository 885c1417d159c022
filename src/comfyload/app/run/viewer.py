"""Who watches a run while it goes on, and who may end it."""

from collections.abc import Callable
from pathlib import Path

from comfyload.record.model import Line, Manifest, Observation, Record


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


StopReason = Callable[[Record, Manifest, Path], str]
"""Takes a job that ended, and its run; returns why the run should end with it, for people; "": it goes on."""
