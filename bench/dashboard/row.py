"""One row of the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bench.table import spread


class Row(NamedTuple):
    """`values`: one a round; `words`: in place of them. `bar`: what must be reached; "": nothing."""

    part: str
    what: str
    values: Sequence[float]
    unit: str
    bar: str = ""
    words: str = ""

    def cells(self) -> list[str]:
        return [self.part, self.what, self.words or f"{spread(self.values)} {self.unit}".strip(), self.bar]


def markdown(rows: Iterable[Row]) -> str:
    head = ["part", "what", "median (lowest to highest)", "bar"]
    lines = [head, ["---"] * 4, *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))
