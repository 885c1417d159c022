"""What one number of a summary is: the row of `judge/numbers.py`, and the counts that it is made from."""

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from comfyload.record.kinds import Kind
from comfyload.record.outcomes import Outcome

Plain = int | float | str | bool | None
Judged = Literal["share", "percentile", "mean", "fact", "errors", "flag"]
Measure = Literal["s", "share", "count", "/min", "/h", "bytes", ""]
Place = Literal["tile", "fact", "detail", ""]


class Counts(Struct, frozen=True, kw_only=True):
    """What was counted of a run. None is unknown, or that the run has no such thing.

    `longest`: the maximum of each duration in seconds, by name; `made`: new files by kind and folder.
    """

    valid: bool
    outcomes: Mapping[Outcome, int]
    censored: int
    unfinished: int
    warmup_jobs: int
    cached_fully: int
    cached_partly: int
    made: Mapping[Kind, Mapping[str, int]]
    image_bytes: int | None
    wall_clock_s: float | None
    offered_per_minute: float | None
    sent_per_minute: float | None
    completed_per_minute: float | None
    books: int | None
    books_completed: int | None
    longest: Mapping[str, float | None]
    observed_p99_latency_s: float | None


Count = Callable[[Counts], Plain] | None


class Number(Struct, frozen=True, kw_only=True):
    """One number of the summary.

    `words` name it for people; `unit` is what the reference prints. `kind` decides how a gate judges it: a `share` is k
    of n; a `percentile` and a `mean` (rates too) have an interval; from a `fact` of this run nothing is inferred; a
    `flag` is true or false. `count`: how it is counted; None: the `Statistic` of that key. `of_workflow`: the field
    of `WorkflowRow` that is the same number of one workflow, "" if there is none. `place`: where a page shows it, ""
    for nowhere.
    """

    key: str
    words: str
    unit: str
    kind: Judged
    meaning: str
    count: Count = None
    of_workflow: str = ""
    place: Place = "detail"

    @property
    def measure(self) -> Measure:
        """What the unit measures, which decides the units that a gate's limit may have."""
        known: dict[str, Measure] = {"s": "s", "0..1": "share", "bytes": "bytes", "bool": ""}
        per: dict[str, Measure] = {"min": "/min", "h": "/h"}
        return known.get(self.unit, per.get(self.unit.partition("/")[2], "count"))

    @property
    def rate(self) -> bool:
        """Whether it is an estimated rate, of which more is faster."""
        return self.kind == "mean" and self.measure in ("/min", "/h")
