"""What is shown of a run while it goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from comfyload.cli.progress import RunProgress
from comfyload.record.plan import Open, Plan, Stage
from tests.unit.judge_runs import failed, job, manifest

DAY_S = 86_400.0


class Shown:
    """A run of which one job ends each second, of half a second; every tenth one fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, duration_s: float, *, terminal: bool = False) -> None:
        self.now = 1000.0
        monkeypatch.setattr("comfyload.cli.progress.time.monotonic", lambda: self.now)
        self._file = io.StringIO()
        console = Console(file=self._file, width=200, force_terminal=terminal, color_system=None)
        self._viewer = RunProgress(console)
        plan = Plan(load=Open(stages=[Stage(per_s=1.0)]), duration_s=duration_s)
        self._viewer.began(_planned(plan), Path("runs/x"), None)
        self._viewer.counting()

    def run(self, seconds: int) -> list[str]:
        """Go on for so long; the lines that say from when to when."""
        self._file.truncate(0)
        for index in range(seconds):
            self.now += 1.0
            if index % 10 == 0:
                self._viewer.queue(index % 7)
            end: Any = failed if index % 10 == 9 else job
            self._viewer.line(end(index, float(index), 0.5))
        return [
            line for line in self._file.getvalue().replace("\0", "").splitlines() if " to " in line or "jobs " in line
        ]


def _planned(plan: Plan) -> Any:
    found = manifest()
    found.plan = plan
    return found


def test_a_long_run_gets_a_line_every_few_minutes_with_what_came_since_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Shown(monkeypatch, DAY_S)
    assert len(shown.run(600)) >= 110
    lines = shown.run(3600)
    assert len(lines) == 6
    assert lines[1].startswith(
        "20:00 to 30:00 · 600 jobs · p50 0.500 s · p95 0.500 s · 60 not completed · queue 0 to 6"
    )


def test_on_a_terminal_a_short_run_has_its_bar_alone_and_a_long_one_lines_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not any("not completed" in line for line in Shown(monkeypatch, 300.0, terminal=True).run(300))
    shown = Shown(monkeypatch, 3600.0, terminal=True)
    lines = [line for line in shown.run(1800) if "not completed" in line]
    assert len(lines) == 21 and "10:00 to 11:00 · 60 jobs · " in lines[1]
