"""Reads recorded arrivals (offsets, a run, or a log) as a schedule."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from comfyload.errors import UsageError
from comfyload.load.instants import Instant
from comfyload.load.log_lines import Line, excerpt, instant_of, is_noise, is_record, lines_of, request_on
from comfyload.load.requests import SENT_AGAIN, LoggedRequest, Match, listed, match_of
from comfyload.record.plan import Replay
from comfyload.words import count, fixed

_WHAT = "give offsets in seconds, a run directory, or a log with a date on each line"
_JOB = Match(method="POST", path="/prompt")
_GOT = "got prompt"
"""In ComfyUI's own log, for each job that it accepts."""

_KINDS = {
    "offset": "a number of seconds",
    "absolute": "a Unix time or a date with its zone",
    "local": "a date without a zone",
    "yearless": "a date without a year",
}
_UNITS = {"s": "seconds", "ms": "milliseconds", "µs": "microseconds", "ns": "nanoseconds"}
_MARCH_2000 = 951868800
"""When February ended in the year that dates without one are read in."""


def read_recording(lines: Iterable[str], source: str, speedup: float = 1.0, match: str | None = None) -> Replay:
    """The arrivals of a recording as a load. `read_as` says which lines count as arrivals, and which do not.

    Where lines have requests, those that `match` takes are arrivals, `POST …/prompt` by default; else ComfyUI's "got
    prompt" lines; else every line. A run's warm-up jobs do not count.

    Raises:
        UsageError: none is an arrival, one has no time, or their times cannot be put in one order.
    """
    if match is not None and not match.strip():
        raise UsageError("--replay-match is empty", "write --replay-match 'METHOD PATH', or a text")
    every = [line for line in lines_of(_listed(lines)) if not is_noise(line)]
    if not every:
        raise UsageError(f"{source} holds no arrivals", _WHAT)
    chosen, description = _choose(every, source, None if match is None else match_of(match))
    instants = [_instant(line, source) for line in chosen]
    _check_kinds(chosen, instants, source)
    seconds = sorted(_seconds(instants, source))
    return Replay(
        offsets_s=[(instant - seconds[0]) / speedup for instant in seconds],
        source=source,
        speedup=speedup,
        match=match,
        read_as="; ".join([description, *_remarks(instants)]),
    )


def _listed(lines: Iterable[str]) -> Iterable[str]:
    """The lines; those of a file that is one JSON list are its items."""
    lines = list(lines)
    first = next((line.lstrip("\ufeff \t") for line in lines if line.strip("\ufeff \t\r\n")), "")
    if first.startswith("["):
        try:
            items = json.loads("\n".join(lines).lstrip("\ufeff"))
        except (ValueError, RecursionError):
            return lines
        return [json.dumps(item) for item in items]
    return lines


def _choose(lines: list[Line], source: str, wanted: Match | None) -> tuple[list[Line], str]:
    """Which lines are arrivals, and a description of them."""
    requested = [(line, one) for line in lines if (one := request_on(line)) is not None]
    accepted = any(_GOT in line.text for line in lines)
    if wanted is not None and wanted.text:
        return _with_text(lines, wanted.text, source)
    if wanted is not None and not requested:
        raise UsageError(f"{source} holds no requests", f"--replay-match {wanted.words!r} has nothing to choose from")
    if requested:
        match = wanted or _JOB
        if any(match.takes(one) for _, one in requested):
            return _of_requests(len(lines), requested, match)
        if wanted is not None or not accepted:
            raise _none([one for _, one in requested], match, source)
    if accepted:
        return _with_text(lines, _GOT, source)
    if all(map(is_record, lines)):
        return lines, f"{count(len(lines), 'job')} of a run, as they were due"
    return lines, f"{count(len(lines), 'line')}, each an arrival"


def _of_requests(lines: int, requested: Sequence[tuple[Line, LoggedRequest]], match: Match) -> tuple[list[Line], str]:
    chosen = [(line, one) for line, one in requested if match.takes(one)]
    rest = [one for _, one in requested if not match.takes(one)]
    taken = [(line, one) for line, one in chosen if one.status not in SENT_AGAIN] or chosen
    failed = sum(one.status is not None and one.status >= 400 for _, one in taken)
    words = [f"{count(len(taken), 'request')} {match.words}"]
    if failed:
        words.append(f"{fixed(failed, 0)} of them answered with 400 or above, which count as well")
    if len(taken) < len(chosen):
        again = fixed(len(chosen) - len(taken), 0)
        words.append(
            f"{again} passed over that were redirected or refused without credentials: a client sends those again"
        )
    if rest:
        words.append(f"{count(len(rest), 'other request')} passed over ({listed(rest)})")
    if lines > len(requested):
        words.append(f"{count(lines - len(requested), 'line')} without a request passed over")
    return [line for line, _ in taken], "; ".join(words)


def _none(requested: Sequence[LoggedRequest], match: Match, source: str) -> UsageError:
    named = [one for one in requested if one.method == "POST"] or [one for one in requested if one.method]
    near = Counter(f"{one.method} {excerpt(one.path)}" for one in named).most_common(1)
    example = near[0][0] if near else "POST /generate"
    return UsageError(
        f"{source} has {count(len(requested), 'request')}, and none is {match.words} ({listed(requested, 5)})",
        f"name those that start a job, such as --replay-match '{example}', or a text in their lines",
    )


def _with_text(lines: Sequence[Line], text: str, source: str) -> tuple[list[Line], str]:
    chosen = [line for line in lines if text in line.text]
    if not chosen:
        raise UsageError(f"{source} has no line with {text!r} in it", "write --replay-match 'METHOD PATH', or a text")
    rest = len(lines) - len(chosen)
    passed_over = f"; {count(rest, 'other line')} passed over" if rest else ""
    return chosen, f"{count(len(chosen), 'line')} with {text!r}{passed_over}"


def _instant(line: Line, source: str) -> Instant:
    found = instant_of(line)
    if isinstance(found, Instant):
        return found
    where = f"{source}, line {line.number}"
    if found is not None:
        raise UsageError(f"{where}: {found}", "write one time a line, such as 0.5 or 2026-11-27T10:00:00Z")
    if line.text in ("{", "["):
        raise UsageError(f"{source} is JSON over several lines", "write one object a line: jq -c '.[]' FILE")
    raise UsageError(f"{where} has no time that can be read: {excerpt(line.text)}", _WHAT)


def _check_kinds(lines: Sequence[Line], instants: Sequence[Instant], source: str) -> None:
    for line, instant in zip(lines, instants, strict=True):
        if instant.kind != instants[0].kind:
            raise UsageError(
                f"{source}: line {lines[0].number} has {_KINDS[instants[0].kind]}, "
                f"and line {line.number} {_KINDS[instant.kind]}",
                "write all times in one way",
            )


def _seconds(instants: Sequence[Instant], source: str) -> list[float]:
    """Seconds in one order. Dates without a year are taken to follow each other: January comes after December."""
    if instants[0].kind != "yearless":
        return [instant.s for instant in instants]
    half, whole = 183 * 86400, 366 * 86400
    out: list[float] = []
    years = 0
    for instant in instants:
        here = instant.s + years * whole
        if out and abs(here - out[-1]) > half:
            step = 1 if here < out[-1] else -1
            years, here = years + step, here + step * whole
        out.append(here)
    parts = {(second - _MARCH_2000) // whole for second in out}
    if len(parts) > 1:
        raise UsageError(
            f"{source} has dates without a year on both sides of 29 February, which may not have been",
            "give a log with years, such as journalctl -o short-iso writes",
        )
    return out


def _remarks(instants: Sequence[Instant]) -> list[str]:
    """How the times were read, where a reader could take them for something else."""
    remarks = []
    units = {instant.unit for instant in instants if instant.unit}
    if units:
        names = " and ".join(sorted(_UNITS[unit] for unit in units))
        remarks.append(f"numbers taken as {names if instants[0].kind == 'offset' else f'Unix time in {names}'}")
    alike = sum(len(list(same)) - 1 for _, same in itertools.groupby(sorted(instant.s for instant in instants)))
    if alike and all(instant.whole for instant in instants):
        remarks.append(f"the times are whole seconds, so that {fixed(alike, 0)} come at once with one before")
    return remarks
