"""A Page on a terminal: nothing is cut at 80 columns, and without colour or Unicode it says the same."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

from msgspec import Struct, structs
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from comfyload.report.page import Bar, Bars, Page, PageLine, Remark, State, Table, Value
from comfyload.report.render.grid import LOOKS, table_lines
from comfyload.report.render.layout import padded, wrapped
from comfyload.report.render.notes import Notes
from comfyload.visible import visible
from comfyload.words import in_code_page

_SIGNS = {"invalid": ("✗", "bold red"), "warning": ("!", "yellow"), "info": ("i", "cyan")}
_BAR = 44
"""Columns that the bars of a line share at most."""

_LEAST = 14
"""Columns that bars need on one line to be compared."""

_SHORTEST = 0.01
"""Less than this share has no bar, only its number."""

Lines = list[Text]
T = TypeVar("T")


def render(page: Page, console: Console, *, all: bool = False) -> None:
    """Print the page; details only with `all`. What a server wrote is shown as text, never obeyed."""
    screen = _Screen(console)
    page = screen.fitting(structs.replace(page, charts=[]))
    invalid = [remark for remark in page.remarks if remark.level == "invalid"]
    others = [remark for remark in page.remarks if remark.level != "invalid" and (all or not remark.detail)]
    tables = [screen.table(table) for table in page.tables if all or not table.detail]
    facts = screen.facts([fact for fact in page.facts if all or not fact.detail])
    parts = [
        screen.title(page),
        [*screen.states(page.states[:1]), *screen.remarks(invalid), *screen.states(page.states[1:])],
        screen.tiles(page.tiles),
        [*screen.short(page.short), *screen.bars(page.bars)],
        facts,
        *tables,
        screen.dim([*screen.notes.lines(), *(page.notes if all else [])]),
        screen.remarks(others),
        screen.places(page),
    ]
    screen.print(parts)


class _Screen:
    """A console, and the footnotes of what is printed on it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.width = console.width
        self.notes = Notes()

    def fitting(self, value: T) -> T:
        """The value with every text in letters that the terminal has, on one line, without what it would obey."""
        return _mapped(value, self._fit)

    def _fit(self, text: str) -> str:
        return in_code_page(visible(text), self._console.encoding)

    def print(self, parts: Iterable[Lines]) -> None:
        """Print the parts that have lines, with an empty line between them."""
        for number, lines in enumerate(part for part in parts if part):
            if number:
                self._console.print()
            for line in lines:
                line.rstrip()
                self._console.print(line, highlight=False, soft_wrap=True)

    def dim(self, sentences: Iterable[str]) -> Lines:
        return [Text(line, style="dim") for text in sentences for line in wrapped(self._fit(text), self.width)]

    def title(self, page: Page) -> Lines:
        if not page.title:
            return []
        between = " " if page.title.endswith(".") else self._fit(" · ")
        lines = [Text(line) for line in _joined([page.title, *page.subtitle], between, self.width)]
        lines[0].stylize("bold", 0, len(page.title))
        for line in lines:
            line.stylize("dim", len(page.title) if line is lines[0] else 0)
        return lines

    def states(self, states: Iterable[State]) -> Lines:
        return [line for state in states for line in self._state(state)]

    def _state(self, state: State) -> Lines:
        lines = [Text(line) for line in wrapped(f"{state.word}{state.sentence and '. '}{state.sentence}", self.width)]
        lines[0].stylize(LOOKS[state.look] or "bold", 0, len(state.word))
        return lines

    def tiles(self, tiles: Sequence[PageLine]) -> Lines:
        """Side by side where they fit, else one a line."""
        blocks = [(tile, f"{tile.value.words} {tile.label}", tile.value.interval or tile.value.note) for tile in tiles]
        widths = [max(cell_len(head), cell_len(below)) + 4 for _, head, below in blocks]
        if sum(widths) > self.width:
            return [_bold(f"{head}  {below}", tile.value.words) for tile, head, below in blocks]
        first, second = Text("  "), Text("  ", style="dim")
        for (tile, head, below), width in zip(blocks, widths, strict=True):
            first.append_text(_bold(padded(head, width), tile.value.words))
            second.append(padded(below, width))
        return [first, second] if blocks else []

    def short(self, parts: Sequence[str]) -> Lines:
        return [Text(line) for line in _joined(parts, self._fit(" · "), self.width)] if parts else []

    def bars(self, several: Sequence[Bars]) -> Lines:
        title = max((cell_len(one.title) for one in several), default=0) + 2
        return [line for one in several for line in self._bars(one, title)]

    def _bars(self, bars: Bars, title: int) -> Lines:
        """As many as one line has room for, at least two; if these would be too short, each on a line of its own."""
        shown = list(bars.bars)
        while len(shown) > 2 and not bars.parts and self._room(shown, title) < _LEAST:
            shown.pop()
        line, room = Text(padded(bars.title, title), style="dim"), self._room(shown, title)
        if room >= _LEAST:
            for bar in shown:
                picture = self._bar(bar.share, room)
                line.append(" ".join(filter(None, (bar.label, picture, bar.words))) + "   ", style="not dim")
            return [line]
        label = max(cell_len(bar.label) for bar in shown)
        room = max(_LEAST, min(_BAR, self.width - label - 4 - max(cell_len(bar.words) for bar in shown)))
        return [
            line,
            *(Text(f"  {padded(bar.label, label)} {self._bar(bar.share, room)} {bar.words}") for bar in shown),
        ]

    def _room(self, bars: Sequence[Bar], title: int) -> int:
        """Columns that are left for the bars themselves on one line."""
        return min(_BAR, self.width - title - sum(cell_len(f"{bar.label}{bar.words}") + 5 for bar in bars))

    def _bar(self, share: float, room: int) -> str:
        return self._fit("▇") * (max(1, round(share * room)) if share >= _SHORTEST else 0)

    def facts(self, facts: Sequence[PageLine]) -> Lines:
        width = max((cell_len(fact.label) for fact in facts), default=0) + 2
        return [line for fact in facts for line in self._fact(fact, width)]

    def _fact(self, fact: PageLine, width: int) -> Lines:
        value = fact.value
        head = f"{value.words}{self._mark(value)}"
        interval = f"  ({value.interval})" if value.interval else ""
        lines = [Text(line) for line in wrapped(f"{head}{interval}", self.width - width)]
        if len(lines) == 1 and interval:
            lines[0].stylize("dim", len(head))
        for line in lines:
            line.stylize(LOOKS[fact.look], 0, len(head))
        labels = [Text(padded(fact.label, width), style="bold"), *([Text(" " * width)] * (len(lines) - 1))]
        return [Text.assemble(label, line) for label, line in zip(labels, lines, strict=True)]

    def _mark(self, value: Value) -> str:
        return self._fit(self.notes.mark(value.note))

    def table(self, table: Table) -> Lines:
        rows = [[f"{cell.words}{self._mark(cell)}" for cell in row] for row in table.rows]
        lines = [Text(line, style="bold") for line in wrapped(table.title, self.width)] if table.title else []
        lines += table_lines(table, rows, self.width)
        return [*lines, *self.dim([table.note] if table.note else [])] if table.rows else []

    def remarks(self, remarks: Iterable[Remark]) -> Lines:
        lines = []
        for remark in remarks:
            sign, style = _SIGNS[remark.level]
            for number, line in enumerate(wrapped(f"{remark.text} {remark.hint}".rstrip(), self.width - 2)):
                lines.append(Text.assemble(("  " if number else f"{self._fit(sign)} ", style), line))
        return lines

    def places(self, page: Page) -> Lines:
        """Paths and commands are never wrapped, so that they can be copied."""
        named = [*page.places, *(("Next" if not number else "", line) for number, line in enumerate(page.next))]
        width = max((cell_len(label) for label, _ in named), default=0) + 2
        return [Text.assemble((padded(label, width), "dim"), line) for label, line in named]


def _bold(text: str, words: str) -> Text:
    line = Text(text)
    line.stylize("bold", 0, len(words))
    return line


def _joined(parts: Sequence[str], between: str, width: int) -> Iterator[str]:
    """The parts with `between` them, in lines that break between parts where that is possible."""
    line = ""
    for part in parts:
        longer = f"{line}{between}{part}" if line else part
        if line and cell_len(longer) > width:
            yield line
            longer = part
        *whole, line = wrapped(longer, width)
        yield from whole
    yield line


def _mapped(value: T, change: Callable[[str], str]) -> T:
    """The value with every text in it changed."""
    if isinstance(value, str):
        return cast(T, change(value))
    if isinstance(value, list | tuple):
        return cast(T, type(value)(_mapped(inner, change) for inner in value))
    if isinstance(value, Struct):
        names = value.__struct_fields__
        return structs.replace(value, **{name: _mapped(getattr(value, name), change) for name in names})
    return value
