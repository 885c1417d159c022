"""The version of a source folder: its git commit, or the version that it declares."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

from comfyload.record.model import Environment, Fact

GIT_TIMEOUT_S = 5.0


class NoGitAnswer(Exception):
    """Git gave no answer; the text says why."""


def comfyui_facts(folder: Path, version: str | None) -> Environment:
    """`comfyui.commit` and `comfyui.dirty` of the ComfyUI in `folder`; `version` is the one that the server reports.

    A folder that holds another version than the one that runs is not the server's, or was updated under it.
    """
    held = declared_version(folder)
    if held is None:
        return _unknown(f"{folder} declares no ComfyUI version: is it the server's folder?")
    if version is not None and _numbers(held[0]) != _numbers(version):
        return _unknown(f"{folder} holds {held[0]}, the server runs {version}")
    try:
        commit, dirty = _commit(folder)
    except NoGitAnswer as error:
        return {"comfyui.version": Fact(value=held[0], source=f"{held[1]} in {folder}"), **_unknown(str(error))}
    source = f"git in {folder}"
    return {"comfyui.commit": Fact(value=commit, source=source), "comfyui.dirty": Fact(value=dirty, source=source)}


def pack_facts(folder: Path) -> Environment:
    """`custom_nodes.<name>` of every pack in `folder`: short commit, "dirty" behind it if it is; else its version."""
    try:
        found = sorted(path for path in folder.iterdir() if _is_pack(path))
    except OSError:
        return {}
    return {f"custom_nodes.{path.stem if path.is_file() else path.name}": _pack(path) for path in found}


def declared_version(folder: Path) -> tuple[str, str] | None:
    """The version in `comfyui_version.py` or `pyproject.toml`, and which of them; nothing is executed."""
    try:
        text = (folder / "comfyui_version.py").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
        if found:
            return found[1], "comfyui_version.py"
    except OSError:
        pass
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError):
        return None
    version = project.get("version") if isinstance(project, dict) else None
    return (version, "pyproject.toml") if isinstance(version, str) else None


def _is_pack(path: Path) -> bool:
    """By ComfyUI's own rule: a folder or a Python file that is not disabled."""
    hidden = path.name.startswith((".", "__")) or path.name.endswith(".disabled")
    return not hidden and (path.is_dir() or path.suffix == ".py")


def _pack(path: Path) -> Fact:
    if path.is_file():
        return Fact(source="a single file, which has no version")
    try:
        commit, dirty = _commit(path)
    except NoGitAnswer as error:
        held = declared_version(path)
        if held is not None:
            return Fact(value=held[0], source=held[1])
        return Fact(source=f"{error}, and it declares no version")
    return Fact(value=f"{commit[:10]} dirty" if dirty else commit[:10], source="git")


def _commit(folder: Path) -> tuple[str, bool]:
    """HEAD, and whether a tracked file differs from it; untracked files, such as Python's, do not count."""
    if not (folder / ".git").exists():  # else git would answer for a repository around it
        raise NoGitAnswer(f"{folder.name} is not a git checkout")
    return _git(folder, "rev-parse", "HEAD").strip(), bool(_git(folder, "status", "--porcelain", "-uno").strip())


def _git(folder: Path, *arguments: str) -> str:
    """Run git without network, locks, or programs from the repository's configuration."""
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, env=kept | quiet, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise NoGitAnswer("git is not installed here") from None
    except subprocess.TimeoutExpired:
        raise NoGitAnswer(f"git gave no answer within {GIT_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise NoGitAnswer(f"git cannot be run: {error.strerror or error}") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise NoGitAnswer(f"git: {lines[0][:200]}" if lines else f"git ended with {done.returncode}")
    return done.stdout.decode(errors="replace")


def _numbers(version: str) -> list[str]:
    """The first three: some releases call themselves `v0.3.10-5-gabcdef0`."""
    return re.findall(r"\d+", version)[:3]


def _unknown(why: str) -> Environment:
    return {"comfyui.commit": Fact(source=why), "comfyui.dirty": Fact(source=why)}
