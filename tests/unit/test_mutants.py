"""The script that puts faults into code: each kind is found once, and a loaded function takes it on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tools.mutants import Mutant, mutants_of
from tools.swaps import swaps_of

SOURCE = '''"""A docstring is no constant."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    LIMIT: int = 1

MOST = 7


def first(x: int, y: float = 0.5) -> bool | None:
    """Nor is this one."""
    if not x:
        return None
    holder = [x]
    holder.append(1)
    return x < MOST and (
        y
        + 2.0
        > 1.0
    )


def second() -> str:
    return f"{3 + 4}"
'''


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, list[Mutant]]:
    (tmp_path / "a.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path / "a.py", mutants_of(tmp_path, tmp_path / "a.py")


def test_every_fault_of_a_kind_is_found_and_none_where_nothing_runs(made: tuple[Path, list[Mutant]]) -> None:
    found = sorted((mutant.kind, mutant.before.split("\n")[0]) for mutant in made[1])
    constants = [(kind, value) for kind in ("constant", "constant -1") for value in ("0.5", "1", "1.0", "2.0", "7")]
    assert found == sorted(
        [
            *constants,
            ("and/or", "x < MOST and ("),
            ("comparison", "x < MOST"),
            ("comparison", "y"),
            ("not", "not x"),
            ("plus/minus", "y"),
            ("removed", "holder.append(1)"),
            ("return None", "return x < MOST and ("),
            ("return None", 'return f"{3 + 4}"'),
        ]
    )


def test_a_fault_changes_the_code_and_no_line_number(made: tuple[Path, list[Mutant]]) -> None:
    path, mutants = made
    source = path.read_bytes()
    for mutant in mutants:
        changed = mutant.apply(source)
        assert changed != source and changed.count(b"\n") == source.count(b"\n")
        compile(changed, "a.py", "exec")


def test_a_loaded_function_takes_on_the_fault(made: tuple[Path, list[Mutant]]) -> None:
    path, mutants = made
    spec = importlib.util.spec_from_file_location("made_for_a_test", path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = path.read_bytes()
    assert module.first(7) is False
    (boundary,) = [one for one in mutants if one.kind == "comparison" and one.before == "x < MOST"]
    ((function, code),) = swaps_of(path, source, boundary.apply(source))
    assert function is module.first
    function.__code__ = code
    assert module.first(7) is True
    (limit,) = [one for one in mutants if one.kind == "constant" and one.before == "7"]
    assert swaps_of(path, source, limit.apply(source)) == [], "it is read when the module is"
