"""The facts of the environment are true of the server's process, say where they come from, and hold no secret."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from comfyload.comfy.identify import _without_secrets
from comfyload.record.environment import thunderbolt as own_enclosure
from comfyload.record.environment.describe import _host
from comfyload.record.environment.git import pack_facts
from comfyload_probe import checkout, environment
from comfyload_probe.checkout import Unknown, commit_of, declared_version, pack_fact
from comfyload_probe.enclosure import enclosure_facts
from comfyload_probe.environment import facts, without_secrets
from comfyload_probe.gpus import Gpus, open_gpus
from tests.pack.standin import Driver, fake_torch, loaded


def git(folder: Path, *words: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout.strip()


def checked_out(folder: Path) -> str:
    """A repository with one commit; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text("x = 1\n", encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def module(name: str, **values: Any) -> Any:
    made = ModuleType(name)
    for key, value in values.items():
        setattr(made, key, value)
    return made


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ComfyUI in a checkout, with packs in two folders, as its process would have it loaded."""
    folder, more = tmp_path / "ComfyUI", tmp_path / "more"
    for name in ("declared", "nothing", "__pycache__", ".hidden", "off.disabled"):
        (folder / "custom_nodes" / name).mkdir(parents=True)
    text = '[project]\nname = "x"\nversion = "1.4.2"\n[tool.x]\nversion = "9"\n'
    (folder / "custom_nodes" / "declared" / "pyproject.toml").write_text(text, encoding="utf-8")
    (folder / "custom_nodes" / "single.py").write_text("", encoding="utf-8")
    (folder / "custom_nodes" / "notes.txt").write_text("", encoding="utf-8")
    checked_out(more / "cloned")
    (more / "declared").mkdir()
    checked_out(folder)
    paths = [str(folder / "custom_nodes"), str(more), str(tmp_path / "missing")]
    file = str(folder / "folder_paths.py")
    loaded(monkeypatch, "folder_paths", module("folder_paths", __file__=file, get_folder_paths=lambda kind: paths))
    loaded(monkeypatch, "comfyui_version", module("comfyui_version", __version__="0.33.0"))
    loaded(monkeypatch, "torch", fake_torch())
    monkeypatch.setattr(sys, "argv", ["main.py", "--listen", "a b", "--api-key", "hush"])
    return folder


def none() -> Gpus:
    return open_gpus({"COMFYLOAD_PROBE_NVML": "/nowhere/nvml.so"})


def test_a_server_is_described(comfyui: Path, driver: Driver) -> None:
    found = facts(open_gpus(driver.environ))
    assert all(set(fact) == {"value", "source"} and fact["source"] for fact in found.values())
    assert found["gpu.0.driver"] == {"value": "580.65", "source": "nvml (index 0)"}
    assert found["comfyui.version"] == {"value": "0.33.0", "source": "comfyui_version"}
    assert found["comfyui.commit"] == {"value": git(comfyui, "rev-parse", "HEAD"), "source": "git"}
    assert found["comfyui.dirty"]["value"] is False
    assert found["comfyui.argv"]["value"] == shlex.join(["main.py", "--listen", "a b", "--api-key", "***"])
    assert found["comfyui.python"]["value"] == sys.version
    package = "comfyui-frontend-package"
    installed = [each.version for each in distributions() if each.name.replace("_", "-") == package]
    source = f"the installed {package}" if installed else f"{package} is not installed"
    assert found["comfyui.frontend"] == {"value": installed[0] if installed else None, "source": source}


def test_torch_is_told_if_it_is_loaded(comfyui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert facts(none())["comfyui.torch"] == {"value": "2.9.0+cu130", "source": "torch"}
    loaded(monkeypatch, "torch", None)
    assert facts(none())["comfyui.torch"] == {"value": None, "source": "torch is not loaded"}


def test_every_pack_in_every_folder_is_told(comfyui: Path) -> None:
    found = {key.removeprefix("custom_nodes."): fact for key, fact in facts(none()).items() if key.startswith("cust")}
    more = comfyui.parent / "more"
    assert set(found) == {"declared", "nothing", "single", "cloned", f"declared in {more}"}
    assert found["declared"] == {"value": "1.4.2", "source": "pyproject.toml"}
    assert found["cloned"] == {"value": git(more / "cloned", "rev-parse", "HEAD")[:10], "source": "git"}
    assert found["nothing"] == {"value": None, "source": "nothing is not a git checkout, and it declares no version"}
    assert found["single"]["value"] is None
    (more / "cloned" / "__init__.py").write_text("x = 2\n", encoding="utf-8")
    assert str(facts(none())["custom_nodes.cloned"]["value"]).endswith(" dirty")


def test_what_comfyload_finds_out_itself_reads_the_same(comfyui: Path) -> None:
    found = facts(none())
    ours = {key: (fact.value, fact.source) for key, fact in pack_facts(comfyui / "custom_nodes").items()}
    assert {key: (found[key]["value"], found[key]["source"]) for key in ours} == ours
    assert {key: found[key]["value"] for key in _host()} == {key: fact.value for key, fact in _host().items()}


def test_without_a_comfyui_the_rest_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("folder_paths", "comfyui_version", "torch"):
        loaded(monkeypatch, name, None)
    found = facts(none())
    assert found["comfyui.commit"] == {"value": None, "source": "the folder of ComfyUI is not known"}
    assert found["host.cores"]["value"] == os.cpu_count()


def test_a_part_that_fails_does_not_take_the_others_with_it(comfyui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(environment, "_packs", fails)
    gpus = none()
    monkeypatch.setattr(gpus, "facts", fails)
    found = facts(gpus)
    assert found["gpu"] == found["custom_nodes"] == {"value": None, "source": "probe: ZeroDivisionError: no"}
    assert found["comfyui.version"]["value"] == "0.33.0"


@pytest.mark.parametrize(
    "argv",
    [
        ["main.py", "--listen", "--port", "8188"],
        ["main.py", "--hf-token", "hf_x", "--comfy-api-key=abc", "--port=1"],
        ["main.py", "--database-url", "postgres://user:word@host/db", "--enable-auth", "--cpu"],
    ],
)
def test_secrets_are_masked_as_comfyload_does(argv: list[str]) -> None:
    assert without_secrets(argv) == _without_secrets(argv)
    assert not {"hf_x", "abc"} & set(without_secrets(argv))


def test_no_program_that_a_repository_names_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    checked_out(folder)
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n", encoding="utf-8")
    trap.chmod(0o755)
    git(folder, "config", "core.fsmonitor", str(trap))
    git(folder, "config", "core.hooksPath", str(tmp_path))
    (folder / "__init__.py").write_text("x = 3\n", encoding="utf-8")
    assert str(pack_fact(folder)["value"]).endswith(" dirty")
    assert not (tmp_path / "sprung").exists()


def test_a_repository_around_a_pack_does_not_answer_for_it(tmp_path: Path) -> None:
    checked_out(tmp_path)
    (tmp_path / "pack").mkdir()
    with pytest.raises(Unknown, match="pack is not a git checkout"):
        commit_of(tmp_path / "pack")


def worktree(folder: Path) -> Path:
    git(folder, "worktree", "add", "-q", "-b", "side", str(folder.parent / "side"))
    return folder.parent / "side"


def packed(folder: Path) -> Path:
    git(folder, "pack-refs", "--all")
    assert not list((folder / ".git" / "refs" / "heads").iterdir())
    return folder


def detached(folder: Path) -> Path:
    git(folder, "checkout", "-q", "--detach")
    return folder


def plain(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize("made", [plain, packed, detached, worktree])
def test_without_git_the_commit_is_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any
) -> None:
    commit = checked_out(tmp_path / "pack")
    folder = made(tmp_path / "pack")
    monkeypatch.setenv("PATH", "")
    assert commit_of(folder) == (commit, None, ".git/HEAD (git is not installed)")
    assert pack_fact(folder)["value"] == commit[:10]


def test_a_checkout_that_git_refuses_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = checked_out(tmp_path)

    def refuses(*_: object) -> str:
        raise Unknown("git: fatal: detected dubious ownership")

    monkeypatch.setattr(checkout, "_git", refuses)
    assert commit_of(tmp_path)[:2] == (commit, None)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"HEAD": "ref: refs/heads/main\n"}, "cannot be read"),
        ({"HEAD": "ref: refs/heads/main\n", "packed-refs": "# pack-refs\n"}, "a branch without commits"),
        ({"HEAD": "rubbish\n"}, "is no commit"),
        ({}, "cannot be read"),
    ],
)
def test_a_damaged_checkout_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], why: str
) -> None:
    (tmp_path / ".git").mkdir()
    for name, text in files.items():
        (tmp_path / ".git" / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unknown, match=why):
        commit_of(tmp_path)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('[build-system]\nversion = "0"\n[project]\nname = "x"\nversion = "1.2"\n[tool.y]\nversion = "3"\n', "1.2"),
        ('[project]\ndynamic = ["version"]\n', None),
        ("[project\n", None),
        ("", None),
    ],
)
def test_a_declared_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str | None, old: bool
) -> None:
    if old:
        monkeypatch.setitem(sys.modules, "tomllib", None)
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    assert declared_version(tmp_path) == version


def test_an_enclosure_reads_as_comfyload_reads_it(tmp_path: Path) -> None:
    device = tmp_path / "0-1"
    device.mkdir()
    (tmp_path / "0-0").mkdir()
    (device / "vendor_name").write_text("Razer\n", encoding="utf-8")
    own = {
        key: {"value": fact.value, "source": fact.source}
        for key, fact in own_enclosure.enclosure_facts(tmp_path).items()
    }
    assert enclosure_facts(tmp_path) == own
    assert own["enclosure.0.vendor"]["value"] == "Razer"
    shutil.rmtree(device)
    assert enclosure_facts(tmp_path)["enclosure"]["value"] == "none"
    assert enclosure_facts(tmp_path / "none")["enclosure"]["value"] is None
