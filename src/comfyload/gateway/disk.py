"""What must be on disk before the gateway goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from comfyload.errors import RunFilesError
from comfyload.visible import visible

T = TypeVar("T")

PAUSE_S = 2.0
"""Between attempts to write, while that fails: a disk that is full may have room again."""

_log = logging.getLogger(__name__)


class Disk:
    """`fault`: why nothing can be written now; "" if it can."""

    def __init__(self) -> None:
        self.fault = ""

    async def write(self, write: Callable[[], T]) -> T:
        """Write, however long it takes until that succeeds."""
        while True:
            try:
                written = write()
            except RunFilesError as error:
                if not self.fault:
                    _log.error("the gateway takes no jobs: %s", visible(str(error)))
                self.fault = str(error)
                await asyncio.sleep(PAUSE_S)
            else:
                self.fault = ""
                return written
