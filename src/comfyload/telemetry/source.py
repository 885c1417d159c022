"""What a source of readings is, and what one reading brings."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from comfyload.record.model import LogLine, Sample

__all__ = ["NoReading", "NotAvailable", "Readings", "Source"]


class NotAvailable(Exception):
    """There is no such thing here; it is not asked again. With a text, that is said."""


class NoReading(Exception):
    """A source gave no answer, and why: without numbers that change, so that one reason is said once."""


class Readings(Struct, frozen=True, kw_only=True):
    """What one reading of a source brought.

    `values`: by name, true at `t`, or at the instant of the asking where that is None; a value None says that it could
    not be told. `took_s`: what the reading cost, where the source knows better than who asked. `samples` and `lines`
    have instants of their own. `notes`: what is to be said of the source, once each. `more`: there is more to read at
    once. `asked` False: nothing was read, since nothing had to be.
    """

    values: dict[str, float | None] = {}
    t: float | None = None
    took_s: float | None = None
    samples: list[Sample] = []
    lines: list[LogLine] = []
    notes: list[str] = []
    more: bool = False
    asked: bool = True


class Source(Protocol):
    """One thing to read: `name` is the `source` of its samples, `interval_s` how far its instants lie apart.

    A call may be cancelled wherever it waits: what it has taken by then must come with the next.
    """

    name: str
    interval_s: float
    patience_s: float
    """How long one call may take."""

    async def open(self) -> None:
        """Before the first job: what takes long, or must be known from the start.

        Raises:
            Absent: there is nothing to read here.
            Silent: not now.
        """
        ...

    async def read(self) -> Readings:
        """What there is to tell now.

        Raises:
            Absent, Silent: as above.
        """
        ...

    async def finish(self) -> Readings:
        """After the last job: what is left to tell; nothing of a source that only tells the present."""
        ...

    def close(self) -> None:
        """No more calls will come. Must not wait."""
        ...
