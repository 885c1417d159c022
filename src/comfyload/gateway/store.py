"""What must survive the process: the jobs that have not ended, with what it takes to run them, and what clients may
still ask about those that have.

In one file, by SQLite: a job is on disk before its client hears that it was accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.ids import is_uuid
from comfyload.errors import RunFilesError
from comfyload.gateway.database import LONG, Database
from comfyload.gateway.job import State

FORMAT = 2
MOST_FILES = 1_000_000
"""Files of which is known whose jobs made them, where tenants are kept apart."""

KEPT = 10_000
"""Jobs that have ended and can still be looked up, as many as ComfyUI remembers; those that need attention besides."""

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  client_id TEXT,
  created_ms INTEGER NOT NULL,
  taken_ms INTEGER NOT NULL,
  number REAL NOT NULL,
  state TEXT NOT NULL,
  workflow TEXT NOT NULL,
  deadline_s REAL,
  key TEXT,
  digest BLOB NOT NULL,
  node_errors BLOB,
  extra BLOB NOT NULL,
  targets BLOB NOT NULL,
  begun INTEGER NOT NULL DEFAULT 0,
  server TEXT NOT NULL DEFAULT '',
  started_ms INTEGER,
  cancelled INTEGER NOT NULL DEFAULT 0,
  attention INTEGER NOT NULL DEFAULT 0,
  again INTEGER NOT NULL DEFAULT 0,
  forgotten INTEGER NOT NULL DEFAULT 0,
  item BLOB,
  entry BLOB
);
-- What is large is in a table of its own, since SQLite reads and writes a row as a whole.
CREATE TABLE IF NOT EXISTS graphs (seq INTEGER PRIMARY KEY, graph BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS with_job AFTER DELETE ON jobs BEGIN DELETE FROM graphs WHERE seq = old.seq; END;
CREATE UNIQUE INDEX IF NOT EXISTS by_key ON jobs (tenant, key) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_state ON jobs (tenant, state, seq);
CREATE INDEX IF NOT EXISTS needing ON jobs (attention) WHERE attention;
CREATE TABLE IF NOT EXISTS files (seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS by_name ON files (tenant, name);
"""


class Row(Struct, kw_only=True, gc=False):
    """One job as it is kept. `item`: its form in `/api/jobs`; `entry`: in `/history`; both JSON, of an ended job.

    `created_ms`: when it came, as the wall clock showed it; `taken_ms`: the same by the steady clock.

    `begun`: it may be on a server: on that `server`, if it was not lost there. `started_ms`: when one began to work on
    it. `cancelled`: its client wants it no more. `attention`: it failed for good, and nobody has sent it again yet.
    `again`: how often it was. `forgotten`: its client wants to see it no more. `digest`: of what was posted. `extra`:
    its `extra_data`, without secrets.
    """

    id: str
    tenant: str
    client_id: str | None
    created_ms: int
    taken_ms: int
    number: float
    workflow: str
    deadline_s: float | None
    key: str | None
    digest: bytes
    graph: bytes
    extra: bytes
    targets: bytes = b""
    state: State = "pending"
    node_errors: bytes | None = None
    begun: bool = False
    server: str = ""
    started_ms: int | None = None
    cancelled: bool = False
    attention: bool = False
    again: int = 0
    forgotten: bool = False
    item: bytes | None = None
    entry: bytes | None = None
    seq: int | None = None


_COLUMNS = tuple(name for name in Row.__struct_fields__ if name != "graph")
_INSERT = f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT {', '.join(_COLUMNS)}, coalesce(graph, x'') FROM jobs LEFT JOIN graphs USING (seq)"
_OPEN = "state IN ('pending', 'in_progress')"
_SEEN = f"NOT {_OPEN} AND NOT forgotten"
_NEEDS = {None: "", True: " AND attention AND attention = 1", False: " AND NOT attention"}
"""Said twice, the index of those that need it is used, and has them in order."""


class Store:
    """The file `jobs.sqlite`, made if it is missing.

    Raises:
        RunFilesError: it cannot be read or written, from any method.
    """

    def __init__(self, path: Path) -> None:
        self._ended = 0
        self._addresses: dict[str, str] = {}
        self._db = Database(path, _TABLE, "jobs", _COLUMNS, FORMAT)

    def close(self) -> None:
        self._db.close()

    def number(self, name: str, default: int) -> int:
        """A whole number that was set under the name."""
        return self._db.number(name, default)

    def set_fact(self, name: str, value: float | str) -> None:
        self._db.set_fact(name, value)

    def add(self, row: Row) -> None:
        long = len(row.graph) > LONG
        with self._db.whole():
            seq = self._db.execute(_INSERT, tuple(getattr(row, name) for name in _COLUMNS)).lastrowid or 0
            graph = ("zeroblob(?)", len(row.graph)) if long else ("?", row.graph)
            self._db.execute(f"INSERT INTO graphs VALUES (?, {graph[0]})", (seq, graph[1]))
            if long:
                self._db.write_long("graphs", "graph", seq, row.graph)

    def drop(self, job_id: str, owed: bytes = b"") -> None:
        """The job was refused, or removed before it ran: it never was. `owed`: what is still to be written of it."""
        with self._db.whole():
            self._owe(owed)
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    @property
    def owed(self) -> bytes:
        """What was to be written elsewhere when the last job ended; it may have been, or not."""
        return bytes(self._db.fact("owed") or b"")

    def _owe(self, owed: bytes) -> None:
        if owed:
            self._db.set_fact("owed", owed)

    def began(self, job_id: str, server: str, address: str) -> None:
        """From now on it may be on that server, at that address."""
        if self._addresses.get(server) != address:
            self.set_fact(f"address of {server}", address)
            self._addresses[server] = address
        self._db.execute("UPDATE jobs SET begun = 1, server = ? WHERE id = ?", (server, job_id))

    def holders(self) -> dict[str, str]:
        """The servers that may have jobs which have not ended, and their addresses."""
        found = self._db.rows(f"SELECT DISTINCT server FROM jobs WHERE {_OPEN} AND begun AND server != ''")
        return {name: str(self._db.fact(f"address of {name}") or "") for (name,) in list(found)}

    def started(self, job_id: str, at_ms: int) -> None:
        """A server works on it."""
        self._db.execute("UPDATE jobs SET state = 'in_progress', started_ms = ? WHERE id = ?", (at_ms, job_id))

    def cancel(self, job_id: str) -> None:
        """Its client wants it no more."""
        self._db.execute("UPDATE jobs SET cancelled = 1 WHERE id = ?", (job_id,))

    def noted(self, job_id: str, node_errors: bytes) -> None:
        """Some outputs of the job will not run."""
        self._db.execute("UPDATE jobs SET node_errors = ? WHERE id = ?", (node_errors, job_id))

    def end(
        self,
        job_id: str,
        state: State,
        item: bytes,
        entry: bytes,
        *,
        attention: bool,
        keep_payload: bool,
        owed: bytes = b"",
    ) -> None:
        """The job has ended. `keep_payload`: what it takes to run it again is kept. `owed`: what is still to be written
        of it elsewhere.
        """
        payload = "" if keep_payload else ", extra = x'', targets = x''"
        with self._db.whole():
            self._owe(owed)
            self._db.execute(
                f"UPDATE jobs SET state = ?, item = ?, entry = ?, attention = ?{payload} WHERE id = ?",
                (state, item, entry, attention, job_id),
            )
            if not keep_payload:
                self._db.execute("DELETE FROM graphs WHERE seq = (SELECT seq FROM jobs WHERE id = ?)", (job_id,))
            self._ended += 1
            if self._ended % 100 == 0:
                self._db.execute(
                    f"DELETE FROM jobs WHERE NOT {_OPEN} AND NOT attention AND seq <= "
                    f"(SELECT seq FROM jobs WHERE NOT {_OPEN} ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                    (KEPT,),
                )

    def own(self, tenant: str, names: Iterable[str]) -> None:
        """The tenant's jobs made these files."""
        for name in names:
            text = name.encode("utf-8", "replace").decode()
            self._db.execute("INSERT OR IGNORE INTO files (tenant, name) VALUES (?, ?)", (tenant, text))
        self._db.execute("DELETE FROM files WHERE seq <= (SELECT max(seq) FROM files) - ?", (MOST_FILES,))

    def owns(self, tenant: str, name: str) -> bool:
        text = name.encode("utf-8", "replace").decode()
        return self._db.one("SELECT 1 FROM files WHERE tenant = ? AND name = ?", (tenant, text)) is not None

    def forget(self, job_id: str) -> None:
        """Its client wants to see the job no more; one that needs attention is kept for those who give it."""
        self._db.execute("UPDATE jobs SET forgotten = 1 WHERE id = ? AND attention", (job_id,))
        self._db.execute("DELETE FROM jobs WHERE id = ? AND NOT attention", (job_id,))

    def attended(self, job_id: str, again: int | None = None) -> None:
        """Somebody does not want the job, or sent it again, for the so many-th time."""
        self._db.execute("UPDATE jobs SET attention = 0, again = coalesce(?, again) WHERE id = ?", (again, job_id))

    def needing(self, tenant: str | None) -> list[str]:
        """The ids of jobs that need attention, of one tenant or all, the oldest first."""
        where, values = ("", ()) if tenant is None else (" AND tenant = ?", (tenant,))
        return [
            job_id for (job_id,) in self._db.rows(f"SELECT id FROM jobs WHERE attention{where} ORDER BY seq", values)
        ]

    def newest(
        self, tenant: str | None, states: Collection[str], *, attention: bool | None = None, limit: int, offset: int
    ) -> tuple[list[Row], int]:
        """Jobs that have ended in one of these states, the newest first, and how many there are in all. `attention`:
        only those that need it, or only those that do not; None: both.
        """
        where = f"WHERE NOT {_OPEN} AND state IN ({', '.join('?' * len(states))})"
        where += " AND tenant = ?" if tenant is not None else ""
        values = [*states, *([tenant] if tenant is not None else [])]

        def number(needing: bool | None) -> int:
            return int(self._db.one(f"SELECT count(*) FROM jobs {where}{_NEEDS[needing]}", values)[0])

        # Those that need none are the others: to count them one by one would be to read every row.
        many = number(None) - number(True) if attention is False else number(attention)
        rows = self._rows(f"{where}{_NEEDS[attention]} ORDER BY seq DESC LIMIT ? OFFSET ?", *values, limit, offset)
        return list(rows), many

    def counts(self, tenant: str | None) -> dict[str, int]:
        """How many jobs are in each state, of one tenant or all, at one instant."""
        where, values = ("", ()) if tenant is None else ("WHERE tenant = ? ", (tenant,))
        return dict(self._db.rows(f"SELECT state, count(*) FROM jobs {where}GROUP BY state", values))

    def find(self, job_id: str) -> Row | None:
        # An id with bytes that are no text is nobody's, and the file cannot hold it.
        return next(self._rows("WHERE id = ?", job_id), None) if is_uuid(job_id) else None

    def find_key(self, tenant: str, key: str) -> Row | None:
        """The job that the tenant sent with that key."""
        return next(self._rows("WHERE tenant = ? AND key = ?", tenant, key), None)

    def unended(self) -> Iterator[Row]:
        """In the order in which they came."""
        return self._rows(f"WHERE {_OPEN} ORDER BY seq")

    def ended(self, tenant: str | None, *, newest: int | None = None, attention: bool = False) -> list[Row]:
        """Of one tenant or all, the oldest first; `newest`: so many of the newest."""
        where = f"WHERE NOT {_OPEN}" + (" AND attention" if attention else "")
        where += " AND tenant = ?" if tenant is not None else ""
        found = self._rows(
            f"{where} ORDER BY seq DESC LIMIT ?", *([tenant] if tenant is not None else []), newest or -1
        )
        return list(found)[::-1]

    def ids(self, tenant: str) -> list[str]:
        """Of the tenant's jobs that have ended and that it has not forgotten, the oldest first."""
        found = self._db.rows(f"SELECT id FROM jobs WHERE tenant = ? AND {_SEEN} ORDER BY seq", (tenant,))
        return [job_id for (job_id,) in found]

    def entry(self, job_id: str, tenant: str) -> bytes | None:
        """As `/history` shows a job of the tenant that has ended and that it has not forgotten."""
        if not is_uuid(job_id):  # an id with bytes that are no text is nobody's, and the file cannot hold it
            return None
        found = self._db.one(f"SELECT entry FROM jobs WHERE id = ? AND tenant = ? AND {_SEEN}", (job_id, tenant))
        return None if found is None else found[0]

    def items(self, tenant: str) -> Iterator[bytes]:
        """The jobs that have ended and that the tenant has not forgotten, in the form of `/api/jobs`."""
        for (item,) in self._db.rows(f"SELECT item FROM jobs WHERE tenant = ? AND {_SEEN}", (tenant,)):
            yield item

    def needing_attention(self) -> int:
        """How many jobs do."""
        return int(self._db.one("SELECT count(*) FROM jobs WHERE attention")[0])

    def payload(self, job_id: str) -> tuple[bytes, bytes, bytes]:
        """The graph of a job, its `extra_data`, and its targets."""
        found = self._db.one(
            "SELECT iif(length(graph) <= ?, graph, NULL), length(graph), extra, targets, seq "
            "FROM jobs LEFT JOIN graphs USING (seq) WHERE id = ?",
            (LONG, job_id),
        )
        if found is None:
            return b"", b"", b""
        graph, length, extra, targets, seq = found
        if graph is None and length is not None:
            graph = self._db.read_long("graphs", "graph", seq)
        return graph or b"", extra, targets

    def extra(self, job_id: str) -> tuple[bytes, bytes]:
        """The `extra_data` of a job, and its targets."""
        return self._db.one("SELECT extra, targets FROM jobs WHERE id = ?", (job_id,)) or (b"", b"")

    def _rows(self, where: str, *values: object) -> Iterator[Row]:
        for *found, graph in self._db.rows(f"{_SELECT} {where}", values):
            row = dict(zip(_COLUMNS, found, strict=True)) | {"graph": graph}
            row |= {name: bool(row[name]) for name in ("begun", "cancelled", "attention", "forgotten")}
            try:
                yield msgspec.convert(row, Row, builtin_types=(bytes,))
            except msgspec.ValidationError as error:
                raise self._db.damaged(f"job {row['id']!r:.60}: {error}") from None

    def damaged(self, job_id: str) -> RunFilesError:
        """What a job was to run cannot be read."""
        return self._db.damaged(f"job {job_id} has no graph")
