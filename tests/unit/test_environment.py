"""What is said of the system under test is true of it, says where it comes from, and is unknown otherwise."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from msgspec import structs

from comfyload.record.environment import describe as environments
from comfyload.record.environment.describe import environment, local_environment, server_environment, with_notes
from comfyload.record.environment.git import comfyui_facts, pack_facts
from comfyload.record.environment.gpu import KEYS, gpu_facts
from comfyload.record.environment.server_process import ListeningProcess, find_listener, why_elsewhere
from comfyload.record.environment.thunderbolt import enclosure_facts
from comfyload.record.model import Environment, Fact, Server

GIB = 2**30
CARD = "NVIDIA GeForce RTX 4090"
DEVICE: dict[str, Any] = {"name": f"cuda:0 {CARD} : cudaMallocAsync", "type": "cuda", "vram_total": int(23.5 * GIB)}
SERVER = Server(
    url="http://127.0.0.1:8188",
    comfyui_version="0.33.0",
    argv=["main.py", "--listen", "a b"],
    cache_mode="ram",
    system={
        "os": "linux",
        "ram_total": psutil.virtual_memory().total,
        "python_version": "3.12",
        "pytorch_version": "2.9.0+cu130",
        "required_frontend_version": "1.49.5",
        "comfy_package_versions": [
            {"name": "comfyui-frontend-package", "installed": "1.49.6"},
            {"name": "comfy-aimdo", "installed": None},
        ],
    },
    devices=[DEVICE],
    packs=["impact", "unseen"],
)


class NVMLError(Exception):
    pass


class Nvml:
    """A driver with `cards` of (name, GiB); the call named by `fails` says that it is not supported."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    def __init__(self, *cards: tuple[str, float], fails: str = "", users: dict[int, int] | None = None) -> None:
        self.cards, self.fails, self.users = cards or ((CARD, 24),), fails, users or {}
        self.calls: list[str] = []
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("nvml"):
            self.calls.append(name)
            if name == self.fails:
                return self._refuse
        return found

    def _refuse(self, *_: object) -> None:
        raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes | str:
        return self.cards[handle][0].encode() if handle % 2 else self.cards[handle][0]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=int(self.cards[handle][1] * GIB))

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 13000

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: int) -> int:
        return 3 + handle

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: int) -> int:
        return 4

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: int) -> int:
        return 4

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: int) -> int:
        return 16

    def nvmlDeviceGetPowerManagementLimit(self, handle: int) -> int:
        return 350_000

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: int) -> int:
        return 450_000

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        return 1000 * kind

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:
        return 3000 * kind

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetPersistenceMode(self, handle: int) -> int:
        return 1

    def nvmlDeviceGetEccMode(self, handle: int) -> list[int]:
        return [0, 0]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid, index in self.users.items() if index == handle]


def calls() -> list[str]:
    nvml = Nvml((CARD, 24), (CARD, 24))
    gpu_facts([DEVICE], nvml, 7)
    return sorted(set(nvml.calls))


def values(facts: Environment, prefix: str = "gpu.0.") -> dict[str, Any]:
    return {key.removeprefix(prefix): fact.value for key, fact in facts.items() if key.startswith(prefix)}


def test_an_external_gpu_shows_itself_in_its_link() -> None:
    nvml = Nvml()
    facts = gpu_facts([DEVICE], nvml)
    assert values(facts) == {
        "model": CARD,
        "driver": "580.65",
        "cuda": "13.0",
        "vram_bytes": 24 * GIB,
        "pcie_generation": 3,
        "pcie_generation_max": 4,
        "pcie_width": 4,
        "pcie_width_max": 16,
        "power_limit_w": 350.0,
        "power_limit_default_w": 450.0,
        "clock_sm_mhz": 1000,
        "clock_sm_max_mhz": 3000,
        "clock_memory_mhz": 2000,
        "busy_percent": 97,
        "persistence": True,
        "ecc": False,
    }
    assert {fact.source for fact in facts.values()} == {"nvml (index 0)"}
    assert nvml.open == 0


@pytest.mark.parametrize("call", calls())
def test_whatever_nvml_refuses_is_unknown_and_the_rest_is_known(call: str) -> None:
    facts = gpu_facts([DEVICE], Nvml(fails=call))
    assert set(facts) == {f"gpu.0.{key}" for key in KEYS}
    unknown = [fact for fact in facts.values() if fact.value is None]
    if call in ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
        assert len(unknown) == len(KEYS)
    elif call in ("nvmlShutdown", "nvmlDeviceGetComputeRunningProcesses"):
        assert unknown == []
    else:
        assert 1 <= len(unknown) <= 2
    assert all(fact.source == "nvml: Not Supported" for fact in unknown)


def test_without_the_library_or_a_driver_every_gpu_is_unknown() -> None:
    two = gpu_facts([DEVICE, DEVICE], None)
    assert len(two) == 2 * len(KEYS)
    assert all(fact.value is None and "not installed" in fact.source for fact in two.values())


def test_only_the_gpu_that_the_server_names_is_described() -> None:
    facts = gpu_facts([DEVICE], Nvml(("NVIDIA T400", 4), (CARD, 24), (CARD, 48)))
    assert facts["gpu.0.pcie_generation"] == Fact(value=4, source="nvml (index 1)")
    assert {key.split(".")[1] for key in facts} == {"0"}
    other = gpu_facts([{"name": "cuda:0 Radeon", "vram_total": 16 * GIB}], Nvml())
    assert all(fact.value is None and "no GPU of this machine" in fact.source for fact in other.values())


def test_of_gpus_alike_the_one_that_the_servers_process_uses_is_described() -> None:
    cards = [(CARD, 24.0), (CARD, 24.0)]
    sure = gpu_facts([DEVICE], Nvml(*cards, users={77: 1}), server_pid=77)
    assert sure["gpu.0.pcie_generation"] == Fact(value=4, source="nvml (index 1)")
    unsure = gpu_facts([DEVICE], Nvml(*cards, users={77: 1}), server_pid=78)
    assert "one of 2 alike" in unsure["gpu.0.pcie_generation"].source


def test_a_server_on_its_cpu_has_no_gpu_even_where_the_machine_has_one() -> None:
    device = {"name": "cpu", "type": "cpu", "vram_total": 24 * GIB}
    assert gpu_facts([device], Nvml()) == {}
    assert server_environment(structs.replace(SERVER, devices=[device]))["gpu"].value == "none"


def test_the_server_tells_of_itself() -> None:
    facts = server_environment(SERVER)
    assert {fact.source.split()[0] for fact in facts.values() if fact.value is not None} == {"server", "comfyload"}
    assert facts["gpu.0.model"].value == CARD
    assert facts["comfyui.argv"].value == "main.py --listen 'a b'"
    assert facts["comfyui.frontend"].value == "1.49.6"
    assert facts["package.comfy-aimdo"].value == "not installed"
    assert facts["comfyui.commit"].value is None
    assert facts["custom_nodes.impact"] == Fact(source="server names it, without a version")
    bare = server_environment(Server(url="http://x"))
    assert bare["comfyui.version"] == Fact(source="the server does not report it")
    assert all(fact.source for fact in bare.values())


def test_a_frontend_that_is_only_required_is_said_to_be_so() -> None:
    system = {key: value for key, value in SERVER.system.items() if key != "comfy_package_versions"}
    fact = server_environment(structs.replace(SERVER, system=system))["comfyui.frontend"]
    assert fact.value == "1.49.5"
    assert "requires" in fact.source


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        ({}, None, ""),
        ({"url": "http://localhost:8188"}, "python", ""),
        ({"url": f"http://{socket.gethostname()}:8188"}, "python", ""),
        ({"url": "http://[::1]:8188"}, "python", ""),
        ({"url": "https://192.0.2.7/comfy"}, None, "another machine"),
        ({"url": "http://no-such-host.invalid:8188"}, None, "another machine"),
        ({"system": {"ram_total": 1.05 * SERVER.system["ram_total"]}}, None, "a tunnel?"),
        ({"system": {}}, None, "does not report its memory"),
        ({}, "ssh", "a tunnel: ssh"),
    ],
)
def test_a_server_is_here_only_if_its_address_and_its_memory_are(
    changes: dict[str, Any], name: str | None, why: str
) -> None:
    if changes.get("url", "").startswith(f"http://{socket.gethostname()}"):
        try:
            socket.getaddrinfo(socket.gethostname(), None)
        except OSError:
            pytest.skip("this machine does not know its own name")
    said = why_elsewhere(structs.replace(SERVER, **changes), ListeningProcess(name=name))
    assert (said == "") == (why == "")
    assert why in said


def test_behind_a_tunnel_nothing_of_this_machine_is_said_of_the_server(tmp_path: Path) -> None:
    far = structs.replace(SERVER, system=SERVER.system | {"ram_total": 2 * SERVER.system["ram_total"]})
    facts = local_environment(far, None)
    assert {"gpu.0.driver", "host.cpu", "host.kernel", "comfyui.commit"} <= set(facts)
    assert facts.pop("host.runs_generator").value is False
    assert {fact.value for fact in facts.values()} == {None}
    assert {fact.source for fact in facts.values()} == {"the server's memory is not this machine's: a tunnel?"}
    whole = environment(far, facts, {}, {})
    assert whole["gpu.0.model"] == Fact(value=CARD, source="server")
    assert "tunnel" in whole["gpu.0.driver"].source


def test_on_this_machine_it_tells_of_the_host_and_the_named_folder(tmp_path: Path) -> None:
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    facts = local_environment(SERVER, comfyui)
    assert facts["host.ram_bytes"].source == "this machine"
    assert facts["host.kernel"].value
    assert facts["comfyui.commit"].value == git(comfyui, "rev-parse", "HEAD")


def test_the_process_on_a_port_is_found(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        found = find_listener(f"http://127.0.0.1:{port}/base")
    if found.pid is None:
        pytest.skip(f"psutil may not look here: {found.why}")
    assert found.pid == os.getpid()
    assert found.folder is not None
    assert find_listener(f"http://127.0.0.1:{port}").why == f"no visible process listens on port {port}"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def checkout(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def make_comfyui(folder: Path) -> Path:
    return checkout(folder, comfyui_version__py='# made\n__version__ = "0.33.0"\n', main__py="")


def test_a_checkout_tells_its_commit_and_whether_it_is_changed(tmp_path: Path) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "untracked.pyc").write_text("left by Python")
    clean = comfyui_facts(folder, "0.33.0")
    assert (clean["comfyui.commit"].value, clean["comfyui.dirty"].value) == (commit, False)
    assert str(folder) in clean["comfyui.commit"].source
    (folder / "main.py").write_text("changed")
    assert comfyui_facts(folder, "v0.33.0")["comfyui.dirty"].value is True


def test_a_folder_of_another_version_is_not_the_servers(tmp_path: Path) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI")
    facts = comfyui_facts(folder, "0.34.0")
    assert {fact.value for fact in facts.values()} == {None}
    assert "holds 0.33.0, the server runs 0.34.0" in facts["comfyui.commit"].source
    assert "declares no ComfyUI version" in comfyui_facts(tmp_path, "0.34.0")["comfyui.commit"].source


def test_a_folder_within_another_repository_does_not_pass_for_it(tmp_path: Path) -> None:
    outer = checkout(tmp_path / "project", readme="x")
    folder = outer / "ComfyUI"
    folder.mkdir()
    (folder / "comfyui_version.py").write_text("__version__ = '0.33.0'\n")
    facts = comfyui_facts(folder, None)
    assert facts["comfyui.commit"].value is None
    assert "not a git checkout" in facts["comfyui.commit"].source
    assert facts["comfyui.version"].value == "0.33.0"
    assert "comfyui_version.py" in facts["comfyui.version"].source


def test_git_that_fails_or_is_not_there_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI")
    (folder / ".git" / "HEAD").write_text("broken")
    assert "git: fatal" in comfyui_facts(folder, None)["comfyui.commit"].source
    monkeypatch.setenv("PATH", str(tmp_path))
    assert comfyui_facts(folder, None)["comfyui.commit"] == Fact(source="git is not installed here")


def test_a_repository_cannot_make_git_run_its_program(tmp_path: Path) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    git(folder, "config", "core.fsmonitor", str(program))
    assert comfyui_facts(folder, None)["comfyui.dirty"].value is False
    assert not (tmp_path / "ran").exists()


def test_packs_tell_their_commit_or_version(tmp_path: Path) -> None:
    packs = tmp_path / "custom_nodes"
    clean = checkout(packs / "clean", a__py="1")
    dirty = checkout(packs / "dirty", a__py="1")
    (dirty / "a.py").write_text("2")
    (packs / "released").mkdir()
    (packs / "released" / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (packs / "odd").mkdir()
    (packs / "odd" / "pyproject.toml").write_text("project = 3")
    for ignored in ("__pycache__", ".cache", "old.disabled"):
        (packs / ignored).mkdir()
    (packs / "single.py").write_text("")
    (packs / "example.txt").write_text("")
    facts = pack_facts(packs)
    assert {key: fact.value for key, fact in facts.items()} == {
        "custom_nodes.clean": git(clean, "rev-parse", "HEAD")[:10],
        "custom_nodes.dirty": git(dirty, "rev-parse", "HEAD")[:10] + " dirty",
        "custom_nodes.odd": None,
        "custom_nodes.released": "1.2.3",
        "custom_nodes.single": None,
    }
    assert all(fact.source for fact in facts.values())
    assert pack_facts(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("flag", ["--base-directory {}", "--base-directory={}", "--base-directory base"])
def test_packs_are_looked_for_where_the_server_looks(tmp_path: Path, flag: str) -> None:
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    (comfyui / "custom_nodes" / "inner").mkdir(parents=True)
    base = comfyui / "base"
    (base / "custom_nodes" / "outer").mkdir(parents=True)
    argv = ["main.py", *flag.format(base).split()]
    with_base = local_environment(structs.replace(SERVER, argv=argv), comfyui)
    assert [key for key in with_base if key.startswith("custom_nodes.")] == ["custom_nodes.outer"]
    without = local_environment(SERVER, comfyui)
    assert [key for key in without if key.startswith("custom_nodes.")] == ["custom_nodes.inner"]


def test_what_a_note_names_is_not_unknown_beside_it() -> None:
    bus = {"enclosure": Fact(source="sysfs shows no Thunderbolt or USB4 bus")}
    razer = Fact(value="Razer Core X", source="note")
    for local in (bus, {}):  # a server on another machine has no such row at all
        whole = environment(SERVER, local, {}, {"Enclosure": "Razer Core X"})
        assert whole["enclosure"] == razer == whole["note.Enclosure"]
    kept = with_notes(bus, {"enclosure": "Razer Core X", "room": "cold"})
    assert kept == {"enclosure": razer}
    limit = environment(SERVER, {"gpu.0.power_limit_w": Fact(source="nvml: no")}, {}, {"gpu.0.power_limit_w": "300"})
    assert limit["gpu.0.power_limit_w"].value == "300"


def test_a_note_does_not_replace_what_is_known() -> None:
    seen = {"enclosure.0.device": Fact(value="Core X", source="sysfs"), "enclosure.0.vendor": Fact(source="sysfs")}
    whole = environment(SERVER, seen, {}, {"enclosure": "another", "gpu.0.model": "Voodoo", "a.b": "c"})
    assert "enclosure" not in whole and whole["gpu.0.model"].value == CARD and "a.b" not in whole
    none = environment(SERVER, {"enclosure": Fact(value="none", source="sysfs")}, {}, {"enclosure": "Oculink"})
    assert none["enclosure"].value == "none" and none["note.enclosure"].value == "Oculink"


def test_what_is_known_here_goes_before_what_the_server_tells() -> None:
    local = {
        "custom_nodes.impact": Fact(value="abc", source="git"),
        "custom_nodes.failed": Fact(value="def", source="git"),
        "gpu.0.vram_bytes": Fact(value=24 * GIB, source="nvml"),
        "gpu.0.model": Fact(source="nvml: Not Supported"),
        "gpu.0.driver": Fact(source="nvml: Not Supported"),
    }
    whole = environment(SERVER, local, {}, {"enclosure": "Razer"})
    assert whole["gpu.0.vram_bytes"].source == "nvml"
    assert whole["gpu.0.model"].source == "server"
    assert whole["gpu.0.driver"].source == "nvml: Not Supported"
    assert whole["custom_nodes.impact"] == Fact(value="abc", source="git")
    assert whole["custom_nodes.failed"].source == "git; the server shows no node of it"
    assert whole["custom_nodes.unseen"].value is None
    assert whole["enclosure"] == whole["note.enclosure"]
    assert whole["note.enclosure"] == Fact(value="Razer", source="note")
    rooms = [key.partition(".")[0] for key in whole]
    assert sorted(rooms, key=environments.ROOMS.index) == rooms
    unasked = environment(structs.replace(SERVER, packs=None), local, {}, {})
    assert unasked["custom_nodes.failed"].source == "git"


def test_an_enclosure_is_found_in_sysfs(tmp_path: Path) -> None:
    for name in ("domain0", "0-0", "0-1", "0-1:1.1", "usb4_port1"):
        (tmp_path / name).mkdir()
    for name, text in {"vendor_name": "Razer", "device_name": "Core X", "rx_speed": "20.0 Gb/s"}.items():
        (tmp_path / "0-1" / name).write_text(text + "\n")
    facts = enclosure_facts(tmp_path)
    known = {key: fact.value for key, fact in facts.items() if fact.value is not None}
    assert known == {"enclosure.0.vendor": "Razer", "enclosure.0.device": "Core X", "enclosure.0.rx_speed": "20.0 Gb/s"}
    assert facts["enclosure.0.generation"].source == "sysfs: generation: No such file or directory"


def test_no_enclosure_is_told_apart_from_not_knowing(tmp_path: Path) -> None:
    (tmp_path / "0-0").mkdir()
    assert enclosure_facts(tmp_path)["enclosure"].value == "none"
    assert enclosure_facts(tmp_path / "nowhere")["enclosure"].value is None


def test_the_probe_goes_before_this_machine_and_what_it_does_not_know_changes_nothing() -> None:
    local = {"gpu.0.driver": Fact(value="570", source="nvml"), "comfyui.commit": Fact(value="abc", source="git in /x")}
    probe = {
        "gpu.0.driver": Fact(source="probe (nvml: not supported)"),
        "comfyui.commit": Fact(value="def", source="probe (git)"),
        "nonsense.key": Fact(value=1, source="probe"),
    }
    whole = environment(SERVER, local, probe, {})
    assert whole["gpu.0.driver"].value == "570"
    assert whole["comfyui.commit"] == Fact(value="def", source="probe (git)")
    assert "nonsense.key" not in whole
