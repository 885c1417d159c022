"""What a source of readings is, and what one reading brings."""

from typing import Protocol

from msgspec import Struct

from comfyload.record.model import LogLine, Sample


def at(source: str, server: str) -> str:
    """The name of a source of one of several servers: `comfy@gpu1`; `server` "": there is but one."""
    return f"{source}@{server}" if server else source


class NotAvailable(Exception):
    """There is nothing to read here, so that no more attempts are made. A text becomes an observation."""


class NoReading(Exception):
    """A source gave no answer. The text says why, without numbers that change, so that a reason is noted once."""


class Readings(Struct, frozen=True, kw_only=True):
    """The result of one reading of a source.

    `values`: by name, true at `t`; `t` None: at the instant when the reading began; a value None: not known. `took_s`:
    how long the reading took; None: as measured by the collector. `samples` and `lines` have instants of their own.
    `notes`: texts for observations, each noted once. `more`: read again at once. `read` False: there was nothing to
    read.
    """

    values: dict[str, float | None] = {}
    t: float | None = None
    took_s: float | None = None
    samples: list[Sample] = []
    lines: list[LogLine] = []
    notes: list[str] = []
    more: bool = False
    read: bool = True


class Source(Protocol):
    """One thing to read: `name` is the `source` of its samples, `interval_s` the time between its readings.

    A call may be cancelled wherever it waits: what it has taken by then must come with the next.
    """

    name: str
    interval_s: float
    timeout_s: float
    """How long one call may take."""

    async def open(self) -> None:
        """Called before the first job, for what takes long or must be known from the start.

        Raises:
            NotAvailable: there is nothing to read here.
            NoReading: not now.
        """
        return

    async def read(self) -> Readings:
        """The present readings.

        Raises:
            NotAvailable, NoReading: as above.
        """

    async def finish(self) -> Readings:
        """Called after the last job, for what is not read yet."""
        return Readings(read=False)

    def close(self) -> None:
        """Called last. Must not wait."""
        return
