"""Makes text from outside safe to show: control characters, marks of direction and lone surrogates become escapes."""

import re

_UNSEEN = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
"""Controls (C0, DEL, C1), marks that turn the direction of writing, separators of lines, lone surrogates."""

_ALL = re.compile(f"[{_UNSEEN}]")
_BUT_BREAKS = re.compile(rf"(?![\n\t])[{_UNSEEN}]")
_LONG = re.compile(r"""(?<!\w)'[^'\n]{200,}'(?!\w)|(?<!\w)"[^"\n]{200,}"(?!\w)|\S{200,}""")
"""Two hundred letters and more between quotation marks, or without a space."""

_LONG_LINE = re.compile(r".{600,}")

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str) -> str:
    r"""The text on one line: `\u001b`, `\n`, `\u202e` and `\udce9` stand for what must not reach a terminal."""
    return _ALL.sub(_escape, text)


def visible_lines(text: str) -> str:
    """The same for text of several lines: their breaks and tabs stay. JSON stays JSON, and means the same."""
    return _BUT_BREAKS.sub(_escape, text)


def shortened(text: str) -> str:
    """The text without the middle of long quotations, so that the words around them stay in sight."""
    return _LONG_LINE.sub(_without_middle, _LONG.sub(_without_middle, text))


def _without_middle(found: re.Match[str]) -> str:
    return f"{found[0][:120]} … {found[0][-60:]}"


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}"
