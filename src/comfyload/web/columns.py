"""The jobs of a run as growing columns of numbers, some 90 bytes a job whatever a record holds."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from comfyload.judge.arrays import Floats
from comfyload.record.codec import printable
from comfyload.record.model import FailureKind

KINDS: tuple[str, ...] = ("", *get_args(FailureKind))
"""Of failures; a job's `kind` is a place in it, 0: it has none."""

OTHERS = "(others)"
"""Stands for names beyond those that are kept apart."""

NO_NAME = 0xFFFF
"""A number that no name has."""

_TYPES: dict[str, Any] = {
    "index": np.int64,
    "due": np.float64,
    "sent": np.float64,
    "done": np.float64,
    "queue_wait": np.float32,
    "execution": np.float32,
    "book": np.int64,
    "offset": np.int64,
    "id_head": np.uint64,
    "message": np.uint32,
    "workflow": np.uint16,
    "server": np.uint16,
    "node": np.uint16,
    "attempt": np.uint16,
    "kind": np.uint8,
    "fine": np.uint8,
    "warmup": np.bool_,
}
_EMPTY: dict[str, Any] = dict.fromkeys(("due", "sent", "done", "queue_wait", "execution"), np.nan) | {"book": -1}
_MORE = 8
"""Columns grow by a part of so many, so that little of them is empty."""


class Names:
    """Texts that many jobs share, each kept once and printable, under a number from 0; beyond `most` all are OTHERS."""

    def __init__(self, most: int, *first: str) -> None:
        self.texts = list(first)
        self._most = most
        self._numbers = {text: number for number, text in enumerate(first)}

    def number(self, text: str) -> int:
        found = self._numbers.get(text)
        if found is None:
            text = printable(text)
            if len(self.texts) >= self._most:
                text = OTHERS
            found = self._numbers.setdefault(text, len(self.texts))
            if found == len(self.texts):
                self.texts.append(text)
        return found

    def find(self, text: str) -> int:
        """Its number; -1 if no job has it."""
        return self._numbers.get(text, -1)


class GrowingColumns:
    """One row a job, in the order in which the journal names them first. NaN is not known, book -1 of no book.

    `due`, `sent`, `done`: instants of the run; `queue_wait`, `execution`: seconds by the server's clock. `fine`: how it
    ended, a place in `states.STATES`, 0 for a job that has no record. `attempt`: how often it was sent, by its record.
    `offset`: of its line in the journal. `id_head`: the first 16 hexadecimal digits of its id.
    """

    index: NDArray[np.int64]
    due: Floats
    sent: Floats
    done: Floats
    queue_wait: NDArray[np.float32]
    execution: NDArray[np.float32]
    book: NDArray[np.int64]
    offset: NDArray[np.int64]
    id_head: NDArray[np.uint64]
    message: NDArray[np.uint32]
    workflow: NDArray[np.uint16]
    server: NDArray[np.uint16]
    node: NDArray[np.uint16]
    attempt: NDArray[np.uint16]
    kind: NDArray[np.uint8]
    fine: NDArray[np.uint8]
    warmup: NDArray[np.bool_]

    def __init__(self) -> None:
        self.n = 0
        self._whole: dict[str, NDArray[Any]] = {name: np.empty(0, kind) for name, kind in _TYPES.items()}
        self._row_of = np.empty(0, np.int32)
        self._rows_far: dict[int, int] = {}
        self._show()

    @property
    def latency(self) -> Floats:
        """From due to done, in seconds; NaN of a job that has no end, or a clock that was set back."""
        seconds = self.done - self.due
        seconds[seconds < 0] = np.nan
        return seconds

    @property
    def nbytes(self) -> int:
        """Memory of all of it, about."""
        return sum(each.nbytes for each in self._whole.values()) + self._row_of.nbytes + 100 * len(self._rows_far)

    def row(self, index: int) -> int:
        """The row of a job; -1: it is not known."""
        if 0 <= index < len(self._row_of) and self._row_of[index] >= 0:
            return int(self._row_of[index])
        return self._rows_far.get(index, -1)

    def rows(self, indexes: Sequence[int]) -> NDArray[np.int64]:
        """The row of each of these jobs; those that are not known get one."""
        given = np.array(indexes, np.int64)
        self._make_room_for(given)
        near = given < len(self._row_of)
        found = np.full(len(given), -1, np.int64)
        found[near] = self._row_of[given[near]]
        if self._rows_far:  # a job that was far beyond the others once may not be any more
            missing = found < 0
            found[missing] = [self._rows_far.get(index, -1) for index in given[missing].tolist()]
        if (found < 0).any():
            new, first, of_new = np.unique(given[found < 0], return_index=True, return_inverse=True)
            rows = np.empty(len(new), np.int64)
            rows[np.argsort(first)] = np.arange(self.n, self.n + len(new))
            found[found < 0] = rows[of_new]
            near = new < len(self._row_of)
            self._row_of[new[near]] = rows[near]
            self._rows_far.update(zip(new[~near].tolist(), rows[~near].tolist(), strict=True))
            self._grow(self.n + len(new))
            self.index[rows] = new
        return found

    def put(self, name: str, rows: NDArray[np.int64] | int, values: Any) -> None:
        self._whole[name][rows] = values

    def _make_room_for(self, indexes: NDArray[np.int64]) -> None:
        """Jobs are numbered from 0 without many holes; an index far beyond is kept in a dict."""
        most = 8 * (self.n + len(indexes)) + 1024
        highest = int(indexes[indexes < most].max(initial=-1))
        if highest >= len(self._row_of):
            wider = np.full(highest + 1 + highest // _MORE, -1, np.int32)
            wider[: len(self._row_of)] = self._row_of
            self._row_of = wider

    def _grow(self, n: int) -> None:
        if n > len(self._whole["index"]):
            for name, old in self._whole.items():
                larger = np.full(n + n // _MORE, _EMPTY.get(name, 0), old.dtype)
                larger[: self.n] = old[: self.n]
                self._whole[name] = larger
        self.n = n
        self._show()

    def _show(self) -> None:
        for name, whole in self._whole.items():
            setattr(self, name, whole[: self.n])


class GrowingReadings:
    """The readings of one source under one name, in the order in which they were written; NaN has no value."""

    def __init__(self) -> None:
        self._whole = np.empty((2, 64))
        self.n = 0

    @property
    def t(self) -> Floats:
        return self._whole[0, : self.n]

    @property
    def value(self) -> Floats:
        return self._whole[1, : self.n]

    def add(self, t: Sequence[float], values: Sequence[float]) -> None:
        n = self.n + len(t)
        if n > self._whole.shape[1]:
            larger = np.empty((2, n + n // _MORE + 64))
            larger[:, : self.n] = self._whole[:, : self.n]
            self._whole = larger
        self._whole[0, self.n : n] = t
        self._whole[1, self.n : n] = values
        self.n = n
