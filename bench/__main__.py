"""Compare comfyload with other clients and with what the machine allows, in one run and one table.

Everything is measured in turn, in an order that chance decides anew in each round, so that whatever else the machine
does falls on all alike. The null server has one cpu and the client another.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from bench import server
from bench.case import Case, Round, Row, Setting, rows
from bench.client import CLIENTS, ran
from bench.parts import completion, first_job, images, instructions, jobs, lateness, memory, sockets, summary
from bench.process import Missing
from bench.table import markdown

PARTS: dict[str, Callable[[Setting], Iterable[Case]]] = {
    "jobs": jobs.cases,
    "memory": memory.cases,
    "lateness": lateness.cases,
    "completion": completion.cases,
    "first-job": first_job.cases,
    "summary": summary.cases,
    "sockets": sockets.cases,
    "images": images.cases,
    "instructions": instructions.cases,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="one short round: whether all of it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values here")
    parser.add_argument("--client-cpu", type=int, default=0)
    parser.add_argument("--server-cpu", type=int, default=1)
    words = parser.parse_args()
    if not {words.client_cpu, words.server_cpu} <= os.sched_getaffinity(0):
        parser.error("this process may not use both of the cpus")
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell in the background has it ignored
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="comfyload-bench-") as tmp:
        folder = Path(tmp)
        workflow = folder / "workflow.json"
        workflow.write_text(json.dumps(server.workflow(), separators=(",", ":")))
        with server.running(folder, words.server_cpu) as url:
            setting = Setting(url=url, workflow=workflow, folder=folder, client_cpu=words.client_cpu, quick=words.quick)
            cases = {part: list(PARTS[part](setting)) for part in words.only or PARTS}
            compile_all(setting, {case.client for part in cases.values() for case in part} & CLIENTS.keys())
            table, left_out = measure(cases, words.quick)
    print(markdown(table))
    for line in left_out:
        print(f"\nLeft out: {line}")
    if words.json:
        words.json.write_bytes(msgspec.json.format(msgspec.json.encode({"rows": table, "left_out": left_out})))


def compile_all(setting: Setting, clients: set[str]) -> None:
    """Run each client once, so that Python has compiled its modules before anything is measured."""
    for client in sorted(clients):
        server.configure(setting.url, "emit=0")
        with contextlib.suppress(Missing), ran(client, setting, 10, 1):
            pass


def measure(parts: dict[str, list[Case]], quick: bool) -> tuple[list[Row], list[str]]:
    """Rows of all parts; how many measurements are left out, and why."""
    order = [(part, case) for part, cases in parts.items() for case in cases]
    measured: dict[str, dict[tuple[str, str], list[Round]]] = {part: defaultdict(list) for part in parts}
    failed: Counter[str] = Counter()
    draw, began = random.Random(1), time.monotonic()
    rounds = 1 if quick else max(case.rounds for _, case in order)
    try:
        for number in range(rounds):
            for part, case in draw.sample(order, len(order)):
                if number < case.rounds:
                    values = measured[part][case.what, case.client]
                    try:
                        values.append(case.measure())
                    except Missing as why:
                        values.append(None)
                        failed[f"{case.client}: {why}"] += 1
            print(f"round {number + 1} of {rounds} ended after {time.monotonic() - began:.0f} s", file=sys.stderr)
    except KeyboardInterrupt:
        failed["the rest: interrupted"] += 1
    table = [row for part, cases in parts.items() for row in rows(part, cases, measured[part])]
    return table, [f"{times} of {why}" for why, times in failed.items()]


if __name__ == "__main__":
    main()
