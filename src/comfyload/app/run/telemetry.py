"""What is read beside a run, by what its options ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from comfyload.telemetry.host import HostReadings
from comfyload.telemetry.local_server import LocalServer
from comfyload.telemetry.log import MetricsLog
from comfyload.telemetry.nvml import Nvml
from comfyload.telemetry.probe import Probe
from comfyload.telemetry.scrape import Scrape, scrape_url
from comfyload.telemetry.server import QueueLength, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from comfyload.app.run.options import RunOptions
    from comfyload.comfy.transport import Transport
    from comfyload.record.model import Server
    from comfyload.record.run import RunReader
    from comfyload.telemetry.source import Source

__all__ = ["Telemetry", "asked_of", "last_probe_row", "rows_are_told", "sources"]


class Telemetry(Struct, frozen=True, kw_only=True):
    """What is asked for. `since`: the last row of the probe that an earlier process of the run took."""

    on: bool = False
    scrape: list[str] = []
    metrics_log: str | None = None
    since: tuple[str, int] | None = None


def asked_of(options: RunOptions, since: tuple[str, int] | None = None) -> Telemetry:
    return Telemetry(on=options.telemetry, scrape=options.scrape, metrics_log=options.metrics_log, since=since)


def last_probe_row(reader: RunReader) -> tuple[str, int] | None:
    """Boot and number of the last row that the run took from the probe."""
    last = None
    for line in reader.log():
        boot, seq = line.row.get("boot"), line.row.get("seq")
        if line.source == "probe" and isinstance(boot, str) and isinstance(seq, int):
            last = boot, seq
    return last


def sources(
    asked: Telemetry, transport: Transport, server: Server, clock: Callable[[], float], heard: Callable[[], bool]
) -> list[Source]:
    """The sources, in the order in which they finish: the log last, for it knows what the probe has told.

    `heard`: whether the event stream tells the length of the queue.
    """
    if not asked.on:
        return []
    here, probe = LocalServer(server), Probe(transport, clock, asked.since)
    found: list[Source] = [
        Nvml(here, clock),
        HostReadings(here, clock),
        Stats(transport),
        QueueLength(transport, heard),
        probe,
    ]
    for number, text in enumerate(asked.scrape, 1):
        found.append(Scrape(scrape_url(text), "scrape" if number == 1 else f"scrape{number}", clock))
    if asked.metrics_log is not None:
        found.append(MetricsLog(Path(asked.metrics_log), clock, probe))
    return found


def rows_are_told(sources: Sequence[Source]) -> bool:
    """Whether the server's side tells rows: by its probe, or in the log that is followed."""
    return any(source.present for source in sources if isinstance(source, Probe | MetricsLog))
