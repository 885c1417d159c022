"""CPU time of downloading an image of 1 MiB and keeping nothing of it: a job with one, less a job without."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench import server
from bench.case import OURS, Case, Setting
from bench.client import per_job

CLIENTS = (OURS, "prototype", "aiohttp, best", "aiohttp, naive", "Locust FastHttpUser", "C, epoll")
IN_FLIGHT = 8
FEW, MANY = (300, 2300), (1000, 9000)


def cases(setting: Setting) -> Iterator[Case]:
    for client in CLIENTS:
        yield Case(what="an image of 1 MiB", client=client, measure=partial(_measure, setting, client), rounds=3)


def _measure(setting: Setting, client: str) -> dict[str, float]:
    server.configure(setting.url, "emit=0")
    jobs = MANY if client.startswith("C,") else FEW
    without, with_one = (per_job(client, setting, IN_FLIGHT, fetch=fetch, jobs=jobs) for fetch in (False, True))
    return {"CPU µs": with_one - without}
