"""A part of a run's arrivals: every n-th of one schedule, so that several generators share it by arithmetic alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

MOST = 10_000
"""Shards of a run."""

ShardText = Annotated[str, Meta(pattern=r"^\d{1,4}(,\d{1,4})*/\d{1,5}$", max_length=60_000)]
"""`1/4`: the second of four; `0,2,3/4`: all but the second."""


class Shard(Struct, frozen=True):
    """The arrivals whose number, divided by `of`, leaves one of `members`. One generator is one member; what several
    of them have sent is a shard of more.
    """

    members: tuple[int, ...] = (0,)
    of: int = 1

    def __str__(self) -> str:
        return f"{','.join(map(str, self.members))}/{self.of}"

    @property
    def is_whole(self) -> bool:
        return len(self.members) == self.of

    @property
    def fraction(self) -> float:
        """Its part of the whole, where all have the same."""
        return len(self.members) / self.of

    def takes(self, number: int) -> bool:
        """Whether the arrival of this number is one of its own."""
        return self.of == 1 or number % self.of in self.members

    def numbers(self, count: int) -> Sequence[int]:
        """Of so many things that are dealt out in turn (users, places), the numbers of its own."""
        return range(count) if self.is_whole else [n for n in range(count) if self.takes(n)]

    def share(self, count: int, first: int = 0) -> int:
        """How many of so many arrivals are its own; `first`: the number of the first of them."""
        return sum(len(range((member - first) % self.of, count, self.of)) for member in self.members)


WHOLE = Shard()


def read_shard(text: str) -> Shard:
    """The shard of a text.

    Raises:
        ValueError: it is none; the message says what is wrong.
    """
    found = re.fullmatch(r"(\d{1,5}(?:,\d{1,5})*)/(\d{1,5})", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not I/N, such as 0/4")
    members, of = tuple(sorted({int(one) for one in found[1].split(",")})), int(found[2])
    if not 1 <= of <= MOST:
        raise ValueError(f"{text!r}: a run has from 1 to {MOST} shards")
    if members[-1] >= of:
        raise ValueError(f"{text!r}: the shards of {of} are numbered from 0 to {of - 1}")
    return Shard(members, of)
