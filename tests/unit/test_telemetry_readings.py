"""What GPUs, the machine, ComfyUI and Prometheus endpoints tell, under the names that all sources share."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from comfyload import clock
from comfyload.comfy.address import scrape_url
from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.errors import UsageError
from comfyload.judge.columns.gpu import gpu_reading
from comfyload.record.model import Server
from comfyload.telemetry.exposition import MOST, Exposition
from comfyload.telemetry.host import HostReadings, Machine
from comfyload.telemetry.local_server import LocalServer
from comfyload.telemetry.nvml import Gpus
from comfyload.telemetry.server import QueueLength, Stats
from comfyload.telemetry.source import NoReading, NotAvailable
from comfyload.telemetry.thread import Thread
from tests.unit.test_environment import CARD, DEVICE, NVMLError
from tests.unit.test_environment import Nvml as Driver

DCGM = """\
# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-1",device="nvidia0",modelName="NVIDIA A10"} 1695
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-1"} 1024
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-1"} 5000
# TYPE DCGM_FI_DEV_CLOCK_THROTTLE_REASONS gauge
DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{gpu="0",UUID="GPU-1"} 1
DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{gpu="1",UUID="GPU-2"} 5
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1"} 96
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-2",GPU_I_ID="3"} 11
# TYPE DCGM_FI_DEV_XID_ERRORS gauge
DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-1"} NaN
"""

SMI = """\
nvidia_smi_index{uuid="u-1"} 1
nvidia_smi_utilization_gpu_ratio{uuid="u-1"} 0.5
nvidia_smi_utilization_gpu_ratio{uuid="u-0"} 0.25
nvidia_smi_clocks_current_sm_clock_hz{uuid="u-1"} 1.5e9
nvidia_smi_clocks_throttle_reasons_sw_power_cap{uuid="u-1"} 1
nvidia_smi_clocks_throttle_reasons_hw_slowdown{uuid="u-1"} 0
"""


def test_dcgm_is_told_in_units_of_ours_and_instances_of_a_gpu_are_not_taken_for_it() -> None:
    exposition = Exposition()
    assert exposition.read(DCGM) == {
        "gpu.0.clock_sm_mhz": 1695.0,
        "gpu.0.vram_used_bytes": 2.0**30,
        "gpu.0.energy_j": 5.0,
        "gpu.0.throttled": 0.0,
        "gpu.1.throttled": 1.0,
        "gpu.0.utilisation_percent": 96.0,
        'DCGM_FI_DEV_GPU_UTIL{GPU_I_ID="3",UUID="GPU-2",gpu="1"}': 11.0,
        'DCGM_FI_DEV_XID_ERRORS{UUID="GPU-1",gpu="0"}': None,
    }
    assert exposition.cut == 0


def test_nvidia_smi_is_told_by_the_gpus_number_where_the_page_tells_it() -> None:
    assert Exposition().read(SMI) == {
        'nvidia_smi_index{uuid="u-1"}': 1.0,
        "gpu.1.utilisation_percent": 50.0,
        'nvidia_smi_utilization_gpu_ratio{uuid="u-0"}': 0.25,
        "gpu.1.clock_sm_mhz": 1500.0,
        "gpu.1.throttled": 1.0,
    }


def test_other_series_are_kept_up_to_a_number_and_always_the_same() -> None:
    page = "".join(f'x{{n="{n}"}} {n}\n' for n in range(MOST + 7)) + 'h_bucket{le="1"} 4\n'
    exposition = Exposition()
    first = exposition.read(page)
    assert (len(first), exposition.cut) == (MOST, 8)
    again = exposition.read("\n".join(reversed(page.splitlines())) + "\n")
    assert (again, exposition.cut) == (first, 8)
    with pytest.raises(ValueError, match=r"."):
        exposition.read("<html>")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("gpu1:9400", "http://gpu1:9400/metrics"),
        ("http://gpu1:9400/", "http://gpu1:9400/metrics"),
        ("https://gpu1/probe?target=a", "https://gpu1/probe?target=a"),
    ],
)
def test_an_endpoint_without_a_path_is_the_usual_one(text: str, url: str) -> None:
    assert str(scrape_url(text)) == url


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="--scrape"):
        scrape_url("ftp://x")


class Nvml(Driver):
    """The driver of the environment's tests, with what is read while a run goes on."""

    NVML_TEMPERATURE_GPU = 0
    NVML_PCIE_UTIL_TX_BYTES, NVML_PCIE_UTIL_RX_BYTES = 0, 1

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        total = super().nvmlDeviceGetMemoryInfo(handle).total
        return SimpleNamespace(total=total, used=total // 4, free=total - total // 4)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 123_400

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return 5_500

    def nvmlDeviceGetTemperature(self, handle: int, kind: int) -> int:
        return 61

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return 0x4 | 0x1

    def nvmlDeviceGetPcieThroughput(self, handle: int, counter: int) -> int:
        return 10 + counter

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=99) for pid, index in self.users.items() if index == handle]


def test_nvml_is_read_of_the_gpu_that_the_server_uses() -> None:
    gpus = Gpus([DEVICE], Nvml((CARD, 24), (CARD, 24), users={7: 1}), 7)
    values = gpus.values()
    assert values == {
        "gpu.0.utilisation_percent": 97.0,
        "gpu.0.vram_used_bytes": 6 * 2.0**30,
        "gpu.0.vram_total_bytes": 24 * 2.0**30,
        "gpu.0.vram_free_bytes": 18 * 2.0**30,
        "gpu.0.power_w": 123.4,
        "gpu.0.energy_j": 5.5,
        "gpu.0.temperature_c": 61.0,
        "gpu.0.clock_sm_mhz": 1000.0,
        "gpu.0.clock_memory_mhz": 2000.0,
        "gpu.0.throttled": 1.0,
        "gpu.0.pcie_rx_bytes_per_s": 11 * 1024.0,
        "gpu.0.pcie_tx_bytes_per_s": 10 * 1024.0,
        "gpu.0.process_vram_bytes": 99.0,
    }
    kinds = {reading.kind for name in values if (reading := gpu_reading(name)) is not None}
    assert {
        "utilisation",
        "vram_used",
        "vram_free",
        "vram_total",
        "power",
        "energy",
        "temperature",
        "throttled",
    } == kinds


def test_an_answer_that_fails_is_unknown_and_a_driver_that_answers_nothing_is_silent() -> None:
    gpus = Gpus([DEVICE], Nvml(fails="nvmlDeviceGetPowerUsage"), None)
    values = gpus.values()
    assert (values["gpu.0.power_w"], values["gpu.0.temperature_c"]) == (None, 61.0)

    class Gone(Nvml):
        def __getattribute__(self, name: str) -> Any:
            return self._refuse if name.startswith("nvmlDevice") and lost else super().__getattribute__(name)

    lost = False
    gpus = Gpus([DEVICE], Gone(), None)
    lost = True
    with pytest.raises(NoReading):
        gpus.values()


@pytest.mark.parametrize("driver", [None, Nvml(fails="nvmlInit"), Nvml(("Tesla T4", 16))])
def test_without_nvml_or_with_another_gpu_there_is_nothing_to_read(driver: Any) -> None:
    assert issubclass(NVMLError, Exception)
    with pytest.raises(NotAvailable):
        Gpus([DEVICE], driver, None)


def test_this_machine_tells_its_load_and_its_servers() -> None:
    machine = Machine(os.getpid())
    first, second = machine.values(), machine.values()
    assert "host.disk_read_bytes_per_s" not in first and "host.net_sent_bytes_per_s" not in first
    known = {name for name, value in second.items() if value is not None}
    assert {"host.cpu_percent", "host.ram_used_bytes", "host.ram_available_bytes", "server.rss_bytes"} <= known
    assert all(value is None or value >= 0 for value in second.values())


def test_another_machine_is_not_read() -> None:
    async def main() -> None:
        host = HostReadings(
            LocalServer(Server(url="http://192.0.2.1:8188/", system={"ram_total": 1})), clock.stopwatch()
        )
        with pytest.raises(NotAvailable):
            await host.open()
        host.close()

    asyncio.run(main())


def test_a_thread_that_hangs_is_left_and_its_answer_is_not_lost() -> None:
    let, calls = threading.Event(), []

    def work() -> int:
        calls.append(1)
        if len(calls) == 1:
            let.wait(10)
        return len(calls)

    async def main() -> None:
        thread = Thread("test", work, clock.stopwatch())
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(thread.ask(), 0.02)
        assert len(calls) == 1
        let.set()
        first = await thread.ask()
        assert first.value == 1
        assert first.began < 0.02 <= first.took_s
        assert (await thread.ask()).value == 2
        thread.close()

    asyncio.run(main())


class Comfy:
    """Answers every call with one body."""

    def __init__(self, body: object, status: int = 200) -> None:
        self.reply = Reply(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode())
        self.paths: list[str] = []

    async def call(self, request: Request) -> Reply:
        self.paths.append(request.path)
        if self.reply.status == 0:
            raise TransportError("http://server/: connection refused", sent=False)
        return self.reply


def test_system_stats_tell_memory_of_the_machine_and_of_gpus_only() -> None:
    cpu = {"type": "cpu", "name": "cpu", "vram_total": 8, "vram_free": 4}
    gpu = {"type": "cuda", "vram_total": 100, "vram_free": 60, "torch_vram_total": 30, "torch_vram_free": 10}
    server: Any = Comfy({"system": {"ram_total": 1000, "ram_free": 400}, "devices": [cpu, gpu]})
    assert asyncio.run(Stats(server).read()).values == {
        "host.ram_available_bytes": 400,
        "host.ram_used_bytes": 600,
        "gpu.0.vram_total_bytes": 100,
        "gpu.0.vram_free_bytes": 60,
        "gpu.0.vram_used_bytes": 40,
        "gpu.0.torch_reserved_bytes": 30,
        "gpu.0.torch_active_bytes": 20,
    }


@pytest.mark.parametrize("server", [Comfy(b"<html>"), Comfy({}, 500), Comfy({}, 0), Comfy(b'{"devices": 3}')])
def test_what_is_no_answer_is_silence(server: Any) -> None:
    with pytest.raises(NoReading):
        asyncio.run(Stats(server).read())


def test_the_queue_is_asked_for_only_while_the_stream_is_not_heard() -> None:
    server: Any = Comfy({"exec_info": {"queue_remaining": 3}})
    heard = True
    queue = QueueLength(server, lambda: heard)
    assert not asyncio.run(queue.read()).read
    assert server.paths == []
    heard = False
    assert asyncio.run(queue.read()).values == {"queue_remaining": 3}
