"""Wheel and sdist: what is in them, and that the wheel alone works where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment with the wheel; dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    scheme = "nt_venv" if sys.platform == "win32" else "posix_venv"
    paths = sysconfig.get_paths(scheme, vars={"base": str(folder), "platbase": str(folder)})
    pip = [str(Path(paths["scripts"]) / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(built[1])], check=True, capture_output=True)
    (Path(paths["purelib"]) / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    return Path(paths["scripts"])


def say(programs: Path, *words: str, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(programs / "comfyload"), *words]
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 5), done.stderr  # 5: the machine was too busy for the demo to be valid
    return done.stdout


def test_the_wheel_holds_the_package_its_types_the_pack_and_the_licence(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"comfyload"}
    pack = [name for name in names if name.startswith("comfyload/pack/comfyload_probe/")]
    sources = {path.relative_to(ROOT / "pack") for path in (ROOT / "pack" / "comfyload_probe").rglob("*.py")}
    assert {str(path.as_posix()) for path in sources} <= {name.removeprefix("comfyload/pack/") for name in pack}
    assert "comfyload/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.11" in metadata


def test_the_sdist_holds_what_the_wheel_is_built_of_and_nothing_that_was_left(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "src/comfyload/__init__.py",
        "pack/comfyload_probe/__init__.py",
    } <= names
    assert not [name for name in names if name.startswith(("runs/", "dist/", ".venv", ".git/"))]


def test_what_is_installed_runs_and_carries_the_probe(installed: Path, tmp_path: Path) -> None:
    assert say(installed, "--version", cwd=tmp_path).startswith("comfyload ")
    where = [str(installed / "python"), "-c", "import comfyload; print(comfyload.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=True).stdout
    assert str(ROOT) not in found
    shown = say(installed, "demo", cwd=tmp_path)
    assert "60 of 60 completed" in shown and shown.count("\nNext ") == 1
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    for name in ("main.py", "nodes.py", "comfyui_version.py"):
        (tmp_path / "ComfyUI" / name).touch()
    say(installed, "probe", "install", "ComfyUI", cwd=tmp_path)
    assert (tmp_path / "ComfyUI" / "custom_nodes" / "comfyload_probe" / "__init__.py").is_file()
