"""Facts of the system under test: from the server, and from this machine where the server runs on it."""

import os
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from comfyload.record.environment.host import describe_host
from comfyload.record.environment.which_gpu import device_model, flag_value, visible_to
from comfyload.record.model import Environment, Fact, Server

FRONTEND = "comfyui-frontend-package"
ROOMS = ("gpu", "enclosure", "host", "comfyui", "package", "custom_nodes", "tool", "note")
NOT_REPORTED = "the server does not report it"


def server_environment(server: Server) -> Environment:
    """Facts of `/system_stats` and `/object_info`, and our own version."""
    system, cache = server.system, server.cache_mode
    return {
        **_devices(server),
        "host.os": _fact(system.get("os")),
        "host.ram_bytes": _fact(system.get("ram_total")),
        "comfyui.version": _fact(server.comfyui_version),
        "comfyui.commit": Fact(source=f"{NOT_REPORTED}; its folder would (--comfyui-dir)"),
        "comfyui.argv": _fact(None if server.argv is None else shlex.join(server.argv)),
        "comfyui.cache_mode": Fact(
            value=cache, source=NOT_REPORTED if cache is None else "server (by its version and flags)"
        ),
        "comfyui.python": _fact(system.get("python_version")),
        "comfyui.torch": _fact(system.get("pytorch_version")),
        **_packages(server),
        **{f"custom_nodes.{name}": Fact(source="server names it, without a version") for name in server.packs or []},
        "tool.version": Fact(value=version("comfyload"), source="comfyload"),
    }


def local_environment(server: Server, comfyui_dir: Path | None) -> Environment:
    """Facts that only the server's machine has, if that is this one; takes up to seconds. Unknown facts never raise.

    `comfyui_dir`: the server's folder if the user names it; else that of the process on the server's port. A named
    folder counts on another machine too, if it holds the version that the server reports.
    """
    from comfyload.record.environment.git import comfyui_facts, pack_facts
    from comfyload.record.environment.gpu import gpu_facts, nvml_module, unknown_gpus
    from comfyload.record.environment.server_process import UNCONFIRMED, find_listener, why_elsewhere
    from comfyload.record.environment.thunderbolt import enclosure_facts

    listener = find_listener(server.url)
    elsewhere = why_elsewhere(server, listener)
    if elsewhere:
        facts = unknown_gpus(server.devices, elsewhere)
        facts |= {f"host.{key}": Fact(source=elsewhere) for key in ("cpu", "cores", "kernel")}
        facts["host.runs_generator"] = Fact(value=None if elsewhere == UNCONFIRMED else False, source=elsewhere)
        folder = comfyui_dir
    else:
        # Before all else: a GPU's link and clocks go down when it has nothing to do.
        facts = gpu_facts(server.devices, nvml_module(), listener.pid, visible_to(server, listener))
        facts |= enclosure_facts()
        facts |= _host()
        facts["host.runs_generator"] = Fact(value=True, source="this machine")
        folder = comfyui_dir or listener.folder
    if folder is None:
        why = elsewhere or listener.why
        return facts | {f"comfyui.{key}": Fact(source=why) for key in ("commit", "dirty")}
    facts |= comfyui_facts(folder, server.comfyui_version)
    # With --base-directory ComfyUI loads packs from there instead of from its own folder.
    return facts | pack_facts(folder / (flag_value(server, "--base-directory") or "") / "custom_nodes")


def environment(server: Server, local: Environment, probe: Environment, notes: Mapping[str, str]) -> Environment:
    """All facts, in a fixed order: the probe in the server comes first, then this machine, then the server.

    `notes`: facts from the user, as `note.KEY`, and in place of an unknown fact of that name. A pack in the folder of
    which the server has no node is marked: it may not have been loaded.
    """
    merged = server_environment(server)
    for key, fact in local.items():
        if fact.value is None and merged.get(key, fact).value is not None:
            continue
        if key.startswith("custom_nodes.") and server.packs is not None and key not in merged:
            fact = Fact(value=fact.value, source=f"{fact.source}; the server shows no node of it")
        merged[key] = fact
    for key, fact in probe.items():
        if fact.value is not None and key.partition(".")[0] in ROOMS:
            merged[key] = fact
    merged |= {f"note.{key}": Fact(value=text, source="note") for key, text in notes.items()}
    return with_notes(merged, notes)


def with_notes(facts: Environment, notes: Mapping[str, str]) -> Environment:
    """The facts, with a note in place of the fact of its name where that is not known."""
    noted = {key.casefold(): Fact(value=text, source="note") for key, text in notes.items()}
    merged = facts | {key: fact for key, fact in noted.items() if _is_unknown(key, facts)}
    order = {room: place for place, room in enumerate(ROOMS)}
    return dict(sorted(merged.items(), key=lambda item: order.get(item[0].partition(".")[0], len(ROOMS))))


def _is_unknown(key: str, facts: Environment) -> bool:
    """Whether no fact has the name of a note and a value, nor a part of that name."""
    named = [fact for name, fact in facts.items() if name == key or name.startswith(f"{key}.")]
    return (bool(named) or key == "enclosure") and all(fact.value is None for fact in named)


def _fact(value: object) -> Fact:
    if isinstance(value, str | int | float | bool) and value != "":
        return Fact(value=value, source="server")
    return Fact(source=NOT_REPORTED)


def _devices(server: Server) -> Environment:
    """Models from names such as `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`."""
    found = [device for device in server.devices if device.get("type") != "cpu"]
    if server.devices and not found:
        return {"gpu": Fact(value="none", source="server: it computes on its CPU")}
    facts: Environment = {}
    for number, device in enumerate(found):
        facts[f"gpu.{number}.model"] = _fact(device_model(str(device.get("name", ""))))
        facts[f"gpu.{number}.vram_bytes"] = _fact(device.get("vram_total"))
    return facts


def _packages(server: Server) -> Environment:
    """`comfyui.frontend`, and `package.NAME` of the other packages whose versions ComfyUI reports."""
    listed = server.system.get("comfy_package_versions")
    packages = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    installed = {str(row.get("name")): row.get("installed", "") for row in packages}
    frontend = _fact(installed.pop(FRONTEND, None))
    required = server.system.get("required_frontend_version")
    if frontend.value is None and isinstance(required, str):
        frontend = Fact(
            value=required, source="server (the version that it requires; the one that it has is not reported)"
        )
    facts = {"comfyui.frontend": frontend}
    return facts | {
        f"package.{name}": _fact("not installed" if value is None else value) for name, value in installed.items()
    }


def _host() -> Environment:
    host = describe_host()
    facts = {
        "cpu": host.cpu,
        "cores": os.cpu_count(),
        "ram_bytes": host.ram_bytes,
        "os": _os_name(),
        "kernel": f"{platform.system()} {platform.release()}",
    }
    return {f"host.{key}": Fact(value=value, source="this machine") for key, value in facts.items()}


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform(terse=True)
