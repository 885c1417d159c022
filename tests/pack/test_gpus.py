"""GPUs are read by the driver's real interface, and what a driver does not tell is None and never 0."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from comfyload.record.environment.gpu import KEYS
from comfyload_probe.gpus import Gpus, open_gpus
from comfyload_probe.nvidia import REOPEN_S
from comfyload_probe.rows import GPU_FIELDS
from tests.pack.standin import CARD, TOTAL, Driver, fake_torch, loaded


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def only(gpus: Gpus) -> dict[str, Any]:
    rows = gpus.read()
    assert len(rows) == 1
    return rows[0]


def test_everything_that_a_driver_tells(driver: Driver) -> None:
    driver.say(processes_0=2, pid0_0=1, bytes0_0=5, pid1_0=os.getpid(), bytes1_0=7 * 2**30, throttle_0=0x45)
    gpus = open_gpus(driver.environ)
    assert (gpus.backend, gpus.why) == ("nvml", "")
    row = only(gpus)
    assert list(row) == ["index", *GPU_FIELDS]
    assert row == {
        "index": 0,
        "utilisation_percent": 97,
        "vram_used_bytes": 8 * 2**30,
        "vram_total_bytes": TOTAL,
        "torch_allocated_bytes": None,
        "process_vram_bytes": 7 * 2**30,
        "power_w": 321.5,
        "energy_j": 123456.789,
        "temperature_c": 64,
        "clock_sm_mhz": 1000,
        "clock_memory_mhz": 2000,
        "throttle": ["sw_power_cap", "hw_thermal"],
        "pcie_rx_bytes_per_s": 5000 * 1024,
        "pcie_tx_bytes_per_s": 700 * 1024,
    }
    gpus.close()


def test_the_facts_are_those_of_comfyload_itself(driver: Driver) -> None:
    facts = open_gpus(driver.environ).facts()
    assert set(facts) == {f"gpu.0.{key}" for key in KEYS}
    assert {fact["source"] for fact in facts.values()} == {"nvml (index 0)"}
    values = {key.removeprefix("gpu.0."): fact["value"] for key, fact in facts.items()}
    assert values["model"] == CARD
    assert (values["driver"], values["cuda"]) == ("580.65", "13.0")
    assert (values["pcie_generation"], values["pcie_generation_max"]) == (3, 4)
    assert (values["pcie_width"], values["pcie_width_max"]) == (4, 16)
    assert (values["power_limit_w"], values["power_limit_default_w"]) == (350.0, 450.0)
    assert (values["persistence"], values["ecc"]) == (True, False)


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("nvmlDeviceGetUtilizationRates", {"utilisation_percent"}),
        ("nvmlDeviceGetPowerUsage", {"power_w"}),
        ("nvmlDeviceGetTotalEnergyConsumption", {"energy_j"}),
        ("nvmlDeviceGetTemperature", {"temperature_c"}),
        ("nvmlDeviceGetClockInfo", {"clock_sm_mhz", "clock_memory_mhz"}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {"throttle"}),
        ("nvmlDeviceGetPcieThroughput", {"pcie_rx_bytes_per_s", "pcie_tx_bytes_per_s"}),
    ],
)
def test_what_a_card_does_not_support_is_none_and_the_rest_is_known(
    driver: Driver, function: str, fields: set[str]
) -> None:
    driver.fails(function, 3)
    gpus = open_gpus(driver.environ)
    row = only(gpus)
    unknown = {"torch_allocated_bytes", "process_vram_bytes"}
    assert {key for key, value in row.items() if value is None} == fields | unknown
    assert gpus.why == ""
    sources = {fact["source"] for fact in gpus.facts().values() if fact["value"] is None}
    assert sources <= {"nvml: Not Supported"}


def test_a_value_that_fails_once_is_there_again_at_the_next_read(driver: Driver) -> None:
    gpus = open_gpus(driver.environ)
    driver.fails("nvmlDeviceGetPowerUsage", 999)
    assert only(gpus)["power_w"] is None
    driver.fails("nvmlDeviceGetPowerUsage", None)
    assert only(gpus)["power_w"] == 321.5


def test_a_driver_older_than_some_functions_tells_the_rest(old_driver: Driver) -> None:
    old_driver.say(processes_0=1, pid0_0=os.getpid(), bytes0_0=4096, throttle_0=0x20)
    row = only(open_gpus(old_driver.environ))
    assert row["energy_j"] is None
    assert row["throttle"] == ["sw_thermal"]
    assert row["process_vram_bytes"] == 4096
    assert row["power_w"] == 321.5


@pytest.mark.parametrize("entry", [16, 24, 32])
def test_the_processes_are_read_whatever_size_the_driver_gives_them(driver: Driver, entry: int) -> None:
    driver.say(entry=entry, processes_0=3, pid0_0=7, bytes0_0=1, pid1_0=os.getpid(), bytes1_0=11, pid2_0=os.getpid())
    driver.say(bytes2_0=2**33)
    assert only(open_gpus(driver.environ))["process_vram_bytes"] == 2**33 + 11


def test_a_process_that_the_driver_does_not_show_has_no_known_memory(driver: Driver) -> None:
    assert only(open_gpus(driver.environ))["process_vram_bytes"] is None
    driver.say(processes_0=1, pid0_0=os.getpid(), bytes0_0=2**64 - 1)  # as Windows answers
    assert only(open_gpus(driver.environ))["process_vram_bytes"] is None


def test_a_gpu_at_rest_is_not_throttled_and_an_unknown_reason_is_not_lost(driver: Driver) -> None:
    driver.say(throttle_0=1)
    gpus = open_gpus(driver.environ)
    assert only(gpus)["throttle"] == []
    driver.say(throttle_0=0x8004)
    assert only(gpus)["throttle"] == ["sw_power_cap", "unknown_0x8000"]


def test_a_lost_driver_is_opened_again_every_half_minute(driver: Driver) -> None:
    clock = Clock()
    gpus = open_gpus(driver.environ, clock)
    assert only(gpus)["power_w"] == 321.5
    driver.fails("all", 1)
    row = only(gpus)
    assert {key for key, value in row.items() if value is not None} == {"index"}
    assert gpus.why == "nvml: Uninitialized"
    assert {fact["value"] for fact in gpus.facts().values()} == {None}
    clock.now += REOPEN_S + 1
    assert only(gpus)["power_w"] is None
    assert gpus.why
    driver.fails("all", None)
    clock.now += REOPEN_S + 1
    assert only(gpus)["power_w"] == 321.5
    assert gpus.why == ""


def test_one_gpu_lost_of_two_leaves_the_other_and_both_their_places(driver: Driver) -> None:
    clock = Clock()
    driver.say(count=2)
    gpus = open_gpus(driver.environ, clock)
    assert [row["power_w"] for row in gpus.read()] == [321.5, 321.5]
    driver.fails("gpu.0", 15)
    for _ in range(3):
        rows = gpus.read()
        assert [(row["index"], row["power_w"]) for row in rows] == [(0, None), (1, 321.5)]
        assert gpus.why
        clock.now += REOPEN_S + 1
    driver.say(count=1)  # and now the driver does not even count it
    clock.now += REOPEN_S + 1
    assert [row["index"] for row in gpus.read()] == [0, 1]


def test_a_library_that_lacks_a_driver_says_so(driver: Driver) -> None:
    driver.fails("nvmlInit_v2", 9)
    gpus = open_gpus(driver.environ)
    assert (gpus.backend, gpus.why, gpus.read()) == ("none", "nvml: Driver Not Loaded", [])
    assert gpus.facts() == {"gpu": {"value": None, "source": "nvml: Driver Not Loaded"}}


def test_without_a_library_nothing_is_known_and_nothing_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, "torch", None)
    gpus = open_gpus({"COMFYLOAD_PROBE_NVML": "/nowhere/libnvidia-ml.so.1"})
    assert (gpus.backend, gpus.read()) == ("none", [])
    assert gpus.why == "nvml: libnvidia-ml.so.1 cannot be loaded"
    gpus.close()


def test_only_the_gpus_that_torch_computes_on_are_read_under_its_own_numbers(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.say(count=3, power_0=1000, power_1=2000)
    loaded(monkeypatch, "torch", fake_torch(("00000001-aaaa", CARD, TOTAL), ("00000000-aaaa", CARD, TOTAL)))
    gpus = open_gpus(driver.environ)
    assert [(row["index"], row["power_w"]) for row in gpus.read()] == [(0, 2.0), (1, 1.0)]
    assert [row["torch_allocated_bytes"] for row in gpus.read()] == [1000, 1001]
    facts = gpus.facts()
    assert facts["gpu.0.pcie_generation"] == {"value": 4, "source": "nvml (index 1)"}
    assert facts["gpu.1.pcie_generation"] == {"value": 3, "source": "nvml (index 0)"}


def test_a_torch_without_uuids_is_matched_by_name_and_memory(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.say(count=2, name_0="NVIDIA T400", total_0=4 * 2**30, power_1=2000)
    loaded(monkeypatch, "torch", fake_torch(("", CARD, int(TOTAL * 0.98))))
    gpus = open_gpus(driver.environ)
    assert only(gpus)["power_w"] == 2.0
    assert gpus.facts()["gpu.0.model"] == {"value": CARD, "source": "nvml (index 1)"}
    driver.say(name_0=CARD, total_0=TOTAL)
    assert "one of 2 alike" in open_gpus(driver.environ).facts()["gpu.0.model"]["source"]


def test_a_card_that_the_driver_does_not_have_keeps_its_place_and_says_why(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(monkeypatch, "torch", fake_torch(("ffff", "Another", TOTAL), ("00000000-aaaa", CARD, TOTAL)))
    gpus = open_gpus(driver.environ)
    assert [(row["index"], row["power_w"]) for row in gpus.read()] == [(0, None), (1, 321.5)]
    assert gpus.why == "nvml: no GPU of this machine is 'Another'"


def test_a_part_of_a_gpu_is_found_by_its_own_name(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.say(mig="MIG-cafe")
    loaded(monkeypatch, "torch", fake_torch(("cafe", "NVIDIA H100 MIG 1g.10gb", 10 * 2**30)))
    gpus = open_gpus(driver.environ)
    assert only(gpus)["power_w"] == 321.5
    assert gpus.facts()["gpu.0.model"]["source"] == "nvml, a MIG part"


@pytest.mark.parametrize(
    ("variable", "found"),
    [
        (None, [1.0, 2.0]),
        ("1", [2.0]),
        ("1,0", [2.0, 1.0]),
        ("GPU-00000001", [2.0]),
        ("GPU-0000000", []),  # two begin so
        ("0,-1,1", [1.0]),
        ("", []),
        ("9", []),
    ],
)
def test_before_torch_is_in_use_the_environment_says_which(
    driver: Driver, variable: str | None, found: list[float]
) -> None:
    driver.say(count=2, power_0=1000, power_1=2000)
    environ = driver.environ if variable is None else {**driver.environ, "CUDA_VISIBLE_DEVICES": variable}
    assert [row["power_w"] for row in open_gpus(environ).read()] == found


def test_once_torch_is_in_use_it_is_believed(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.say(count=2, power_0=1000, power_1=2000)
    card = ("00000001-aaaa", CARD, TOTAL)
    loaded(monkeypatch, "torch", fake_torch(card, initialised=False))
    gpus = open_gpus(driver.environ)
    assert [row["power_w"] for row in gpus.read()] == [1.0, 2.0]
    loaded(monkeypatch, "torch", fake_torch(card))
    assert [row["power_w"] for row in gpus.read()] == [2.0]


def test_a_server_on_its_cpu_reads_no_gpu_of_the_machine(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    management: Any = ModuleType("comfy.model_management")
    management.cpu_state = SimpleNamespace(name="CPU")
    loaded(monkeypatch, "comfy.model_management", management)
    gpus = open_gpus(driver.environ)
    assert (gpus.backend, gpus.why, gpus.read()) == ("none", "ComfyUI computes on its CPU", [])
    assert gpus.facts() == {"gpu": {"value": "none", "source": "ComfyUI computes on its CPU"}}


def test_amd_tells_what_torch_does_and_never_raises(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = fake_torch(("", "AMD Radeon RX 7900 XTX", 24 * 2**30), ("", "AMD iGPU", 2**30), hip="6.4")
    calls: list[str] = []

    def utilization(index: int) -> int:
        calls.append("utilization")
        raise ModuleNotFoundError("amdsmi")

    torch.cuda.utilization = utilization
    torch.cuda.temperature = lambda index: 71
    torch.cuda.clock_rate = lambda index: 0  # torch says 0 for what it does not know
    loaded(monkeypatch, "torch", torch)
    gpus = open_gpus(driver.environ)
    assert gpus.backend == "rocm"
    first, second = gpus.read()
    known = {key: value for key, value in first.items() if value is not None}
    assert known == {
        "index": 0,
        "vram_used_bytes": 18 * 2**30,
        "vram_total_bytes": 24 * 2**30,
        "torch_allocated_bytes": 1000,
        "temperature_c": 71,
    }
    assert second["vram_used_bytes"] is None  # torch has nothing on it; asking would make it ready
    gpus.read()
    assert calls == ["utilization"]
    assert gpus.facts()["gpu.0.model"] == {"value": "AMD Radeon RX 7900 XTX", "source": "torch (rocm)"}


def test_apple_tells_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = fake_torch()
    torch.backends.mps.is_available = lambda: True
    torch.mps = SimpleNamespace(
        current_allocated_memory=lambda: 10, driver_allocated_memory=lambda: 20, recommended_max_memory=lambda: 30
    )
    loaded(monkeypatch, "torch", torch)
    gpus = open_gpus({})
    assert gpus.backend == "mps"
    known = {key: value for key, value in only(gpus).items() if value is not None}
    assert known == {"index": 0, "torch_allocated_bytes": 10, "process_vram_bytes": 20, "vram_total_bytes": 30}
    assert gpus.facts() == {"gpu.0.vram_bytes": {"value": 30, "source": "torch (mps)"}}


def test_nvidia_without_its_library_tells_what_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, "torch", fake_torch(("00000000-aaaa", CARD, TOTAL)))
    gpus = open_gpus({"COMFYLOAD_PROBE_NVML": "/nowhere/libnvidia-ml.so.1"})
    assert gpus.backend == "cuda"
    assert "only what torch tells is known" in gpus.why
    row = only(gpus)
    assert row["vram_total_bytes"] == TOTAL
    assert row["utilisation_percent"] is None


def test_a_torch_that_breaks_does_not_break_us(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = fake_torch(("00000000-aaaa", CARD, TOTAL))

    def fails(*_: object) -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure")

    torch.cuda.memory_allocated = fails
    loaded(monkeypatch, "torch", torch)
    gpus = open_gpus(driver.environ)
    assert only(gpus)["torch_allocated_bytes"] is None
    torch.cuda.get_device_properties = torch.cuda.is_available = fails
    assert only(open_gpus(driver.environ))["power_w"] == 321.5


def test_torch_is_never_imported() -> None:
    assert "torch" not in sys.modules
