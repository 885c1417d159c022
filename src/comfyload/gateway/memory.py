"""What is held in memory: the newest entries of the history, whole, as ComfyUI keeps them; and what is given back."""

import ctypes
import sys
from collections import OrderedDict

MOST_BYTES = 64 << 20


class Entries:
    """Entries by the job's id; the oldest go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def keep(self, job_id: str, entry: bytes) -> None:
        self.forget(job_id)
        self._kept[job_id] = entry
        self._bytes += len(entry)
        while self._bytes > MOST_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)

    def get(self, job_id: str) -> bytes | None:
        return self._kept.get(job_id)

    def forget(self, job_id: str) -> None:
        self._bytes -= len(self._kept.pop(job_id, b""))

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


def give_back() -> None:
    """Give the system what is free: of many values that are gone, the C library keeps the memory for later ones."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
