"""The blocks of the README and of the how-tos run as they are written, in order, against the simulator."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.pages import ROOT
from tests.docs.shell import Block, blocks, run
from tests.docs.stand_ins import ADDRESSES, free_port, make_folder
from tests.support.servers import simulator

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
PAGES = [page for page in PAGES if blocks(page, "bash")]
SPEED = 50
REASONS = ("it installs", "it needs a", "it goes on", "it takes minutes")
"""Why a block may be left out."""

# A machine that does much else makes a run invalid; the page is not at fault.
ALSO_INVALID = """comfyload() {
  command comfyload "$@" || {
    local code=$?; case "$1 $code" in "run 5"|"fleet 5"|"checklist 5") ;; *) return $code ;; esac
  }
}
"""

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or sys.platform == "win32", reason="the blocks are for a shell"
)


class Place(NamedTuple):
    """A folder with all that the pages speak of, and the ports of two servers."""

    folder: Path
    ports: tuple[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with simulator(SPEED) as first, simulator(SPEED) as second:
        folder = tmp_path_factory.mktemp("pages") / "project"
        make_folder(folder, first)
        yield Place(folder, (first.rpartition(":")[2], second.rpartition(":")[2]))


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs(page: Path, place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(place.folder, folder)
    for block in blocks(page, "bash"):
        if block.remark.startswith("not run") or (block.needs and shutil.which(block.needs) is None):
            continue
        variables = {"COMFY_TOKEN": "Bearer token", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
        replaced = _servers(block, place.ports)
        before = "" if "\nkill " in block.code else ALSO_INVALID  # a function would stand between it and `kill`
        printed = run(block, folder, seconds=90, replace=replaced, before=before, **variables)
        assert "Nothing was measured" not in printed


@pytest.mark.long
def test_the_program_of_the_readme_runs(place: Place, tmp_path: Path) -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    shutil.copy(place.folder / "page.json", tmp_path / "book_medium.json")
    (tmp_path / "retry.json").write_text('{"deadline_s": 60}')
    code = program.code.replace(":8188", f":{place.ports[0]}") + "\nprint(execution.outcome)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "completed\n"


def _servers(block: Block, ports: tuple[str, str]) -> dict[str, str]:
    """What stands in for the addresses of a block, which may start a simulator or a gateway of its own."""
    first, second = ports
    if "comfyload sim --port 8188" in block.code:
        first = str(free_port())
    replaced = {**ADDRESSES, "--port 8188": f"--port {first}", ":8188": f":{first}"}
    if "comfyload gateway " not in block.code:
        return {**replaced, ":8189": f":{second}"}
    gateway = str(free_port())
    replaced["comfyload gateway "] = f"comfyload gateway --port {gateway} "
    return {**replaced, "http://127.0.0.1:8189": f"http://127.0.0.1:{second}", ":8189": f":{gateway}"}


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left = [(page.stem, block.remark) for page in PAGES for block in blocks(page, "bash") if "not run" in block.remark]
    assert all(re.fullmatch(rf"not run: ({'|'.join(REASONS)}).*", remark) for _, remark in left), left
    assert len(left) <= 10, left


def test_what_a_remark_replaces_is_in_the_block() -> None:
    for page in PAGES:
        for block in blocks(page, "bash"):
            assert [text for text in block.replaced if text not in block.code] == [], f"{page.name}:{block.line}"
            assert re.match(r"$|not run: |run with |needs \w+$|exits \d+$", block.remark), block.remark
