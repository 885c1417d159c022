"""The observations of a run: each kind once, with its count."""

from collections.abc import Callable, Iterable

from msgspec import structs

from comfyload.record.model import Observation
from comfyload.visible import visible

MOST_OBSERVATIONS = 1000
"""Observations kept one by one; those beyond are counted, by their code."""

ONE_BY_ONE = ("orphan", "vary", "preflight", "dropped_outputs", "telemetry")
"""Codes whose observations differ from each other by their text."""


class Noted:
    """Keeps the first observation of each kind and counts the rest. `first` is called with each that is new."""

    def __init__(self, earlier: Iterable[Observation], first: Callable[[Observation], None]) -> None:
        self._kept = {_key(observation): observation for observation in earlier}
        self._first = first

    def add(self, observation: Observation) -> None:
        """Keep it, or count it."""
        observation = structs.replace(observation, text=visible(observation.text))
        key = _key(observation)
        before = self._kept.get(key)
        if before is None and len(self._kept) >= MOST_OBSERVATIONS:
            key = observation.code
            before = self._kept.get(key)
        if before is None:
            self._kept[key] = observation
            self._first(observation)
        else:
            self._kept[key] = structs.replace(before, count=before.count + 1)

    def all(self) -> list[Observation]:
        """The observations, in the order in which they came."""
        return list(self._kept.values())


def _key(observation: Observation) -> str:
    return observation.text if observation.code in ONE_BY_ONE else f"{observation.code} {observation.server}".strip()
