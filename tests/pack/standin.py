"""Builds a stand-in for NVIDIA's library and steers it, and stands in for torch as ComfyUI has loaded it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("nvml_standin.c")
CARD = "NVIDIA GeForce RTX 4090"
TOTAL = 25757220864


def build(folder: Path, *, old: bool = False) -> Path:
    """The library compiled into `folder`; the test is skipped where there is no compiler, except in CI."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler, which CI must have")
        pytest.skip("no C compiler")
    library = folder / ("old.so" if old else "new.so")
    flags = ["-DOLD_DRIVER"] if old else []
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", str(library), str(SOURCE)], check=True)
    return library


class Driver:
    """Steers the stand-in: what it is told holds from the next call on."""

    def __init__(self, library: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = file
        self.environ = {"COMFYLOAD_PROBE_NVML": str(library)}
        self._said: dict[str, object] = {}
        monkeypatch.setenv("NVML_STANDIN", str(file))
        self.say()

    def say(self, **values: object) -> None:
        """`power_0=5` is the line `power.0 5`; None takes a line back."""
        self._said |= {key.replace("__", ".").replace("_0", ".0").replace("_1", ".1"): v for key, v in values.items()}
        lines = [f"{key} {value}\n" for key, value in self._said.items() if value is not None]
        self.file.write_text("".join(lines), encoding="utf-8")

    def fails(self, what: str, code: int | None) -> None:
        """`what`: a function, `gpu.N` or `all`."""
        self._said[f"error.{what}"] = code
        self.say()


def fake_torch(*cards: tuple[str, str, int], hip: str | None = None, initialised: bool = True) -> Any:
    """A torch with `cards` of (uuid, name, bytes); uuid "": as an old torch, that does not tell it."""
    found = [
        SimpleNamespace(name=name, total_memory=total, **({"uuid": uuid} if uuid else {}))
        for uuid, name, total in cards
    ]
    torch: Any = ModuleType("torch")
    torch.version = SimpleNamespace(hip=hip, __version__="2.9.0+cu130")
    torch.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    torch.cuda = SimpleNamespace(
        is_available=lambda: bool(cards),
        is_initialized=lambda: initialised,
        device_count=lambda: len(cards),
        get_device_properties=lambda index: found[index],
        memory_allocated=lambda index: 1000 + index,
        memory_reserved=lambda index: 2000 if index == 0 else 0,
        mem_get_info=lambda index: (6 * 2**30, found[index].total_memory),
    )
    return torch


def loaded(monkeypatch: pytest.MonkeyPatch, name: str, module: Any) -> None:
    """As if ComfyUI had imported it; None: as if it had not."""
    if module is None:
        monkeypatch.delitem(sys.modules, name, raising=False)
    else:
        monkeypatch.setitem(sys.modules, name, module)
