"""`python -m tests.hostile [WORD…]`: all scenarios, or those with such a word in their names, and what came of each."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.drive import Done
from tests.hostile.play import play
from tests.hostile.table import scenarios


def line(done: Done) -> str:
    code = "killed" if done.code is None else str(done.code)
    ended = f"{code:>6} {done.seconds:6.1f} s {done.mb:5.0f} MB"
    return f"{done.scenario:32} {done.command:8} {ended}  {'; '.join(done.faults) or 'ok'}"


def main(words: list[str]) -> int:
    every = scenarios()
    chosen = {name: one for name, one in every.items() if not words or any(word in name for word in words)}
    if not chosen:
        print(f"no scenario has {' or '.join(words)} in its name; one is {next(iter(every))}", file=sys.stderr)  # noqa: T201
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        done = asyncio.run(play(chosen, Path(folder), say=lambda one: print(line(one), flush=True)))  # noqa: T201
    wrong = [one for one in done if one.faults]
    print(  # noqa: T201
        f"{len(chosen)} scenarios, {len(done)} commands, {len(wrong)} at fault; "
        f"at most {max(one.mb for one in done):.0f} MB; {time.monotonic() - began:.0f} s"
    )
    for one in wrong:
        print("FAULT", line(one))  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
