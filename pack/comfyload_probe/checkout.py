"""What a folder of program text says of its version: its git commit, or what it declares. Nothing is executed."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

__all__ = ["Unknown", "commit_of", "declared_version", "pack_fact"]

GIT_PATIENCE_S = 5.0
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Unknown(Exception):
    """It cannot be told, and why."""


def pack_fact(path: Path) -> dict[str, object]:
    """A custom node pack's short commit, "dirty" behind it if it is; else the version that it declares."""
    if path.is_file():
        return {"value": None, "source": "a single file, which has no version"}
    try:
        commit, dirty, source = commit_of(path)
    except Unknown as unknown:
        version = declared_version(path)
        if version is None:
            return {"value": None, "source": f"{unknown}, and it declares no version"}
        return {"value": version, "source": "pyproject.toml"}
    return {"value": f"{commit[:10]} dirty" if dirty else commit[:10], "source": source}


def declared_version(folder: Path) -> str | None:
    """`version` of the `[project]` in its pyproject.toml."""
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    try:
        import tomllib
    except ImportError:  # Python 3.10
        table = re.search(r"^\[project\]\s*$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
        found = re.search(r"""^version\s*=\s*["']([^"']+)["']""", table[1], re.MULTILINE) if table else None
        return found[1] if found else None
    try:
        project = tomllib.loads(text).get("project")
    except ValueError:
        return None
    version = project.get("version") if isinstance(project, dict) else None
    return version if isinstance(version, str) else None


def commit_of(folder: Path) -> tuple[str, bool | None, str]:
    """HEAD, whether a file that git tracks differs from it (None: not known), and who says so.

    Raises:
        Unknown: it is no checkout of its own, or its HEAD cannot be made out.
    """
    if not (folder / ".git").exists():  # git would go up, and answer for the repository around it
        raise Unknown(f"{folder.name} is not a git checkout")
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
    except Unknown as unknown:  # git is missing, or refuses a folder that belongs to somebody else
        return _head(folder), None, f".git/HEAD ({unknown})"
    try:
        return commit, bool(_git(folder, "status", "--porcelain", "-uno").strip()), "git"
    except Unknown as unknown:
        return commit, None, f"git; whether it is changed is not known ({unknown})"


def _git(folder: Path, *arguments: str) -> str:
    """Ask git without network, locks, or programs that the repository's configuration names."""
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            env=kept | quiet,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_PATIENCE_S,
            check=False,
        )
    except FileNotFoundError:
        raise Unknown("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unknown(f"git gave no answer within {GIT_PATIENCE_S:.0f} s") from None
    except OSError as error:
        raise Unknown(f"git cannot be run: {error.strerror or error}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unknown(f"git: {said[0][:200]}" if said else f"git ended with {done.returncode}")
    return done.stdout.decode(errors="replace")


def _head(folder: Path) -> str:
    """HEAD as the files of the repository tell it."""
    try:
        place = folder / ".git"
        if place.is_file():  # a submodule or a worktree: the file names the real place
            place = folder / place.read_text(encoding="utf-8").partition("gitdir:")[2].strip()
        head = (place / "HEAD").read_text(encoding="utf-8").strip()
        name = head.removeprefix("ref:").strip()
        if name == head:
            return _sure(head)
        shared = place
        with suppress(OSError):  # a worktree keeps its branches with the main checkout
            shared = place / (place / "commondir").read_text(encoding="utf-8").strip()
        with suppress(OSError):
            return _sure((shared / name).read_text(encoding="utf-8").strip())
        for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines():
            commit, _, ref = line.partition(" ")
            if ref.strip() == name:
                return _sure(commit)
    except (OSError, ValueError) as error:
        raise Unknown(f"its .git cannot be read: {getattr(error, 'strerror', None) or error}") from None
    raise Unknown("its HEAD names a branch without commits")


def _sure(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise Unknown("its HEAD is no commit")
    return text
