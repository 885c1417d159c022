"""A job costs our process no more instructions than it did; CPU time would say so less surely on a busy machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
from bench.parts import instructions

MOST = 1.1
"""Times as many as were kept; two counts differ by less than 1 %."""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_job_takes_no_more_instructions_than_it_did(tmp_path: Path) -> None:
    if why := instructions.missing():
        assert "CI" not in os.environ, why
        pytest.skip(why)
    kept, python = instructions.kept(), platform.python_version()
    if kept.python.rpartition(".")[0] != python.rpartition(".")[0]:
        pytest.skip(f"counted by Python {kept.python}, and another takes other instructions")
    counted = instructions.counted(tmp_path)
    assert counted.instructions_per_job <= MOST * kept.instructions_per_job, (
        "if that is as it should be: python -m bench.parts.instructions"
    )
