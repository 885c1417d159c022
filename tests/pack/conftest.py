"""A driver for every test that asks for one, and no torch unless a test brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pack.standin import Driver, build, loaded


@pytest.fixture(scope="session")
def new_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"), old=True)


@pytest.fixture
def driver(new_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    loaded(monkeypatch, "torch", None)
    return Driver(new_library, tmp_path / "nvml.txt", monkeypatch)


@pytest.fixture
def old_driver(old_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    loaded(monkeypatch, "torch", None)
    return Driver(old_library, tmp_path / "nvml.txt", monkeypatch)
