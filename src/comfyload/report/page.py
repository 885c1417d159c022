"""What a reader is shown of a result, composed once. Terminal, HTML, Markdown and JSON render the same Page."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from comfyload.report.charts.chart import Chart

__all__ = ["Column", "Fact", "Look", "Page", "Remark", "State", "Table", "Value"]

Look = Literal["good", "doubt", "bad", "plain"]
"""How a reader's eye is caught; a renderer chooses the colour."""


class Value(Struct, frozen=True, kw_only=True):
    """A number or a name in words. `interval`: its 95 % interval, "" if there is none. `note`: a footnote, such as why
    the number is withheld; "" if there is none. Renderers number equal notes once.
    """

    words: str
    interval: str = ""
    note: str = ""


class Fact(Struct, frozen=True, kw_only=True):
    """One line of a page. `key`: the key of NUMBERS that it shows, "" if it shows none. `detail`: only with `--all`."""

    label: str
    value: Value
    key: str = ""
    look: Look = "plain"
    detail: bool = False


class Column(Struct, frozen=True, kw_only=True):
    """`right`: numbers, aligned by their last digit."""

    title: str
    right: bool = False


class Table(Struct, frozen=True, kw_only=True):
    """`key` names it for links and JSON. `detail`: only with `--all`, folded on an HTML page."""

    key: str
    title: str
    columns: list[Column]
    rows: list[list[Value]]
    detail: bool = False


class State(Struct, frozen=True, kw_only=True):
    """The answer in a word (`VALID`, `PASS`, `SLOWER`), and the sentence that says what it means."""

    word: str
    look: Look
    sentence: str = ""


class Remark(Struct, frozen=True, kw_only=True):
    """Something to know before reading a number. `code`: of FINDINGS, "" if it is none. `hint`: what to do about it."""

    level: Literal["invalid", "warning", "info"]
    text: str
    hint: str = ""
    code: str = ""


class Page(Struct, frozen=True, kw_only=True):
    """Title, answers, the few numbers that a person came for (`tiles`), then all else in the order of reading.

    `next`: command lines that a reader would type now. `places`: where to find more, label and path.
    """

    title: str
    subtitle: list[str] = []
    states: list[State] = []
    tiles: list[Fact] = []
    charts: list[Chart] = []
    facts: list[Fact] = []
    tables: list[Table] = []
    remarks: list[Remark] = []
    next: list[str] = []
    places: list[tuple[str, str]] = []
