"""What must hold after any trouble: one end for each arrival, and no other truth than the server's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from comfyload.record.model import Record, Sent
from comfyload.record.run import RunReader
from tests.chaos.server import counts

__all__ = ["Expected", "Outcome", "judge"]

MOST_MIB = 300.0


@dataclass(frozen=True)
class Expected:
    """How a kind of trouble may end.

    `codes`: of the last command; `first`: of the first, where it is not the last. `ends`: outcomes besides `completed`.
    `says`: what is among the findings, or on standard error. `forgets`: the server loses what it had, so that a job may
    be begun again that nobody can look up. `all_end`: False where the process may end before all arrivals have come.
    """

    codes: Collection[int] = (0, 5)
    first: Collection[int] | None = None
    ends: Collection[str] = ()
    says: str = ""
    forgets: bool = False
    all_end: bool = True
    all_complete: bool = False


def failed_otherwise(run: Path) -> list[str]:
    """Failures of jobs that neither we nor the server stopped."""
    failures = (line.execution.failure for line in RunReader(run).lines() if isinstance(line, Record))
    others = {failure.kind for failure in failures if failure is not None} - {"cancelled", "interrupted"}
    return [f"jobs failed by {sorted(others)}"] if others else []


@dataclass(frozen=True)
class Outcome:
    """What came of a play. `broken`: rules that did not hold, in words; `ends`: how many jobs ended how."""

    broken: list[str]
    ends: Counter[str]
    begun: int
    twice: int
    code: int
    peak_mib: float
    findings: list[str]


def judge(run: Path, ledger: Path, expected: Expected, jobs: int) -> Outcome:
    """Hold a run directory against what the server did."""
    lines = list(RunReader(run).lines())
    records = [line for line in lines if isinstance(line, Record)]
    sent = {line.prompt_id for line in lines if isinstance(line, Sent)}
    truth = counts(ledger)
    broken = [*_arrivals(records, lines, jobs, expected), *_against(records, sent, truth, expected)]
    ends = Counter[str](record.execution.outcome for record in records)
    unlike = [end for end in ends if end != "completed" and end not in expected.ends]
    if unlike:
        example = next(r for r in records if r.execution.outcome in unlike)
        broken.append(f"jobs ended {unlike}, e.g. {example.index}: {example.execution.failure}")
    if expected.all_complete and ends["completed"] != jobs:
        broken.append(f"{ends['completed']} of {jobs} completed")
    return Outcome(
        broken=broken,
        ends=ends,
        begun=sum(truth["begun"].values()),
        twice=sum(n > 1 for n in truth["begun"].values()),
        code=0,
        peak_mib=0.0,
        findings=[],
    )


def _arrivals(records: list[Record], lines: list[Record | Sent], jobs: int, expected: Expected) -> list[str]:
    """Every arrival has exactly one end."""
    ends = Counter(record.index for record in records)
    doubled = [index for index, n in ends.items() if n > 1]
    missing = sorted({line.index for line in lines} - set(ends))
    broken = [f"arrivals ended twice: {doubled[:5]}"] if doubled else []
    if missing:
        broken.append(f"arrivals were sent and have no end: {missing[:5]}")
    if expected.all_end and len(ends) != jobs:
        broken.append(f"{len(ends)} of {jobs} arrivals have an end")
    return broken


def _against(records: list[Record], sent: set[str], truth: dict[str, Counter[str]], expected: Expected) -> list[str]:
    """The ledger says what the server did, and no more."""
    broken = []
    tried: dict[str, str] = {}
    for record in records:
        for attempt in record.execution.attempts:
            tried[attempt.prompt_id] = attempt.outcome
        if not record.execution.attempts:
            tried[record.prompt_id] = record.execution.outcome
    unknown = [one for one in truth["begun"] if one not in tried and one not in sent]
    if unknown:
        broken.append(f"the server executed prompts that no record knows: {unknown[:3]}")
    unlike = [one for one, end in tried.items() if end == "completed" and truth["completed"][one] == 0]
    if unlike:
        broken.append(f"completed by the record, and not by the server: {unlike[:3]}")
    twice = [one for one, n in truth["begun"].items() if n > 1]
    if twice and not expected.forgets:
        broken.append(f"executed twice: {twice[:3]}")
    untold = [
        record.index
        for record in records
        if record.execution.outcome not in ("completed", "lost")
        and not record.execution.attempts
        and truth["completed"][record.prompt_id]
        and record.execution.server_state_after not in ("finished", "unknown", "running")
        and (record.execution.failure is None or record.execution.failure.kind != "fetch")
    ]
    if untold:
        broken.append(f"completed by the server, and not so told: {untold[:5]}")
    return broken
