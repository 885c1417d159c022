"""Expected execution times: by workflow, and by whether its models are loaded already."""

from dataclasses import dataclass

HALF_LIFE_JOBS = 20
STEP = 1.0 - 0.5 ** (1.0 / HALF_LIFE_JOBS)


@dataclass(slots=True)
class _Mean:
    """A mean that forgets: half of its weight is on the last 20 values. `slow` forgets ten times as slowly."""

    n: int = 0
    value: float = 0.0
    slow: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        self.value += max(STEP, 1.0 / self.n) * (value - self.value)
        self.slow += max(STEP / 10.0, 1.0 / self.n) * (value - self.slow)


class ExpectedTimes:
    """Seconds of execution by workflow. A job that follows one of another workflow is a swap."""

    def __init__(self) -> None:
        self._warm: dict[str, _Mean] = {}
        self._swap: dict[str, _Mean] = {}
        self._all = _Mean()
        self._spread = _Mean()

    def learn(self, workflow: str, after: str | None, seconds: float) -> None:
        """A job took so long on a server that had a job of `after` before it (None: none of ours)."""
        known = self.predict_s(workflow, after)
        if known > 0.0:
            self._spread.add((seconds - known) ** 2 / known)
        kind = self._warm if after == workflow else self._swap
        kind.setdefault(workflow, _Mean()).add(seconds)
        self._all.add(seconds)

    @property
    def mean_s(self) -> float:
        """Of any job; 0 where nothing is known."""
        return self._all.value

    def variance(self, work_s: float) -> float:
        """Of what so many seconds of predicted work take, by how wrong predictions were: it adds up over the jobs, and
        all of them are wrong together by as much as the mean is.
        """
        if not self.mean_s:
            return 0.0
        values = min(float(self._all.n), (2.0 - STEP) / STEP)
        return self._spread.value * (work_s + work_s**2 / (self.mean_s * values))

    def predict_s(self, workflow: str, after: str | None) -> float:
        """Seconds of the job after one of `after`; the best estimate where that is not known."""
        return self._known(workflow, after).value

    def cautious_s(self, workflow: str) -> float:
        """Seconds of the job after one like it, where a promise hangs on it: the last few may all have been short."""
        known = self._known(workflow, workflow)
        return max(known.value, known.slow)

    def _known(self, workflow: str, after: str | None) -> _Mean:
        first, other = (self._warm, self._swap) if after == workflow else (self._swap, self._warm)
        return first.get(workflow) or other.get(workflow) or self._all

    def swap_s(self, workflow: str) -> float:
        """What loading the workflow's models costs; 0 where it is not known."""
        warm, swap = self._warm.get(workflow), self._swap.get(workflow)
        return 0.0 if warm is None or swap is None else max(0.0, swap.value - warm.value)
