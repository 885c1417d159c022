"""How the rows of the instrumentation log are printed: each on one line, or as JSON."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from rich.text import Text

from comfyload.judge.columns.ledger import clean
from comfyload.record.metrics.log import LogRow
from comfyload.report.console import Screen, draw
from comfyload.report.log_text import LONGEST, PROMPT, kind_of_error, log_text, milliseconds, node_words
from comfyload.words import DASH, count, in_code_page, is_unicode

_EVENT = 14
"""Columns of an event; a longer one pushes what follows."""

_KINDS = 200
"""Distinct errors that are counted apart, and prompts of which a node's error is remembered."""


class LogTally(Struct, kw_only=True):
    """Counts of what was read. `rows`: of the time and prompt that were chosen; `samples` of them were left out."""

    rows: int = 0
    shown: int = 0
    samples: int = 0
    without_time: int = 0
    other_lines: int = 0
    first_other: str = ""
    nodes: dict[str, str] = msgspec.field(default_factory=dict)
    _kinds: Counter[str] = msgspec.field(default_factory=Counter)

    def no_row(self, place: str, line: bytes) -> None:
        """Count a line that is not a row."""
        self.other_lines += 1
        self.first_other = self.first_other or f"{place}: {clean(line[:400].decode(errors='replace'), 60)}"

    def error(self, row: LogRow) -> None:
        """Count an error by its kind: a node's only where the end of its prompt does not repeat it."""
        if row.seq is not None and row.event == "node" and row.prompt_id and len(self.nodes) < _KINDS:
            self.nodes[row.prompt_id] = kind_of_error(row)
            return
        if row.event == "prompt.ended":
            self.nodes.pop(row.prompt_id or "", None)
        one = clean(kind_of_error(row), 100)
        self._kinds[one if one in self._kinds or len(self._kinds) < _KINDS else "others"] += 1

    @property
    def kinds(self) -> Counter[str]:
        """Errors by kind."""
        return self._kinds + Counter(clean(text, 100) for text in self.nodes.values())


class Printer:
    """Prints rows as lines or as JSON; on a terminal in colour, with the day on a line of its own."""

    def __init__(self, console: Screen, *, as_json: bool) -> None:
        self._console, self._json = console, as_json
        self._terminal = console.is_terminal and not as_json
        self._day = ""

    def row(self, row: LogRow, tally: LogTally) -> None:
        """Print the row, and count it."""
        tally.shown += 1
        if row.error is not None:
            tally.error(row)
        if self._json:
            self._write(Text(_as_json(row.raw, ascii_=not is_unicode(self._console.encoding))))
            return
        local = None if row.utc is None else row.utc.astimezone()
        if self._terminal and local is not None and (day := _day(local)) != self._day:
            self._day = day
            self._write(Text(day, style="bold"))
        self._write(_line(row, local, day=not self._terminal))

    def end(self, tally: LogTally, older: Sequence[str]) -> None:
        """Print the counts on a terminal, elsewhere only what could not be read, on standard error.

        `older`: files that were not read.
        """
        if self._terminal:
            for line in _summary(tally, older):
                self._write(Text(line, style="bold red" if line.startswith("ERROR") else "dim"))
            self.flush()
        elif tally.other_lines:
            self.say(_other_lines(tally))

    def say(self, text: str) -> None:
        """Print something that is not of the log, on standard error."""
        Screen(stderr=True, highlight=False, soft_wrap=True).print(Text(clean(text, LONGEST), style="dim"))

    def flush(self) -> None:
        """Flush the output."""
        try:
            self._console.file.flush()
        except BrokenPipeError:
            self._console.on_broken_pipe()

    def _write(self, line: Text) -> None:
        if self._terminal:
            draw(line, self._console)
            return
        text = in_code_page(line.plain.rstrip(" "), self._console.encoding)
        try:
            self._console.file.write(f"{text}\n")
        except BrokenPipeError:
            self._console.on_broken_pipe()


def _line(row: LogRow, local: datetime | None, *, day: bool) -> Text:
    """Time, event, prompt; then node, duration, status and everything else."""
    words = log_text(row)
    line = Text().append(f"{_time(local, day=day)} ", style="dim")
    line.append(f"{clean(row.event or DASH, LONGEST):<{_EVENT}} ", style="bold" if row.error else "")
    line.append(f"{clean(row.prompt_id or '', 100)[:PROMPT]:<{PROMPT}}", style="dim")
    for part in (clean(node_words(row), LONGEST), milliseconds(row.raw.get("duration_ms"))):
        line.append(f" {part}" if part else "")
    line.append(f" {words.word}" if words.word else "", style=words.style)
    return line.append(f" {words.more}" if words.more else "", style="red" if row.error else "dim")


def _time(local: datetime | None, *, day: bool) -> str:
    if local is None:
        return f"{'no time':<{23 if day else 12}}"
    return f"{local:%Y-%m-%d %H:%M:%S}.{local:%f}"[0 if day else 11 : 23]


def _day(local: datetime) -> str:
    offset = f"{local:%z}"
    return f"{local:%Y-%m-%d}, local time (UTC{offset[:3]}:{offset[3:5]})"


def _summary(tally: LogTally, older: Sequence[str]) -> Iterator[str]:
    hidden = f", {count(tally.samples, 'sample')} left out (--samples)" if tally.samples else ""
    kinds = tally.kinds
    errors = kinds.total()
    yield f"{tally.shown} of {count(tally.rows, 'row')}{hidden}; {count(errors, 'error') if errors else 'no error'}."
    for text, number in kinds.most_common(10):
        yield f"ERROR {number} \N{MULTIPLICATION SIGN} {text}"
    if len(kinds) > 10:
        yield f"and {len(kinds) - 10} more kinds of error."
    if tally.other_lines:
        yield _other_lines(tally)
    if tally.without_time:
        yield f"{count(tally.without_time, 'row')} without a time left out."
    if older:
        names = older[0] if len(older) == 1 else f"{older[-1]} to {older[0]}"
        yield f"Older rows are in {names}: --rotated shows them too."


def _other_lines(tally: LogTally) -> str:
    return f"{count(tally.other_lines, 'line')} without a JSON object; the first is {tally.first_other}"


def _as_json(value: dict[str, Any], *, ascii_: bool) -> str:
    """One line; signs that a terminal would obey, and with `ascii_` all that are not ASCII, are escapes."""
    try:
        text = msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, OverflowError, ValueError):  # a number longer than 64 bits
        text = json.dumps(value, ensure_ascii=False, default=str)
    signs = r"[^\x00-\x7e]" if ascii_ else r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
    return re.sub(signs, lambda sign: json.dumps(sign[0])[1:-1], text)
