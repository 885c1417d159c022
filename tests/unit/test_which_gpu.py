"""Whose GPU is read: the very model, memory, flags and process of the server; else it is said to be one of several."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import Any

import pytest

from comfyload.judge.observations import observations
from comfyload.judge.summary import Measured, measure
from comfyload.record.environment.gpu import find_gpus, gpu_facts
from comfyload.record.environment.server_process import ListeningProcess
from comfyload.record.environment.which_gpu import Visible, device_index, device_model, gpus_alike, visible_to
from comfyload.record.model import Fact, Sample, Server
from comfyload.report.run_facts import gpu_value
from comfyload.telemetry.nvml import Gpus
from tests.unit.judge_runs import job, manifest
from tests.unit.test_environment import GIB
from tests.unit.test_telemetry_readings import Nvml as Driver

TI, PLAIN = "NVIDIA GeForce RTX 4070 Ti", "NVIDIA GeForce RTX 4070"


class Nvml(Driver):
    """Of each card its own load and uuid; pids may be those of a machine outside."""

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return f"GPU-{handle}{handle}aa-b".encode()

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=(2, 95, 40, 50)[handle])


def device(name: str, gib: float | None = 12, **more: Any) -> dict[str, Any]:
    """As ComfyUI tells it; CUDA's total leaves out what the driver keeps."""
    memory = {} if gib is None else {"vram_total": int(0.975 * gib * GIB)}
    return {"name": f"cuda:0 {name} : cudaMallocAsync", "type": "cuda", **memory, **more}


def index(*cards: tuple[str, float], wanted: dict[str, Any], visible: Visible | None = None, **how: Any) -> str:
    (found,) = find_gpus([wanted], Nvml(*cards, users=how.pop("users", {})), how.get("pid"), visible)
    return found.source


@pytest.mark.parametrize(
    ("wanted", "cards", "at"),
    [
        (TI, [(PLAIN, 12), (TI, 12)], 1),  # one name holds the other
        (PLAIN, [(TI, 12), (PLAIN, 12)], 1),
        (f"{PLAIN} Laptop GPU", [(PLAIN, 12), (f"{PLAIN} Laptop GPU", 12)], 1),
        (f"{PLAIN} SUPER", [(PLAIN, 12), (f"{PLAIN} SUPER", 12)], 1),
        ("NVIDIA A100-SXM4-80GB", [("NVIDIA A100-SXM4-40GB", 40), ("NVIDIA A100-SXM4-80GB", 80)], 1),
        ("GeForce RTX 4070", [(TI, 12), (PLAIN, 12)], 1),  # an old driver's name
        ("RTX 4070", [(TI, 12), (PLAIN, 12)], 1),
        ("nvidia  geforce rtx 4070", [(TI, 12), (PLAIN, 12)], 1),
        ("Quadro RTX 4000", [("NVIDIA RTX 4000 Ada Generation", 12), ("Quadro RTX 4000", 12)], 1),
    ],
)
def test_a_model_is_the_whole_of_its_name(wanted: str, cards: list[tuple[str, float]], at: int) -> None:
    gib = cards[at][1]
    assert index(*cards, wanted=device(wanted, gib)) == f"nvml (index {at})"


def test_the_memory_tells_two_of_one_name_apart() -> None:
    cards = (("NVIDIA GeForce RTX 5060 Ti", 16.0), ("NVIDIA GeForce RTX 5060 Ti", 8.0))
    assert index(*cards, wanted=device(cards[0][0], 8)) == "nvml (index 1)"
    assert index(*cards, wanted=device(cards[0][0], 16)) == "nvml (index 0)"
    assert "one of 2 alike" in index(*cards, wanted=device(cards[0][0], None))


@pytest.mark.parametrize("wanted", ["NVIDIA GeForce RTX 4070 Ti SUPER", "NVIDIA GeForce RTX 407", "Radeon RX 7900", ""])
def test_a_model_that_is_not_here_is_none_of_those_that_are(wanted: str) -> None:
    assert "no GPU of this machine" in index((TI, 12), (PLAIN, 12), wanted=device(wanted))


def test_a_part_of_a_gpu_is_not_the_whole() -> None:
    said = index(("NVIDIA H100 80GB HBM3", 80), wanted=device("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10))
    assert "MIG" in said and "index" not in said


def test_the_case_of_a_4070_beside_a_4070_ti_in_a_container() -> None:
    nvml = Nvml((PLAIN, 12), (TI, 12), users={7: 1})
    facts = gpu_facts([device(TI)], nvml, 4_000_000)
    assert facts["gpu.0.model"] == Fact(value=TI, source="nvml (index 1)")
    assert Gpus([device(TI)], nvml, None).values()["gpu.0.utilisation_percent"] == 95


@pytest.mark.parametrize(
    ("words", "by_bus", "only", "at"),
    [
        (["1"], False, None, 1),
        (["2", "0"], False, None, 2),
        (["GPU-11aa"], False, None, 1),
        (["gpu-22AA-b"], False, None, 2),
        (None, False, None, 0),
        (["0"], False, ["2"], 2),  # its container has this one alone
        (None, False, ["2", "1"], 1),
        (None, False, ["GPU-22aa-b"], 2),
        (["MIG-1"], False, None, None),
        (["7"], False, None, None),
        ([""], False, None, None),
        (None, False, ["9"], None),
    ],
)
def test_flags_and_environment_choose_among_gpus_alike(
    words: list[str] | None, by_bus: bool, only: list[str] | None, at: int | None
) -> None:
    said = index(*[(TI, 12.0)] * 3, wanted=device(TI), visible=Visible(words=words, by="X", by_bus=by_bus, only=only))
    assert said == f"nvml (index {at}, by X)" if at is not None else "one of 3 alike" in said


def test_a_number_means_nothing_where_cuda_may_count_otherwise() -> None:
    cards = [(PLAIN, 12.0), (TI, 12.0), (TI, 12.0)]
    first = Visible(words=["1"], by="--cuda-device 1")
    assert "one of 2 alike" in index(*cards, wanted=device(TI), visible=first)
    by_flag = Visible(words=["1"], by="--cuda-device 1", by_bus=True)
    assert index(*cards, wanted=device(TI), visible=by_flag) == "nvml (index 1, by --cuda-device 1)"
    wrong = Visible(words=["0"], by="--cuda-device 0", by_bus=True)  # another model is there: it is not that one
    assert "one of 2 alike" in index(*cards, wanted=device(TI), visible=wrong)


def test_the_process_goes_before_the_flags_and_pids_of_elsewhere_are_not_believed() -> None:
    cards, mine = [(TI, 12.0)] * 2, os.getpid()
    flag = Visible(words=["0"], by="--cuda-device 0")
    assert index(*cards, wanted=device(TI), visible=flag, users={mine: 1}, pid=mine) == "nvml (index 1)"
    nobody = 2**22 + 5  # no process has it: the numbers are of another machine or container
    assert "one of 2" in index(*cards, wanted=device(TI), users={mine: 1, nobody: 0}, pid=mine)


def test_of_two_that_the_server_has_both_each_is_found_once() -> None:
    devices = [device(TI, index=0), device(TI, index=1)]
    found = find_gpus(devices, Nvml((TI, 12), (TI, 12)), None, Visible(words=["1", "0"], by="X"))
    assert [gpu.handle for gpu in found] == [1, 0]
    unsure = find_gpus(devices, Nvml((TI, 12), (TI, 12)), None)
    assert [gpu.handle for gpu in unsure] == [0, 1] and all("one of 2 alike" in gpu.source for gpu in unsure)


@pytest.mark.parametrize(
    ("name", "model", "place"),
    [
        (f"cuda:1 {TI} : cudaMallocAsync", TI, 1),
        (f"cuda:2 {TI} : ", TI, 2),
        (f"CUDA 3: {TI}", TI, 3),
        ("xpu:0 Intel(R) Arc(TM) A770", "Intel(R) Arc(TM) A770", 0),
        ("mps", "mps", 5),
        ("", "", 5),
    ],
)
def test_names_as_comfyui_writes_them(name: str, model: str, place: int) -> None:
    assert (device_model(name), device_index({"name": name}, 5)) == (model, place)
    assert device_index({"name": name, "index": 4}, 5) == 4


ARGV = ["main.py", "--port", "8188"]


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        (["main.py", "--cuda-device", "1"], None, (["1"], "--cuda-device 1")),
        (["main.py", "--cuda-device=0,2"], {"CUDA_VISIBLE_DEVICES": "3"}, (["0", "2"], "--cuda-device 0,2")),
        (["main.py", "--cuda-device", "all"], {}, (None, "its place, as nothing hides a GPU from it")),
        (ARGV, {"CUDA_VISIBLE_DEVICES": "GPU-1, 2"}, (["GPU-1", "2"], "its CUDA_VISIBLE_DEVICES")),
        (ARGV, {}, (None, "its place, as nothing hides a GPU from it")),
        (ARGV, None, None),
    ],
)
def test_what_the_server_sees(argv: list[str], environ: dict[str, str] | None, expected: Any) -> None:
    command = ["/venv/bin/python", "/srv/ComfyUI/main.py", *argv[1:]]
    found = visible_to(Server(url="u", argv=argv), ListeningProcess(command=command, gpu_environ=environ))
    assert (None if found is None else (found.words, found.by)) == expected


def test_the_default_device_is_the_first_and_the_others_stay() -> None:
    found = visible_to(Server(url="u", argv=["main.py", "--default-device", "2"]), ListeningProcess())
    assert found is not None and found.words is not None and found.words[:4] == ["2", "0", "1", "3"]


def test_the_environment_of_a_proxy_or_an_unknown_container_is_not_the_servers() -> None:
    server = Server(url="u", argv=ARGV)
    proxy = ListeningProcess(command=["docker-proxy", "-container-ip", "172.17.0.2"], gpu_environ={})
    assert visible_to(server, proxy) is None
    command = ["python", *ARGV]
    assert visible_to(server, ListeningProcess(command=command, gpu_environ={}, contained=True)) is None
    one = visible_to(
        server, ListeningProcess(command=command, gpu_environ={"NVIDIA_VISIBLE_DEVICES": "1"}, contained=True)
    )
    assert one is not None and one.only == ["1"]
    every = visible_to(
        server, ListeningProcess(command=command, gpu_environ={"NVIDIA_VISIBLE_DEVICES": "all"}, contained=True)
    )
    assert every is not None and every.only is None


def _measured(source: str, *, told_by_comfy: bool) -> Measured:
    records = [job(i, 20.0 * i, 18.0) for i in range(12)]
    values = {"utilisation_percent": 99.0, "power_w": 300.0, "vram_used_bytes": 11.9 * GIB, "throttled": 1.0}
    samples = [
        Sample(t=t / 2, source="nvml", name=f"gpu.0.{name}", value=value)
        for t in range(480)
        for name, value in values.items()
    ]
    if told_by_comfy:
        samples += [Sample(t=2.0 * t, source="comfy", name="gpu.0.vram_used_bytes", value=6 * GIB) for t in range(120)]
    environment = {"gpu.0.model": Fact(value=TI, source=source), "gpu.0.vram_bytes": Fact(value=12 * GIB)}
    return measure("r", manifest(environment=environment, counted_from=0.0, counted_to=math.inf), records, samples)


def test_nothing_rests_on_a_gpu_that_is_one_of_several_alike() -> None:
    sure = _measured("nvml (index 0)", told_by_comfy=False)
    assert sure.summary.gpus["0"].alike == 1 and sure.summary.saturation.gpus["0"].over_90_percent
    assert sure.summary.gpus["0"].energy_per_job_j.value is not None
    unsure = _measured("nvml (index 0, one of 2 alike: which of them the server uses is not told)", told_by_comfy=False)
    row, busy = unsure.summary.gpus["0"], unsure.summary.saturation.gpus["0"]
    assert gpus_alike(unsure.manifest.environment) == {"0": 2}
    assert (busy.utilisation_percent, busy.over_90_percent, busy.at_ceiling) == (None, None, None)
    assert row.energy_per_job_j.value is None and "one of 2 identical" in row.energy_per_job_j.reason
    assert gpu_value(row).words.startswith("one of 2 alike, perhaps not the server's: 99 % busy")
    assert [f.level for f in unsure.summary.findings if f.code == "gpu_alike"] == ["warning"]
    assert not [one.text for one in observations([unsure]) if "GPU 0" in one.text and "alike" not in one.text]


def test_what_comfyui_tells_of_its_own_gpu_is_believed_before_a_doubtful_one() -> None:
    both = _measured("nvml (index 0, one of 2 alike: which of them the server uses is not told)", told_by_comfy=True)
    assert both.summary.gpus["0"].vram_peak_bytes == 6 * GIB
    assert any("held 6.0 GiB of 12.0 GiB" in one.text for one in observations([both]))
