"""When jobs are due. A load is a plain value; what it means is a pure function of it."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Closed"]


class Closed(Struct, frozen=True, kw_only=True):
    """`jobs` jobs by `concurrency` users, each sending its next job when its last has ended.

    The first `warmup` further jobs come before, by the same users; the counted ones start when all of those have ended.
    """

    jobs: int
    concurrency: int
    warmup: int = 0
