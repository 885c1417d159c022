"""Play the trouble of the gateway: `python -m tests.chaos.gateway [--dying gateway] [--faults] [--overload]`.

Without a word the gateway, a server, and both are killed at every point.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from comfyload import clock
from comfyload.app.faults import SCENARIOS
from tests.chaos.forked import side_by_side
from tests.chaos.gateway.faults import compared
from tests.chaos.gateway.kills import DYING, play, points_of
from tests.chaos.gateway.overload import SHAPES, Load, overload

SEEDS = range(1, 9)
WORSE = 0.02
"""By how much the gateway may be behind the Python client."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dying", choices=DYING, action="append")
    parser.add_argument("--point", help="play one point alone, e.g. 'store end: done'")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--jobs", type=int, default=240)
    parser.add_argument(
        "--plays", type=int, default=3, help="of each scenario, side by side: their jobs are counted together"
    )
    parser.add_argument(
        "--struck", type=int, default=2, choices=(1, 2), help="so many of the two servers are in trouble"
    )
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the plays that broke")
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="comfyload-gateway-"))
    kind = _faults if words.faults else _overload if words.overload else _kills
    failed = kind(words, folder)
    if words.keep:
        print(folder, file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


def _kills(words: argparse.Namespace, folder: Path) -> int:
    failed = 0
    for dying in words.dying or DYING:
        began, points = time.monotonic(), points_of(folder, dying)
        points = [point for point in points if words.point in (None, point[0])]
        said = side_by_side(points, partial(play, folder, dying), words.at_once)
        broken = [line for line in said if not line.endswith((": held", ": NOT REACHED"))]
        missed = [line for line in said if line.endswith("NOT REACHED")]
        failed += len(broken)
        killed, took = len(points) - len(missed), time.monotonic() - began
        print(f"{dying}: {len(points)} points, {killed} killed at, {len(broken)} broken, {took:.0f} s", flush=True)
        print("\n".join([*broken, *missed]), file=sys.stderr, flush=True)
    return failed


def _faults(words: argparse.Namespace, folder: Path) -> int:
    print("| trouble | jobs | in time, Python client | in time, gateway | lost | twice, Python client | twice |")
    print("|---" + "|--:" * 6 + "|")
    failed = 0
    for scenario in words.scenario or SCENARIOS:
        found = clock.run(compared(scenario, folder / scenario, words.jobs, 0.3, 9.0, words.struck, words.plays))
        python, gateway = found["python"], found["gateway"]
        print(
            f"| {scenario} | {gateway.of} | {python.in_time} | {gateway.in_time} | {gateway.lost} | {python.twice} | "
            f"{gateway.twice} |",
            flush=True,
        )
        bad = gateway.share < python.share - WORSE or (scenario == "steady" and gateway.in_time < gateway.of)
        failed += bad
        if bad:
            print(f"BROKEN {scenario}: {gateway} beside {python}", file=sys.stderr, flush=True)
    return failed


def _overload(words: argparse.Namespace, folder: Path) -> int:
    print("| jobs | seeds | offered | accepted | done in time | p99 | least goodput | calm tenant done | 503 within |")
    print("|---" + "|--:" * 8 + "|")
    broken = []
    for shape in SHAPES:
        loads = [overload(folder / f"{shape}-{seed}", shape, seed) for seed in SEEDS]
        accepted = sum(sum(load.accepted.values()) for load in loads)
        in_time = sum(sum(load.in_time.values()) for load in loads)
        offered, calm = sum(sum(load.offered.values()) for load in loads), sum(load.offered["calm"] for load in loads)
        took = sorted(second for load in loads for second in load.took_s)
        print(
            f"| {shape} | {len(loads)} | {offered} | {accepted} | {100 * in_time / accepted:.1f} % | "
            f"{took[-(-99 * len(took) // 100) - 1]:.0f} s | {100 * min(load.goodput for load in loads):.0f} % | "
            f"{sum(load.in_time['calm'] for load in loads)} of {calm} | "
            f"{max(load.answered_s for load in loads):.2f} s |",
            flush=True,
        )
        broken += [f"{shape}: {rule}" for rule in broken_rules(loads)]
    failing = overload(folder / "failing", "steady", failing=0.3)
    print(f"a third of executions fail: {failing.retries} retries of {failing.allowed:.0f} that the budget allows")
    if failing.retries > failing.allowed:
        broken.append("more retries than the budget allows")
    print("\n".join(broken), file=sys.stderr)
    return len(broken)


def broken_rules(loads: list[Load]) -> list[str]:
    """What does not hold of these loads, all of one shape."""
    accepted = sum(sum(load.accepted.values()) for load in loads)
    in_time = sum(sum(load.in_time.values()) for load in loads)
    goodput, answered_s = min(load.goodput for load in loads), max(load.answered_s for load in loads)
    return [
        *([f"goodput {goodput:.3f}"] if goodput < 0.95 else []),
        *([f"{in_time} of {accepted} accepted jobs were done in time"] if in_time < 0.99 * accepted else []),
        *(["refused otherwise than by 503"] if any(load.refused.keys() - {503} for load in loads) else []),
        *([f"a refusal took {answered_s:.2f} s"] if answered_s > 0.05 else []),
        *(["jobs were executed twice"] if any(load.twice for load in loads) else []),
    ]


if __name__ == "__main__":
    sys.exit(main())
