"""The tutorial does what it says: its blocks run in order, in one folder, as a reader would paste them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.shell import blocks, run
from tests.support.stalls import again_after_a_stall

TUTORIAL = ROOT / "docs" / "tutorial.md"


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="the tutorial is for a shell")
@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(300)
@again_after_a_stall
def test_every_block_runs_and_says_what_the_text_says(tmp_path: Path) -> None:
    printed = {}
    for block in blocks(TUTORIAL, "bash"):
        if block.remark.startswith("not run") or (block.needs and shutil.which(block.needs) is None):
            continue
        printed[block.line] = run(block, tmp_path, seconds=90)
    output = "\n".join(printed.values())
    assert "24 of 24 completed" in output
    assert "1 of 2 jobs were served from the cache: 1 image was made" in " ".join(output.split())
    assert "Nothing was measured: 3 timed out." in output and "exit code 5" in output
    assert "1 483 jobs would prove it" in output
    assert "1 summary comes out the same." in output
    first = json.loads((tmp_path / "first.json").read_text(encoding="utf-8"))["summary"]
    assert (first["valid"], first["images"], first["p99_latency_s"]) == (True, 24, None)


def test_few_blocks_are_not_run() -> None:
    assert [block.remark for block in blocks(TUTORIAL, "bash") if block.remark] == ["not run: it installs", "needs jq"]
