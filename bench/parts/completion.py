"""How much later than the server a client says that a job ended, with 100 jobs in flight.

Both read CLOCK_MONOTONIC of one machine. `comfyload`'s records count from the start of its run, so here it also says
when that was.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from bench import server
from bench.case import OURS, Case, Setting
from bench.client import ran
from bench.clients.comfyload_zero import ZERO
from comfyload.record.model import Record
from comfyload.record.run import RunReader

IN_FLIGHT = 100
CLIENTS = (OURS, "prototype", "aiohttp, best", "aiohttp, naive", "C, epoll")


class Line(msgspec.Struct):
    prompt_id: str
    done_ns: int


def cases(setting: Setting) -> Iterator[Case]:
    for client in CLIENTS:
        yield Case(what=f"{IN_FLIGHT} in flight", client=client, measure=partial(_measure, setting, client), rounds=3)


def _measure(setting: Setting, client: str) -> dict[str, float]:
    server.configure(setting.url, "emit=2&dur=200&jit=0.5")
    with ran(client, setting, 500 if setting.quick else 2000, IN_FLIGHT, module="bench.clients.comfyload_zero") as run:
        done = _ours(run.folder) if client == OURS else _theirs(run.folder)
    ended = server.ends(setting.url)
    late_us = [(at - ended[prompt_id]) / 1e3 for prompt_id, at in done.items()]
    p50, p99 = np.quantile(late_us, [0.5, 0.99])
    return {"p50, µs": float(p50), "p99, µs": float(p99)}


def _ours(folder: Path) -> dict[str, float]:
    zero = float((folder / ZERO).read_text())
    records = (line for line in RunReader(folder / "run").lines() if isinstance(line, Record))
    return {record.prompt_id: ((record.execution.done or 0.0) + zero) * 1e9 for record in records}


def _theirs(folder: Path) -> dict[str, float]:
    decode = msgspec.json.Decoder(Line).decode
    with (folder / "records.ndjson").open("rb") as file:
        return {line.prompt_id: line.done_ns for line in map(decode, file)}
