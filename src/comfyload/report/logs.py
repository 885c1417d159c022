"""How the rows of the instrumentation log are read on a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from rich.text import Text

from comfyload.judge.columns.ledger import clean
from comfyload.report.console import Screen
from comfyload.report.log_text import (
    LONGEST,
    PROMPT,
    STYLES,
    LogText,
    kind,
    log_text,
    milliseconds,
    node_words,
    retry,
    short,
)
from comfyload.report.text import DASH, ascii_only, count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from comfyload.record.metrics.log import LogRow
    from comfyload.record.metrics.prompts import PromptRows

__all__ = ["LogTally", "Printer"]

Parts = list[tuple[str, str]]
"""A line: texts and their styles."""

_NARROWEST = 80
_TIME, _WHO, _TOOK = 12, 5, 7
_EVENT, _NODE = 14, 15
"""Columns at 80; wider terminals give more to them and to what stands last."""

_INDENT = _TIME + _WHO + 2
_ERROR = "bold red"

_KINDS = 200
"""Distinct errors that are counted apart, and prompts of which a node's error is remembered."""


class LogTally(Struct, kw_only=True):
    """What was met. `rows`: of the time and prompt asked for; `samples` of them were left out."""

    rows: int = 0
    shown: int = 0
    prompts: int = 0
    samples: int = 0
    without_time: int = 0
    other_lines: int = 0
    first_other: str = ""
    without_prompt: int = 0
    nodes: dict[str, str] = msgspec.field(default_factory=dict)
    _kinds: Counter[str] = msgspec.field(default_factory=Counter)

    def no_row(self, place: str, line: bytes) -> None:
        """Count a line that is no row."""
        self.other_lines += 1
        self.first_other = self.first_other or f"{place}: {clean(line[:400].decode(errors='replace'), 60)}"

    def error(self, row: LogRow) -> None:
        """Count an error among its like: a node's only where its prompt's end does not tell it again."""
        if row.seq is not None and row.event == "node" and row.prompt_id and len(self.nodes) < _KINDS:
            self.nodes[row.prompt_id] = kind(row)
            return
        if row.event == "prompt.ended":
            self.nodes.pop(row.prompt_id or "", None)
        self.error_of(kind(row))

    def error_of(self, text: str) -> None:
        """Count an error of that kind."""
        one = clean(text, 100)
        self._kinds[one if one in self._kinds or len(self._kinds) < _KINDS else "others"] += 1

    @property
    def kinds(self) -> Counter[str]:
        """Errors by kind."""
        return self._kinds + Counter(clean(text, 100) for text in self.nodes.values())


class Printer:
    """Prints rows: in columns on a terminal, each on one line of its own elsewhere, or as JSON."""

    def __init__(self, console: Screen, *, as_json: bool) -> None:
        self._console, self._json = console, as_json
        self._terminal = console.is_terminal
        self._day = ""
        self._heads = False

    @property
    def _width(self) -> int | None:
        """Columns of the terminal; None: there is none, and a line is as long as it needs."""
        return max(self._console.width, _NARROWEST) if self._terminal else None

    def row(self, row: LogRow, tally: LogTally) -> None:
        tally.shown += 1
        if row.error is not None:
            tally.error(row)
        if self._json:
            self._write([(_as_json(row.raw), "")])
            return
        width = self._width
        if width is not None:
            self._head(row.utc, _cells_of_heads(width))
        for line in _row_lines(row, width):
            self._write(line)

    def prompt(self, group: PromptRows, tally: LogTally) -> None:
        tally.prompts += 1
        if group.error is not None:
            tally.error_of(": ".join(part for part in (group.exception_type, group.error) if part))
        for row in group.app:
            if row.error is not None:
                tally.error(row)
        if self._json:
            self._write([(_as_json(_prompt_object(group)), "")])
            return
        self._head(group.began, _prompt_cells("began", "prompt", "waited", "executed", "run", "cached", "outcome"))
        for line in _prompt_lines(group, self._width):
            self._write(line)

    def end(self, tally: LogTally, older: Sequence[str]) -> None:
        """What it comes to, on a terminal. `older`: files that were not looked at.

        In a pipe only what could not be shown is said, beside the rows.
        """
        if self._json or not self._terminal:
            if tally.other_lines:
                self.say(_other_lines(tally))
            return
        for line in _summary(tally, older):
            style = _ERROR if line.startswith("ERROR") else "dim"
            for part in textwrap.wrap(line, self._console.width - 1, subsequent_indent="  "):
                self._write([(part, style)])
        self.flush()

    def say(self, text: str) -> None:
        """Something for people alone."""
        Screen(stderr=True, highlight=False, soft_wrap=True).print(Text(clean(text, LONGEST), style="dim"))

    def flush(self) -> None:
        try:
            self._console.file.flush()
        except BrokenPipeError:
            self._console.on_broken_pipe()

    def _head(self, utc: datetime | None, heads: str) -> None:
        """On a terminal, the names of the columns at the top, and each day before its rows."""
        if not self._terminal:
            return
        local = None if utc is None else utc.astimezone()
        offset = f"{local:%z}" if local else ""
        day = f"{local:%Y-%m-%d}, local time (UTC{offset[:3]}:{offset[3:5]})" if local else self._day
        if day != self._day:
            self._day = day
            self._write([(day, "bold")])
        if not self._heads:
            self._heads = True
            self._write([(heads, "dim")])

    def _write(self, line: Parts) -> None:
        encoding = self._console.encoding or "ascii"
        if not encoding.lower().startswith("utf") and self._json:
            line = [
                (re.sub(r"[^\x00-\x7f]", lambda letter: json.dumps(letter[0])[1:-1], text), style)
                for text, style in line
            ]
        elif not encoding.lower().startswith("utf"):
            line = [(ascii_only(text).encode(encoding, "replace").decode(encoding), style) for text, style in line]
        if self._terminal and not self._json:
            text = Text.assemble(*line)
            text.rstrip()
            self._console.print(text, highlight=False, soft_wrap=True)
            return
        try:
            self._console.file.write("".join(text for text, _ in line).rstrip(" ") + "\n")
        except BrokenPipeError:
            self._console.on_broken_pipe()


# --- a row


def _row_lines(row: LogRow, width: int | None) -> Iterator[Parts]:
    """The row in columns; what finds no room in the last one stands below, or beside it where lines have no width."""
    event, node = _columns(width)
    words = log_text(row)
    about, took = node_words(row), milliseconds(row.raw.get("duration_ms"))
    line = [
        (f"{_time(row.utc, width)} ", "dim"),
        ("probe " if row.seq else f"{'app':<{_WHO}} ", "magenta" if row.seq else "blue"),
        (f"{_cell(row.event or DASH, event, width)} ", "bold" if row.error else ""),
        (f"{clean(row.prompt_id or '', 100)[:PROMPT]:<{PROMPT}}", "dim"),
    ]
    if width is None or about or took or words.word:
        line += [(f" {_cell(about, node, width)} {took:>{_TOOK}} ", ""), (words.word, words.style)]
    yield from _with_more(line, words, width, "red" if row.error else "dim")


def _with_more(line: Parts, words: LogText, width: int | None, style: str) -> Iterator[Parts]:
    """The line and what there is to add: beside it if there is room, else below; the minor part only beside."""
    gap = "  " if words.word else " "
    beside = ", ".join(part for part in (words.more, words.minor) if part)
    below = ""
    if width is not None:
        room = width - _length(line) - len(gap)
        if len(beside) > room:
            beside, below = (words.more, "") if len(words.more) <= room else ("", words.more)
    yield [*line, (gap + beside, style)] if beside else line
    if below and width is not None:
        for part in textwrap.wrap(below, width - _INDENT, break_on_hyphens=False):
            yield [(" " * _INDENT + part, style)]


def _prompt_lines(group: PromptRows, width: int | None) -> Iterator[Parts]:
    """The prompt on a line, its error and an application's rows below it; all on the one line in a pipe."""
    known = group.queued or group.started or group.status is not None
    prompt = clean(group.prompt_id, 100)
    cells = _prompt_cells(
        "",
        prompt[:PROMPT] if width else prompt,
        milliseconds(group.waited_ms),
        milliseconds(group.duration_ms),
        str(group.nodes_run) if known else "",
        str(group.nodes_cached) if known else "",
        "",
    )
    line = [(_time(group.began, width), "dim"), (cells[_TIME:], ""), _outcome(group)]
    again = retry(group.attempt, group.retry_of)
    below = [*_prompt_error(group), *(_app_line(row) for row in group.app)]
    if group.more_app:
        below.append((f"{group.more_app} more rows of the application", "dim"))
    if again and (width is None or _length(line) + 2 + len(again) <= width):
        line.append((f"  {again}", "yellow"))
    elif again:
        below.insert(0, (again, "yellow"))
    if width is None:
        yield [*line, *((f" | {text}", style) for text, style in below)]
        return
    yield line
    for text, style in below:
        for part in textwrap.wrap(text, width - _TIME - 1, subsequent_indent="  ", break_on_hyphens=False):
            yield [(" " * (_TIME + 1) + part, style)]


def _prompt_cells(*cells: str) -> str:
    began, prompt, waited, executed, run, cached, outcome = cells
    return f"{began:<{_TIME}} {prompt:<{PROMPT}} {waited:>8} {executed:>8} {run:>4} {cached:>6}  {outcome}"


def _outcome(group: PromptRows) -> tuple[str, str]:
    if group.failed:
        return "ERROR", _ERROR
    if group.status is not None:
        status = clean(group.status, 20)
        return status, STYLES.get(status, "")
    return ("running" if group.started else "waiting" if group.queued else DASH), "dim"


def _prompt_error(group: PromptRows) -> list[tuple[str, str]]:
    if group.error is None:
        return []
    type_, where = short(group.exception_type), " ".join(filter(None, (short(group.node), short(group.class_type))))
    text = f"{type_}: {clean(group.error, LONGEST)}" if type_ else clean(group.error, LONGEST)
    return [(f"{f'{where}: ' if where else ''}{text}", "red")]


def _app_line(row: LogRow) -> tuple[str, str]:
    words = log_text(row)
    parts = ("app", short(row.event) or DASH, milliseconds(row.raw.get("duration_ms")), words.word, words.more)
    return " ".join(part for part in parts if part), "red" if row.error else "blue"


def _prompt_object(group: PromptRows) -> dict[str, Any]:
    fields = {name: getattr(group, name) for name in group.__struct_fields__ if name not in ("app", "chosen")}
    return {**fields, "began": group.began, "app": [row.raw for row in group.app]}


# --- what it comes to


def _summary(tally: LogTally, older: Sequence[str]) -> Iterator[str]:
    what = count(tally.prompts, "prompt") if tally.prompts else f"{tally.shown} of {count(tally.rows, 'row')}"
    hidden = f", {count(tally.samples, 'sample')} left out (--samples)" if tally.samples else ""
    kinds = tally.kinds
    errors = kinds.total()
    yield f"{what}{hidden}; {count(errors, 'error') if errors else 'no error'}."
    for text, number in kinds.most_common(10):
        yield f"ERROR {number} \N{MULTIPLICATION SIGN} {text}"
    if len(kinds) > 10:
        yield f"and {len(kinds) - 10} more kinds of error."
    if tally.other_lines:
        yield _other_lines(tally)
    if tally.without_time:
        yield f"{count(tally.without_time, 'row')} without a time left out."
    if tally.without_prompt:
        yield f"{count(tally.without_prompt, 'row')} that name no prompt left out."
    if older:
        names = older[0] if len(older) == 1 else f"{older[-1]} … {older[0]}"
        yield f"Older rows are in {names}: --rotated shows them too."


def _other_lines(tally: LogTally) -> str:
    lines = "1 line is" if tally.other_lines == 1 else f"{tally.other_lines} lines are"
    return f"{lines} no JSON object; the first is {tally.first_other}"


# --- columns and lines


def _columns(width: int | None) -> tuple[int, int]:
    """Of event and node."""
    spare = 40 if width is None else width - _NARROWEST
    return _EVENT + min(8, spare // 4), _NODE + min(25, spare // 2)


def _cells_of_heads(width: int | None) -> str:
    event, node = _columns(width)
    first = f"{'time':<{_TIME}} {'who':<{_WHO}} {'event':<{event}} {'prompt':<{PROMPT}}"
    return f"{first} {'node':<{node}} {'took':>{_TOOK}} what"


def _cell(text: str, columns: int, width: int | None) -> str:
    """The text, cut where the terminal has no room for it."""
    line = clean(text, columns if width is not None else LONGEST)
    return f"{line:<{columns}}"


def _time(utc: datetime | None, width: int | None) -> str:
    """Local; a line that stands alone has the day too."""
    if utc is None:
        return f"{'no time':<{_TIME if width is not None else 23}}"
    local = utc.astimezone()
    day = "" if width is not None else f"{local:%Y-%m-%d} "
    return f"{day}{local:%H:%M:%S}.{local.microsecond // 1000:03}"


def _as_json(value: dict[str, Any]) -> str:
    """One line; signs that a terminal would obey are written as escapes."""
    try:
        text = msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, OverflowError, ValueError):  # a number longer than 64 bits
        text = json.dumps(value, ensure_ascii=False, default=str)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", lambda sign: f"\\u{ord(sign[0]):04x}", text)


def _length(line: Parts) -> int:
    return sum(len(text) for text, _ in line)
