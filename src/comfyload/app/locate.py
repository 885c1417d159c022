"""What is there to judge: a run, a baseline, or several runs, found by path or by name, and measured."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct

from comfyload.errors import RunFilesError
from comfyload.judge.arrivals import as_it_came
from comfyload.judge.summary import Measured, measure
from comfyload.record import archive
from comfyload.record.journal import RECORDS
from comfyload.record.lock import is_taken
from comfyload.record.metrics.files import project_log
from comfyload.record.model import Manifest
from comfyload.record.run import MANIFEST, RunReader
from comfyload.report.plan_text import load_words

AFTER_S = 5.0
"""How long after a run's end a row of a log may still be about it."""


class Result(Struct, frozen=True, kw_only=True):
    """One run and its numbers."""

    reader: RunReader
    measured: Measured


class Target(Struct, frozen=True, kw_only=True):
    """What a name or path stands for. `kept` None: runs that are in no baseline."""

    name: str
    results: list[Result]
    kept: archive.Kept | None = None

    @property
    def runs(self) -> list[Measured]:
        return [result.measured for result in self.results]


def measured(reader: RunReader) -> Measured:
    """The run, folded. Traffic that has no end, and to which no gateway writes, is cut short: its manifest says so."""
    manifest = reader.manifest
    if manifest.end is None and as_it_came(manifest.plan) and not is_taken(reader.path.absolute().parent):
        manifest.end = "crashed"
    return measure(str(reader.path), reader.manifest, reader.lines(), reader.samples(), reader.damage)


def find(target: str, base: Path) -> Target:
    """A run directory, a folder of them, a baseline by path or name, or several of these with commas between.

    Raises:
        RunFilesError: there is no such thing.
    """
    parts = [part for part in target.split(",") if part]
    if len(parts) > 1 and not Path(target).exists():
        found = [find(part, base) for part in parts]
        return Target(name=target, results=[result for one in found for result in one.results])
    path = Path(target)
    if _is_run(path):
        return Target(name=path.name, results=_results([RunReader(path)]))
    for folder in (path, base / target):
        if inside := runs_in(folder):
            return Target(name=folder.name, results=_results(map(RunReader, inside)))
    if len(path.parts) > 1 and not path.exists():
        raise RunFilesError(f"no run or baseline at {target}")
    kept = archive.find(base, target)
    return Target(name=kept.path.name, results=_results(reader for _, reader in kept.runs()), kept=kept)


def runs_in(folder: Path) -> list[Path]:
    """The runs in a folder that is none itself, as the ledger of a gateway is one."""
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return []
    return sorted(entry for entry in folder.iterdir() if _is_run(entry))


def window(manifest: Manifest) -> tuple[datetime, datetime]:
    """From when the run began until it ended, and a little longer.

    Raises:
        RunFilesError: it has no end, so that nobody knows until when.
    """
    if manifest.ended_utc is None:
        raise _no_end("the run", manifest)
    begun, ended = map(datetime.fromisoformat, (manifest.started_utc, manifest.ended_utc))
    return begun, ended + timedelta(seconds=AFTER_S)


def check_ended(reader: RunReader) -> None:
    """Raises: RunFilesError: the run has no end."""
    if reader.manifest.ended_utc is None:
        raise _no_end(str(reader.path), reader.manifest)


def _no_end(what: str, manifest: Manifest) -> RunFilesError:
    how = "wait for it, or finish it with comfyload resume"
    if as_it_came(manifest.plan):
        how = "its gateway ends it at midnight, UTC, when it is stopped, or at its next start"
    return RunFilesError(f"{what} has no end", how)


def _results(readers: Iterable[RunReader]) -> list[Result]:
    return [Result(reader=reader, measured=measured(reader)) for reader in readers]


def _is_run(path: Path) -> bool:
    return (path / MANIFEST).is_file() and (path / RECORDS).is_file()


def labelled(results: Sequence[Result]) -> dict[str, Result]:
    """Runs by what they are called: one alone by its path; several by workflow and load, numbered where alike; days
    of traffic by their folders.
    """
    if len(results) == 1:
        return {results[0].measured.path: results[0]}
    manifests = [result.reader.manifest for result in results]
    named = [
        result.reader.path.name if as_it_came(manifest.plan) else f"{manifest.name}, {load_words(manifest.plan.load)}"
        for result, manifest in zip(results, manifests, strict=True)
    ]
    total, used, found = Counter(named), Counter[str](), dict[str, Result]()
    for name, result in zip(named, results, strict=True):
        used[name] += 1
        found[name if total[name] == 1 else f"{name} ({used[name]})"] = result
    return found


def default_log(named: str | Path | None) -> Path | None:
    """The instrumentation log that is named, or the project's if it is there."""
    usual = project_log()
    return Path(named) if named is not None else usual if usual is not None and usual.is_file() else None
