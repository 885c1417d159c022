"""Which workflow an arrival is of: drawn by weight, drawn and kept for a while, or by design."""

import bisect
import hashlib
import itertools

from comfyload.record.plan import Order


class Mix:
    """`pick(number)` is the place of the arrival's workflow in the list; weights count in relation to each other."""

    def __init__(
        self, weights: list[float], *, order: Order = "random", stickiness: float = 0.0, seed: int = 0
    ) -> None:
        self._sums = list(itertools.accumulate(weights))
        self._order = order
        self._stickiness = stickiness
        self._seed = seed
        self._design = _every_pair(len(weights))

    def pick(self, number: int) -> int:
        if len(self._sums) == 1:
            return 0
        if self._order == "aabb":
            return self._design[number % len(self._design)]
        if self._order == "sticky":
            # Back to the last arrival that was drawn anew.
            while number > 0 and self._uniform(number, "stay") < self._stickiness:
                number -= 1
        return min(bisect.bisect_right(self._sums, self._uniform(number, "pick") * self._sums[-1]), len(self._sums) - 1)

    def _uniform(self, number: int, what: str) -> float:
        digest = hashlib.blake2b(f"{self._seed}/{what}/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def _every_pair(count: int) -> list[int]:
    """The shortest cycle in which every workflow follows every other, and itself, once: A A B B for two.

    A de Bruijn sequence of order two, as the Lyndon words of one and two letters in order (Fredricksen and Maiorana
    1978): it measures each workflow both when its models are loaded already and when they replace each other's.
    """
    cycle = []
    for first in range(count):
        cycle.append(first)
        for second in range(first + 1, count):
            cycle += [first, second]
    return cycle
