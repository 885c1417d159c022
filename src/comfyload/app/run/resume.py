"""`resume` and `cleanup`: finish a run whose process died, or remove its jobs from its servers.

The journal names every job that was sent, or was about to be. Each is looked up before anything is sent, so that no job
runs twice; seeds and schedule are functions of the manifest, so that the remaining jobs are those of the first plan.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path

from msgspec import UNSET, Struct, structs

from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import prepare, say_unlocked
from comfyload.app.run.live_log import live_log
from comfyload.app.run.servers import Connected, connect_all, tables_again
from comfyload.app.run.session import Resumed, Session
from comfyload.app.run.telemetry import last_probe_rows
from comfyload.app.run.viewer import Viewer
from comfyload.clock import stopwatch
from comfyload.comfy.api import Api, api_of
from comfyload.comfy.identify import identify
from comfyload.errors import ServerUnreachable, UsageError
from comfyload.judge.arrivals import as_it_came
from comfyload.record.fleet import read_fleet
from comfyload.record.journal import RECORDS, Damage
from comfyload.record.lock import alone_in
from comfyload.record.merged import zero_of
from comfyload.record.model import Manifest, Observation, Record, Sent, Server
from comfyload.record.options import RunOptions
from comfyload.record.run import RunReader, RunWriter
from comfyload.retry.attempt_log import later_ids
from comfyload.workflow.vary import prompt_id

ABSENT = 20
"""After so many jobs in a row that a server does not know, no later one is looked up."""


STILL_THERE = ("pending", "running", "unknown")
"""States of a prompt that the server may yet execute."""


class Numbers:
    """A set of numbers from 0 on, a bit each: a run of a day has millions of jobs."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        place = number >> 3
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        self._bits[place] |= 1 << (number & 7)

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int)
        place = number >> 3
        return place < len(self._bits) and bool(self._bits[place] >> (number & 7) & 1)


class Left:
    """What dead processes left: jobs without an end, all with a line in the journal, and of each server, by its
    address, one that it ended; "" stands for the only one.

    `arrivals` that have come. `spent_s`: how long jobs were counted, without the time when no process was there.
    """

    def __init__(self, reader: RunReader) -> None:
        manifest, begun = reader.manifest, dict[int, Sent]()
        ends, self.journalled, self.arrivals = Numbers(), Numbers(), Numbers()
        self.ended: dict[str, str] = {}
        last = [0.0, *manifest.resumed]  # of each process, the last instant
        for line in reader.lines():
            at = line.due
            self.journalled.add(line.index)
            self.arrivals.add(line.index // manifest.plan.pages)
            if isinstance(line, Record):
                ends.add(line.index)
                begun.pop(line.index, None)
                at = max(at, line.execution.done or 0.0)
                if line.execution.outcome == "completed":
                    attempt = line.execution.attempts[-1] if line.execution.attempts else None
                    self.ended["" if attempt is None else attempt.server] = (attempt or line).prompt_id
            elif line.index not in ends:
                begun[line.index] = line
            process = bisect_right(manifest.resumed, at)
            last[process] = max(last[process], at)
        self.begun = list(begun.values())
        self.last_instant = max(last)
        counted = manifest.counted_from
        spans = zip([0.0, *manifest.resumed], last, strict=True)
        self.spent_s = 0.0 if counted is None else sum(max(0.0, end - max(counted, begin)) for begin, end in spans)


async def resume(path: Path, again: RunOptions, viewer: Viewer) -> bool:
    """Finish the run at `path`; False if there was nothing left to do.

    `again`: server, headers, workflows, CA file and limits, which a run directory does not hold, as they are secret or
    may have moved. Limits that are not given are those of the run; they count from zero.

    Raises:
        UsageError: the workflow has changed, a secret is not given again, or a process is at work in the directory.
    """
    check_in_one_piece(path)  # and a mistyped path must not become a directory
    with alone_in(path) as unlocked:
        say_unlocked(unlocked, viewer)
        return await _resume(path, again, viewer)


async def _resume(path: Path, again: RunOptions, viewer: Viewer) -> bool:
    reader = RunReader(path)
    manifest = reader.manifest
    if manifest.end in ("complete", "decided"):
        return False
    if as_it_came(manifest.plan):
        raise UsageError(f"{path} is a gateway's traffic", "the gateway takes up its jobs at its next start")
    reader.check_understood()
    reader.check()  # a lost line may be of a job under way, which could then run twice
    options = options_again(manifest, again)
    left, caps = Left(reader), Caps(options)
    async with connect_all(options) as connected:
        prepared = await prepare(options, connected, manifest)
        check_same(manifest, prepared.manifest)
        servers = prepared.manifest.fleet
        apis = [api_of(one.http, server) for one, server in zip(connected, servers, strict=True)]
        restarted = await _restarted(apis, servers, left.ended)
        numbered = all(server.client_prompt_id for server in servers)
        unjournalled = await _unjournalled(apis, manifest, left.journalled) if numbered else []
        # By the wall clock, as the process that counted the run's seconds is gone.
        passed = datetime.now(UTC) - zero_of(manifest)
        gone = max(passed.total_seconds(), left.last_instant)
        watch = stopwatch()
        pairs = zip(servers, manifest.fleet, strict=True)
        fleet = [structs.replace(server, queue_at_start=before.queue_at_start) for server, before in pairs]
        manifest.server, manifest.servers = fleet[0], fleet if len(fleet) > 1 else UNSET
        manifest.resumed.append(gone)
        for name in restarted:
            who = f"{name}: " if name else ""
            text = f"{who}the server was restarted between the two processes: jobs that had not ended are lost"
            manifest.observations.append(Observation(t=gone, code="restart", text=text, server=name))
        with RunWriter.reopen(path) as writer:
            session = Session(
                structs.replace(prepared, manifest=manifest),
                writer,
                viewer,
                lambda: gone + watch(),
                caps=caps,
                live=live_log(),
                earlier=Resumed(
                    begun=left.begun,
                    unjournalled=unjournalled,
                    done=left.arrivals,
                    spent_s=left.spent_s,
                    restarted=bool(restarted),
                    probe_rows=last_probe_rows(reader),
                ),
            )
            await session.run([one.http for one in connected])
    return True


async def _restarted(apis: Sequence[Api], servers: Sequence[Server], ended: Mapping[str, str]) -> list[str]:
    """The names of servers that were restarted: they forgot a job that they had ended. An absent job may have run."""
    found = []
    for api, server in zip(apis, servers, strict=True):
        job = ended.get(server.url if len(servers) > 1 else "", ended.get(server.url))
        if job is not None and await api.prompt_state(job) == "absent":
            found.append(server.name if len(servers) > 1 else "")
    return found


class CleanedUp(Struct, frozen=True, kw_only=True):
    """What happened to the jobs without an end: how many there were, and which are still there.

    `unreachable`: servers of several that did not answer, and may have some. `damage`: lines of the journal that could
    not be read, so that jobs may be unknown.
    """

    looked_up: int
    deleted: int
    stopped: int
    still_there: list[str]
    unreachable: list[str] = []
    damage: Damage | None = None


async def cleanup(path: Path, again: RunOptions) -> CleanedUp:
    """Remove from its servers the jobs of the run at `path`: waiting ones are deleted, a running one is stopped.

    Lines of the journal that cannot be read are skipped.

    Raises:
        UsageError: a secret is not given again, or a process is at work in the directory.
    """
    check_in_one_piece(path)
    with alone_in(path):
        return await _cleanup(path, again)


def check_in_one_piece(path: Path) -> None:
    """Refuse a run in shards: each is a run of its own, with a process of its own.

    Raises:
        UsageError: it is one.
        RunFilesError: there is no run.
    """
    if RunReader(path, salvage=True).in_shards:
        first = path / read_fleet(path).shards[0].directory
        raise UsageError(f"{path} is a run in shards", f"name one of them, such as {first}")


async def _cleanup(path: Path, again: RunOptions) -> CleanedUp:
    reader = RunReader(path, salvage=True)
    left = Left(reader)
    begun = [line.prompt_id for line in left.begun]
    begun += [record.prompt_id for record in _records(reader) if record.execution.server_state_after in STILL_THERE]
    lost = reader.lost(RECORDS)
    begun += _of_lost_lines(reader, lost.lines) if lost is not None else []
    jobs = len(begun)
    if reader.manifest.retry is not None:
        begun += [name for first in begun for name in later_ids(first)]
        earlier = [attempt for record in _records(reader) for attempt in record.execution.attempts[:-1]]
        left_there = [attempt.prompt_id for attempt in earlier if attempt.outcome in ("lost", "timed_out")]
        begun += [name for name in left_there if name not in begun]
    async with connect_all(options_again(reader.manifest, again)) as connected:
        servers, apis, unreachable = await _reached(connected)
        numbered = all(server.client_prompt_id for server in servers)
        found = await _unjournalled(apis, reader.manifest, left.journalled) if numbered else []
        unjournalled = [name for name in found if name not in begun]
        begun, jobs = [*begun, *unjournalled], jobs + len(unjournalled)
        removed = [await _remove(api, begun) for api in apis]
    return CleanedUp(
        looked_up=jobs,
        deleted=sum(deleted for deleted, _, _ in removed),
        stopped=sum(stopped for _, stopped, _ in removed),
        still_there=[name for _, _, still in removed for name in still],
        unreachable=unreachable,
        damage=lost,
    )


async def _reached(connected: Sequence[Connected]) -> tuple[list[Server], list[Api], list[str]]:
    """The servers that answer, the calls to them, and the names of those of several that do not.

    Raises:
        ServerUnreachable: none does.
    """
    servers, apis, away = list[Server](), list[Api](), list[str]()
    for one in connected:
        try:
            server = await identify(one.http, one.http.name, [])
        except ServerUnreachable:
            if len(away) + 1 == len(connected):
                raise
            away.append(one.name)
            continue
        servers.append(server)
        apis.append(api_of(one.http, server))
    return servers, apis, away


async def _remove(api: Api, jobs: list[str]) -> tuple[int, int, list[str]]:
    """Remove these jobs from one server: how many were deleted from its queue, how many stopped, and which are left."""
    waiting = [name for name in jobs if await api.prompt_state(name) == "pending"]
    if jobs:
        await api.delete(jobs)
    stopped, still = 0, []
    for name in jobs:
        if await api.prompt_state(name) == "running":
            stopped += await api.stop(name)
        if not await _gone(api, name):
            still.append(name)
    return len([name for name in waiting if name not in still]), stopped, still


def _of_lost_lines(reader: RunReader, lines: int) -> list[str]:
    """Ids of jobs that only lost lines may have named: an id follows from the run's id and the job's number."""
    known = {line.index for line in reader.lines()}
    of = reader.manifest.part.of
    after = _own(reader.manifest, range(max(known, default=-1) + of * (lines + reader.manifest.plan.pages)))
    missing = islice((index for index in after if index not in known), lines)
    return [prompt_id(reader.manifest.run_id, index) for index in missing]


async def _gone(api: Api, prompt_id: str, within_s: float = 5.0) -> bool:
    """Whether the server is done with the prompt, or soon will be: a node checks for interrupts only now and then."""
    watch = stopwatch()
    while await api.prompt_state(prompt_id) in STILL_THERE:
        if watch() > within_s:
            return False
        await asyncio.sleep(0.2)
    return True


def _records(reader: RunReader) -> Iterator[Record]:
    return (line for line in reader.lines() if isinstance(line, Record))


def options_again(manifest: Manifest, again: RunOptions) -> RunOptions:
    """The options of the run, with what is given again."""
    options = manifest.options
    missing = {header.partition("=")[0] for header in [*options.headers, *again.headers]}
    tables = tables_again(options.servers, again)
    for place, server in enumerate(manifest.fleet):
        for name in server.headers:
            if name not in missing and not (tables and name in tables[place].headers):
                hint = f"give it again: --header {name}=VALUE"
                raise UsageError(f"the run sent a header {name}, which is not kept", hint)
    if "***" in options.server and not again.server:
        raise UsageError("the server's address held a secret, which is not kept", "give it again: --server URL")
    workflows = options.workflows
    if again.workflows:
        if len(again.workflows) != len(workflows):
            raise UsageError(f"the run has {len(workflows)} workflows", "give --workflow as often, in the same order")
        pairs = zip(workflows, again.workflows, strict=True)
        workflows = [structs.replace(choice, file=moved.file) for choice, moved in pairs]
    return structs.replace(
        options,
        plan=manifest.plan,
        server=tables[0].url if tables else again.server or options.server,
        servers=tables,
        headers=[*options.headers, *again.headers],
        ca_file=again.ca_file or options.ca_file,
        max_jobs=again.max_jobs or options.max_jobs,
        max_time_s=again.max_time_s or options.max_time_s,
        workflows=workflows,
        uploads=[],
        preflight=False,
        drop_broken_outputs=False,
        allow_shared=True,
    )


def check_same(then: Manifest, now: Manifest) -> None:
    """Raises: UsageError: a workflow is not as it was."""
    for before, after in zip(then.workflows, now.workflows, strict=True):
        if before.sha256 != after.sha256:
            hint = "give the file as it was: --workflow FILE"
            raise UsageError(f"the workflow {after.name} has changed since the run began", hint)


def _own(manifest: Manifest, indexes: Iterable[int]) -> Iterator[int]:
    """Of these jobs those of the run, which may be a shard."""
    shard, pages = manifest.part, manifest.plan.pages
    return (index for index in indexes if shard.takes(index // pages))


async def _unjournalled(apis: Sequence[Api], manifest: Manifest, journalled: Container[int]) -> list[str]:
    """Ids of jobs that a server has although no line names them: a power cut takes a journal's last lines.

    Jobs are sent roughly in order, so that after `ABSENT` unknown ones in a row there are no more.
    """
    found, absent = list[str](), 0
    for index in (index for index in _own(manifest, count()) if index not in journalled):
        if absent == ABSENT:
            break
        name = prompt_id(manifest.run_id, index)
        states = await asyncio.gather(*(api.prompt_state(name) for api in apis))
        if all(state in ("absent", "unknown") for state in states):
            absent += 1
        else:
            found.append(name)
            absent = 0
    return found
