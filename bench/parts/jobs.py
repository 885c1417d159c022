"""CPU time of a job, in the three ways a server may send its messages, which change a client's cost several-fold."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench import server
from bench.case import Case, Setting
from bench.client import CLIENTS, per_job

WAYS = {
    "sep": ("emit=1", 128),  # one send for each message, at once
    "burst": ("emit=0", 128),  # all messages of a job in one send
    "spread 200 ms": ("emit=2&dur=200&jit=0.5", 512),  # each wakes the client up
}
"""Settings of the server, and jobs in flight."""

MOST = 8000
"""Jobs of a server that takes its time, which it takes for each."""


def cases(setting: Setting) -> Iterator[Case]:
    for way in WAYS:
        for client in CLIENTS:
            yield Case(what=f"a job, {way}", client=client, measure=partial(_measure, setting, client, way))


def _measure(setting: Setting, client: str, way: str) -> dict[str, float]:
    settings, in_flight = WAYS[way]
    server.configure(setting.url, settings)
    short, long = CLIENTS[client].jobs
    jobs = (short, min(long, MOST)) if "dur" in settings else (short, long)
    return {"CPU µs": per_job(client, setting, in_flight, jobs=jobs)}
