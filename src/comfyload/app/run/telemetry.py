"""The sources of telemetry that the options of a run choose."""

from collections.abc import Callable
from pathlib import Path

from comfyload.app.run.options import RunOptions
from comfyload.comfy.address import scrape_url
from comfyload.comfy.wire.calls import Transport
from comfyload.record.model import Server
from comfyload.record.run import RunReader
from comfyload.telemetry.host import HostReadings
from comfyload.telemetry.local_server import LocalServer
from comfyload.telemetry.log import MetricsLog
from comfyload.telemetry.nvml import Nvml
from comfyload.telemetry.own import OwnMemory
from comfyload.telemetry.probe import Probe
from comfyload.telemetry.server import QueueLength, Stats
from comfyload.telemetry.source import Source


def last_probe_row(reader: RunReader) -> tuple[str, int] | None:
    """Boot and number of the last row that the run read from the probe."""
    last = None
    for line in reader.log():
        boot, seq = line.row.get("boot"), line.row.get("seq")
        if line.source == "probe" and isinstance(boot, str) and isinstance(seq, int):
            last = boot, seq
    return last


def sources(
    options: RunOptions,
    transport: Transport,
    server: Server,
    clock: Callable[[], float],
    *,
    since: tuple[str, int] | None,
    streamed: Callable[[], bool],
) -> list[Source]:
    """The sources, in the order in which they finish: the log last, since it leaves out rows that the probe delivered.

    `since`: the last row of the probe that an earlier process of the run read. `streamed`: whether the event stream
    reports the length of the queue.
    """
    if not options.telemetry:
        return []
    local, probe = LocalServer(server), Probe(transport, clock, since)
    found: list[Source] = [
        Nvml(local, clock),
        HostReadings(local, clock),
        OwnMemory(),
        Stats(transport),
        QueueLength(transport, streamed),
        probe,
    ]
    for number, text in enumerate(options.scrape, 1):
        from comfyload.telemetry.scrape import Scrape  # loads what reads Prometheus

        found.append(Scrape(scrape_url(text), "scrape" if number == 1 else f"scrape{number}", clock))
    if options.metrics_log is not None:
        found.append(MetricsLog(Path(options.metrics_log), clock, probe))
    return found
