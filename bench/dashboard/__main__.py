"""What the dashboard costs and how fast it is, against its bar: on one machine, in one run, in one table."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path

from bench.dashboard import large, live, pictures, same, viewers
from bench.dashboard.row import Row, markdown

PICTURE = Path(__file__).parents[2] / "src" / "comfyload" / "sim" / "picture.json"
Part = Callable[[Path, Path, bool, Callable[[str], None]], Coroutine[None, None, list[Row]]]
PARTS: dict[str, Part] = {
    "large": large.measure,
    "live": live.measure,
    "same": same.measure,
    "viewers": viewers.measure,
    "cost": viewers.measure_cost,
    "tabs": viewers.measure_tabs,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.dashboard", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="whether all of it works, not how fast")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="only make the pictures of README and docs there")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="comfyload-bench-", ignore_cleanup_errors=True) as scratch:
        if words.pictures is not None:
            asyncio.run(pictures.make(Path(scratch), PICTURE, words.pictures))
            return
        rows: list[Row] = []
        left_out = []
        for part in words.only or PARTS:
            folder = Path(scratch) / part
            folder.mkdir()
            try:
                rows += asyncio.run(PARTS[part](folder, PICTURE, words.quick, _say))
            except Exception as why:
                left_out.append(f"{part}: {why}")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{sys.platform}, {os.cpu_count()} cores, load at the end {load}\n\n{markdown(rows)}")
    for line in left_out:
        print(f"\nLeft out: {line}")


def _say(words: str) -> None:
    print(words, file=sys.stderr)


if __name__ == "__main__":
    main()
