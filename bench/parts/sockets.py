"""What WebSockets cost: to open one, to hold it, and a job with one or with 100 of them.

ComfyUI tells every socket of each job that comes and goes, and so does the null server here: with 100 sockets a job is
200 messages more. `comfyload` has one socket for each server.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench import server
from bench.case import OURS, Case, Setting
from bench.client import per_job, ran

OTHERS = ("prototype", "aiohttp, best")
FEW, MANY = 100, 1100
IN_FLIGHT = 100
JOBS = (500, 3000)


def cases(setting: Setting) -> Iterator[Case]:
    for client in OTHERS:
        yield Case(what="a socket", client=client, measure=partial(_socket, setting, client), rounds=3)
    for sockets in (1, 100):
        for client in (OURS, *OTHERS):
            if client != OURS or sockets == 1:
                measure = partial(_job, setting, client, sockets)
                yield Case(what=f"a job, {sockets} open", client=client, measure=measure, rounds=3)


def _socket(setting: Setting, client: str) -> dict[str, float]:
    """Processes that open sockets and send nothing."""
    server.configure(setting.url, "")
    cpu_s, rss = [], []
    for sockets in (FEW, MANY):
        with ran(client, setting, 0, 1, sockets=sockets) as run:
            cpu_s.append(run.usage.cpu_s)
            rss.append(run.usage.max_rss_bytes)
    return {"CPU µs to open": (cpu_s[1] - cpu_s[0]) / (MANY - FEW) * 1e6, "KB": (rss[1] - rss[0]) / (MANY - FEW) / 1e3}


def _job(setting: Setting, client: str, sockets: int) -> dict[str, float]:
    server.configure(setting.url, "emit=2&dur=100&jit=0.5&bc=1")
    return {"CPU µs": per_job(client, setting, IN_FLIGHT, sockets=sockets, jobs=JOBS)}
