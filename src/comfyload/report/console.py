"""How text is put on a terminal and into Markdown, whatever a server or a workflow wrote into it."""

import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from comfyload.errors import READER_GONE
from comfyload.judge.columns.ledger import clean
from comfyload.record.codec import encode
from comfyload.visible import visible_lines
from comfyload.words import in_code_page, is_unicode

_LONGEST = 1000
"""Characters of one text in Markdown; errors are cut before that."""


class Screen(Console):
    """Standard output, or error, of a command. Whatever is printed, only our own styles steer the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does; in every piece of text, what a terminal would obey is an escape."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible_lines(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """The reader has closed the pipe (`| head`): nothing more is written, not even at exit."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(READER_GONE)  # rich would exit with 1, which says that a gate failed

    def print_json(self, json: str | None = None, **options: Any) -> None:
        """JSON in letters that every code page has, where this one is not Unicode."""
        super().print_json(json, **{"ensure_ascii": not is_unicode(self.encoding), **options})


def print_json(value: object) -> None:
    """Print a value as JSON on standard output, whatever the terminal's width."""
    Screen(soft_wrap=True, highlight=False).print_json(encode(value).decode())


def draw(part: Text | Table, console: Console) -> None:
    """Print without the blanks that fill up lines, and as far as the terminal's encoding can show it."""
    with console.capture() as capture:
        console.print(part, highlight=False)
    printed = in_code_page(capture.get(), console.encoding)
    for line in printed.removesuffix("\n").split("\n"):
        text = Text.from_ansi(line)
        text.rstrip()
        console.print(text, highlight=False, soft_wrap=True)


def escaped(text: str) -> str:
    """Text as text in GitHub's Markdown: no markup, no HTML, no new cell, one line."""
    text = clean(text, _LONGEST).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|\[\]~#$])", r"\\\1", text)
