"""Footnotes: numbered as they come up, and one text has one number however often it is given."""

from comfyload.words import superscript


class Notes:
    """The footnotes of a page or a table; `texts` by their number, from 1 on."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """The number of a footnote; 0 for no text."""
        if text and text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1 if text else 0

    def mark(self, text: str) -> str:
        """The number as it stands at a word; "" for no text."""
        return superscript(self.number(text)) if text else ""

    def lines(self) -> list[str]:
        """Each footnote after its number."""
        return [f"{superscript(number)} {text}" for number, text in enumerate(self.texts, 1)]
