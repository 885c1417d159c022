"""How to call NVIDIA's management library in this process: just the calls that the probe needs, by ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Handle", "Memory", "Nvml", "NvmlError"]

Handle = ctypes.c_void_p

LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
INSUFFICIENT_SIZE = 7
LOST = frozenset({1, 9, 15, 16, 18})
"""Not initialised, driver not loaded, GPU lost, reset required, driver replaced under us: asking again is no use until
the library is opened again."""

SM_CLOCK, MEMORY_CLOCK = 1, 2
PCIE_TX, PCIE_RX = 0, 1

_TEXT_BYTES = 96
_NOT_AVAILABLE = 2**64 - 1
_UNTOUCHED = 0xA5
_LARGEST_PROCESS_BYTES = 40


class NvmlError(Exception):
    """The library gave no answer; `code` is its own number for why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"nvml: {text}")
        self.code = code

    @property
    def lost(self) -> bool:
        """Whether the library has to be opened again."""
        return self.code in LOST


class Memory(NamedTuple):
    """Bytes of one GPU, for all processes together; `used` holds what the driver keeps for itself."""

    total: int
    free: int
    used: int


class Nvml:
    """The library, loaded. Calls may come from any thread; a call that waits for the driver does not hold the GIL."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._functions: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str = "") -> Nvml:
        """Load and initialise it; `path` "": where the driver puts it.

        Raises:
            NvmlError: there is none, or no driver answers.
        """
        tried = [path] if path else _usual_places()
        for place in tried:
            try:
                library = ctypes.CDLL(place)
            except OSError:
                continue
            nvml = cls(library)
            nvml.call("nvmlInit_v2")
            return nvml
        raise NvmlError(LIBRARY_NOT_FOUND, f"{Path(tried[0]).name} cannot be loaded")

    def close(self) -> None:
        """Give back what the library holds; it may be gone already."""
        with suppress(NvmlError):
            self.call("nvmlShutdown")

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library.

        Raises:
            NvmlError: it says so, or the driver is older than the function.
        """
        if name not in self._functions:
            self._functions[name] = getattr(self._library, name, None)
        function = self._functions[name]
        if function is None:
            raise NvmlError(FUNCTION_NOT_FOUND, f"this driver has no {name}")
        code = int(function(*arguments))
        if code:
            raise NvmlError(code, self._meaning(code))

    def number(self, name: str, *arguments: Any, wide: bool = False) -> int:
        """What a call puts into its last parameter, an unsigned int (`wide`: of 64 bits)."""
        value = ctypes.c_ulonglong() if wide else ctypes.c_uint()
        self.call(name, *arguments, ctypes.byref(value))
        return int(value.value)

    def text(self, name: str, *arguments: Any) -> str:
        """What a call writes into a buffer."""
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        self.call(name, *arguments, buffer, ctypes.c_uint(_TEXT_BYTES))
        return buffer.value.decode(errors="replace")

    def handle(self, index: int) -> Handle:
        """The GPU at `index` of this machine."""
        handle = Handle()
        self.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def handle_by_uuid(self, uuid: str) -> Handle:
        """The GPU, or the part of one (MIG), with this name."""
        handle = Handle()
        self.call("nvmlDeviceGetHandleByUUID", ctypes.c_char_p(uuid.encode()), ctypes.byref(handle))
        return handle

    def memory(self, handle: Handle) -> Memory:
        """How much memory the GPU has, and how much of it is in use."""
        found = (ctypes.c_ulonglong * 3)()
        self.call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(found))
        return Memory(*(int(value) for value in found))

    def utilisation(self, handle: Handle) -> int:
        """Percent of the last fraction of a second in which a kernel ran."""
        found = (ctypes.c_uint * 2)()
        self.call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(found))
        return int(found[0])

    def ecc(self, handle: Handle) -> bool:
        """Whether error correction is on now."""
        now, pending = ctypes.c_uint(), ctypes.c_uint()
        self.call("nvmlDeviceGetEccMode", handle, ctypes.byref(now), ctypes.byref(pending))
        return bool(now.value)

    def throttle_bits(self, handle: Handle) -> int:
        """Why the clocks are below what they could be, as the library's bits; the call was renamed with driver 535."""
        try:
            return self.number("nvmlDeviceGetCurrentClocksEventReasons", handle, wide=True)
        except NvmlError as error:
            if error.code != FUNCTION_NOT_FOUND:
                raise
        return self.number("nvmlDeviceGetCurrentClocksThrottleReasons", handle, wide=True)

    def process_bytes(self, handle: Handle, pid: int) -> int | None:
        """GPU memory of one process; None if the driver does not show it, as in some containers and on Windows."""
        for name in ("_v3", "_v2", ""):
            try:
                found = self._processes(f"nvmlDeviceGetComputeRunningProcesses{name}", handle)
            except NvmlError as error:
                if error.code != FUNCTION_NOT_FOUND or not name:
                    raise
                continue
            ours = [used for process, used in found if process == pid and used != _NOT_AVAILABLE]
            return sum(ours) if ours else None
        return None

    def _processes(self, name: str, handle: Handle) -> list[tuple[int, int]]:
        """(pid, bytes) of each process.

        The size of an entry differs between drivers that answer under the same name (16, 24 or 32 bytes), so that it is
        taken from how much was written: the buffer has room for the largest, and a pattern where nothing was.
        """
        count = ctypes.c_uint(0)
        try:
            self.call(name, handle, ctypes.byref(count), None)
        except NvmlError as error:
            if error.code != INSUFFICIENT_SIZE:
                raise
        else:
            return []
        count.value += 8  # others may start until we ask again
        buffer = ctypes.create_string_buffer(bytes([_UNTOUCHED]) * (count.value * _LARGEST_PROCESS_BYTES))
        self.call(name, handle, ctypes.byref(count), buffer)
        if count.value == 0:
            return []
        written = buffer.raw[:-1].rstrip(bytes([_UNTOUCHED]))
        size = -(-len(written) // count.value)
        size += -size % 8
        raw = buffer.raw
        return [
            (
                int.from_bytes(raw[place : place + 4], sys.byteorder),
                int.from_bytes(raw[place + 8 : place + 16], sys.byteorder),
            )
            for place in range(0, count.value * size, size)
        ]

    def _meaning(self, code: int) -> str:
        function = getattr(self._library, "nvmlErrorString", None)
        if function is None:
            return f"error {code}"
        function.restype = ctypes.c_char_p
        said = function(code)
        return said.decode(errors="replace") if said else f"error {code}"


def _usual_places() -> list[str]:
    if os.name != "nt":
        return ["libnvidia-ml.so.1"]
    windows, programs = os.environ.get("WINDIR", "C:/Windows"), os.environ.get("PROGRAMFILES", "C:/Program Files")
    return [f"{windows}/System32/nvml.dll", f"{programs}/NVIDIA Corporation/NVSMI/nvml.dll"]
