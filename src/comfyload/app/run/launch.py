"""`run`: load servers with workflows and write a run directory."""

import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from msgspec import UNSET, structs

from comfyload.app.run.caps import Caps
from comfyload.app.run.descriptors import check_descriptors
from comfyload.app.run.inputs import JobSource, Prepared, load_inputs
from comfyload.app.run.live_log import live_log
from comfyload.app.run.options import plan_hash
from comfyload.app.run.placing import Placing, describe_all, identify_all, together, upload_to_all, with_packs
from comfyload.app.run.schedule_seed import arrivals_rng
from comfyload.app.run.servers import Connected, connect_all, resolved, without_secrets
from comfyload.app.run.session import Session
from comfyload.app.run.sharing import check_sharing, shard_of, wall
from comfyload.app.run.viewer import StopReason, Viewer
from comfyload.clock import stopwatch
from comfyload.comfy.address import parse_headers, parse_server, redacted, scrape_url
from comfyload.comfy.http import Http
from comfyload.comfy.upload import rename_inputs
from comfyload.errors import RunFilesError, UsageError
from comfyload.load.arrivals import scheduled_arrivals
from comfyload.record.environment.host import describe_host
from comfyload.record.lock import alone_in
from comfyload.record.metrics.files import project_log
from comfyload.record.model import FORMAT, AgainOf, Manifest, Observation
from comfyload.record.options import RunOptions
from comfyload.record.run import RunWriter
from comfyload.retry.policy import decode
from comfyload.text_files import read_text


async def run(
    options: RunOptions,
    viewer: Viewer,
    stop_reason: StopReason | None = None,
    *,
    live: bool = True,
    caps: Caps | None = None,
) -> Path:
    """Run the load and return the run directory. `stop_reason` may end it early.

    `live`: write the run's rows to the instrumentation log of the project, if there is one. `caps`: of a command with
    several runs; None: the run's own.

    Raises:
        UsageError: the input cannot be right; nothing was sent and nothing written.
        ServerUnreachable: there is no ComfyUI at the address.
    """
    caps = caps or Caps(options)
    options = await resolved(options)
    async with connect_all(options) as connected:
        prepared = await prepare(options, connected)
        manifest = prepared.manifest
        started = datetime.fromisoformat(manifest.started_utc)
        suffix = "" if options.shard is None else f"-shard-{shard_of(options).members[0]}"
        path = Path(options.run_dir) if options.run_dir else _new_directory(started, manifest.name + suffix)
        with alone_in(path) as unlocked, RunWriter(path, manifest) as writer:
            say_unlocked(unlocked, viewer)
            log = live_log() if live else None
            session = Session(prepared, writer, viewer, stopwatch(), caps=caps, live=log, stop_reason=stop_reason)
            await session.run([one.http for one in connected])
        return path


def say_unlocked(why: str | None, viewer: Viewer) -> None:
    """Warn if nothing keeps a second process out of the run directory."""
    if why is not None:
        viewer.noticed(Observation(t=0.0, code="unlocked", text=why))


def connect(options: RunOptions) -> AbstractAsyncContextManager[Http]:
    """A transport to the server that the options name, for a command of one server.

    Raises:
        UsageError: they name none or several, or its address or a header is invalid.
    """
    if options.servers or options.resolve_all:
        raise UsageError("this is for one server", "give --server once")
    if not options.server:
        raise UsageError("no server is given", "give --server http://127.0.0.1:8188")
    if "***" in options.server:
        raise UsageError("the server's address has *** in place of a secret", "give it again: --server URL")
    url, headers = parse_server(options.server), parse_headers(options.headers)
    return Http.connect(url, headers, ca_file=options.ca_file, insecure=options.insecure)


async def prepare(
    options: RunOptions, connected: Sequence[Connected], again: Manifest | None = None, again_of: AgainOf | None = None
) -> Prepared:
    """Read the files, identify the servers, and settle every job. `again`: the manifest of a run that is resumed;
    `again_of`: the jobs are those of another run.
    """
    if again is not None and isinstance(again.again_of, AgainOf):
        again_of = again.again_of
    if again is None:
        check_sharing(options, wall())
    check_descriptors(options.plan, len(connected))
    inputs = load_inputs(options)
    _check_telemetry(options, resumed=again is not None)
    if options.plan.seed is None:
        options = structs.replace(options, plan=structs.replace(options.plan, seed=secrets.randbits(53)))
    servers = await identify_all(options, connected)
    described = await describe_all(connected, inputs)
    info = together(described)
    inputs.settle(info)
    for file in options.uploads:
        stored = await upload_to_all(connected, Path(file))
        inputs.workflows = [rename_inputs(workflow, Path(file).name, stored) for workflow in inputs.workflows]
    started = datetime.now(UTC)
    names = "+".join(workflow.name for workflow in inputs.workflows)
    name = options.name or re.sub(r"[^\w.+-]+", "_", names)[:60].strip("._") or "run"  # as any file system takes it
    of_shard = "" if options.shard is None else f"-{options.shard.replace('/', 'of')}"
    run_id = again.run_id if again is not None else f"{started:%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(3)}{of_shard}"
    if again is not None:
        inputs.leave_out({facts.name: facts.dropped for facts in again.workflows})
    placing = Placing(options, inputs, info, described, servers)
    await placing.look(connected)
    servers = with_packs(servers, described)
    jobs = JobSource(options, inputs, info, run_id, again_of)
    manifest = Manifest(
        format=FORMAT,
        tool=f"comfyload {version('comfyload')}",
        run_id=run_id,
        name=name,
        started_utc=started.isoformat(),
        ended_utc=None,
        end=None,
        plan=options.plan,
        client=describe_host(),
        server=servers[0],
        workflows=jobs.facts(keep_graph=options.keep_workflow),
        options=_without_secrets(options, connected),
        observations=placing.observations(),
        scheduled=scheduled_arrivals(options.plan, arrivals_rng(options.plan)),
        retry=None if options.policy is None else decode(read_text(options.policy).encode()),
        plan_sha256=plan_hash(options, [workflow.sha256 for workflow in inputs.workflows], again_of),
        again_of=UNSET if again_of is None else again_of,
        shard=UNSET if options.shard is None else options.shard,
        servers=servers if len(servers) > 1 else UNSET,
    )
    return Prepared(manifest=manifest, jobs=jobs, options=options, dispatching=placing.dispatching())


def _check_telemetry(options: RunOptions, *, resumed: bool) -> None:
    """Refuse sources that cannot work. The project's own log need not exist yet: a run may write it."""
    for url in options.scrape:
        scrape_url(url)
    if options.metrics_log is None or resumed:
        return
    log, ours = Path(options.metrics_log), project_log()
    if log.is_dir():
        raise UsageError(f"--metrics-log {log} is a directory", "name the file")
    if not log.exists() and (ours is None or log.resolve() != ours.resolve()):
        raise UsageError(f"no log at {log} (--metrics-log)", "name the file that the server writes")


def _without_secrets(options: RunOptions, connected: Sequence[Connected]) -> RunOptions:
    """The options as the manifest keeps them: files by their full paths, of headers only what names no secret."""
    return structs.replace(
        options,
        server=connected[0].http.name,
        servers=without_secrets(options.servers, connected),
        headers=[header for header in options.headers if header.partition("=")[2].startswith("env:")],
        workflows=[
            choice if choice.file == "-" else structs.replace(choice, file=str(Path(choice.file).resolve()))
            for choice in options.workflows
        ],
        data=None if options.data is None else str(Path(options.data).resolve()),
        run_dir=None,
        policy=None if options.policy is None else str(Path(options.policy).resolve()),
        comfyui_dir=None if options.comfyui_dir is None else str(Path(options.comfyui_dir).resolve()),
        scrape=[redacted(scrape_url(url)) for url in options.scrape],
        metrics_log=None if options.metrics_log is None else str(Path(options.metrics_log).resolve()),
    )


def folder_of_runs(command: str, named: Path | None = None) -> Path:
    """The folder for the runs of a command that makes several: `named`, or `runs/<utc>-<command>`.

    Raises:
        UsageError: it exists.
    """
    folder = named or Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}"
    if folder.exists():
        raise UsageError(f"{folder} exists", "name another folder; runs are never overwritten")
    return folder


def _new_directory(started: datetime, name: str) -> Path:
    """`runs/<utc>-<name>`, with a number appended where that exists."""
    base = Path("runs") / f"{started:%Y%m%dT%H%M%SZ}-{name}"
    for number in range(1, 1000):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if not path.exists():
            return path
    raise RunFilesError(f"{base} and its successors exist", "give --run-dir")
