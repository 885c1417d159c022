"""Which number of a run a gate names."""

from __future__ import annotations

from comfyload.judge.gates.grammar import Gate
from comfyload.judge.statistics.stats import Statistic
from comfyload.judge.summary import Measured


def statistic(gate: Gate, measured: Measured) -> Statistic:
    """The summary's estimate of what the gate names."""
    if gate.workflow:
        found: Statistic = getattr(measured.summary.workflows[gate.workflow], gate.name)
        return found
    return measured.summary.statistics[gate.name]


def plain(gate: Gate, measured: Measured) -> float | None:
    """The summary's number that the gate names; None for none."""
    if gate.workflow:
        value = getattr(measured.summary.workflows[gate.workflow], gate.name)
    else:
        value = measured.summary.summary[gate.name]
    return float(value) if isinstance(value, int | float) else None
