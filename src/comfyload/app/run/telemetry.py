"""The sources of telemetry that the options of a run choose."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
from comfyload.telemetry.source import Source, at


def last_probe_rows(reader: RunReader) -> dict[str, tuple[str, int]]:
    """Boot and number of the last row that the run read from the probe of each server, by the server's name."""
    last: dict[str, tuple[str, int]] = {}
    for line in reader.log():
        boot, seq = line.row.get("boot"), line.row.get("seq")
        if line.source == "probe" and isinstance(boot, str) and isinstance(seq, int):
            last[line.server] = boot, seq
    return last


def sources(
    options: RunOptions,
    servers: Sequence[tuple[Transport, Server]],
    clock: Callable[[], float],
    *,
    since: Mapping[str, tuple[str, int]],
    streamed: Callable[[int], bool],
) -> list[Source]:
    """The sources, in the order in which they finish: the log last, since it leaves out rows that the probe delivered.

    `since`: by server, the last row of its probe that an earlier process of the run read. `streamed`: whether the event
    stream of the server at that place reports the length of its queue. Of several servers, each source has the
    server's name in its own.
    """
    if not options.telemetry:
        return []
    found: list[Source] = [OwnMemory()]
    for place, (transport, server) in enumerate(servers):
        name, local = server.name if len(servers) > 1 else "", LocalServer(server)
        of_server: list[Source] = [
            Nvml(local, clock),
            HostReadings(local, clock),
            Stats(transport),
            QueueLength(transport, partial(streamed, place)),
            Probe(transport, clock, since.get(name)),
        ]
        for source in of_server:
            source.name = at(source.name, name)
        found += of_server
    for number, text in enumerate(options.scrape, 1):
        from comfyload.telemetry.scrape import Scrape  # loads what reads Prometheus

        found.append(Scrape(scrape_url(text), "scrape" if number == 1 else f"scrape{number}", clock))
    if options.metrics_log is not None:
        probes = [source for source in found if isinstance(source, Probe)]
        found.append(MetricsLog(Path(options.metrics_log), clock, probes))
    return found
