"""One run under way: the lines of the engine and the client are journalled first, then shown."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from random import Random
from shlex import quote
from typing import Literal

from msgspec import Struct, structs

from comfyload.app.run.beginning import Beginning
from comfyload.app.run.caps import Caps
from comfyload.app.run.environment import EnvironmentReader
from comfyload.app.run.inputs import Prepared
from comfyload.app.run.live_log import Live
from comfyload.app.run.observations import Noted
from comfyload.app.run.schedule_seed import arrivals_rng
from comfyload.app.run.signals import on_signals
from comfyload.app.run.telemetry import sources
from comfyload.app.run.viewer import StopReason, Viewer
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.identify import describe_packs
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.room import Room
from comfyload.comfy.timeouts import Timeouts
from comfyload.comfy.wire.calls import Transport
from comfyload.errors import ComfyloadError, OwnFault
from comfyload.judge.clocks import check_clocks
from comfyload.load import Engine, Stop
from comfyload.load.arrivals import expected_jobs
from comfyload.load.clocks import ClockWatch
from comfyload.load.selfcheck import SelfWatch, frozen_gc
from comfyload.record.job_events import JobEvent, Retrying, retry_line
from comfyload.record.model import Execution, Line, LogLine, Observation, Prompt, Record, Sample, Sent
from comfyload.record.run import RunWriter
from comfyload.retry.client import RetryingClient
from comfyload.telemetry.collector import Collector
from comfyload.telemetry.live import LiveLog
from comfyload.telemetry.log import MetricsLog
from comfyload.telemetry.probe import Probe

EVENT_SILENCE_S = 2.0
"""If our jobs run and no event came for so long, the event stream may hang."""

End = Literal["complete", "decided", "capped", "stopped", "cancelled", "crashed"]


class Resumed(Struct, frozen=True, kw_only=True):
    """What an earlier process of the run left.

    `begun`: jobs without an end that it sent, or was about to; `unjournalled`: ids of others that the server has;
    `done`: arrivals that need not come again; `restarted`: the server was restarted since; `probe_row`: boot and number
    of the last row that was read from the probe.
    """

    begun: list[Sent] = []
    unjournalled: list[str] = []
    done: frozenset[int] = frozenset()
    restarted: bool = False
    probe_row: tuple[str, int] | None = None


class Session:
    """Runs a plan to its end.

    `caps`: limits of the command that makes this run. `live`: the project's log, which gets the run's rows.
    `stop_reason` may end the run early.
    """

    def __init__(
        self,
        prepared: Prepared,
        writer: RunWriter,
        viewer: Viewer,
        clock: Callable[[], float],
        *,
        caps: Caps,
        live: LiveLog | None = None,
        stop_reason: StopReason | None = None,
        earlier: Resumed = Resumed(),  # noqa: B008 - frozen
    ) -> None:
        manifest = self._manifest = prepared.manifest
        self._writer = writer
        self._jobs = prepared.jobs
        self._viewer = viewer
        self._clock = clock
        self._options = prepared.options
        self._earlier = earlier
        self._stop_reason = stop_reason
        self._clocks = ClockWatch()
        self._with_rows: list[Probe | MetricsLog] = []
        self._live = Live(live, manifest, lambda: any(source.present for source in self._with_rows))
        self._clients: Sequence[ComfyClient] = ()
        self._noted = Noted(manifest.observations, viewer.noticed)
        self._self_watch: SelfWatch | None = None
        self._caps = caps
        self._stop = Stop(self._admits)
        self._end: End = "crashed"
        self._queue_remaining: int | None = None
        self._full_noted = False
        self._background: set[asyncio.Task[None]] = set()
        self._beginning = Beginning(manifest, prepared.options, clock)

    async def run(self, transport: Transport) -> None:
        """Run it. Whatever ends it, our prompts are removed from the server; if they cannot be, the error has a note.

        Raises:
            RunFilesError: the run cannot be written any more; what was measured before is kept.
            OwnFault: a defect of comfyload; its cause is the error that was raised.
        """
        try:
            await self._run(transport)
        except BaseException as error:
            plain = _plain(error)
            ours = isinstance(plain, Exception) and not isinstance(plain, ComfyloadError | OSError)
            raised = OwnFault(plain, self._writer.path) if ours else plain
            if any(client.left for client in self._clients):  # prompts that nobody waits for
                remove = f"comfyload cleanup {quote(str(self._writer.path))}"
                raised.add_note(f"Prompts of this run may still be on the server. To remove them: {remove}")
            if raised is error:
                raise
            raise raised from None

    async def _run(self, transport: Transport) -> None:
        manifest = self._manifest
        self._environment = EnvironmentReader(manifest, transport)
        self._viewer.began(manifest, self._writer.path, expected_jobs(manifest.plan))
        self._live.began()
        self._note_beforehand()
        chosen = sources(
            self._options,
            transport,
            manifest.server,
            self._clock,
            since=self._earlier.probe_row,
            streamed=self._queue_is_streamed,
        )
        self._with_rows = [source for source in chosen if isinstance(source, Probe | MetricsLog)]
        collector = Collector(chosen, self._clock, emit=self._on_sample, emit_log=self._on_log, note=self._noted.add)
        self._clocks.begin()
        try:
            with frozen_gc():
                await collector.begin()
                async with self._open(transport) as client:
                    self._clients = client.clients if isinstance(client, RetryingClient) else [client]
                    with self._signals(client):
                        await self._drive(client)
                        self._end = "complete" if self._end == "crashed" else self._end
        finally:
            self._stop_counting()
            try:
                await collector.end(finish=not self._crashed())
            finally:
                try:
                    await self._close(transport)
                finally:
                    self._viewer.ended()

    def _open(self, transport: Transport) -> AbstractAsyncContextManager[ComfyClient | RetryingClient]:
        manifest, earlier = self._manifest, self._earlier
        unconfirmed = frozenset([*(line.prompt_id for line in earlier.begun), *earlier.unjournalled])
        options = ClientOptions(
            timeouts=Timeouts(job_s=manifest.plan.timeout_s),
            fetch=manifest.plan.fetch,
            observe=self._noted.add,
            on_queue=lambda t, n: self._on_sample(Sample(t=t, source="comfy", name="queue_remaining", value=n)),
            unconfirmed_ids=unconfirmed,
            earlier_ids=unconfirmed,
            server_restarted=earlier.restarted,
            room=self._room(),
            shared=not manifest.part.is_whole,
        )
        if manifest.retry is None:
            return ComfyClient.open(transport, manifest.server, self._clock, options)
        of_shard = f"/{manifest.shard}" if isinstance(manifest.shard, str) else ""  # all would wait equally long
        servers, rng = [(transport, manifest.server)], Random(f"{manifest.plan.seed}/retries{of_shard}")
        return RetryingClient.open(servers, manifest.retry, self._clock, rng=rng, options=options)

    async def _drive(self, client: ComfyClient | RetryingClient) -> None:
        plan = self._manifest.plan
        engine = Engine(
            plan,
            self._jobs.prompt,
            _Noting(client, self._on_event) if isinstance(client, RetryingClient) else client,
            self._on_line,
            clock=self._clock,
            rng=arrivals_rng(plan),
            stop=self._stop,
            done=self._earlier.done,
            shard=self._manifest.part,
            start=self._beginning.start(self._stop, self._viewer.noticed, self._noted.add),
        )

        def on_last() -> None:
            if not plan.drain and not self._stop.requested:
                self._spawn(client.cancel_all("censored"))

        if self._caps.left_s is not None:
            self._spawn(self._cap_in_time(self._caps.left_s))
        await engine.finish(self._earlier.begun)
        await engine.run(on_counted=self._on_counted, on_last=on_last)

    def _room(self) -> Room | None:
        plan = self._manifest.plan
        if plan.max_server_queue is None:
            return None

        def on_full(length: int) -> None:
            if not self._full_noted:
                self._full_noted = True
                text = f"jobs are held back: the server's queue is {length} long (--max-server-queue)"
                self._viewer.noticed(Observation(t=self._clock(), code="held_back", text=text))

        drops = getattr(plan.load, "on_full", "wait") == "drop"
        return Room(plan.max_server_queue, drops=drops, stopped=lambda: self._stop.requested, on_full=on_full)

    def _admits(self, jobs: int) -> bool:
        if self._caps.admits(jobs):
            return True
        self._cap()  # arrivals that were admitted and wait are still sent
        return False

    async def _cap_in_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._cap()
        self._stop.request()

    def _cap(self) -> None:
        """The limit is reached: send no more, and note it."""
        if self._stop.requested or self._end == "capped":
            return
        self._end, self._caps.cut = "capped", True
        self._noted.add(Observation(t=self._clock(), code="capped", text=self._caps.reached))
        self._viewer.stopping("Limit reached: waiting for running jobs")

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
        """Write the end of the run to the manifest, whatever ended it."""
        manifest = self._manifest
        if self._end in ("complete", "decided", "capped"):
            # Last, since all of /object_info blocks the server's event loop for a fifth of a second or more.
            packs = await describe_packs(transport)
            if packs is not None:
                manifest.server = structs.replace(manifest.server, packs=packs)
        manifest.ended_utc = datetime.now(UTC).isoformat()
        manifest.end = self._end
        manifest.environment = await self._environment.describe()
        manifest.observations = self._noted.all()
        self._writer.write_manifest(manifest)
        self._live.ended(self._clock())

    def _on_counted(self) -> None:
        if self._manifest.counted_from is None:
            self._manifest.counted_from = self._beginning.counted_from()
        self._writer.write_manifest(self._manifest)
        self._spawn(self._beginning.note_began())
        self._self_watch = SelfWatch()
        self._spawn(self._self_watch.run())
        self._spawn(self._environment.read_soon())
        self._viewer.counting()

    def _on_line(self, line: Line) -> None:
        self._writer.write_line(line)
        if isinstance(line, Record) and not line.warmup and self._self_watch is not None:
            sent = line.execution.sent
            # An arrival that waited by plan, or for a retry, was not sent late by the generator.
            if sent is not None and not self._manifest.plan.waits and self._manifest.retry is None:
                self._self_watch.send_lateness.append(sent - line.due)
            self._stop_early(line)
        if isinstance(line, Record):
            self._live.job(line)
        self._viewer.line(line)

    def _stop_early(self, record: Record) -> None:
        if self._stop_reason is None or self._stop.requested:
            return
        if why := self._stop_reason(record, self._manifest, self._writer.path):
            self._stop.request()
            self._end = "decided"
            self._viewer.stopping(f"Stopping, as {why}: waiting for running jobs")

    def _on_event(self, prompt: Prompt, event: JobEvent) -> None:
        if isinstance(event, Retrying):
            self._writer.write_event(retry_line(event, index=prompt.index, t=self._clock()))

    def _on_log(self, line: LogLine) -> None:
        self._writer.write_log(line)
        self._live.row(line)

    def _on_sample(self, sample: Sample) -> None:
        """Write a sample; the length of the queue only where it changes."""
        if (sample.source, sample.name) == ("comfy", "queue_remaining"):
            remaining = None if sample.value is None else int(sample.value)
            if remaining == self._queue_remaining:
                return
            self._queue_remaining = remaining
            if remaining is not None:
                self._viewer.queue(remaining)
        self._writer.write_sample(sample)

    def _queue_is_streamed(self) -> bool:
        """Whether the event stream reports the length of the queue, as far as can be known; true before it is open."""
        if not self._clients:
            return True
        client = self._clients[0]
        silent = len(client.inflight) > 0 and self._clock() - client.inflight.last_event > EVENT_SILENCE_S
        return client.stream.connected and not silent

    def _note_beforehand(self) -> None:
        server = self._manifest.server
        notes = [("vary", remark) for remark in self._jobs.remarks()]
        if server.comfyui_version is None:
            notes.append(
                ("unknown_server", "the server does not report its version; jobs cannot be stopped once they run")
            )
        others_warm_up = isinstance(self._manifest.shard, str) and self._manifest.plan.warmup > 0
        if server.queue_at_start and not self._earlier.begun and not others_warm_up:
            text = f"the server's queue held {server.queue_at_start} prompts of others at the start"
            notes.append(("busy_at_start", text))
        for code, text in notes:
            self._noted.add(Observation(t=self._clock(), code=code, text=text))

    def _signals(self, client: ComfyClient | RetryingClient) -> AbstractContextManager[None]:
        """First Ctrl-C: no more arrivals, running jobs end. Second, SIGTERM or a terminal that is closed: our jobs are
        cancelled. A shard takes SIGTERM as Ctrl-C: what ended it begins a process that resumes it.
        """

        def cancel() -> None:
            self._stop.request()
            self._end = "cancelled"
            self._viewer.stopping("Cancelling: removing our jobs from the server")
            self._spawn(client.cancel_all())

        def interrupt() -> None:
            if self._stop.requested:
                cancel()
                return
            self._stop.request()
            self._end = "stopped"
            self._viewer.stopping("Stopping: waiting for running jobs (press Ctrl-C again to cancel them)")

        return on_signals(interrupt, interrupt if isinstance(self._manifest.shard, str) else cancel)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class _Noting:
    """A client whose jobs' events are noted."""

    def __init__(self, client: RetryingClient, note: Callable[[Prompt, JobEvent], None]) -> None:
        self._client = client
        self._note = note

    def run(self, prompt: Prompt) -> Coroutine[None, None, Execution]:
        return self._client.run(prompt, tell=partial(self._note, prompt))


def _plain(error: BaseException) -> BaseException:
    """The first of our errors that a task ended with, or None."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    ours: BaseException | None = error.subgroup(ComfyloadError)
    while isinstance(ours, BaseExceptionGroup):
        ours = ours.exceptions[0]
    return ours or error
