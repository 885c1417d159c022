"""Which of very many names have come before, in 16 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

__all__ = ["HashSet"]

_BITS = (1 << 63) - 1
_AT_ONCE = 1 << 16


class HashSet:
    """A set of names that only grows: an open-addressing table of their hashes, at most half full.

    Python's own set takes 80 bytes for a hash. Two of a million names sharing 63 bits has a chance of 5e-8.
    """

    def __init__(self) -> None:
        self._table = array("q", bytes(8 << 10))
        self._mask, self._room = (1 << 10) - 1, 1 << 9

    def add(self, name: str) -> bool:
        """Remember the name; True if it was known."""
        key, table, mask = (hash(name) & _BITS) or 1, self._table, self._mask
        at = key & mask
        while (known := table[at]) != key:
            if not known:
                table[at] = key
                self._room -= 1
                if not self._room:
                    self._grow()
                return False
            at = (at + 1) & mask
        return True

    def add_all(self, names: Sequence[str]) -> list[bool]:
        """The same of names of which none is twice among them: most find their place empty, and get it together."""
        while self._room <= len(names):
            self._grow()
        keys = np.fromiter(map(hash, names), np.int64, len(names)) & _BITS
        keys[keys == 0] = 1
        table, at = np.frombuffer(self._table, np.int64), keys & self._mask
        empty = table[at] == 0
        table[at[empty]] = keys[empty]  # of several keys at one place, one gets it
        placed = empty & (table[at] == keys)
        self._room -= int(np.count_nonzero(placed))
        return [not is_placed and self.add(name) for name, is_placed in zip(names, placed.tolist(), strict=True)]

    def _grow(self) -> None:
        before, size = np.frombuffer(self._table, np.int64), 2 * len(self._table)
        self._table = array("q", bytes(8)) * size
        self._mask, self._room = size - 1, self._room + len(before) // 2
        table = np.frombuffer(self._table, np.int64)
        for part in np.array_split(before, -(-len(before) // _AT_ONCE)):
            keys = part[part != 0]
            at = keys & self._mask
            while len(keys):  # of several keys at one place, one gets it, and the others try the next
                empty = table[at] == 0
                table[at[empty]] = keys[empty]
                left = table[at] != keys
                keys, at = keys[left], (at[left] + 1) & self._mask
