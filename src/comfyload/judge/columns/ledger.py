"""How every arrival ended: exactly one outcome each, and by name whatever breaks that rule."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from msgspec import Struct

from comfyload.record.model import Execution, Line, Record, Sent
from comfyload.record.outcomes import Outcome

_AT_ONCE = 128
"""Lines entered together, so that few calls are made for each. Of more, so many lists would be alive at once that
Python's garbage collector would run again and again."""
_KINDS = 200
"""Distinct rows of the failures table; a server that words every message as its own type shall not fill memory."""


class FailureRow(Struct, frozen=True, kw_only=True):
    """Failures of one cause. `example`: the first one's message, cut to 200 printable characters; `index`: its job."""

    kind: str
    type: str
    node_class: str | None
    count: int
    example: str
    index: int


class Tagged(Struct, kw_only=True):
    """How many jobs something happened to, and the first few of them."""

    count: int = 0
    first: list[int] = []

    def add(self, *jobs: int) -> None:
        """Count the jobs; name those among the first five."""
        self.count += len(jobs)
        if len(self.first) < 5:
            self.first += jobs[: 5 - len(self.first)]

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        return ", ".join(map(str, self.first)) + more


class Ledger:
    """Counts of outcomes. `counted` and `warmup` never mix; a second record of a job is refused and named.

    `censored`: how many of the counted the end of the run cut off. They are `cancelled` by outcome, and no failures.
    `ours`: how many failed by a fault of the generator's machine, which says nothing of the server.
    """

    def __init__(self) -> None:
        self.counted: Counter[Outcome] = Counter()
        self.warmup: Counter[Outcome] = Counter()
        self.censored = 0
        self.ours = 0
        self.duplicates = Tagged()
        self.executed_again = Tagged()
        self.left: dict[str, Tagged] = {}
        self.unfinished: dict[int, str] = {}
        """Index and prompt id of each job that was sent and has no record."""
        self._recorded: dict[int, None] = {}
        """A dict of numbers, unlike a set, is nothing that Python's garbage collector goes through again and again."""
        self._failures: dict[tuple[str, str, str | None], tuple[int, str, int]] = {}

    def enter(self, lines: Iterable[Line]) -> Iterator[Record]:
        """Enter the next lines. The jobs that ended, each once: a second record of a job counts nowhere. One that is
        about to be sent is none: its record will say whether it ended.
        """
        return chain.from_iterable(self.enter_many(lines))

    def enter_many(self, lines: Iterable[Line]) -> Iterator[Sequence[Record]]:
        """The same, with the jobs of some lines at once."""
        lines = iter(lines)
        while some := list(islice(lines, _AT_ONCE)):
            ended = self._new(some)
            self.counted.update([record.execution.outcome for record in ended if not record.warmup])
            self.warmup.update([record.execution.outcome for record in ended if record.warmup])
            yield ended

    def _new(self, lines: Iterable[Line]) -> list[Record]:
        recorded, unfinished, ended = self._recorded, self.unfinished, list[Record]()
        for line in lines:
            index = line.index
            if index in recorded:
                if isinstance(line, Record):
                    self.duplicates.add(index)
            elif isinstance(line, Sent):
                unfinished[index] = line.prompt_id
            else:
                unfinished.pop(index, None)
                recorded[index] = None
                ended.append(line)
                run = line.execution
                if run.executions > 1:
                    self.executed_again.add(index)
                if run.outcome != "completed":
                    self._unsuccessful(line)
        return ended

    @property
    def offered(self) -> int:
        """Counted arrivals, whatever became of them."""
        return self.counted.total()

    def failures(self) -> list[FailureRow]:
        """Causes of counted jobs' failures, the most frequent first."""
        rows = [
            FailureRow(kind=kind, type=type_, node_class=node, count=count, example=example, index=index)
            for (kind, type_, node), (count, example, index) in self._failures.items()
        ]
        return sorted(rows, key=lambda row: (-row.count, row.index))

    def _unsuccessful(self, record: Record) -> None:
        left = record.execution.server_state_after
        if left is not None:
            self.left.setdefault(left, Tagged(first=[])).add(record.index)
        if record.censored and not record.warmup:
            self.censored += 1
        elif not record.warmup:
            self.ours += is_ours(record.execution)
            self._fail(record)

    def _fail(self, record: Record) -> None:
        failure = record.execution.failure
        key: tuple[str, str, str | None] = (record.execution.outcome, "", None)
        message = ""
        if failure is not None:
            key, message = (failure.kind, clean(failure.type, 80), failure.node_class), failure.message
        if key not in self._failures and len(self._failures) >= _KINDS:
            key = ("other", "", None)
        count, example, index = self._failures.get(key, (0, clean(message, 200), record.index))
        self._failures[key] = (count + 1, example, index)


def is_ours(run: Execution) -> bool:
    """Whether the generator's machine made the job fail."""
    failure = run.failure
    return failure is not None and failure.kind == "generator"


def clean(text: str, limit: int) -> str:
    """The text on one line without control characters, at most `limit` of them."""
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+", " ", text[: 4 * limit]).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def join(names: Iterable[object], limit: int = 5) -> str:
    """The first few of some names, with an ellipsis if there are more."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:limit]) + (", …" if len(listed) > limit else "")
