"""A test that is about time is run again where the machine stood still, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import stalls
from tests.support.stalls import TRIES, again_after_a_stall


def failing(times: int) -> tuple[list[Path], Callable[..., None]]:
    """A test that fails so many times, and the folders that it was given."""
    folders: list[Path] = []

    @again_after_a_stall
    def tried(tmp_path: Path) -> None:
        assert tmp_path.is_dir()
        folders.append(tmp_path)
        assert len(folders) > times, f"try {len(folders)}"

    return folders, tried


def test_a_failure_beside_a_stall_is_tried_again_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "STALL_S", 0.0)
    folders, tried = failing(TRIES - 1)
    tried(tmp_path=tmp_path)
    assert len(set(folders)) == TRIES


def test_what_fails_each_time_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "STALL_S", 0.0)
    folders, tried = failing(TRIES)
    with pytest.raises(AssertionError, match=f"try {TRIES}"):
        tried(tmp_path=tmp_path)
    assert len(folders) == TRIES


def test_a_failure_without_a_stall_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "STALL_S", 1e9)
    folders, tried = failing(1)
    with pytest.raises(AssertionError, match="try 1"):
        tried(tmp_path=tmp_path)
    assert len(folders) == 1
