"""The generator's own memory, which must not grow with the number of jobs."""

import psutil

from comfyload.telemetry.source import Readings, Source


class OwnMemory(Source):
    """What this process holds of its machine's memory."""

    name = "generator"
    interval_s = 10.0
    timeout_s = 5.0

    async def open(self) -> None:
        self._process = psutil.Process()

    async def read(self) -> Readings:
        return Readings(values={"generator.rss_bytes": self._process.memory_info().rss})
