"""Two processes in one run directory, at nearly the same moment: one works, the other is refused.

`python -m tests.chaos.races [--races N]`
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.forked import ended, side_by_side
from tests.chaos.judged import Expected, failed_otherwise, judge
from tests.chaos.kills import AMID, JOBS, Bench
from tests.chaos.server import counts, in_process

__all__ = ["PAIRS", "race"]

PAIRS = (
    ("resume", "resume"),
    ("resume", "cleanup"),
    ("cleanup", "cleanup"),
    ("run", "run"),
    ("run", "resume"),
    ("run", "cleanup"),
)
"""Who is let in together: of a run that was killed, or of one that has just begun."""
REFUSED = 2


def race(bench: Bench, number: int) -> list[str]:
    """One race; what does not hold, and how the two ended."""
    rng = random.Random(number)
    first, second = PAIRS[number % len(PAIRS)]
    path = bench.folder / f"race-{number}"
    if first != "run":
        bench.verb("run", path, AMID)
    one = bench.begin(first, path)
    time.sleep(0.3 * rng.random() if first == "run" else 0.05 * rng.random())
    other = bench.begin(second, path)
    codes = (ended(one), ended(other))
    broken = [] if set(codes) <= {0, REFUSED, 5} else [f"they ended with {codes}"]
    if "cleanup" in (first, second) and bench.verb("cleanup", path) not in (0, REFUSED):
        broken.append("something is left")
    bench.verb("resume", path)
    mine = bench.mine(path)
    cleaned = "cleanup" in (first, second)
    # A job that cleanup stops ends as interrupted; one that it deletes before it ran is sent again by resume.
    ends = ("cancelled", "failed") if cleaned else ()
    broken += judge(path, mine, Expected(ends=ends), JOBS).broken
    broken += failed_otherwise(path)
    truth = counts(mine)
    posted = [one for one, n in truth["posted"].items() if n > 1 and (not cleaned or truth["begun"][one] > 1)]
    broken += [f"posted twice: {posted}"] if posted else []
    shutil.rmtree(path, ignore_errors=True)
    how = "one was refused" if REFUSED in codes else "both were let in, one after the other"
    return [f"{first} and {second}: {what}" for what in broken or [how]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="comfyload-races-"))
    with in_process(folder / "executed.log", speed=5.0) as url:
        bench = Bench(folder, url, folder / "executed.log")
        said = side_by_side(range(words.races), lambda number: race(bench, number), words.at_once)
        twice = sum(n > 1 for n in counts(bench.ledger)["begun"].values())
    shutil.rmtree(folder, ignore_errors=True)
    fine = ("refused", "one after the other")
    for line in sorted(set(said)):
        print(f"{said.count(line):4} {line}")
    print(f"{len(said)} races, {twice} prompts executed twice")
    return 1 if twice or any(not line.endswith(fine) for line in said) else 0


if __name__ == "__main__":
    sys.exit(main())
