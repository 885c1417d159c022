"""Play the trouble of the gateway: `python -m tests.chaos.gateway [--dying gateway] [--faults] [--overload]`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.chaos.forked import side_by_side
from tests.chaos.gateway.kills import DYING, play, points_of


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--dying", choices=DYING, action="append")
    asked.add_argument("--point", help="play one point alone, e.g. 'store end: done'")
    asked.add_argument("--at-once", type=int, default=4)
    asked.add_argument("--keep", action="store_true", help="leave the folders of the plays that broke")
    words = asked.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="comfyload-gateway-"))
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
    if words.keep:
        print(folder, file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
