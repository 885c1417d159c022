"""The project's Markdown files, and the script that writes the reference."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

__all__ = ["ROOT", "generator", "markdown_files", "text_of_docs"]

ROOT = Path(__file__).parents[2]
_NOT_OURS = {"runs", "build", "dist", "node_modules"}


def markdown_files() -> list[Path]:
    """Every Markdown file of the project, none of what tools and runs leave behind."""
    top = [path for path in ROOT.iterdir() if path.name not in _NOT_OURS and not path.name.startswith(".")]
    below = [found for folder in top if folder.is_dir() for found in folder.rglob("*.md")]
    ours = [path for path in below if not any(part.startswith(".") or part in _NOT_OURS for part in _parts(path))]
    return sorted([*ours, *(path for path in top if path.suffix == ".md")])


def _parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).parts


@cache
def text_of_docs() -> str:
    """The README and everything below docs/, in one string."""
    pages = [ROOT / "README.md", *(path for path in markdown_files() if _parts(path)[0] == "docs")]
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def generator() -> ModuleType:
    """What writes docs/reference, as a module."""
    return importlib.import_module("tools.reference.__main__")
