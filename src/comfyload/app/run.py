"""`run`: load one server with one workflow, and leave a run directory that tells all of it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct, structs

from comfyload.clock import stopwatch
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.http import Http, parse_headers, parse_server
from comfyload.comfy.identify import describe_classes, describe_packs, identify
from comfyload.comfy.patience import Patience
from comfyload.errors import RunFilesError, WorkflowError
from comfyload.load import Engine, Stop
from comfyload.load.selfcheck import SelfWatch, frozen_gc
from comfyload.record.host import describe_host
from comfyload.record.model import FORMAT, Line, Manifest, Observation, Record, Sample
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RunWriter
from comfyload.workflow import ObjectInfo, Variation, override, parse

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from comfyload.comfy.transport import Transport
    from comfyload.record.model import Server
    from comfyload.workflow import Workflow

__all__ = ["RunOptions", "Viewer", "run"]

End = Literal["complete", "stopped", "cancelled", "crashed"]


class RunOptions(Struct, frozen=True, kw_only=True):
    """What `comfyload run` was asked for."""

    server: str
    workflow: Path
    jobs: int
    concurrency: int
    timeout_s: float | None = None
    warmup: int = 0
    as_is: bool = False
    settings: list[str] = []
    keep_prefix: bool = False
    keep_workflow: bool = False
    fetch: bool = False
    headers: list[str] = []
    seed: int | None = None
    name: str | None = None
    run_dir: Path | None = None
    ca_file: str | None = None
    insecure: bool = False


class Viewer(Protocol):
    """Who watches a run while it goes on. All calls are made on the event loop and must not block."""

    def began(self, manifest: Manifest, path: Path) -> None: ...
    def counting(self) -> None: ...
    def line(self, line: Line) -> None: ...
    def queue(self, remaining: int) -> None: ...
    def noticed(self, observation: Observation) -> None: ...
    def stopping(self, how: str) -> None: ...
    def ended(self) -> None: ...


async def run(options: RunOptions, viewer: Viewer) -> Path:
    """Run the load and return the run directory.

    Raises:
        UsageError: the input cannot be right; nothing was sent and nothing written.
        ServerUnreachable: there is no ComfyUI at the address.
    """
    url, headers = parse_server(options.server), parse_headers(options.headers)
    workflow, overrides = override(_read_workflow(options.workflow), options.settings)
    async with Http.connect(url, headers, ca_file=options.ca_file, insecure=options.insecure) as transport:
        server = await identify(transport, transport.name, sorted(headers))
        classes = await describe_classes(transport, (workflow.class_of(node) for node in workflow.graph))
        info = ObjectInfo(classes)
        started = datetime.now(UTC)
        name = options.name or workflow.name
        run_id = f"{started:%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(3)}"
        seed = secrets.randbits(53) if options.seed is None else options.seed
        folder = None if options.keep_prefix else f"comfyload/{run_id}"
        variation = Variation(workflow, info, seed=seed, as_is=options.as_is, output_folder=folder)
        manifest = Manifest(
            format=FORMAT,
            tool=f"comfyload {version('comfyload')}",
            run_id=run_id,
            name=name,
            started_utc=started.isoformat(),
            ended_utc=None,
            end=None,
            plan=Plan(
                load=Closed(concurrency=options.concurrency),
                jobs=options.jobs,
                warmup=options.warmup,
                timeout_s=options.timeout_s,
                as_is=options.as_is,
                fetch=options.fetch,
                seed=seed,
            ),
            client=describe_host(),
            server=structs.replace(server, packs=info.packs() if classes else None),
            workflows=[variation.facts(overrides, keep_graph=options.keep_workflow)],
        )
        writer = RunWriter(options.run_dir or _new_directory(started, name), manifest)
        try:
            await _Session(options, manifest, writer, variation, viewer).run(transport, server)
        finally:
            writer.close()
        return writer.path


class _Session:
    """One run under way: what the engine and the client tell is journalled first, then shown."""

    def __init__(
        self, options: RunOptions, manifest: Manifest, writer: RunWriter, variation: Variation, viewer: Viewer
    ) -> None:
        self._options = options
        self._manifest = manifest
        self._writer = writer
        self._variation = variation
        self._viewer = viewer
        self._clock = stopwatch()
        self._observations: dict[str, Observation] = {}
        self._self_watch: SelfWatch | None = None
        self._stop = Stop()
        self._end: End = "crashed"
        self._queue_remaining: int | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, transport: Transport, server: Server) -> None:
        options = self._options
        self._viewer.began(self._manifest, self._writer.path)
        self._note_beforehand(server)
        try:
            with frozen_gc():
                async with ComfyClient.open(
                    transport,
                    server,
                    self._clock,
                    patience=Patience(job_s=options.timeout_s),
                    fetch=options.fetch,
                    observe=self._observe,
                    on_queue=self._on_queue,
                ) as client:
                    with self._signals(client):
                        engine = Engine(
                            self._manifest.plan,
                            lambda i: self._variation.prompt(self._manifest.run_id, i, warmup=i < options.warmup),
                            client,
                            self._on_line,
                            clock=self._clock,
                            rng=Random(f"{self._manifest.plan.seed}/arrivals"),
                            stop=self._stop,
                        )
                        await engine.run(on_counted=self._on_counted)
                        self._end = "complete" if self._end == "crashed" else self._end
        finally:
            self._manifest.counted_to = self._clock() if self._manifest.counted_from is not None else None
            if self._self_watch is not None:
                self._manifest.self_check = self._self_watch.result()
            for task in self._background:
                task.cancel()
            if self._end == "complete":
                # Asked last: the whole of /object_info holds the server's loop up for a fifth of a second and more.
                packs = await describe_packs(transport)
                if packs is not None:
                    self._manifest.server = structs.replace(self._manifest.server, packs=packs)
            self._manifest.ended_utc = datetime.now(UTC).isoformat()
            self._manifest.end = self._end
            self._manifest.observations = list(self._observations.values())
            self._writer.write_manifest(self._manifest)
            self._viewer.ended()

    def _on_counted(self) -> None:
        self._manifest.counted_from = self._clock()
        self._self_watch = SelfWatch()
        self._spawn(self._self_watch.run())
        self._viewer.counting()

    def _on_line(self, line: Line) -> None:
        self._writer.write_line(line)
        if isinstance(line, Record) and not line.warmup and self._self_watch is not None:
            sent = line.execution.sent
            if sent is not None:
                self._self_watch.send_lateness.append(sent - line.due)
        self._viewer.line(line)

    def _on_queue(self, t: float, remaining: int) -> None:
        if remaining != self._queue_remaining:
            self._queue_remaining = remaining
            self._writer.write_sample(Sample(t=t, source="comfy", name="queue_remaining", value=remaining))
            self._viewer.queue(remaining)

    def _observe(self, observation: Observation) -> None:
        """Keep the first of each kind and count the rest; those that each name something else are kept one by one."""
        key = observation.text if observation.code in ("orphan", "vary") else observation.code
        before = self._observations.get(key)
        if before is None:
            self._observations[key] = observation
            self._viewer.noticed(observation)
        else:
            self._observations[key] = structs.replace(before, count=before.count + 1)

    def _note_beforehand(self, server: Server) -> None:
        variation = self._variation
        if server.comfyui_version is None:
            self._note("unknown_server", "the server does not tell its version; jobs cannot be stopped once they run")
        if server.queue_at_start:
            self._note(
                "busy_at_start", f"the server's queue held {server.queue_at_start} prompts of others at the start"
            )
        if variation.salted:
            self._note(
                "vary",
                "the graph has no seed to vary, so an input that ComfyUI ignores was added to "
                f"{_nodes(variation.salted)}: every job executes, and makes the same picture",
            )
        if variation.constant:
            self._note("vary", f"no seed reaches {_nodes(variation.constant)}: not counted as work of each job")
        if not variation.as_is and variation.period < self._options.jobs + self._options.warmup:
            self._note("vary", f"the seeds' bounds allow {variation.period} different jobs only; the rest repeat them")

    def _note(self, code: str, text: str) -> None:
        self._observe(Observation(t=self._clock(), code=code, text=text))

    @contextmanager
    def _signals(self, client: ComfyClient) -> Iterator[None]:
        """First Ctrl-C: no more arrivals, what is under way ends. Second, or SIGTERM: what is ours is cancelled."""
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            self._stop.ask()
            self._end = "cancelled"
            self._viewer.stopping("cancelling what is ours on the server")
            self._spawn(client.abandon())

        def interrupt() -> None:
            if self._stop.asked:
                cancel()
                return
            self._stop.ask()
            self._end = "stopped"
            self._viewer.stopping("no more jobs are sent; waiting for those under way (Ctrl-C again cancels them)")

        handled: list[tuple[int, Callable[[], None]]] = [(signal.SIGINT, interrupt), (signal.SIGTERM, cancel)]
        with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt instead
            for number, handler in handled:
                loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            with suppress(NotImplementedError):
                for number, _ in handled:
                    loop.remove_signal_handler(number)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _read_workflow(path: Path) -> Workflow:
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise WorkflowError(f"cannot read {path}: {error.strerror or error}", "give a workflow file") from None
    return parse(content, "stdin" if str(path) == "-" else path.stem, "stdin" if str(path) == "-" else str(path))


def _new_directory(started: datetime, name: str) -> Path:
    """`runs/<utc>-<name>`, with a number behind it where that exists."""
    base = Path("runs") / f"{started:%Y%m%dT%H%M%SZ}-{name}"
    for number in range(1, 1000):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if not path.exists():
            return path
    raise RunFilesError(f"{base} and its successors exist", "give --run-dir")


def _nodes(nodes: list[str]) -> str:
    return ("node " if len(nodes) == 1 else "nodes ") + ", ".join(nodes)
