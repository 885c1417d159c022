"""How long it takes from the command to its first job at the server: start of Python, imports, checks, connections."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench import server
from bench.case import OURS, Case, Setting
from bench.client import ran

CLIENTS = (OURS, "prototype", "aiohttp, best", "Locust FastHttpUser", "C, epoll")


def cases(setting: Setting) -> Iterator[Case]:
    for client in CLIENTS:
        yield Case(what="command to first job", client=client, measure=partial(_measure, setting, client))


def _measure(setting: Setting, client: str) -> dict[str, float]:
    server.configure(setting.url, "emit=0")
    with ran(client, setting, 10, 1) as run:
        return {"ms": (server.stat(setting.url, "first_ns") - run.usage.began_ns) / 1e6}
