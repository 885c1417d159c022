"""A table in columns that fit a terminal: words give way before numbers, and long sentences stand beneath their row."""

from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.text import Text

from comfyload.report.page import Look, Table, Value
from comfyload.report.render.layout import padded, shrunk, wrapped

LOOKS: dict[Look, str] = {"good": "bold green", "doubt": "yellow", "bad": "bold red", "plain": ""}
_PROSE, _TALL = 20, 2
"""Columns that sentences need to stand in the line of a row, and how many lines one may have there."""

_WORDS, _NARROW = 24, 10
"""Columns that a column of words keeps for the sake of sentences, and however narrow the terminal."""

_INDENT = "    "


class _Grid:
    """The columns of a table but its sentences, each as wide as what it holds.

    Columns of words give way where that does not fit, or sentences lack room: `prose` columns are left for them; 0: all
    of them stand beneath.
    """

    def __init__(self, table: Table, rows: Sequence[Sequence[str]], width: int) -> None:
        self.width = width
        self.columns = [column for column in table.columns if not column.prose]
        widths = []
        for at, column in enumerate(self.columns):
            texts = [column.title, *(row[at] for row in rows), *(row[at].interval for row in table.rows)]
            widths.append(max(map(cell_len, texts)))
        flexible = [not column.right for column in self.columns]
        self.gap = 2 if sum(widths) + 2 * len(widths) <= width else 1
        room, needs = width - self.gap * (len(widths) - 1), 0
        if len(self.columns) < len(table.columns):
            room -= self.gap
            short = [length for row in rows if (length := cell_len(row[-1])) <= _TALL * _PROSE]
            needs = min(_PROSE, max(short, default=0))
        self.widths = shrunk(widths, flexible, room - needs, _WORDS)
        self.prose = room - sum(self.widths)
        if self.prose < needs:
            self.widths, self.prose = shrunk(widths, flexible, room, _NARROW), 0


def table_lines(table: Table, rows: Sequence[Sequence[str]], width: int) -> list[Text]:
    """The heading, if there is one, and every row. `rows`: the words of the table's rows, with their footnotes."""
    grid, lines = _Grid(table, rows, width), []
    if any(column.title for column in table.columns):
        titles = [column.title for column in table.columns]
        heading = _cells([Value(title) for title in titles], titles, grid, titles[len(grid.columns) :])
        lines += [Text(line.plain, style="bold") for line in heading]
    for row, words in zip(table.rows, rows, strict=True):
        lines += _row(row, words, grid)
    return lines


def _row(row: Sequence[Value], words: Sequence[str], grid: _Grid) -> list[Text]:
    """A row, beneath it the intervals, and a sentence that has no room in its line."""
    prose = words[len(grid.columns) :]
    sentence = wrapped(prose[0], grid.prose) if prose and grid.prose >= min(_PROSE, cell_len(prose[0])) else []
    within = sentence if len(sentence) <= _TALL else []
    lines = _cells(row, words, grid, within)
    if any(value.interval for value in row):
        ends = zip(row, grid.columns, grid.widths, strict=False)
        beneath = [padded(value.interval, width, right=one.right) for value, one, width in ends]
        lines.append(Text((" " * grid.gap).join(beneath), style="dim"))
    if prose and prose[0] and not within:
        below = wrapped(prose[0], grid.width - len(_INDENT))
        lines += [Text(f"{_INDENT}{line}", style="dim") for line in below]
    return lines


def _cells(row: Sequence[Value], words: Sequence[str], grid: _Grid, sentence: Sequence[str]) -> list[Text]:
    """As many lines as the tallest cell."""
    cells = [wrapped(text, width) for text, width in zip(words, grid.widths, strict=False)]
    lines = []
    for parts in zip_longest(*cells, sentence, fillvalue=""):
        line = Text()
        for part, column, width, value in zip(parts, grid.columns, grid.widths, row, strict=False):
            line.append(padded(part, width, right=column.right), style=LOOKS[value.look])
            line.append(" " * grid.gap)
        lines.append(line.append(parts[-1] if sentence else ""))
    return lines
