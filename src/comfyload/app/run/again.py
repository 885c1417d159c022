"""`again`: send jobs of a run once more, as a run of its own next to it. A run is never overwritten."""

import re
from pathlib import Path

from msgspec import structs

from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import prepare, say_unlocked
from comfyload.app.run.live_log import live_log
from comfyload.app.run.resume import check_same, options_again
from comfyload.app.run.servers import connect_all
from comfyload.app.run.session import Session
from comfyload.app.run.viewer import Viewer
from comfyload.clock import stopwatch
from comfyload.errors import RunFilesError, UsageError
from comfyload.judge.arrivals import as_it_came
from comfyload.record.fleet import is_fleet
from comfyload.record.lock import alone_in, is_taken
from comfyload.record.model import AgainOf, Manifest, Record
from comfyload.record.options import RunOptions
from comfyload.record.outcomes import OUTCOMES
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RunReader, RunWriter

SUFFIX = "-again-"
MOST = 1000
"""Runs of jobs of one run."""

_USERS = 2
"""Users where the run had none: they keep one server busy."""


async def again(path: Path, jobs: list[int], given: RunOptions, viewer: Viewer) -> Path:
    """Send these jobs of the run at `path` once more, by their indexes; returns the new run directory.

    `given`: server, headers, workflows and CA file, which a run directory does not hold, as they are secret or may have
    moved.

    Raises:
        UsageError: there is no such job, the workflow has changed, or a process is at work in the run.
    """
    reader = RunReader(path)
    manifest = reader.manifest
    check_again(path, manifest)
    known = {line.index for line in reader.lines()}
    if unknown := [index for index in jobs if index not in known]:
        raise UsageError(f"the run has no job {unknown[0]}", "a job's index is that of comfyload show --job")
    if not jobs:
        raise UsageError("no job of the run needs attention", "name jobs: --job N")
    of = AgainOf(run_id=manifest.run_id, indexes=jobs, pages=manifest.plan.pages)
    options = structs.replace(
        options_again(manifest, given),
        plan=_plan(manifest.plan, len(jobs)),
        uploads=manifest.options.uploads,
        name=manifest.name,
        policy=None,
        shard=None,
        start_at=None,
    )
    async with connect_all(options) as connected:
        prepared = await prepare(options, connected, again_of=of)
        check_same(manifest, prepared.manifest)
        prepared.manifest.retry = manifest.retry
        new = _free(path)
        with alone_in(new) as unlocked, RunWriter(new, prepared.manifest) as writer:
            say_unlocked(unlocked, viewer)
            session = Session(prepared, writer, viewer, stopwatch(), caps=Caps(options), live=live_log())
            await session.run([one.http for one in connected])
    return new


def check_again(path: Path, manifest: Manifest) -> None:
    """Refuse where jobs cannot be sent again.

    Raises:
        UsageError: the run goes on, so that it would be measured with them; or its jobs are a gateway's.
    """
    if as_it_came(manifest.plan):
        raise UsageError(
            f"{path} is a gateway's traffic", "the gateway sends its jobs again: comfyload jobs --retry ID"
        )
    if is_taken(path) or (is_fleet(path) and manifest.end is None):
        raise UsageError(f"{path} goes on: more jobs would change what it measures", "wait until it has ended")


def needing_attention(path: Path) -> list[int]:
    """Indexes of the jobs that ended badly and did not end well in a later run of them, nor are under way in one."""
    reader = RunReader(path, salvage=True)
    found = set(_failed(reader))
    for later in runs_again(path, reader.manifest.run_id):
        of = later.manifest.again_of
        if isinstance(of, AgainOf):
            found -= set(of.indexes)
            found |= {of.indexes[index] for index in _failed(later) if index < len(of.indexes)}
            if not is_taken(later.path):
                found |= _never_ended(later, of)
    return sorted(found)


def runs_again(path: Path, run_id: str) -> list[RunReader]:
    """The runs next to this one that send jobs of it once more, the oldest first; those that cannot be read are left
    out.
    """
    numbered = []
    for folder in path.absolute().parent.glob(f"{_escaped(path.absolute().name)}{SUFFIX}*"):
        number = folder.name.rpartition(SUFFIX)[2]
        try:
            later = RunReader(folder, salvage=True)
        except RunFilesError:
            continue
        of = later.manifest.again_of
        if number.isdecimal() and isinstance(of, AgainOf) and of.run_id == run_id:
            numbered.append((int(number), later))
    return [later for _, later in sorted(numbered, key=lambda pair: pair[0])]


def _failed(reader: RunReader) -> list[int]:
    return [
        line.index
        for line in reader.lines()
        if isinstance(line, Record) and not line.censored and OUTCOMES[line.execution.outcome].error
    ]


def _never_ended(reader: RunReader, of: AgainOf) -> set[int]:
    """Jobs of a run that ended without a record of theirs: nobody knows how they did."""
    ended = {line.index for line in reader.lines() if isinstance(line, Record)}
    return {then for index, then in enumerate(of.indexes) if index not in ended}


def _plan(then: Plan, jobs: int) -> Plan:
    """As many users as the run had, and each job once."""
    users = then.load.concurrency if isinstance(then.load, Closed) else _USERS
    load = Closed(concurrency=min(users, jobs))
    return structs.replace(then, load=load, jobs=jobs, duration_s=None, warmup=0, pages=1, max_server_queue=None)


def _free(path: Path) -> Path:
    """`<run>-again-1`, or the next number that is free."""
    whole = path.absolute()
    for number in range(1, MOST):
        found = whole.with_name(f"{whole.name}{SUFFIX}{number}")
        if not found.exists():
            return found
    raise RunFilesError(f"{path} has {MOST} later runs", "remove some")


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
