"""A run as one of several shards: what cannot be shared, the instant at which all begin, and the wait for it."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

from comfyload.errors import UsageError
from comfyload.load import Stop
from comfyload.record.bounds import moment
from comfyload.record.options import RunOptions
from comfyload.record.plan import Closed, Plan
from comfyload.record.shard import WHOLE, Shard, read_shard

BEFORE_S = 0.25
"""So long before its instant a run stops waiting: what is written when it begins is then written already."""
LATE_S = 0.02
"""A run that is ready later than this after its instant says so."""
LOADS_S, SHARE_S = 4.0, 1.5
"""How long a shard takes until it could send: by itself, and for each shard on one core."""
_LOOK_S = 1.0
"""How often the wall clock is looked at meanwhile, which may be set."""

WallClock = Callable[[], float]
"""Unix seconds."""


def wall() -> float:
    return time.time()


def parse_shard(text: str) -> str:
    """`I/N` of one generator.

    Raises:
        UsageError: it is none.
    """
    try:
        shard = read_shard(text)
    except ValueError as error:
        raise UsageError(f"--shard {error}", "give 0/4 to 3/4 to four generators") from None
    if len(shard.members) != 1:
        raise UsageError(f"--shard {text!r} is not I/N, such as 0/4", "give 0/4 to 3/4 to four generators")
    return str(shard)


def parse_instant(text: str) -> str:
    """An instant in ISO 8601, UTC where it has no zone, or in Unix seconds; as ISO 8601 in UTC.

    Raises:
        UsageError: it is neither.
    """
    try:
        if re.fullmatch(r"\d{9,11}(\.\d+)?", text.strip()):
            return datetime.fromtimestamp(float(text), UTC).isoformat()
        found = datetime.fromisoformat(text.strip())
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        return moment(found.isoformat()).isoformat()
    except (ValueError, OverflowError, OSError):
        hint = "write an instant such as 2026-11-28T14:00:00Z, or Unix seconds"
        raise UsageError(f"invalid --start-at {text[:40]!r}", hint) from None


def shard_of(options: RunOptions) -> Shard:
    """Which part of the arrivals the options are for."""
    return WHOLE if options.shard is None else read_shard(parse_shard(options.shard))


def start_of(options: RunOptions) -> float | None:
    """When the counted load begins, in Unix seconds; None: as soon as it can."""
    return None if options.start_at is None else datetime.fromisoformat(parse_instant(options.start_at)).timestamp()


def check_sharing(options: RunOptions, now: float) -> None:
    """Refuse what cannot be shared, and an instant that is past.

    Raises:
        UsageError: shards would not make the plan's load, or it would begin late.
    """
    shard, at = shard_of(options), start_of(options)
    if not shard.is_whole or options.shard is not None:
        if options.plan.seed is None:
            raise UsageError("--shard needs --seed: each shard would draw arrivals of its own", "give all the same N")
        check_dealt(options.plan, shard.of)
    if at is not None and at <= now:
        raise UsageError(f"--start-at {options.start_at} is {now - at:.3g} s past", "give an instant to come")


def check_dealt(plan: Plan, shards: int) -> None:
    """Raises: UsageError: there are fewer users or places than shards, so that some would have none."""
    load = plan.load
    dealt, what = (load.concurrency, "users") if isinstance(load, Closed) else (load.max_in_flight, "places")
    if dealt is not None and dealt < shards:
        flag = "--concurrency" if isinstance(load, Closed) else "--max-in-flight"
        hint = f"give {flag} {shards} or more, or fewer shards"
        raise UsageError(f"{dealt} {what} cannot be dealt out to {shards} shards", hint)


async def hold(at: float, clock: Callable[[], float], stop: Stop, wall: WallClock = wall) -> float:
    """Wait until shortly before `at`, in Unix seconds, or until the stop; the instant that it is by `clock`."""
    while (left := at - wall()) > BEFORE_S and not stop.requested:
        await stop.within(min(left - BEFORE_S, _LOOK_S))
    return clock() + (at - wall())
