"""Decides which of a server's stamps are plausible, for all numbers that are made of them."""

import math

from comfyload.record.model import Execution, ServerTimes, Span

FASTER, COARSE_MS = 1.02, 20.0
"""How much faster than ours a server's clock may run in a valid run, and how coarse a Windows clock is."""

GIVEN_UP_MS = 60_000.0
"""How much longer than our wait a job that we gave up may run, until it is off the server."""

SECONDS_FROM, SECONDS_TO, LAST = 1e9, 1e11, 1e14
"""Present Unix times in seconds lie between the first two; in milliseconds no near year does, and none reaches the
third."""

_UNKNOWN = ServerTimes()


def believed(execution: Execution, due: float | None = None) -> ServerTimes:
    """The stamps without implausible ones; `execution.server` itself if all are plausible.

    A wait or an execution takes at least 0 and at most the time on our own clock between sending the job (or `due`, if
    an earlier process sent it) and its end. Where two stamps contradict, the one that the third supports is kept.
    """
    times, done = execution.server, execution.done
    sent = due if execution.sent is None else execution.sent
    create, start, end = times.create_ms, times.start_ms, times.end_ms
    most = math.inf
    if sent is not None and done is not None:
        most = FASTER * 1000 * (done - sent) + COARSE_MS
        if execution.outcome != "completed":
            most += GIVEN_UP_MS
    if not (_is_clock(create) and _is_clock(start) and _is_clock(end)):
        return _UNKNOWN
    wait, run, whole = _fits(create, start, most), _fits(start, end, most), _fits(create, end, most)
    if wait and run and whole:
        return times
    if run and not wait:
        return ServerTimes(start_ms=start, end_ms=end)
    if wait and not run:
        return ServerTimes(create_ms=create, start_ms=start)
    return _UNKNOWN


def node_spans(execution: Execution) -> list[Span]:
    """The spans of its nodes, none of which ends later than the execution can have ended by the server's clock.

    A span ends when its message arrives. A ComfyUI that collects garbage after a job sends the last node's message
    after that pause, which would count as the node's time.
    """
    started, done, took_ms = execution.started, execution.done, execution.server.execution_ms
    if started is None or done is None or took_ms is None or done <= started + (took_ms + COARSE_MS) / 1000:
        return execution.nodes
    if believed(execution).execution_ms is None:
        return execution.nodes
    latest = started + took_ms / 1000
    return [
        span if span.end is None or span.end <= latest else Span(span.node, span.start, max(span.start, latest))
        for span in execution.nodes
    ]


def _is_clock(stamp: int | None) -> bool:
    return stamp is None or (0 <= stamp < LAST and not SECONDS_FROM <= stamp < SECONDS_TO)


def _fits(begin: int | None, end: int | None, most: float) -> bool:
    return begin is None or end is None or 0 <= end - begin <= most
