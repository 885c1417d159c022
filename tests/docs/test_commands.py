"""Every command that a page shows is one that the command line understands; a PowerShell block has no bash in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.commands import commands, parsed
from tests.docs.pages import ROOT, markdown_files
from tests.docs.shell import blocks

PAGES = [page for page in markdown_files() if blocks(page, "bash", "sh", "powershell")]
FOR_USERS = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *(ROOT / "docs" / "how-to").glob("*.md")]
WINDOWS = [page for page in PAGES if blocks(page, "powershell")]
BASH_ONLY = re.compile(
    r"\\$|^\w+=|\$\(cat|&&|\|\||/dev/null|<<|^(export|mv|rm|kill|until|for|done|wait) ", re.MULTILINE
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_in_a_page_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYLOAD_SERVER", "http://127.0.0.1:8188")
    scripts = [re.sub(r"\([^()]*\)", "1", block.code.replace("\\", "/")) for block in blocks(page, "powershell")]
    scripts += [block.code for block in blocks(page, "bash", "sh")]
    for words in (words for script in scripts for words in commands(script)):
        name, _ = parsed(words)
        assert name, words


@pytest.mark.parametrize("page", WINDOWS, ids=name_of)
def test_a_block_for_powershell_has_no_bash_in_it(page: Path) -> None:
    for block in blocks(page, "powershell"):
        assert not (found := BASH_ONLY.search(block.code)), f"line {block.line}: {found}"


@pytest.mark.parametrize("page", FOR_USERS, ids=name_of)
def test_what_differs_on_windows_is_there_for_powershell(page: Path) -> None:
    differs = re.compile(r"\\$|^export |\bvenv\b", re.MULTILINE)
    scripts = [block.code for block in blocks(page, "bash") if not block.code.startswith("#!")]
    assert page in WINDOWS or not any(differs.search(script) for script in scripts)
