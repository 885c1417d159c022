"""Words in lines: how they wrap, and what keeps the columns of a table apart."""

import re

from rich.cells import cell_len, chop_cells

_TIED = re.compile(r"(?<=\d) (?=(?:%|s|ms|min|h|GiB|kB|MB|W|J|°C|\d{3})(?!\w))")
"""The space between a number and its unit, or between thousands."""

_HARD = "\N{NO-BREAK SPACE}"


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns; a number keeps its unit, and a word that is too long is cut."""
    lines, line = [], ""
    for word in _TIED.sub(_HARD, text).split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        lines += [line] if line else []
        *whole, line = chop_cells(word, max(width, 2)) or [""]
        lines += whole
    return [one.replace(_HARD, " ").rstrip() for one in [*lines, line]]


def padded(text: str, width: int, *, right: bool = False) -> str:
    """The text filled up to `width` columns."""
    blanks = " " * max(0, width - cell_len(text))
    return blanks + text if right else text + blanks


def shrunk(widths: list[int], flexible: list[bool], room: int, least: int) -> list[int]:
    """The widths, of which the widest flexible ones give way until all fit into `room`; each keeps `least`."""
    widths = list(widths)
    while sum(widths) > room:
        wide = [at for at, width in enumerate(widths) if flexible[at] and width > least]
        if not wide:
            break
        widths[max(wide, key=lambda at: widths[at])] -= 1
    return widths
