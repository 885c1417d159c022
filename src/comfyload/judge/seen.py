"""Knows which of very many names have come before, in 16 bytes each."""

from __future__ import annotations

from array import array

__all__ = ["Seen"]

_BITS = (1 << 63) - 1


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

    def _grow(self) -> None:
        before, size = self._table, 2 * len(self._table)
        self._table = table = array("q", bytes(8)) * size
        self._mask = mask = size - 1
        self._room = size // 2 - len(before) // 2
        for key in before:
            if key:
                at = key & mask
                while table[at]:
                    at = (at + 1) & mask
                table[at] = key
