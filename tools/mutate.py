"""Do the tests notice a fault? Puts small faults into the code, one at a time, and runs the tests of that line.

    python -m tools.mutate map --tree /tmp/tree            # which tests run which lines
    python -m tools.mutate run --tree /tmp/tree --mutants 300 --seed 1
    python -m tools.mutate map --tree /tmp/tree tests/unit/test_new.py
    python -m tools.mutate again --tree /tmp/tree          # the survivors once more, with the new tests
    python -m tools.mutate table --tree /tmp/tree

The tree is a copy of the checkout, made by `map`, and is written to; results are beside it, in TREE.json.
"""

from __future__ import annotations

import argparse
import compileall
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from _pytest.runner import runtestprotocol

from tools.line_map import CONSTANTS, LineMap, made_by
from tools.mutants import Mutant, mutants_of
from tools.swaps import Swap, swaps_of

HERE = Path(__file__).parents[1]
TARGETS = ("comfy", "retry", "load", "judge/columns/ledger.py", "judge/gates")
COPIED = ("src", "tests", "pack", "tools", "docs", "bench", "infra", "pyproject.toml", "README.md")
FOLDERS = ("unit", "conformance", "property")
TESTS_S = 30.0
"""Seconds of tests of one fault, as they take without it; the quickest first."""
SLOWER, STARTED_S = 4.0, 20.0
"""A fault may make tests so many times slower, and a start may take so long, before it counts as a hang."""

QUIET = "ignore::pytest.PytestAssertRewriteWarning"
BROKEN = 70
CAME = {0: "survived", 1: "killed", 2: "killed", 3: "killed", 4: "killed", BROKEN: "killed"}
"""By pytest's exit status: 1 a test failed, 2 to 4 a test file could not be read, for the code it imports cannot."""


Items = dict[str, pytest.Item]
"""Tests by name."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one fault: `killed`, `hang` (killed too), `survived`, or `no test` (none runs the line)."""

    mutant: Mutant
    came: str
    tests: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("map", "run", "again", "table"))
    parser.add_argument("tests", nargs="*", help="of map: only these test files")
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_intermixed_args()
    tree: Path = options.tree.resolve()
    if options.verb == "table":
        print(table(results(tree)))
        return
    if options.verb == "map":
        copy_to(tree)
        made_by(tree, options.tests or tests_of(tree), TARGETS)
        return
    known = results(tree)
    if options.verb == "run":
        done = {result.mutant.key for result in known}
        todo = [one for one in sample(tree, options.mutants, options.seed) if one.key not in done]
    else:
        todo = [result.mutant for result in known if result.came != "killed"]
    try_all(tree, todo)


def copy_to(tree: Path) -> None:
    """The checkout's files, byte code included: each start of Python is quicker for it."""
    tree.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = HERE / name, tree / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target)
    compileall.compile_dir(tree / "src", quiet=1)


def tests_of(tree: Path) -> list[str]:
    """Test files that need no second process and name a part that faults are put into."""
    parts = (
        "comfyload.comfy",
        "comfyload.retry",
        "comfyload.load",
        "judge.gates",
        "ledger",
        "support.rig",
        "summary",
        "test_bounds",
    )
    files = [file for folder in FOLDERS for file in sorted((tree / "tests" / folder).glob("test_*.py"))]
    texts = {file.relative_to(tree).as_posix(): file.read_text(encoding="utf-8") for file in files}
    return [CONSTANTS, *(name for name, text in texts.items() if name != CONSTANTS and any(p in text for p in parts))]


def sample(tree: Path, count: int, seed: int) -> list[Mutant]:
    """So many faults, each as likely as any other."""
    found = possible(tree)
    print(f"{len(found)} possible faults", file=sys.stderr)
    return random.Random(seed).sample(found, min(count, len(found)))


def possible(tree: Path) -> list[Mutant]:
    """Every fault that the script knows for the parts it is about."""
    found: list[Mutant] = []
    for target in TARGETS:
        path = tree / "src" / "comfyload" / target
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found += mutants_of(tree, file)
    return found


def try_all(tree: Path, mutants: list[Mutant]) -> None:
    """One fault after the other, within one session of pytest that has read all tests."""
    lines = LineMap.read(tree)
    os.chdir(tree)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(tree), str(tree / "src"), str(tree / "pack")]
    progress = os.fdopen(os.dup(2), "w", buffering=1)

    def loop(items: Items) -> None:
        unharmed = [name for name in sorted(items, key=lines.usual_s)[:200] if name in items]
        if _in_a_child(lambda: _run(items, unharmed), 4 * STARTED_S) != "survived":
            progress.write("tests fail without any fault: results would mean nothing\n")
            return
        for number, mutant in enumerate(mutants, 1):
            result = attempt(tree, mutant, lines, items)
            keep(tree, result)
            what = f"{mutant.file}:{mutant.line} {mutant.kind}: {mutant.before[:60]!r} -> {mutant.after[:60]!r}"
            progress.write(
                f"{number}/{len(mutants)} {result.came} {result.seconds:.1f} s {what} ({result.tests} tests)\n"
            )

    _pytest(sorted({test.partition("::")[0] for test in lines.tests}), loop)


def attempt(tree: Path, mutant: Mutant, lines: LineMap, items: Items) -> Result:
    """Run the tests of the line with the fault in it. The file is as it was afterwards."""
    chosen, usual_s = lines.tests_of(mutant.file, mutant.line, TESTS_S)
    began = time.monotonic()
    if not chosen:
        return Result(mutant=mutant, came="no test", tests=0, seconds=0.0)
    limit_s = STARTED_S + SLOWER * usual_s
    path = tree / mutant.file
    source = path.read_bytes()
    swaps = swaps_of(path, source, mutant.apply(source))
    if swaps:
        came = _in_a_child(lambda: _run_swapped(swaps, items, chosen), limit_s)
    else:
        try:
            path.write_bytes(mutant.apply(source))
            came = _in_a_child(lambda: _run_anew(chosen), limit_s)
        finally:
            path.write_bytes(source)
    return Result(mutant=mutant, came=came, tests=len(chosen), seconds=time.monotonic() - began)


def _in_a_child(work: Callable[[], int], limit_s: float) -> str:
    """Do the work in a fork of this process, which has read all tests and the code without a fault."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        code = BROKEN
        try:
            code = work()
        finally:
            os._exit(code)
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return CAME[os.waitstatus_to_exitcode(status)]
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hang"


def _run_swapped(swaps: list[Swap], items: Items, tests: list[str]) -> int:
    for function, code in swaps:
        function.__code__ = code
    return _run(items, tests)


def _run(items: Items, tests: list[str]) -> int:
    for name in tests:
        reports = runtestprotocol(items[name], log=False, nextitem=None)
        if any(report.failed for report in reports):
            return 1
    return 0


def _run_anew(tests: list[str]) -> int:
    """The fault is in what runs when a module is read: all of them are read again."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("comfyload", "tests")]:
        del sys.modules[name]
    return _pytest(["-x", *tests])


class _Loop:
    """A pytest plugin: what is done with the tests in place of running them all."""

    def __init__(self, loop: Callable[[Items], None]) -> None:
        self._loop = loop

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._loop({item.nodeid: item for item in session.items})
        return True


def _pytest(words: list[str], loop: Callable[[Items], None] | None = None) -> int:
    """Quietly, in this process."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)
    plugins = [] if loop is None else [_Loop(loop)]
    return int(pytest.main(["-q", "-s", "-p", "no:xdist", "-W", QUIET, *words], plugins=plugins))


def results(tree: Path) -> list[Result]:
    """The last result of each fault that is possible in the code as it is now."""
    path = tree.with_suffix(".json")
    rows = path.read_bytes().splitlines() if path.exists() else []
    found = [msgspec.json.decode(row, type=Result) for row in rows]
    now = {mutant.key for mutant in possible(tree)}
    return list({result.mutant.key: result for result in found if result.mutant.key in now}.values())


def keep(tree: Path, result: Result) -> None:
    with tree.with_suffix(".json").open("ab") as file:
        file.write(msgspec.json.encode(result) + b"\n")


def table(found: list[Result]) -> str:
    """The share of faults that a test noticed, and those that none did."""
    counts = Counter(result.came for result in found)
    killed = counts["killed"] + counts["hang"]
    rows = [f"{len(found)} faults, {killed} noticed ({100 * killed / max(1, len(found)):.1f} %): {dict(counts)}", ""]
    rows += ["| where | fault | before | after | |", "|---|---|---|---|---|"]
    for result in sorted(found, key=lambda result: (result.mutant.file, result.mutant.line)):
        if result.came in ("survived", "no test"):
            mutant = result.mutant
            before, after = (" ".join(text.split())[:80].replace("|", "\\|") for text in (mutant.before, mutant.after))
            place = f"{mutant.file.removeprefix('src/comfyload/')}:{mutant.line}"
            rows.append(f"| {place} | {mutant.kind} | `{before}` | `{after}` | {result.came} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
