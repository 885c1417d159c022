"""Which of several servers a job goes to, by a rule that was chosen. No I/O, no clock."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from comfyload.record.options import Dispatch


class Place(Protocol):
    """What a rule reads of a server: its name, the prompts there, and when a job was put there last."""

    name: str
    depth: int
    last_at: float


P = TypeVar("P", bound=Place)


@dataclass(kw_only=True)
class Dispatching:
    """A rule, and what it is to know of the servers, by their names.

    `weights`: a server of weight 2 gets twice as much as one of 1, which is the weight of those without one. `not_on`:
    by workflow, the servers that get none of its jobs. `on_queue` takes the name of a server, an instant, and the
    length of that server's queue, as events report it. `affinity` is decided where the servers' models are known.
    """

    rule: Dispatch = "affinity"
    weights: Mapping[str, float] = field(default_factory=dict)
    not_on: Mapping[str, Collection[str]] = field(default_factory=dict)
    on_queue: Callable[[str, float, int], None] | None = None
    _credit: dict[str, float] = field(default_factory=dict)

    def choose(self, fit: Sequence[P]) -> P:
        """The next server of these: each in turn, or the one with the least prompts for its weight."""
        return self._in_turn(fit) if self.rule == "round-robin" else min(fit, key=self._backlog)

    def _backlog(self, place: P) -> tuple[float, float]:
        """Prompts that would be there with this one, by its weight; of equal ones, the one used the longest ago."""
        return (place.depth + 1) / self._weight(place), place.last_at

    def _in_turn(self, fit: Sequence[P]) -> P:
        """As often as its weight says, and evenly [smooth weighted round-robin, as nginx does it]."""
        for place in fit:
            self._credit[place.name] = self._credit.get(place.name, 0.0) + self._weight(place)
        best = max(fit, key=lambda place: self._credit[place.name])
        self._credit[best.name] -= sum(map(self._weight, fit))
        return best

    def _weight(self, place: P) -> float:
        return self.weights.get(place.name, 1.0)
