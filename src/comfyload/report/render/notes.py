"""Footnotes: numbered as they come up, and one text has one number however often it is given."""

from __future__ import annotations

from rich.text import Text

from comfyload.judge.statistics.stats import CONFIDENCE
from comfyload.words import superscript

RANGES = f"Ranges are {100 * CONFIDENCE:.0f} % intervals."


class Notes:
    """The footnotes of one page."""

    def __init__(self) -> None:
        self._notes: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """The number of the footnote that says why something is withheld."""
        return self.remark(f"withheld: {reason}")

    def remark(self, text: str) -> str:
        """The number of a footnote; "" for no text."""
        return superscript(self._notes.setdefault(text, len(self._notes) + 1)) if text else ""

    def lines(self) -> list[str]:
        """Each footnote after its number."""
        return [f"{superscript(number)} {text}" for text, number in self._notes.items()]

    def text(self) -> Text:
        """All of them, and what ranges are."""
        return Text("\n".join([*self.lines(), RANGES]), style="dim")
