"""A run as CSV: a line for each job, for spreadsheets and everything else."""

import csv
from datetime import datetime
from pathlib import Path
from typing import Any

from comfyload.record.atomic import written_aside
from comfyload.record.codec import encode, printable
from comfyload.record.model import Manifest
from comfyload.report.export.table import Lines, columns, rows

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, manifest: Manifest, lines: Lines) -> int:
    """Write a header and a line for each job to `path`, in UTF-8; returns how many jobs.

    Not known is an empty cell, a flag `true` or `false`, a list JSON. A text that a spreadsheet would take for a
    formula begins with an apostrophe: what servers and workflows write is not to be run.

    Raises:
        UsageError: it cannot be written there.
    """
    found, count = columns(lines), 0
    names = [printable(column.name) for column in found]
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_cell(name) for name in names])
        for job in rows(manifest, lines, found):
            writer.writerow([_cell(job[name]) for name in names])
            count += 1
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return encode(value).decode() if value else None
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
