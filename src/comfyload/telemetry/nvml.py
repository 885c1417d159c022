"""Readings of the server's GPUs by NVML, where the server runs on this machine."""

from collections.abc import Callable
from typing import Any

from comfyload.record.environment.gpu import NvmlError, find_gpus, known, nvml_module
from comfyload.record.environment.which_gpu import Visible, visible_to
from comfyload.telemetry.local_server import LocalServer
from comfyload.telemetry.source import NoReading, NotAvailable
from comfyload.telemetry.thread import ThreadSource

SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""Reasons for which clocks are below the requested ones: power cap, slowdowns by hardware, heat, power brake. A GPU at
rest, or one whose clocks were set, is not slowed."""

READINGS: dict[str, Callable[[Any, Any], float]] = {
    "utilisation_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "energy_j": lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    "clock_sm_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "clock_memory_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
    "throttled": lambda nvml, gpu: bool(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) & SLOWED),
    "pcie_rx_bytes_per_s": lambda nvml, gpu: 1024 * nvml.nvmlDeviceGetPcieThroughput(gpu, nvml.NVML_PCIE_UTIL_RX_BYTES),
    "pcie_tx_bytes_per_s": lambda nvml, gpu: 1024 * nvml.nvmlDeviceGetPcieThroughput(gpu, nvml.NVML_PCIE_UTIL_TX_BYTES),
}
"""`gpu.N.KEY`, but for memory, of which one answer gives several."""


class Nvml(ThreadSource):
    """NVML, in a thread: some of its answers take 20 ms, and a driver may hang."""

    name = "nvml"
    interval_s = 0.5
    timeout_s = 5.0

    def __init__(self, local: LocalServer, clock: Callable[[], float]) -> None:
        super().__init__(clock, self._shut_down)
        self._local = local
        self._gpus: Gpus | None = None
        self._known = False

    def _values(self) -> dict[str, float | None]:
        if self._gpus is None:
            listener = self._local.listener
            devices = self._local.server.devices
            if devices and all(device.get("type") == "cpu" for device in devices):
                raise NotAvailable
            try:
                visible = visible_to(self._local.server, listener)
                self._gpus = Gpus(devices, nvml_module(), listener.pid, visible)
            except NotAvailable:
                if self._known:
                    raise NoReading("the driver is gone") from None
                raise
            self._known = True
        try:
            return self._gpus.values()
        except NoReading:
            self._shut_down()  # the driver may be loaded again: the GPUs are found at the next attempt
            raise

    def _shut_down(self) -> None:
        if self._gpus is not None:
            self._gpus.close()
            self._gpus = None


class Gpus:
    """The GPUs that a server computes on. `nvml`: the module `pynvml`, or what stands in for it."""

    def __init__(
        self, devices: list[dict[str, Any]], nvml: Any, server_pid: int | None, visible: Visible | None = None
    ) -> None:
        """Find them.

        Raises:
            NotAvailable: NVML is missing, or none of its GPUs is the server's. The run's environment says why.
        """
        if nvml is None:
            raise NotAvailable
        self._nvml, self._server_pid = nvml, server_pid
        try:
            nvml.nvmlInit()
            self._found = [gpu for gpu in find_gpus(devices, nvml, server_pid, visible) if gpu.handle is not None]
        except (nvml.NVMLError, NvmlError):
            raise NotAvailable from None
        if not self._found:
            raise NotAvailable

    def values(self) -> dict[str, float | None]:
        """`gpu.N.*` by name, None where one answer failed.

        Raises:
            NoReading: not one answer came.
        """
        values: dict[str, float | None] = {}
        for gpu in self._found:
            values |= {f"gpu.{gpu.number}.{key}": value for key, value in self._of_one(gpu.handle).items()}
        if all(value is None for value in values.values()):
            raise NoReading("the driver answers nothing any more")
        return values

    def close(self) -> None:
        known(self._nvml, self._nvml.nvmlShutdown)

    def _of_one(self, gpu: Any) -> dict[str, float | None]:
        nvml = self._nvml
        memory = known(nvml, nvml.nvmlDeviceGetMemoryInfo, gpu)
        values = {f"vram_{part}_bytes": getattr(memory, part, None) for part in ("used", "total", "free")}
        values |= {key: known(nvml, reading, nvml, gpu) for key, reading in READINGS.items()}
        values["process_vram_bytes"] = self._of_process(gpu)
        return {key: None if value is None else float(value) for key, value in values.items()}

    def _of_process(self, gpu: Any) -> float | None:
        """Memory of the server's process; a container's processes have other numbers inside than out."""
        for process in known(self._nvml, self._nvml.nvmlDeviceGetComputeRunningProcesses, gpu) or ():
            if process.pid == self._server_pid and process.usedGpuMemory is not None:
                return float(process.usedGpuMemory)
        return None
