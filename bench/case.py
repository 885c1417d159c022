"""What is measured, again and again: a case, its values, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

OURS = "comfyload"
"""The client whose values are the ones of all ratios."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything runs: server and client on a cpu each. `quick`: few and short, for a look and not a number."""

    url: str
    workflow: Path
    folder: Path
    client_cpu: int
    quick: bool


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One client doing one thing. `measure` returns values by their unit; `rounds`: how often at most."""

    what: str
    client: str
    measure: Callable[[], dict[str, float]]
    rounds: int = 5


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All values of a case in one unit, and how many times as much as ours they are, round by round."""

    part: str
    what: str
    client: str
    unit: str
    values: list[float]
    times_ours: list[float] = []


Round = dict[str, float] | None
"""What a case gave, by unit; None: it failed."""


def rows(part: str, cases: list[Case], measured: dict[tuple[str, str], list[Round]]) -> Iterator[Row]:
    """Rows of a part in the order of its cases; `measured`: the rounds of each case, by what and client."""
    for case in cases:
        found, ours = measured[case.what, case.client], measured.get((case.what, OURS), [])
        for unit in next((values for values in found if values is not None), {}):
            pairs = [(theirs, mine) for theirs, mine in zip(found, ours, strict=False) if theirs and mine]
            times = [theirs[unit] / mine[unit] for theirs, mine in pairs if mine[unit] > 0]
            yield Row(
                part=part,
                what=case.what,
                client=case.client,
                unit=unit,
                values=[values[unit] for values in found if values is not None],
                times_ours=[] if case.client == OURS else times,
            )
