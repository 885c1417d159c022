"""Which tests run which lines of some files, and how long each test takes. Also the pytest plugin that notes it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest

__all__ = ["LineMap", "made_by"]

FILE = "line_map.json"
CONSTANTS = "tests/golden/test_bounds.py"
"""Its tests read what no line of a function has."""


class LineMap(msgspec.Struct, kw_only=True):
    """`lines`: by file and line the numbers of tests in `tests`; `seconds`: what each takes."""

    tests: list[str] = []
    seconds: list[float] = []
    lines: dict[str, dict[int, list[int]]] = {}

    @classmethod
    def read(cls, tree: Path) -> LineMap:
        return msgspec.json.decode((tree / FILE).read_bytes(), type=cls)

    def without(self, files: Sequence[str]) -> LineMap:
        """The same, but no line is run by a test of these files."""
        gone = {number for number, test in enumerate(self.tests) if test.partition("::")[0] in files}
        for by_line in self.lines.values():
            for line, tests in by_line.items():
                by_line[line] = [test for test in tests if test not in gone]
        return self

    def usual_s(self, test: str) -> float:
        """What the test takes; infinite of one that is not known."""
        return dict(zip(self.tests, self.seconds, strict=True)).get(test, math.inf)

    def tests_of(self, file: str, line: int, most_s: float) -> tuple[list[str], float]:
        """The quickest tests that run the line, of together so many seconds, and these seconds.

        Of a line that runs only when its file is imported: those that run any line of the file.
        """
        by_line = self.lines.get(file, {})
        chosen = by_line.get(line, [])
        if not chosen:
            constants = {number for number, test in enumerate(self.tests) if test.startswith(CONSTANTS)}
            chosen = sorted(constants.union(*by_line.values()))
        names: list[str] = []
        total = 0.0
        for test in sorted(chosen, key=lambda test: self.seconds[test]):
            if names and total + self.seconds[test] > most_s:
                break
            names.append(self.tests[test])
            total += self.seconds[test]
        return names, total


def made_by(tree: Path, tests: Sequence[str], targets: Sequence[str]) -> None:
    """Run these test files in the tree, and add to the map there which lines each test runs."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(tree / name) for name in ("", "src", "pack")),
        "MAPPED": os.pathsep.join(str(tree / "src" / "comfyload" / target) for target in targets),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tools.line_map", "-p", "no:xdist", "--timeout", "600"]
    command += ["-m", "not long and not alone", *tests]
    subprocess.run(command, cwd=tree, env=environment, check=True)


class _Mapping:
    """Notes the lines that run while a test does."""

    def __init__(self, root: Path, under: tuple[str, ...], again: Sequence[str]) -> None:
        self._root = root
        self._under = under
        self._files: dict[str, str | None] = {}
        self._now: set[tuple[str, int]] = set()
        self.map = LineMap.read(root).without(again) if (root / FILE).exists() else LineMap()

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """A trace function, of `sys.settrace`."""
        path = frame.f_code.co_filename
        if path not in self._files:
            self._files[path] = os.path.relpath(path, self._root) if path.startswith(self._under) else None
        file = self._files[path]
        if file is None:
            return None
        if event == "line":
            self._now.add((file, frame.f_lineno))
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Trace the test, its fixtures included."""
        self._now, began = set(), time.perf_counter()
        sys.settrace(self.trace)
        threading.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.map.tests.append(item.nodeid)
            self.map.seconds.append(time.perf_counter() - began)
            for file, line in self._now:
                self.map.lines.setdefault(file, {}).setdefault(line, []).append(len(self.map.tests) - 1)

    def pytest_sessionfinish(self) -> None:
        (self._root / FILE).write_bytes(msgspec.json.encode(self.map))


def pytest_configure(config: pytest.Config) -> None:
    under = tuple(os.environ["MAPPED"].split(os.pathsep))
    config.pluginmanager.register(_Mapping(Path.cwd(), under, config.args))
