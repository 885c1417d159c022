"""A run whose manifest a newer version wrote, with keys that this one does not know: read by all, resumed by none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_baseline_cli import say
from tests.integration.test_version_before import KEPT

NEWER = {"asked": "burst", "asked.workflows.0": "priority", "plan.load": "shape", "retry.backoff": "curve", "": "farm"}
"""The place of each key, and the key."""


def newer(folder: Path, keys: dict[str, str], **changes: object) -> Path:
    """A run directory with these keys, and with these values in its manifest."""
    run = folder / "run"
    shutil.copytree(KEPT / "runs" / "books", run)
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_bytes()) | changes
    for place, key in keys.items():
        part: Any = manifest
        for name in filter(None, place.split(".")):
            part = part[int(name) if isinstance(part, list) else name]
        part[key] = {"of": "a newer version"}
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return run


@pytest.mark.parametrize(
    "command",
    [
        ("show",),
        ("check", "--gate", "success_rate >= 0.1"),
        ("compare", "--accept", "valid", str(KEPT / "runs" / "books")),
        ("export", "--csv", "jobs.csv"),
    ],
)
def test_every_reader_reads_it(command: tuple[str, ...], tmp_path: Path) -> None:
    run = newer(tmp_path, NEWER)
    done = say(*command, str(run), cwd=tmp_path)
    assert done.returncode in (0, 5), done.stderr


def test_a_baseline_keeps_its_bytes(tmp_path: Path) -> None:
    run = newer(tmp_path, NEWER)
    saved = say("baseline", "save", str(run), "--archive", "base", "--name", "newer", cwd=tmp_path)
    assert saved.returncode == 0, saved.stderr
    (copy,) = (tmp_path / "base").glob("*/runs/run/manifest.json")
    assert copy.read_bytes() == (run / "manifest.json").read_bytes()
    verified = say("baseline", "verify", "newer", "--archive", "base", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize(("place", "key"), NEWER.items())
def test_resume_refuses_it_and_names_the_key(place: str, key: str, tmp_path: Path) -> None:
    run = newer(tmp_path, {place: key}, end=None, tool="comfyload 7.0")
    before = (run / "manifest.json").read_bytes()
    done = say("resume", str(run), cwd=tmp_path)
    assert done.returncode == 2
    assert f"`{key}`" in done.stderr and "comfyload 7.0" in done.stderr
    assert (run / "manifest.json").read_bytes() == before


def test_resume_refuses_a_retry_policy_of_a_newer_format(tmp_path: Path) -> None:
    retry = json.loads((KEPT / "runs" / "books" / "manifest.json").read_bytes())["retry"]
    run = newer(tmp_path, {}, end=None, retry=retry | {"format": 99})
    assert say("show", str(run), cwd=tmp_path).returncode in (0, 5)
    done = say("resume", str(run), cwd=tmp_path)
    assert done.returncode == 2 and "newer format" in done.stderr


def test_resume_goes_on_to_the_server_where_it_knows_every_key(tmp_path: Path) -> None:
    done = say("resume", str(newer(tmp_path, {}, end=None)), cwd=tmp_path)
    assert "another version" not in done.stderr and done.returncode != 0


@pytest.mark.parametrize("text", ["plan.burst = 3", "burst = 3", "plan.load = {kind = 'closed', burst = 3}"])
def test_a_plan_with_an_unknown_key_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
    done = say("run", "--plan", "plan.toml", cwd=tmp_path)
    assert done.returncode == 2 and "unknown field `burst`" in done.stderr
