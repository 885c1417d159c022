"""Values from a table, so that each job has its own prompt: a CSV or JSON lines whose columns are `NODE.INPUT`."""

from __future__ import annotations

import csv
import json
from typing import Any

from comfyload.errors import UsageError

__all__ = ["Rows", "parse_rows"]

Rows = list[dict[str, Any]]
"""One object a job, taken in order and from the start again when they run out; keys are `NODE.INPUT`."""


def parse_rows(text: str, source: str) -> Rows:
    """Read a table: JSON lines if its first letter is `{`, CSV with a header otherwise.

    Raises:
        UsageError: it is empty, or a line is not as the others.
    """
    text = text.removeprefix("\ufeff")
    rows = _json_lines(text, source) if text.lstrip().startswith("{") else _csv(text, source)
    if not rows:
        raise UsageError(f"{source} holds no rows", "give a header of NODE.INPUT and a row for each job")
    return rows


def _json_lines(text: str, source: str) -> Rows:
    rows: Rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or (rows and row.keys() != rows[0].keys()):
            raise UsageError(f"{source}, line {number} is no object with the same keys", 'write {"6.text": "a fox"}')
        rows.append(row)
    return rows


def _csv(text: str, source: str) -> Rows:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        rows: Rows = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UsageError(
                    f"{source}, line {reader.line_num} has {len(row)} fields where the header has {len(header)}",
                    'quote texts that hold commas: "a fox, reading"',
                )
            rows.append(dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise UsageError(
            f"{source}, line {reader.line_num}: {error}", "give a CSV with a header of NODE.INPUT"
        ) from None
    return rows
