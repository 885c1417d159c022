"""A Page in GitHub's Markdown, with all that it would take for markup escaped."""

from collections.abc import Iterable, Sequence

from comfyload.report.console import escaped
from comfyload.report.page import Page, Remark, Table, Value
from comfyload.report.render.notes import Notes


def as_markdown(page: Page, *, level: int = 1, all: bool = False) -> str:
    """The page under a heading of that level; details only with `all`."""
    notes = Notes()
    tables = [_table(table, notes, level + 1) for table in page.tables if all or not table.detail]
    facts = [fact for fact in page.facts if all or not fact.detail]
    remarks = [remark for remark in page.remarks if all or not remark.detail]
    bars = [
        f"- {escaped(one.title)}: {', '.join(f'{escaped(bar.label)} {escaped(bar.words)}' for bar in one.bars)}"
        for one in page.bars
    ]
    parts = [
        f"{'#' * level} {escaped(page.title)}" if page.title else "",
        escaped(" · ".join(page.subtitle)),
        *(f"**{escaped(state.word)}.** {escaped(state.sentence)}".rstrip() for state in page.states),
        _grid(
            [escaped(tile.label) for tile in page.tiles],
            [[_tile(tile.value) for tile in page.tiles]] if page.tiles else [],
        ),
        escaped(" · ".join(page.short)),
        "\n".join([*bars, *(f"- {escaped(fact.label)}: {_cell(fact.value, notes)}" for fact in facts)]),
        *tables,
        "<br>".join(escaped(line) for line in [*notes.lines(), *(page.notes if all else [])]),
        "\n".join(_remark(remark) for remark in remarks),
        "\n".join(f"- {escaped(label)}: {escaped(where)}" for label, where in page.places),
        "\n".join(["```sh", *page.next, "```"]) if page.next else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _remark(remark: Remark) -> str:
    level = "" if remark.level == "info" else f"**{remark.level}** "
    return f"- {level}{escaped(f'{remark.text} {remark.hint}'.rstrip())}"


def _table(table: Table, notes: Notes, level: int) -> str:
    titles = [f"{escaped(column.title)}" for column in table.columns]
    rows = [[_cell(value, notes, beneath=True) for value in row] for row in table.rows]
    grid = _grid(titles, rows, [column.right for column in table.columns])
    head = f"{'#' * level} {escaped(table.title)}" if table.title else ""
    return "\n\n".join(part for part in (head, grid, escaped(table.note)) if part)


def _grid(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[bool] = ()) -> str:
    if not rows:
        return ""
    ruler = ["---:" if one else "---" for one in right] or ["---"] * len(titles)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [titles, ruler, *rows])


def _tile(value: Value) -> str:
    """The words, and beneath them the interval or else the note."""
    return "<br>".join(escaped(line) for line in (value.words, value.interval or value.note) if line)


def _cell(value: Value, notes: Notes, *, beneath: bool = False) -> str:
    """The words with the number of their note; the interval behind them, or beneath."""
    words = f"{escaped(value.words)}{notes.mark(value.note)}"
    if not value.interval:
        return words
    return f"{words}<br>{escaped(value.interval)}" if beneath else f"{words} ({escaped(value.interval)})"
