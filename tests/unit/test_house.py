"""Rules of this code that no linter knows: one meaning a name, technical nouns, sizes, and imports that Windows has.

Where the code does not keep a rule yet, a number says how far it is from it. These numbers may only fall.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "comfyload"

EVERYDAY = {
    "told": 8,
    "asked": 0,
    "said": 0,
    "seen": 22,
    "heard": 0,
    "beside": 3,
    "drawn": 49,
    "aside": 57,
    "story": 0,
    "patience": 0,
    "stir": 0,
    "luck": 0,
    "whereabouts": 0,
}
"""Everyday words that stand for technical nouns in identifiers, and how often they still do."""

EVERYDAY_LINES = 9
"""Lines of the source that hold one of the first few of these words, in identifiers, comments or texts."""

FILE_LINES, FUNCTION_LINES = 310, 30
"""What 95 % of files and of functions are no longer than. For files, 300 is the goal."""

POSIX_ONLY = ("fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "syslog")


class File(NamedTuple):
    """One file: its name below the package, its lines, and all nodes of its tree."""

    name: str
    lines: list[str]
    nodes: list[ast.AST]


@cache
def _files() -> list[File]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(File(path.relative_to(SOURCE).as_posix(), text.splitlines(), list(ast.walk(ast.parse(text)))))
    return found


def _identifiers(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _p95(sizes: list[int]) -> int:
    """By nearest rank."""
    return sorted(sizes)[-(-95 * len(sizes) // 100) - 1]


def test_a_class_has_a_name_of_its_own() -> None:
    """The simulator is another program, with names of its own."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in _files():
        for node in file.nodes:
            if isinstance(node, ast.ClassDef) and not file.name.startswith("sim/"):
                places[node.name].append(file.name)
    assert len(places) > 300
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert twice == {}


def test_identifiers_are_technical_nouns() -> None:
    counts: Counter[str] = Counter()
    for file in _files():
        for identifier in _identifiers(file.nodes):
            counts.update(word.lower() for word in re.split(r"_+|(?<=[a-z])(?=[A-Z])", identifier))
    assert counts["name"] > 100
    assert {word: counts[word] for word, most in EVERYDAY.items() if counts[word] > most} == {}


def test_everyday_verbs_become_fewer() -> None:
    words = re.compile(r"\b(told|beside|asked|said)\b")
    lines = [line for file in _files() for line in file.lines]
    assert len(lines) > 10_000
    assert sum(words.search(line) is not None for line in lines) <= EVERYDAY_LINES


def test_files_and_functions_are_short() -> None:
    functions = [
        (node.end_lineno or 0) - node.lineno + 1
        for file in _files()
        for node in file.nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert _p95([len(file.lines) for file in _files()]) <= FILE_LINES
    assert _p95(functions) <= FUNCTION_LINES


WINDOWS = f"""
import builtins, importlib, pkgutil, sys, types

import comfyload

names = [found.name for found in pkgutil.walk_packages(comfyload.__path__, "comfyload.")]
names.remove("comfyload.__main__")
names.remove("comfyload.locust")  # for a process of Locust alone, which it changes
for name in names:
    importlib.import_module(name)  # and with them other libraries, which have their own ways around what is absent
for name in [name for name in sys.modules if name.partition(".")[0] == "comfyload"]:
    del sys.modules[name]

usual = builtins.__import__


def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = str((globals or {{}}).get("__name__"))
    if level == 0 and name.partition(".")[0] in {POSIX_ONLY} and importer.partition(".")[0] == "comfyload":
        raise ModuleNotFoundError(f"No module named {{name!r}}, which {{importer}} imports")
    return usual(name, globals, locals, fromlist, level)


builtins.__import__, sys.platform, sys.modules["msvcrt"] = guarded, "win32", types.ModuleType("msvcrt")
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_is_imported_where_posix_modules_are_absent() -> None:
    """As on Windows."""
    done = subprocess.run([sys.executable, "-c", WINDOWS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 250


@pytest.mark.parametrize(("sizes", "p95"), [([1], 1), (list(range(1, 101)), 95), (list(range(1, 21)), 19)])
def test_the_p95_is_by_nearest_rank(sizes: list[int], p95: int) -> None:
    assert _p95(sizes) == p95
