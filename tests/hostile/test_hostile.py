"""Some of each kind of hostility, end to end: no traceback, no hang, the right exit code, and never 300 MB."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.hostile.play import play
from tests.hostile.table import QUICK, scenarios

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform == "win32", reason="it forks"),
]


def test_the_table_is_as_long_as_it_says() -> None:
    table = scenarios()
    assert len(table) >= 500
    assert all(one.what and one.codes for one in table.values())
    assert set(QUICK) <= table.keys()


def test_no_hostile_server_ends_hangs_or_swells_a_command(tmp_path: Path) -> None:
    table = scenarios()
    done = asyncio.run(play({name: table[name] for name in QUICK}, tmp_path, at_once=8))
    wrong = [f"{one.scenario} {one.command}: {'; '.join(one.faults)}" for one in done if one.faults]
    assert not wrong, "\n".join(wrong)
    assert len(done) > len(QUICK)
