"""Reads a table of values for the jobs: CSV or JSON whose columns are `NODE.INPUT`."""

import csv
import io
import json
import re
from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from comfyload.errors import UsageError
from comfyload.workflow.reading import RepeatedKey, decoded

_SEPARATOR = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_NAMES = {";": "semicolons", "\t": "tabs", ",": "commas"}


class DataTable(Struct, frozen=True, kw_only=True):
    """One row per job, in order, and again from the start after the last one.

    `columns` are `NODE.INPUT`; `lines`: the rows' places in the file, for messages. `decimal_comma`: in a file whose
    fields are not separated by commas, `0,5` is a number.
    """

    source: str
    columns: list[str]
    rows: list[list[Any]]
    lines: list[int]
    decimal_comma: bool = False
    unit: Literal["line", "row"] = "line"

    def column(self, name: str) -> list[Any]:
        """The values of a column, one a row."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def place(self, row: int) -> str:
        """The place of a row in the file, for messages."""
        return f"{self.source}, {self.unit} {self.lines[row]}"


def parse_table(text: str, source: str) -> DataTable:
    """Read a table: JSON if its first letter is `{` or `[`, else fields separated by commas, semicolons or tabs.

    Raises:
        UsageError: it is empty, a line does not fit the others, or two columns have one name.
    """
    text = text.removeprefix("\ufeff")
    first = text.lstrip()[:1]
    table = _json_table(text, source) if first in ("{", "[") and first else _csv_table(text, source)
    if not table.rows:
        raise UsageError(f"{source} holds no rows", "give a header of NODE.INPUT and a row for each job")
    return table


def _json_table(text: str, source: str) -> DataTable:
    """JSON lines, or one array of objects."""
    unit: Literal["line", "row"] = "row" if text.lstrip().startswith("[") else "line"
    values: Iterable[tuple[int, Any]]
    if unit == "row":
        values = enumerate(_decoded(text, source, 1), 1)
    else:
        lines = ((number, line) for number, line in enumerate(_lines(text), 1) if line.strip())
        values = ((number, _decoded(line, source, number)) for number, line in lines)
    found: dict[int, dict[str, Any]] = {}
    columns: list[str] = []
    for number, row in values:
        if not isinstance(row, dict):
            raise UsageError(f"{source}, {unit} {number} is not a JSON object", 'write {"6.text": "a fox"}')
        columns = columns if found else list(row)
        if row.keys() != set(columns):
            other = [f"{name} is missing" for name in columns if name not in row]
            other += [f"{name} is new" for name in row if name not in columns]
            raise UsageError(
                f"{source}, {unit} {number} has other keys than the first row ({', '.join(other[:3])})",
                "give every row the same keys",
            )
        found[number] = row
    rows = [[row[column] for column in columns] for row in found.values()]
    return DataTable(source=source, columns=columns, rows=rows, lines=list(found), unit=unit)


def _decoded(text: str, source: str, line: int) -> Any:
    try:
        return decoded(text)
    except RepeatedKey as repeated:
        key = json.dumps(str(repeated), ensure_ascii=False)
        raise UsageError(f"{source}, line {line} has the key {key} twice", "leave one out") from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
        raise UsageError(f"{source}, line {line} is not JSON: {reason}", 'write {"6.text": "a fox"}') from None


def _csv_table(text: str, source: str) -> DataTable:
    text, delimiter, skipped = _separator(text)
    header, records = _records(text, delimiter, source, skipped)
    rows: list[list[Any]] = []
    lines: list[int] = []
    for line, record in records:
        if len(record) != len(header):
            fields = "1 field" if len(record) == 1 else f"{len(record)} fields"
            quoted = f'quote texts that hold {_NAMES.get(delimiter, "the separator")}: "a fox{delimiter} reading"'
            raise UsageError(
                f"{source}, line {line} has {fields} where the header has {len(header)}",
                quoted if len(record) > len(header) else "write a value for each column",
            )
        rows.append(record)
        lines.append(line)
    kept = _named_columns(header, rows, source)
    return DataTable(
        source=source,
        columns=[header[place] for place in kept],
        rows=[[row[place] for place in kept] for row in rows],
        lines=lines,
        decimal_comma=delimiter != ",",
    )


def _separator(text: str) -> tuple[str, str, int]:
    """The text after a line `sep=;` as spreadsheets write it, the separator, and how many lines were skipped.

    Without that line, it is what splits the header into the most fields.
    """
    lines = _lines(text)
    line = _SEPARATOR.fullmatch(lines[0])
    if line is not None:
        return text[len(lines[0]) :].lstrip("\r\n"), line[1], 1
    header = next((line for line in lines if line.strip()), "")
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in (",", ";", "\t")}
    return text, max(counts, key=lambda mark: counts[mark]), 0


def _records(text: str, delimiter: str, source: str, skipped: int) -> tuple[list[str], list[tuple[int, list[Any]]]]:
    """The header, and each record with the line on which it ends; blank lines are skipped."""
    spaced = f"{delimiter} " in _lines(text.lstrip())[0]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter, skipinitialspace=spaced)
    try:
        found = [(reader.line_num + skipped, record) for record in reader if any(field.strip() for field in record)]
    except csv.Error as error:
        reason = "a quoted field is not closed" if "end of data" in str(error) else str(error)
        raise UsageError(
            f"{source}, line {reader.line_num + skipped}: {reason}", "give a CSV with a header of NODE.INPUT"
        ) from None
    if not found:
        return [], []
    return [name.strip() for name in found[0][1]], found[1:]


def _lines(text: str) -> list[str]:
    # Not splitlines(): a prompt may hold a line separator of Unicode.
    return re.split(r"\r\n|\n|\r", text)


def _named_columns(header: list[str], rows: list[list[Any]], source: str) -> list[int]:
    """The places of the columns that have a name; one without a name is skipped if it is empty."""
    for place, name in enumerate(header):
        if not name and any(row[place].strip() for row in rows):
            raise UsageError(f"{source}: column {place + 1} has no name", "name it NODE.INPUT, or remove it")
        if name and name in header[:place]:
            raise UsageError(f"{source} has two columns {name!r}", "leave one out")
    return [place for place, name in enumerate(header) if name]
