"""How the jobs of a run stand now, those that were sent once more as they did then; and its books, with their pages."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.web.badges import BADGES, Badge
from comfyload.web.states import Codes, View

MOST_BOOKS = 12
"""Of a list; those that need a person come first."""

_KEYS: tuple[Badge, ...] = tuple(BADGES)
_WORST: tuple[Badge, ...] = ("attention", "rendering", "pending", "ended", "done")
"""A book stands as the first of these that a page of it has."""


class Book(Struct, frozen=True, kw_only=True):
    """A book: so many pages, and how many of them have each badge."""

    book: int
    badge: str
    pages: int
    counts: dict[str, int]


class Newest:
    """The badges of all jobs. `later`: what came of those that were sent once more, by their indexes."""

    def __init__(self, view: View, later: Mapping[int, Badge]) -> None:
        self._jobs = view.follower.jobs
        self.badge: Codes = view.badge.copy()
        for index, badge in later.items():
            row = self._jobs.row(index)
            if row >= 0:
                self.badge[row] = _KEYS.index(badge)

    def failed(self, book: int | None = None) -> list[int]:
        """Indexes of the jobs that need attention; `book`: of its pages alone."""
        found = self.badge == _KEYS.index("attention")
        if book is not None:
            found &= self._jobs.book == book
        return sorted(self._jobs.index[found].tolist())

    def book(self, number: int) -> Book | None:
        """One book; None: no page of it came due yet."""
        mine = self.badge[self._jobs.book == number]
        return _book(number, np.bincount(mine, minlength=len(_KEYS)).tolist()) if len(mine) else None

    def books(self) -> tuple[int, list[Book]]:
        """How many there are, and the first of them: those that need a person, then the newest."""
        pages = np.flatnonzero(self._jobs.book >= 0)
        if not len(pages):
            return 0, []
        numbers, place = np.unique(self._jobs.book[pages], return_inverse=True)
        counts: NDArray[np.int64] = np.zeros((len(numbers), len(_KEYS)), np.int64)
        np.add.at(counts, (place, self.badge[pages]), 1)
        in_trouble = counts[:, _KEYS.index("attention")] > 0
        first = np.lexsort((-numbers, ~in_trouble))[:MOST_BOOKS]
        return len(numbers), [_book(int(numbers[at]), counts[at].tolist()) for at in first]


def _book(number: int, counts: Sequence[int]) -> Book:
    by_badge: dict[Badge, int] = dict(zip(_KEYS, counts, strict=True))
    badge = next(badge for badge in _WORST if by_badge[badge])
    return Book(book=number, badge=badge, pages=sum(counts), counts={key: n for key, n in by_badge.items() if n})
