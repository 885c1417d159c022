"""What a server's terminal shows: its last lines, and the pages that follow them."""

from collections import deque
from datetime import datetime
from typing import Any

_LINES = 300


class Log:
    """`readers` are the client ids that get each new line."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=_LINES)
        self.readers: set[str] = set()

    def write(self, stamp: int, line: str) -> None:
        """`stamp` in wall time, ms."""
        self._lines.append((stamp, line))

    def entries(self) -> list[dict[str, Any]]:
        return [entry(stamp, line) for stamp, line in self._lines]

    def text(self) -> str:
        return "".join(f"{one['t']} - {one['m']}" for one in self.entries())


def entry(stamp: int, line: str) -> dict[str, Any]:
    return {"t": datetime.fromtimestamp(stamp / 1000).isoformat(), "m": f"\x1b[32m[INFO]\x1b[0m {line}\n"}
