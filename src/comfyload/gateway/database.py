"""One file of SQLite: what was written outlives the process, and each of its errors is one of ours; and facts in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfyload.errors import RunFilesError

LONG = 1 << 20
"""Bytes of a value from which on it is written and read past SQLite's rows, which would be copied twice more."""


class Database:
    """The file, made if it is missing. `table`: a table that is checked to be ours, and the columns that it must have.

    Raises:
        RunFilesError: it cannot be read or written, from any method.
    """

    def __init__(self, path: Path, schema: str, table: str, columns: Sequence[str], form: int) -> None:
        self._path = path
        with self._errors():
            self._connection = sqlite3.connect(path, isolation_level=None)
            # A commit is on its way to the disk when it returns, which outlives the process; not every power cut.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("PRAGMA secure_delete=ON")
            there = {column for _, column, *_ in self._connection.execute(f"PRAGMA table_info({table})")}
            lacking = [column for column in columns if column not in there] if there else []
            if lacking:
                raise self._of_another_version(f"its {table} have no {', '.join(lacking)}")
            self._connection.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
            found = self.number("format", form)
            if found != form:
                raise self._of_another_version(f"it has format {found}, and this comfyload reads {form}")
            self._connection.executescript(schema)
            self.set_fact("format", form)

    def close(self) -> None:
        with self._errors():
            self._connection.close()

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        with self._errors():
            return self._connection.execute(statement, values)

    def one(self, query: str, values: Sequence[object] = ()) -> Any:
        """The first row; None: there is none."""
        return next(self.rows(query, values), None)

    def rows(self, query: str, values: Sequence[object] = ()) -> Iterator[Any]:
        with self._errors():
            yield from self._connection.execute(query, values)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All that is written within the block is on disk afterwards, or nothing."""
        with self._errors():
            self._connection.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def write_long(self, table: str, column: str, seq: int, content: bytes) -> None:
        """Write over a value of the same length."""
        with self._errors(), self._connection.blobopen(table, column, seq) as blob, memoryview(content) as whole:
            for at in range(0, len(whole), LONG):
                blob.write(whole[at : at + LONG])

    def read_long(self, table: str, column: str, seq: int) -> bytes:
        with self._errors(), self._connection.blobopen(table, column, seq, readonly=True) as blob:
            return blob.read()

    def fact(self, name: str) -> Any:
        """What was set under the name; None: nothing was."""
        found = self.one("SELECT value FROM facts WHERE name = ?", (name,))
        return None if found is None else found[0]

    def number(self, name: str, default: int) -> int:
        """A fact that is a whole number."""
        found = self.fact(name)
        if found is not None and not isinstance(found, int):
            raise self.damaged(f"{name} is {found!r:.40}")
        return default if found is None else found

    def set_fact(self, name: str, value: float | str | bytes) -> None:
        self.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def damaged(self, why: str) -> RunFilesError:
        return RunFilesError(
            f"{self._path} is damaged: {why}", "move it away; what has ended is in the run directories"
        )

    def _of_another_version(self, why: str) -> RunFilesError:
        return RunFilesError(
            f"{self._path} is of another version: {why}", "move it away; what has ended is in the run directories"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:  # of a damaged file even the fault may be no text
            text = f"cannot use {self._path}: {error}"
            raise RunFilesError(text, "is the disk full, or the file damaged or not ours?") from None
