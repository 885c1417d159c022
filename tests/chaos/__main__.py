"""Play every kind of trouble and print what came of it: `python -m tests.chaos [--jobs N] [--kind NAME]`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.kinds import KINDS, lacking
from tests.chaos.play import play


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--kind", action="append", choices=[kind.name for kind in KINDS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the folders of the plays")
    words = parser.parse_args()
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and so would the loads that are started here
    base = Path(tempfile.mkdtemp(prefix="comfyload-chaos-"))
    print("| trouble | jobs | ended | executed | twice | code | most memory | seconds |")
    print("|---" + "|--:|---|--:|--:|--:|--:|--:|")
    broken = 0
    for kind in KINDS:
        if words.kind and kind.name not in words.kind:
            continue
        if lacks := lacking(kind):
            print(f"| {kind.name}: {kind.what} | | not played here: no {lacks} | | | | | |")
            continue
        began = time.monotonic()
        try:
            found = asyncio.run(play(kind, base / kind.name, words.jobs, words.seed))
        except Exception as error:  # noqa: BLE001 - the other kinds are played all the same
            broken += 1
            print(f"BROKEN {kind.name}: {error!r}", file=sys.stderr, flush=True)
            continue
        ends = ", ".join(f"{count} {end.replace('_', ' ')}" for end, count in found.ends.most_common())
        print(
            f"| {kind.name}: {kind.what} | {words.jobs} | {ends} | {found.begun} | {found.twice} | {found.code} | "
            f"{found.peak_mib:.0f} MiB | {time.monotonic() - began:.0f} |",
            flush=True,
        )
        for rule in found.broken:
            broken += 1
            print(f"BROKEN {kind.name}: {rule}", file=sys.stderr, flush=True)
    if words.keep:
        print(base, file=sys.stderr)
    else:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
