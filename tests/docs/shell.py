"""Blocks of a page, and how one of them is run as a reader would paste it.

A remark on the line before a block says what its test must know:

    <!-- not run: REASON -->            its commands are parsed, not run
    <!-- run with A = B; C = D -->      A is replaced by B first: shorter times, fewer jobs
    <!-- needs jq -->                   it is left out where that program is missing
    <!-- exits 2 -->                    its exit code, where that is not 0
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Block", "blocks", "run"]

_BLOCK = r"^(?: *<!-- (?P<remark>.*?) -->\n)?^(?P<indent> *)```(?:{languages})\n(?P<code>.*?)^(?P=indent)```$"
_SYSTEM = ("PATH", "PYTHONPATH", "SYSTEMROOT", "TMPDIR")


class Block(NamedTuple):
    """A block with its line in the page and the remark on the line before it, "" without one."""

    line: int
    remark: str
    code: str

    @property
    def replaced(self) -> dict[str, str]:
        """What is to be replaced before the block is run, by what."""
        if not self.remark.startswith("run with "):
            return {}
        pairs = (pair.split(" = ") for pair in self.remark.removeprefix("run with ").split("; "))
        return {text.strip(): by.strip() for text, by in pairs}

    @property
    def needs(self) -> str:
        """The program without which it is left out; "" where it needs none."""
        return self.remark.removeprefix("needs ") if self.remark.startswith("needs ") else ""

    @property
    def exits(self) -> int:
        """The exit code that the page says it ends with."""
        return int(self.remark.removeprefix("exits ")) if self.remark.startswith("exits ") else 0


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of these languages, in order, also those within lists."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(_BLOCK.format(languages="|".join(languages)), text, re.DOTALL | re.MULTILINE)
    return [
        Block(text.count("\n", 0, at.start("code")), at["remark"] or "", textwrap.dedent(at["code"])) for at in found
    ]


def run(
    block: Block,
    folder: Path,
    *,
    seconds: float = 30,
    replace: Mapping[str, str] | None = None,
    before: str = "",
    **variables: str,
) -> str:
    """What it prints, in a shell without any settings of its own. What it leaves running is ended, and is a fault.

    `before` is a script that the shell reads first.
    """
    code = block.code
    for text, by in {**block.replaced, **(replace or {})}.items():
        code = code.replace(text, by)
    written = folder / ".output"
    # Not a pipe: a server left behind would hold it open.
    with written.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", f"{before}{code}"],
            cwd=folder,
            env=_environment(folder) | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended = process.wait(timeout=seconds)
        finally:
            is_left = _end_group(process.pid)
            process.wait()
    printed = written.read_text(encoding="utf-8")
    assert ended == block.exits, f"line {block.line}, exit code {ended}:\n{code}\n{printed}"
    assert not is_left, f"line {block.line} leaves a process behind:\n{code}"
    return printed


def _environment(folder: Path) -> dict[str, str]:
    system = {name: os.environ[name] for name in _SYSTEM if name in os.environ}
    tools = Path(sys.executable).parent
    return {**system, "PATH": f"{tools}{os.pathsep}{system['PATH']}", "HOME": str(folder), "COLUMNS": "80"}


def _end_group(group: int) -> bool:
    """End what is left of a block's processes; whether anything was."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
