"""What a reader is shown of a result, composed once. Terminal, HTML, Markdown and JSON render the same Page."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from msgspec import Struct, structs, to_builtins

Look = Literal["good", "doubt", "bad", "plain"]
"""How a reader's eye is caught; a renderer chooses the colour."""


class Value(Struct, frozen=True, omit_defaults=True):
    """A number or a name in words. `interval`: its 95 % interval, "" if there is none. `note`: a footnote, such as why
    the number is withheld; "" if there is none. Renderers number equal notes once.
    """

    words: str
    interval: str = ""
    note: str = ""
    look: Look = "plain"


Row = Sequence[str | Value]
"""Cells of a table: plain words, or values."""


class PageLine(Struct, frozen=True, omit_defaults=True):
    """One line of a page. `key`: the key of NUMBERS that it shows, "" if it shows none. `detail`: only with `--all`."""

    label: str
    value: Value
    key: str = ""
    look: Look = "plain"
    detail: bool = False


class Bar(Struct, frozen=True, omit_defaults=True):
    """`share`: its length, 0..1 of the room that all bars of a line have."""

    label: str
    share: float
    words: str


class Bars(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bars side by side, the longest first. `parts`: of a whole, so that none may be left out for want of room."""

    key: str
    title: str
    bars: list[Bar]
    parts: bool = False


class Column(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`right`: numbers, aligned by their last digit. `prose`: sentences, at most in the last column; where there is
    little room they stand on lines beneath their row.
    """

    title: str
    right: bool = False
    prose: bool = False


class Table(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`key` names it for links and JSON. `detail`: only with `--all`, folded on an HTML page. Columns that have no
    titles have no line for them. `note`: a sentence under the table.
    """

    key: str
    title: str
    columns: list[Column]
    rows: list[list[Value]]
    detail: bool = False
    note: str = ""


class Chart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture of a run. `name` is stable, for files and anchors.

    `description` says the main numbers, for those who do not see the picture. `spec`: Vega-Lite without colours of text
    and ground, which `charts/theme.py` gives; None: there is nothing to draw, and `withheld` says why. `numbers`: those
    behind it. Text in `spec` and `numbers` may be a stranger's: it is escaped where it is shown.
    """

    name: str
    title: str
    description: str = ""
    spec: dict[str, Any] | None
    withheld: str = ""
    numbers: Table | None = None


class State(Struct, frozen=True, omit_defaults=True):
    """The answer in a word (`VALID`, `PASS`, `SLOWER`), and the sentence that says what it means."""

    word: str
    look: Look
    sentence: str = ""


class Remark(Struct, frozen=True, omit_defaults=True):
    """Something to know before reading a number. `code`: a key of FINDINGS, or "". `hint`: what to do about it.
    `detail`: it changes no number, so that it is shown only with `--all`.
    """

    level: Literal["invalid", "warning", "info"]
    text: str
    hint: str = ""
    code: str = ""
    detail: bool = False


class Page(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Title, answers, the few numbers that a person came for (`tiles`), then all else in the order of reading.

    A tile is a number and, as its label, what it is of: `69` `images/min`; under it stands the interval, or else the
    note. `short`: what goes into one line below.
    `notes`: sentences about the details. `next`: command lines that a reader would type now. `places`: where to find
    more, label and path or command.
    """

    title: str
    subtitle: list[str] = []
    states: list[State] = []
    tiles: list[PageLine] = []
    short: list[str] = []
    bars: list[Bars] = []
    charts: list[Chart] = []
    facts: list[PageLine] = []
    tables: list[Table] = []
    remarks: list[Remark] = []
    notes: list[str] = []
    places: list[tuple[str, str]] = []
    next: list[str] = []


def as_json(page: Page) -> dict[str, Any]:
    """The words that people read, for programs that show them; without charts, and without what is empty."""
    plain: dict[str, Any] = to_builtins(structs.replace(page, charts=[]))
    return plain


def table(
    key: str, columns: Sequence[str], rows: Iterable[Row], *, title: str = "", detail: bool = False, note: str = ""
) -> Table:
    """A table. A column whose title begins with `>` has numbers, one whose title begins with `~` has sentences."""
    heads = [
        Column(title=name[1:] if name[:1] in {">", "~"} else name, right=name[:1] == ">", prose=name[:1] == "~")
        for name in columns
    ]
    cells = [[Value(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return Table(key=key, title=title, columns=heads, rows=cells, detail=detail, note=note)
