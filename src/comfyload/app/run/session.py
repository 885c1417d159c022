"""One run under way: what the engine and the client tell is journalled first, then shown."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from random import Random
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from msgspec import convert, structs

from comfyload.app.run.environment import EnvironmentReader
from comfyload.app.run.live_log import Live
from comfyload.app.run.observations import Noted
from comfyload.app.run.schedule_seed import arrivals_rng
from comfyload.app.run.signals import on_signals
from comfyload.app.run.telemetry import Telemetry, rows_are_told, sources
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.identify import describe_packs
from comfyload.comfy.room import Room
from comfyload.comfy.timeouts import Timeouts
from comfyload.errors import ComfyloadError, OwnFault
from comfyload.judge.clocks import check_clocks
from comfyload.load import Engine, Stop
from comfyload.load.arrivals import expected_jobs
from comfyload.load.clocks import ClockWatch
from comfyload.load.selfcheck import SelfWatch, frozen_gc
from comfyload.record.model import Observation, Record, Sample
from comfyload.retry.client import RetryingClient
from comfyload.retry.policy import Policy
from comfyload.telemetry.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from comfyload.app.run.caps import Caps
    from comfyload.app.run.inputs import JobSource
    from comfyload.app.run.viewer import Ender, Viewer
    from comfyload.comfy.transport import Transport
    from comfyload.record.model import Line, LogLine, Manifest, Sent
    from comfyload.record.run import RunWriter
    from comfyload.telemetry.live import LiveLog
    from comfyload.telemetry.source import Source

__all__ = ["Session", "take_off_line"]

EVENT_SILENCE_S = 2.0
"""JobSource of ours are under way, and no event of them came for so long: the event stream may hang."""

End = Literal["complete", "decided", "capped", "stopped", "cancelled", "crashed"]


class Session:
    """Runs a plan to its end.

    `begun` are jobs that an earlier process sent, or was about to, and did not see the end of; `done` are the arrivals
    that need not come again; `restarted` says that the server forgot what it had between the two processes. `proof`
    ends the run when it has told enough. `telemetry`: what is read beside it. `live`: the project's log, which gets
    the run's rows. `caps`: of the command that it is a part of.
    """

    def __init__(
        self,
        manifest: Manifest,
        writer: RunWriter,
        jobs: JobSource,
        viewer: Viewer,
        clock: Callable[[], float],
        *,
        begun: list[Sent] | None = None,
        untold: Sequence[str] = (),
        done: frozenset[int] = frozenset(),
        restarted: bool = False,
        proof: Ender | None = None,
        telemetry: Telemetry = Telemetry(),  # noqa: B008 - frozen
        live: LiveLog | None = None,
        caps: Caps | None = None,
    ) -> None:
        self._manifest = manifest
        self._writer = writer
        self._jobs = jobs
        self._viewer = viewer
        self._clock = clock
        self._begun = begun or []
        self._unconfirmed_ids = frozenset([*(line.prompt_id for line in self._begun), *untold])
        self._done = done
        self._restarted = restarted
        self._proof = proof
        self._telemetry = telemetry
        self._clocks = ClockWatch()
        self._sources: list[Source] = []
        self._live = Live(live, manifest, lambda: rows_are_told(self._sources))
        self._client: ComfyClient | None = None
        self._opened: ComfyClient | RetryingClient | None = None
        self._noted = Noted(manifest.observations, viewer.noticed)
        self._self_watch: SelfWatch | None = None
        self._caps = caps
        self._stop = Stop(self._admits)
        self._end: End = "crashed"
        self._queue_remaining: int | None = None
        self._told_full = False
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, transport: Transport) -> None:
        """Run it. Whatever ends it, our prompts are taken off the server; if they cannot be, the error has a note.

        Raises:
            RunFilesError: the run cannot be written any more; what was measured before is kept.
            OwnFault: something of ours is wrong; its cause is what was raised.
        """
        try:
            await self._run(transport)
        except BaseException as error:
            plain = _plain(error)
            ours = isinstance(plain, Exception) and not isinstance(plain, ComfyloadError | OSError)
            told = OwnFault(plain, self._writer.path) if ours else plain
            if self._left():
                told.add_note(take_off_line(self._writer.path))
            if told is error:
                raise
            raise told from None

    def _left(self) -> bool:
        """Whether prompts of ours may still be on the server although nobody waits for them."""
        opened = self._opened
        return opened is not None and any(client.left for client in getattr(opened, "clients", [opened]))

    async def _run(self, transport: Transport) -> None:
        manifest = self._manifest
        self._surroundings = EnvironmentReader(manifest, transport)
        self._viewer.began(manifest, self._writer.path, expected_jobs(manifest.plan))
        self._live.began()
        self._note_beforehand()
        self._sources = sources(self._telemetry, transport, manifest.server, self._clock, self._hears_the_queue)
        watch = Collector(
            self._sources,
            self._clock,
            emit=self._on_sample,
            emit_log=self._on_log,
            note=self._noted.add,
        )
        self._clocks.begin()
        try:
            with frozen_gc():
                await watch.begin()
                async with self._open(transport) as client:
                    self._opened = client
                    self._client = client.clients[0] if isinstance(client, RetryingClient) else client
                    with self._signals(client):
                        await self._drive(client)
                        self._end = "complete" if self._end == "crashed" else self._end
        finally:
            self._stop_counting()
            try:
                await watch.end(finish=not self._crashed())
            finally:
                try:
                    await self._close(transport)
                finally:
                    self._viewer.ended()

    def _open(self, transport: Transport) -> AbstractAsyncContextManager[ComfyClient | RetryingClient]:
        manifest = self._manifest
        hooks: dict[str, Any] = {
            "timeouts": Timeouts(job_s=manifest.plan.timeout_s),
            "fetch": manifest.plan.fetch,
            "observe": self._noted.add,
            "on_queue": self._on_queue,
            "unconfirmed_ids": self._unconfirmed_ids,
            "server_restarted": self._restarted,
            "room": self._room(),
        }
        if manifest.retry is None:
            return ComfyClient.open(transport, manifest.server, self._clock, **hooks)
        policy, rng = convert(manifest.retry, Policy), Random(f"{manifest.plan.seed}/retries")
        return RetryingClient.open([(transport, manifest.server)], policy, self._clock, rng=rng, **hooks)

    async def _drive(self, client: ComfyClient | RetryingClient) -> None:
        plan = self._manifest.plan
        engine = Engine(
            plan,
            self._jobs.prompt,
            client,
            self._on_line,
            clock=self._clock,
            rng=arrivals_rng(plan),
            stop=self._stop,
            done=self._done,
        )

        def on_last() -> None:
            if not plan.drain and not self._stop.asked:
                self._spawn(client.cancel_all("censored"))

        left_s = None if self._caps is None else self._caps.left_s
        if left_s is not None:
            self._spawn(self._cap_in_time(left_s))
        await engine.finish(self._begun)
        await engine.run(on_counted=self._on_counted, on_last=on_last)

    def _room(self) -> Room | None:
        plan = self._manifest.plan
        if plan.max_server_queue is None:
            return None

        def on_full(length: int) -> None:
            if not self._told_full:
                self._told_full = True
                text = f"jobs are held back: the server's queue is {length} long (--max-server-queue)"
                self._viewer.noticed(Observation(t=self._clock(), code="held_back", text=text))

        drops = getattr(plan.load, "on_full", "wait") == "drop"
        return Room(plan.max_server_queue, drops=drops, stopped=lambda: self._stop.asked, on_full=on_full)

    def _admits(self, jobs: int) -> bool:
        if self._caps is None or self._caps.admits(jobs):
            return True
        self._cap()  # without stopping what was admitted and waits for a place or room
        return False

    async def _cap_in_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._cap()
        self._stop.ask()

    def _cap(self) -> None:
        """What the command may send is sent: no more, and that is written down."""
        if self._stop.asked or self._caps is None or self._end == "capped":
            return
        self._end, self._caps.cut = "capped", True
        self._noted.add(Observation(t=self._clock(), code="capped", text=self._caps.reached))
        self._viewer.stopping("no more jobs are sent, those under way end")

    def _crashed(self) -> bool:
        return self._end == "crashed"

    def _stop_counting(self) -> None:
        manifest = self._manifest
        manifest.counted_to = self._clock() if manifest.counted_from is not None else None
        check = check_clocks(self._clocks.end())
        manifest.clocks += [] if check is None else [check]
        if self._self_watch is not None:
            manifest.self_check = self._self_watch.result()
        for task in self._background:
            task.cancel()

    async def _close(self, transport: Transport) -> None:
        """Write down how the run ended, whatever ended it."""
        manifest = self._manifest
        if self._end in ("complete", "decided", "capped"):
            # Asked last: the whole of /object_info holds the server's loop up for a fifth of a second and more.
            packs = await describe_packs(transport)
            if packs is not None:
                manifest.server = structs.replace(manifest.server, packs=packs)
        manifest.ended_utc = datetime.now(UTC).isoformat()
        manifest.end = self._end
        manifest.environment = await self._surroundings.describe(manifest)
        manifest.observations = self._noted.all()
        self._writer.write_manifest(manifest)
        self._live.ended(self._clock())

    def _on_counted(self) -> None:
        if self._manifest.counted_from is None:
            self._manifest.counted_from = self._clock()
        self._writer.write_manifest(self._manifest)
        self._self_watch = SelfWatch()
        self._spawn(self._self_watch.run())
        self._spawn(self._surroundings.read_soon())
        self._viewer.counting()

    def _on_line(self, line: Line) -> None:
        self._writer.write_line(line)
        if isinstance(line, Record) and not line.warmup and self._self_watch is not None:
            sent = line.execution.sent
            # An arrival that waited for a place, or for a retry, was late by design, not by us.
            if sent is not None and not self._manifest.plan.waits and self._manifest.retry is None:
                self._self_watch.send_lateness.append(sent - line.due)
            self._prove(line)
        if isinstance(line, Record):
            self._live.job(line)
        self._viewer.line(line)

    def _prove(self, record: Record) -> None:
        if self._proof is None or self._stop.asked:
            return
        if self._proof.should_stop(record, self._manifest, self._writer.path):
            self._stop.ask()
            self._end = "decided"
            self._viewer.stopping(f"{self._proof.why}; no more jobs are sent, those under way end")

    def _on_log(self, line: LogLine) -> None:
        self._writer.write_log(line)
        self._live.row(line)

    def _on_queue(self, t: float, remaining: int) -> None:
        self._on_sample(Sample(t=t, source="comfy", name="queue_remaining", value=remaining))

    def _on_sample(self, sample: Sample) -> None:
        """The length of the queue, told by the event stream or asked for, is written where it changes."""
        if (sample.source, sample.name) == ("comfy", "queue_remaining"):
            remaining = None if sample.value is None else int(sample.value)
            if remaining == self._queue_remaining:
                return
            self._queue_remaining = remaining
            if remaining is not None:
                self._viewer.queue(remaining)
        self._writer.write_sample(sample)

    def _hears_the_queue(self) -> bool:
        """Whether the event stream tells how long the queue is, as far as can be known; before it is open it will."""
        client = self._client
        if client is None:
            return True
        silent = len(client.inflight) > 0 and self._clock() - client.inflight.last_event > EVENT_SILENCE_S
        return client.stream.connected and not silent

    def _note_beforehand(self) -> None:
        server = self._manifest.server
        notes = [("vary", remark) for remark in self._jobs.remarks()]
        if server.comfyui_version is None:
            notes.append(
                ("unknown_server", "the server does not tell its version; jobs cannot be stopped once they run")
            )
        if server.queue_at_start and not self._begun:
            held = f"the server's queue held {server.queue_at_start} prompts of others at the start"
            notes.append(("busy_at_start", held))
        for code, text in notes:
            self._noted.add(Observation(t=self._clock(), code=code, text=text))

    def _signals(self, client: ComfyClient | RetryingClient) -> AbstractContextManager[None]:
        """First Ctrl-C: no more arrivals, what is under way ends. Second, SIGTERM or a terminal that is closed: what is
        ours is cancelled.
        """

        def cancel() -> None:
            self._stop.ask()
            self._end = "cancelled"
            self._viewer.stopping("Cancelling: removing our jobs from the server")
            self._spawn(client.cancel_all())

        def interrupt() -> None:
            if self._stop.asked:
                cancel()
                return
            self._stop.ask()
            self._end = "stopped"
            self._viewer.stopping("Stopping: waiting for running jobs (press Ctrl-C again to cancel them)")

        return on_signals(interrupt, cancel)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def take_off_line(path: Path) -> str:
    """What a user does about prompts that we could not take off the server."""
    return f"Prompts of this run may still be on the server. This takes them off: comfyload cleanup {quote(str(path))}"


def _plain(error: BaseException) -> BaseException:
    """The first error of ours among those that tasks ended with, if there is one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    ours: BaseException | None = error.subgroup(ComfyloadError)
    while isinstance(ours, BaseExceptionGroup):
        ours = ours.exceptions[0]
    return ours or error
