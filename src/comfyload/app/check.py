"""`check`: hold runs against gates, with what the instrumentation log says beside the records."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from comfyload.app.results import find, labels, window
from comfyload.errors import UsageError
from comfyload.judge.gates.gate import GateVerdict, RunError, judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate, read_gates
from comfyload.record.metrics_log import read_log
from comfyload.record.model import Sent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comfyload.app.results import Found, Result
    from comfyload.judge.summary import Measured

__all__ = ["Checked", "baseline_of", "check", "gate_set", "log_errors"]


class Checked(Struct, frozen=True, kw_only=True):
    """Verdicts on each run, and whether all runs measured what they are named after."""

    verdicts: list[GateVerdict]
    valid: bool


def gate_set(gates: Sequence[str], file: Path | None, expect: Sequence[str]) -> GateSet:
    """The gates of the command line before those of a file; without any, the defaults.

    Raises:
        UsageError: the file cannot be read, or a gate is not written as it must be.
    """
    from_file = GateSet(gates=[])
    if file is not None:
        try:
            from_file = read_gates(file.read_text(encoding="utf-8"), str(file))
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror or error}", "give a TOML file of gates") from None
        except UnicodeDecodeError:
            raise UsageError(f"{file} is no text", "give a TOML file of gates") from None
    asked = [parse_gate(text) for text in gates] + from_file.gates
    return GateSet(
        gates=asked or [parse_gate(text) for text in DEFAULT_GATES],
        expected_errors=[*expect, *from_file.expected_errors],
    )


def baseline_of(gates: GateSet, name: str | None, base: Path) -> list[Measured]:
    """The runs that `* baseline` means, if a gate says so: of the baseline `name`, or of the promoted one.

    Raises:
        RunFilesError: there is no such baseline.
    """
    return find(name or "promoted", base).runs if any(gate.of_baseline for gate in gates.gates) else []


def check(found: Found, gates: GateSet, *, log: Path | None = None, baseline: Sequence[Measured] = ()) -> Checked:
    """Judge every run of `found`. A baseline's own slice of the log is read where no other is named."""
    if log is None and found.kept is not None and found.kept.manifest.log is not None:
        log = found.kept.path / found.kept.manifest.log
    verdicts = []
    for label, result in zip(labels(found.results), found.results, strict=True):
        errors = None if log is None else log_errors(result, log)
        given = judge(gates, result.measured, errors, baseline)
        verdicts += [structs.replace(verdict, run=label) for verdict in given]
    return Checked(verdicts=verdicts, valid=all(run.summary.valid for run in found.runs))


def log_errors(result: Result, log: Path) -> list[RunError]:
    """The errors that the instrumentation log tells of the run's time, those of the same text together."""
    since, until = window([result.reader.manifest])
    ours = frozenset(line.prompt_id for line in result.reader.lines() if isinstance(line, Sent))
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for row in read_log(log, since, until, ours).rows:
        if row.error is not None:
            counts[row.error] += 1
            first.setdefault(row.error, row.utc.isoformat() if row.utc else f"prompt {row.prompt_id}")
    return [RunError(where="log", text=text, count=count, first=first[text]) for text, count in counts.most_common()]
