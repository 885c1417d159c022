"""What 1,000 and 10,000 GPUs need of generators, gateways and network, from what was measured: `python -m bench.scale`.

Each measured number is read from the page that says how it was measured, so that this table changes with it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec

from comfyload.app.run.descriptors import OTHER_FILES
from comfyload.comfy.connections import MAX_CONNECTIONS

ROOT = Path(__file__).parents[1]
PERFORMANCE = "docs/why/performance.md"
SUMMARY = "docs/decisions/019-million-jobs.md"

BUSY = 0.1
"""How busy a generator's core may be, so that what it adds to a latency is little (why/performance.md)."""
LOAD = 0.9
"""The offered load as a share of what the GPUs can do."""
QUEUED = 1.0
"""Jobs that wait for each one that runs."""
EVENT_BYTES, HEAD_BYTES = 200, 1_500
"""Of a message of the event stream, and of the heads of all requests and replies of a job."""
PICTURE_BYTES = 1_500_000
"""Of a picture, where outputs are downloaded."""
JOURNAL_BYTES = 1_100
"""Of both lines of a job in the journal."""
CASES = ((1_000, 60.0), (1_000, 10.0), (10_000, 60.0), (10_000, 10.0))
"""GPUs, and the seconds of a job."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What the pages say: CPU time and bytes of a job, and what one gateway has been seen to do."""

    job_us: float
    graph_bytes: float
    events: float
    history_bytes: float
    in_flight_kb: float
    gateway_servers: float
    gateway_jobs_s: float
    gateway_busy: float
    summary_s: float


SOURCES: dict[str, tuple[str, str]] = {
    "job_us": (PERFORMANCE, r"\| a job, spread 200 ms \| comfyload \| CPU µs \| ([\d.]+) "),
    "graph_bytes": (PERFORMANCE, r"a graph of ([\d.]+) KB"),
    "events": (PERFORMANCE, r"(\d+) messages, a history"),
    "history_bytes": (PERFORMANCE, r"a history entry of ([\d.]+) KB"),
    "in_flight_kb": (PERFORMANCE, r"\| 10,000 in flight \| comfyload \| KB per job \| ([\d.]+) "),
    "gateway_servers": (PERFORMANCE, r"\| ([\d,]+) servers, jobs of 0\.5 s \|"),
    "gateway_jobs_s": (PERFORMANCE, r"servers, jobs of 0\.5 s \| ([\d.]+) jobs a second"),
    "gateway_busy": (PERFORMANCE, r"servers, jobs of 0\.5 s \| .*the core ([\d.]+) % busy"),
    "summary_s": (SUMMARY, r"busy machine: \d+ to (\d+) s, the version before 17"),
}
"""Where each number stands: the page, and what stands around it."""


def measured(root: Path = ROOT) -> Measured:
    """The numbers of the pages.

    Raises:
        ValueError: one is not where it was.
    """
    found = dict[str, float]()
    for name, (page, around) in SOURCES.items():
        text = (root / page).read_text(encoding="utf-8")
        match = re.search(around, text)
        if match is None:
            raise ValueError(f"{page} says {name} in other words now")
        found[name] = float(match[1].replace(",", "")) * (1000 if name.endswith("_bytes") else 1)
    return Measured(**found)


def job_bytes(known: Measured) -> float:
    """On the network between generator and server, without outputs."""
    return known.graph_bytes + known.history_bytes + known.events * EVENT_BYTES + HEAD_BYTES


def needs(known: Measured, gpus: int, job_s: float) -> dict[str, str]:
    """What a load on so many GPUs needs; each row with its unit."""
    per_s = LOAD * gpus / job_s
    in_flight = LOAD * gpus * (1 + QUEUED)
    generators = math.ceil(per_s * known.job_us / 1e6 / BUSY)
    by_rate = math.ceil(per_s / known.gateway_jobs_s)
    by_servers = math.ceil(gpus / known.gateway_servers)
    gateways = max(by_rate, by_servers)
    jobs_hour = 3600 * per_s
    return {
        "jobs a second": f"{per_s:,.1f}",
        "jobs in flight": f"{in_flight:,.0f}",
        "generators, by CPU time": f"{generators:,}",
        "gateways, by jobs a second": f"{by_rate:,}",
        "gateways, by servers each": f"{by_servers:,}",
        "generators, at least one a gateway": f"{max(generators, gateways):,}",
        "memory for jobs in flight, all generators, MB": f"{in_flight * known.in_flight_kb / 1000:,.1f}",
        "open files of a generator, at most": f"{MAX_CONNECTIONS + OTHER_FILES:,}",
        "network, without outputs, Mbit/s": f"{8 * per_s * job_bytes(known) / 1e6:,.1f}",
        "network, outputs downloaded, Mbit/s": f"{8 * per_s * (job_bytes(known) + PICTURE_BYTES) / 1e6:,.0f}",
        "journals, MB an hour": f"{jobs_hour * JOURNAL_BYTES / 1e6:,.0f}",
        "reading an hour of it, CPU s": f"{known.summary_s * jobs_hour / 1e6:,.1f}",
    }


def table(known: Measured) -> str:
    """In Markdown: a row for what is needed, a column for each case."""
    columns = [needs(known, gpus, job_s) for gpus, job_s in CASES]
    head = ["", *(f"{gpus:,} GPUs, jobs of {job_s:g} s" for gpus, job_s in CASES)]
    rows = [head, ["---", *("---:" for _ in CASES)], *([row, *(one[row] for one in columns)] for row in columns[0])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


if __name__ == "__main__":
    print(table(measured()))
