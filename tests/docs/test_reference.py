"""The docs do not lag behind the code: the reference is as generated, and nothing a user meets goes unmentioned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from comfyload import errors
from comfyload.app import summary as app_summary
from comfyload.cli import app_of
from comfyload.judge.findings.table import FINDINGS
from comfyload.judge.summary import summarise
from tests.docs.pages import ROOT, generator, markdown_files, text_of_docs
from tests.unit.judge_runs import failed, job, manifest

app = app_of()

REFRESH = "the reference lags behind the code; run: python -m tools.reference"
NAMES = ["cli.md", "summary.md", "exit-codes.md", "run-directory.md", "findings.md", "judgement.md", "baseline.md"]
NAMES += ["retry-policy.md", "retry.schema.json"]
BY_HAND = {"instrumentation-log.md"}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return dict(generator().pages())


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_as_generated(name: str, pages: dict[str, str]) -> None:
    committed = ROOT / "docs" / "reference" / name
    assert committed.exists() and committed.read_text(encoding="utf-8") == pages[name], REFRESH


def test_no_page_of_the_reference_is_left_from_before(pages: dict[str, str]) -> None:
    there = {path.name for kind in ("*.md", "*.json") for path in (ROOT / "docs" / "reference").glob(kind)}
    assert there - BY_HAND == set(pages) == set(NAMES)


def test_every_command_and_flag_is_mentioned() -> None:
    text = text_of_docs()
    for name, _ in generator().commands():
        assert f"comfyload {name}" in text
        shown = CliRunner().invoke(app, [*name.split(), "--help"], terminal_width=200).stdout
        flags = re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", shown)
        assert len(flags) > 0
        opposites = {flag for flag in flags if f"--{flag.removeprefix('--no-')}" in flags}
        assert [flag for flag in flags if flag not in opposites and f"`{flag}`" not in text] == []


def test_every_exit_code_is_in_the_reference_and_the_readme() -> None:
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    codes |= {app_summary.OK, app_summary.INVALID, errors.INTERRUPTED}
    codes |= {int(code) for code in re.findall(r"(?:: | · )(\d+) ", (errors.__doc__ or "").partition("Exit codes")[2])}
    reference = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Exit codes")[2].partition("\n## ")[0]
    for code in codes:
        assert f"| `{code}` |" in reference
        assert re.search(rf"^\|[^|]*\b{code}\b", readme, re.MULTILINE), f"the README has no exit code {code}"
    short = dict(re.findall(r"^\| `(\d+)` \| (.+?) \|", reference, re.MULTILINE))
    rows = dict(re.findall(r"^\| (\d+)\b[^|]* \| (.+?) \|$", readme, re.MULTILINE))
    assert short.keys() == rows.keys()
    assert [code for code in short if not rows[code].startswith(short[code])] == []


def test_every_key_of_the_summary_is_mentioned() -> None:
    lines = [job(0, 0.0, 1.0), failed(1, 1.0, 1.0)]
    text = text_of_docs()
    assert [key for key in summarise(manifest(2), lines).summary if f"`{key}`" not in text] == []


def test_every_code_of_a_finding_is_mentioned() -> None:
    text = text_of_docs()
    assert {"nothing_measured", "cached_jobs", "cold_head", "foreign_load", "vary"} <= set(FINDINGS)
    assert [code for code in FINDINGS if f"`{code}`" not in text] == []


def test_the_principles_tell_the_rooms_and_the_ladder_as_they_are() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ladder = re.search(r"^layers = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    assert ladder is not None
    layers = re.findall(r'"(.+?)"', ladder[1])
    assert f"`{' > '.join(layers)}`" in text
    package = ROOT / "src" / "comfyload"
    rooms = {path.stem for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert [room for room in rooms if not room.startswith("__") and f"| `{room}` |" not in text] == []


@pytest.mark.parametrize("page", markdown_files(), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_relative_link_is_broken(page: Path) -> None:
    broken = []
    for target in _links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def _links(text: str) -> list[str]:
    return re.findall(r"\]\(([^()\s]+)\)", _prose(text))


def _anchors(file: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", _prose(file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def _prose(text: str) -> str:
    """Without code, where brackets are no links."""
    return re.sub(r"`[^`\n]*`", "``", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))
