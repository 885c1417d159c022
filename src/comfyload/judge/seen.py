"""Knows which of very many names have come before, in 16 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Seen"]

_BITS = (1 << 63) - 1
_AT_ONCE = 1 << 16


class Seen:
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

    def add_new(self, names: Sequence[str]) -> bool:
        """Remember names that are all new, and no two the same; False if not so, and nothing is remembered."""
        keys = np.fromiter(map(hash, names), np.int64, len(names)) & _BITS
        keys[keys == 0] = 1
        while self._room <= len(keys):
            self._grow()
        free = self._free(keys)
        if free is None or len(set(keys.tolist())) < len(keys):
            return False
        self._room -= len(keys)
        self._put(keys, free)
        return True

    def _free(self, keys: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The first empty place for each key; None if one of them is known."""
        table, at = np.frombuffer(self._table, np.int64), keys & self._mask
        while (taken := table[at]).any():
            if (taken == keys).any():
                return None
            at = (at + (taken != 0)) & self._mask
        return at

    def _put(self, keys: NDArray[np.int64], at: NDArray[np.int64]) -> None:
        """Enter new keys at the empty places or, where several have the same, the next ones."""
        table = np.frombuffer(self._table, np.int64)
        while len(keys):
            empty = table[at] == 0
            table[at[empty]] = keys[empty]
            left = table[at] != keys
            keys, at = keys[left], (at[left] + 1) & self._mask

    def _grow(self) -> None:
        keys, size = np.frombuffer(self._table, np.int64), 2 * len(self._table)
        self._table = array("q", bytes(8)) * size
        self._mask, self._room = size - 1, self._room + len(keys) // 2
        for at in range(0, len(keys), _AT_ONCE):
            part = keys[at : at + _AT_ONCE]
            part = part[part != 0]
            self._put(part, part & self._mask)
