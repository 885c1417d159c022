"""`python -m tests.fuzz`: all targets, or one, for so many minutes or executions.

Each target runs in a process of its own, so that its peak of memory is its own. With `--guided`, atheris looks for
inputs that reach new lines (Linux; `pip install -e .[fuzz]`).
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import subprocess
import sys
import warnings
from pathlib import Path
from random import Random

from tests.fuzz.round import CORPUS, Round, file_name, fuzz
from tests.fuzz.targets import TARGETS

HANG_S = 60
"""An input that takes so long, not only of processor time, ends the target with a traceback."""


def main() -> int:
    options = _arguments()
    if options.target and not options.apart:
        return _guided(options) if options.guided else _one(options)
    names = options.target or list(TARGETS)
    print(f"{'target':15} {'executions':>11} {'exec/s':>8} {'crashes':>8} {'slowest':>8} {'peak MB':>8}", flush=True)
    failed = 0
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--seed", str(options.seed)]
        command += ["--executions", str(options.executions), "--keep", str(options.keep)]
        command += ["--minutes", str(options.minutes / len(names))] + (["--guided"] if options.guided else [])
        failed += subprocess.run(command, check=False).returncode != 0
    return 1 if failed else 0


def _one(options: argparse.Namespace) -> int:
    failed = 0
    faulthandler.enable()
    warnings.simplefilter("error")  # as in the tests: a warning printed in the midst of a table is a defect
    gc.freeze()
    for name in options.target:
        done = fuzz(TARGETS[name], Random(options.seed), executions=options.executions, seconds=60 * options.minutes)
        _tell(name, done, options.keep)
        failed += bool(done.found) or done.peak_bytes > TARGETS[name].most_bytes
    return 1 if failed else 0


def _tell(name: str, done: Round, keep: Path) -> None:
    rate = done.executions / max(done.seconds, 1e-9)
    print(
        f"{name:15} {done.executions:11,} {rate:8,.0f} {len(done.found):8} {done.slowest_s:7.2f}s "
        f"{done.peak_bytes / 2**20:8.0f}",
        flush=True,
    )
    for found in done.found.values():
        file = keep / name / file_name(found.data)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(found.data)
        print(f"  {found.kind}: {file}\n    {found.text.strip().splitlines()[-1][:200]}", flush=True)


def _guided(options: argparse.Namespace) -> int:
    from tests.fuzz.guided import guided

    return guided(options.target[0], 60 * options.minutes, options.executions, options.keep)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="repeatable; default: all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="in all")
    parser.add_argument("--executions", type=int, default=sys.maxsize, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    parser.add_argument("--apart", action="store_true", help="each target in a process of its own, also those named")
    parser.add_argument("--keep", type=Path, default=CORPUS, help="where inputs that made trouble are put")
    options = parser.parse_args()
    if options.minutes == float("inf") and options.executions == sys.maxsize:
        options.minutes = 5.0
    return options


if __name__ == "__main__":
    sys.exit(main())
