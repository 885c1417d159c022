"""The tutorial does what it says: its blocks run in order, in one folder, as a reader would paste them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.pages import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"


class Block(NamedTuple):
    """A ```bash block with its line in the page and the remark on the line before it."""

    line: int
    remark: str
    code: str


def blocks() -> list[Block]:
    text = TUTORIAL.read_text(encoding="utf-8")
    found = re.finditer(r"(?:^<!-- (.*?) -->\n)?^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(text.count("\n", 0, at.start()) + 1, at[1] or "", at[2]) for at in found]


def run(block: Block, folder: Path) -> str:
    """Its output. Whatever it leaves running is ended, and is a fault."""
    tools = str(Path(sys.executable).parent)
    written = folder / ".output"
    # Not a pipe: a server left behind would hold it open.
    with written.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", block.code],
            cwd=folder,
            env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=30)
        finally:
            left = _end_group(process.pid)
    said = written.read_text(encoding="utf-8")
    assert code == 0, f"line {block.line} of the tutorial:\n{block.code}\n{said}"
    assert not left, f"line {block.line} of the tutorial leaves a process behind"
    return said


def _end_group(group: int) -> bool:
    """End what is left of a block's processes; whether anything was."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="the tutorial is for a shell")
@pytest.mark.long
@pytest.mark.alone
def test_every_block_runs_and_says_what_the_text_says(tmp_path: Path) -> None:
    said = {}
    for block in blocks():
        if block.remark.startswith("not run") or (block.remark == "needs jq" and shutil.which("jq") is None):
            continue
        said[block.line] = run(block, tmp_path)
    output = "\n".join(said.values())
    assert "24 of 24 completed" in output
    assert "1 of 2 jobs were served from the cache: 1 image was made" in " ".join(output.split())
    assert "Nothing was measured: 3 timed out." in output and "exit code 5" in output
    assert "1 483 jobs would prove it" in output
    assert "1 summary comes out the same." in output
    first = json.loads((tmp_path / "first.json").read_text(encoding="utf-8"))["summary"]
    assert (first["valid"], first["images"], first["p99_latency_s"]) == (True, 24, None)


def test_few_blocks_are_not_run() -> None:
    assert [block.remark for block in blocks() if block.remark] == ["not run by the tests", "needs jq"]
