"""What the dashboard's page is made of: files that are there, and nothing that its policy forbids."""

import re
from pathlib import Path

import pytest
from tools.vendor import PAGE

STATIC = PAGE.parent
INDEX = (STATIC / "index.html").read_text(encoding="utf-8")
OURS = sorted([*(STATIC / "js").rglob("*.js"), *(STATIC / "css").glob("*.css")])
IMPORT = re.compile(r'(?:from|import|import\() ?"(\.[^"]+)"')


def imported(file: Path) -> set[Path]:
    return {(file.parent / path).resolve() for path in IMPORT.findall(file.read_text(encoding="utf-8"))}


def test_each_file_that_the_page_names_is_there() -> None:
    named = [name.removeprefix("ui/static/") for name in re.findall(r'(?:href|src)="([^"]+)"', INDEX)]
    assert len(named) > 10
    assert [name for name in named if not (STATIC / name).is_file()] == []
    for file in OURS:
        assert [path for path in imported(file) if not path.is_file()] == [], file.name


def test_the_first_views_modules_are_asked_for_at_once() -> None:
    """Otherwise each level of imports costs a way to the server and back."""
    needed, left = set[Path](), [STATIC / "js" / "app.js", STATIC / "js" / "views" / "now.js"]
    while left:
        file = left.pop().resolve()
        if file not in needed:
            needed.add(file)
            left += imported(file)
    preloaded = {STATIC.resolve() / name for name in re.findall(r'modulepreload" href="ui/static/([^"]+)"', INDEX)}
    assert preloaded == needed - {(STATIC / "js" / "app.js").resolve()}


def test_the_page_has_nothing_inline() -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)", INDEX) == []
    assert re.findall(r"<style|\bstyle=|\bon[a-z]+=", INDEX) == []


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_a_file_is_short_and_makes_no_markup_of_texts(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text) == []
    assert re.findall(r"https?://(?!www\.w3\.org)[a-z]", text) == []
    assert text.count("\n") <= 300, "split it"
    first = text.lstrip().splitlines()[0]
    assert first.startswith(("// ", "/* ")), "the first line says what the file is for"
