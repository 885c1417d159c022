"""Every command that a page shows is one that the command line understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.commands import commands, parsed
from tests.docs.pages import ROOT, markdown_files

PAGES = [
    page for page in markdown_files() if re.search(r"^```(bash|sh)$", page.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_page_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYLOAD_SERVER", "http://127.0.0.1:8188")
    scripts = re.findall(r"^```(?:bash|sh)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for words in (words for script in scripts for words in commands(script)):
        name, _ = parsed(words)
        assert name, words
