"""Lines of several shards as those of one run: their instants on one clock, in the order in which they were written."""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import TypeVar

from msgspec.structs import replace

from comfyload.record.codec import encode
from comfyload.record.merged import ShardFiles
from comfyload.record.model import Attempt, Execution, Line, LogLine, Record, RetryLine, Sample, Sent, Span

T = TypeVar("T", Line, Sample, LogLine, RetryLine)


def in_order(journals: Sequence[Iterator[T]]) -> Iterator[T]:
    """The lines of all, each journal in its own order."""
    return merge(*journals, key=_written)


def shifted(lines: Iterable[T], part: ShardFiles) -> Iterator[T]:
    """The lines with their instants later by the part's shift, and samples with the part's mark in their source."""
    if not part.shift_s and not part.mark:
        return iter(lines)
    return (_shifted(line, part) for line in lines)


def each_row_once(lines: Iterable[LogLine]) -> Iterator[LogLine]:
    """The lines without those whose row was there before."""
    known = set[int]()
    for line in lines:
        code = hash(encode(line.row, order="sorted"))
        if code not in known:
            known.add(code)
            yield line


def _written(line: Line | Sample | LogLine | RetryLine) -> float:
    """About when it was written."""
    if isinstance(line, Record):
        done = line.execution.done
        return line.due if done is None else done
    if isinstance(line, Sent):
        return line.due
    return 0.0 if line.t is None else line.t


def _shifted(line: T, part: ShardFiles) -> T:
    by = part.shift_s
    if isinstance(line, Record):
        return replace(line, due=line.due + by, execution=_execution(line.execution, by))
    if isinstance(line, Sent):
        return replace(line, due=line.due + by)
    if isinstance(line, Sample):
        return replace(line, t=line.t + by, source=line.source + part.mark)
    return replace(line, t=None if line.t is None else line.t + by)


def _execution(run: Execution, by: float) -> Execution:
    return replace(
        run,
        sent=_later(run.sent, by),
        acknowledged=_later(run.acknowledged, by),
        first_event=_later(run.first_event, by),
        started=_later(run.started, by),
        done=_later(run.done, by),
        nodes=[Span(span.node, span.start + by, _later(span.end, by)) for span in run.nodes],
        attempts=[_attempt(attempt, by) for attempt in run.attempts],
    )


def _attempt(attempt: Attempt, by: float) -> Attempt:
    return replace(attempt, sent=_later(attempt.sent, by), done=_later(attempt.done, by))


def _later(instant: float | None, by: float) -> float | None:
    return None if instant is None else instant + by
