"""`check`: test runs against gates, by their records and by the instrumentation log."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from msgspec import Struct, structs

from comfyload.app.locate import Result, Target, default_log, find, labelled, window
from comfyload.judge.columns.ledger import clean
from comfyload.judge.gates.gate import GateVerdict, RunError, judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate, read_gates
from comfyload.judge.summary import Measured
from comfyload.record.metrics.log import LogRow, LogSlice, key_of_row, log_row, read_log
from comfyload.record.model import Manifest, Record
from comfyload.record.outcomes import OUTCOMES
from comfyload.telemetry.log import unread_lines
from comfyload.text_files import decode, read_bytes
from comfyload.words import count

ErrorPlace = Literal["log", "others", "probe"]


class Checked(Struct, frozen=True, kw_only=True):
    """Verdicts on each run, and whether all runs measured what they are named after."""

    verdicts: list[GateVerdict]
    valid: bool


def gate_set(gates: Sequence[str], file: Path | None, expect: Sequence[str], *, independent: bool = False) -> GateSet:
    """The gates of the command line before those of a file; without any, the defaults. `independent`: failures
    come one at a time; the file may state it too.

    Raises:
        UsageError: the file cannot be read, or a gate is invalid.
    """
    from_file = GateSet(gates=[])
    if file is not None:
        from_file = read_gates(decode(read_bytes(file, hint="give a TOML file of gates"), str(file)), str(file))
    chosen = [parse_gate(text) for text in gates] + from_file.gates
    return GateSet(
        gates=chosen or [parse_gate(text) for text in DEFAULT_GATES],
        expected_errors=[*expect, *from_file.expected_errors],
        independent_failures=independent or from_file.independent_failures,
    )


def baseline_of(gates: GateSet, name: str | None, base: Path) -> list[Measured]:
    """The runs that `* baseline` means, if a gate has it: of the baseline `name`, or of the promoted one.

    Raises:
        RunFilesError: there is no such baseline.
    """
    return find(name or "promoted", base).runs if any(gate.of_baseline for gate in gates.gates) else []


def check(found: Target, gates: GateSet, *, log: Path | None = None, baseline: Sequence[Measured] = ()) -> Checked:
    """Judge every run of `found`, with its own log and the file `log`.

    Where no file is named, a baseline's own slice of the log is read. The usual log, or a baseline's, need not have
    rows of the run's time; one that was named must.
    """
    usual = default_log(None)
    named = log is not None and not (usual is not None and log.exists() and log.samefile(usual))
    if log is None and found.kept is not None and found.kept.manifest.log is not None:
        log = found.kept.path / found.kept.manifest.log
    verdicts = []
    for label, result in labelled(found.results).items():
        errors = log_errors(result, log, named=named)
        given = judge(gates, result.measured, errors, baseline)
        verdicts += [structs.replace(verdict, run=label) for verdict in given]
    return Checked(verdicts=verdicts, valid=all(run.summary.valid for run in found.runs))


def log_errors(result: Result, log: Path | None, *, named: bool = False) -> list[RunError] | None:
    """The errors of the run's time in its own log and in the file `log`, those of the same text together.

    A row that is in both counts once. Rows of other prompts, the probe's about itself, and what could not be read are
    classes of their own; our own rows repeat the records and do not count. None: there is no log, or, unless it was
    `named`, no row of the run's time in it.
    """
    jobs, failed = _jobs(result)
    found = LogSlice() if log is None else read_log(log, *window(result.reader.manifest), jobs)
    others, kept = 0, dict[object, LogRow]()  # of a row that is met again, the first
    for row in chain((log_row(line.row, t=line.t) for line in result.reader.log()), found.rows):
        others += not row.of_the_harness
        of_interest = row.error is not None or row.event in ("probe.problem", "probe.disabled")
        if of_interest and not row.of_the_harness:
            kept.setdefault(key_of_row(row.raw), row)
    doubts = list(_unread(result.reader.manifest, log, found))
    if named and log is not None and not (others or doubts or found.rows):
        doubts.append(_no_row(log, found, result.reader.manifest))
    if not others and not doubts:
        return None
    counts, first = Counter[tuple[ErrorPlace, str]](), dict[tuple[ErrorPlace, str], str]()
    for row in _one_of_each(kept.values(), failed):
        key = _class_of(row, jobs)
        counts[key] += 1
        first.setdefault(key, row.utc.isoformat() if row.utc else f"prompt {row.prompt_id}")
    classes = [
        RunError(where=key[0], text=key[1], count=number, first=first[key]) for key, number in counts.most_common()
    ]
    return [*classes, *doubts]


def _class_of(row: LogRow, jobs: set[str]) -> tuple[ErrorPlace, str]:
    """Where an error was met, and its text; those of others are one class."""
    if row.of_the_probe_itself:
        return "probe", str(row.raw.get("error") or row.event)
    if row.prompt_id is not None and row.prompt_id not in jobs:
        return "others", ""
    return "log", _text(row)


def _unread(manifest: Manifest, log: Path | None, found: LogSlice) -> Iterator[RunError]:
    """What may be an error of the run and cannot be read, or has no time."""
    if log is not None and found.unread:
        lines = f"{found.unread} of {count(found.lines, 'line')} of {log.name} could not be read"
        text = f"{lines}, first: {clean(found.first_unread or '', 120)}."
        yield RunError(where="unread", text=text, count=found.unread, first=found.first_unread or "")
    elif noticed := unread_lines(manifest.observations):
        yield RunError(where="unread", text=f"During the run, {clean(noticed, 200)}.", count=1, first="")
    if log is not None and found.untimed:
        rows = count(found.untimed, "row")
        text = f"{rows} of {log.name} with an error and without a time that can be read, first: {found.first_untimed}."
        yield RunError(where="unread", text=text, count=found.untimed, first=found.first_untimed or "")


def _no_row(log: Path, found: LogSlice, manifest: Manifest) -> RunError:
    """A log without a row of the run's time proves nothing about the run."""
    since, until = window(manifest)
    if not found.lines:
        why = "it is empty"
    elif found.begins is None or found.ends is None:
        why = "no time in it can be read"
    elif found.ends < since:
        why = f"its last row is of {found.ends:%Y-%m-%d %H:%M:%S} UTC, before the run"
    elif found.begins > until:
        why = f"its first row is of {found.begins:%Y-%m-%d %H:%M:%S} UTC, after the run"
    else:
        why = "it has rows from before and after"
    text = f"No row of {log.name} is of the run's time: {why}."
    return RunError(where="unread", text=text, count=1, first="")


def _jobs(result: Result) -> tuple[set[str], set[str]]:
    """The ids of the run's prompts, and of those that failed by the records."""
    jobs, failed = set(), set()
    for line in result.reader.lines():
        jobs.add(line.prompt_id)
        if isinstance(line, Record) and OUTCOMES[line.execution.outcome].error:
            failed.add(line.prompt_id)
    return jobs, failed


def _one_of_each(rows: Iterable[LogRow], failed: set[str]) -> Iterator[LogRow]:
    """Without the probe's rows of a failure that the records, or the end of the prompt, have already.

    A job that fails leaves up to three traces: its record, the node's row and that of the prompt's end. They are one
    failure, joined by the prompt's id.
    """
    nodes: dict[str, LogRow] = {}
    ended = set()
    for row in rows:
        if row.seq is None or row.event not in ("node", "prompt.ended") or row.prompt_id is None:
            yield row
        elif row.prompt_id in failed:
            continue
        elif row.event == "node":
            nodes.setdefault(row.prompt_id, row)
        else:
            ended.add(row.prompt_id)
            yield row
    yield from (row for prompt_id, row in nodes.items() if prompt_id not in ended)


def _text(row: LogRow) -> str:
    """What is wrong; of the probe's rows with the exception and the node's class, as of a record."""
    if row.seq is None or row.event not in ("node", "prompt.ended"):
        return row.error or ""
    parts = (row.raw.get("exception_type"), row.raw.get("class_type"))
    common = " ".join(part for part in parts if isinstance(part, str))
    text = "the node failed" if row.error == row.event else row.error or ""
    return f"{common}: {text}" if common else text
