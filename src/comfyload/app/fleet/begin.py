"""`fleet run`: settles one plan, and starts a shard of it on each host, all to begin at one instant."""

import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from msgspec import structs

from comfyload.app.fleet.host import Starter, start_here, this_host
from comfyload.app.fleet.watch import ShardWatch
from comfyload.app.run.launch import connect, prepare
from comfyload.app.run.options import shareable, to_toml
from comfyload.app.run.sharing import LOADS_S, SHARE_S, check_dealt, check_sharing
from comfyload.errors import RunFilesError, UsageError
from comfyload.record.atomic import write_whole
from comfyload.record.fleet import FLEET, FLEET_FORMAT, FleetManifest, ShardPlace, write_fleet
from comfyload.record.options import RunOptions
from comfyload.record.run import MANIFEST

PLAN = "plan.toml"
"""The plan of all shards, next to `fleet.json`."""


async def settle(options: RunOptions, shards: int) -> tuple[RunOptions, str]:
    """The options with a seed, and the run's name, once all is examined that each shard will look at, too.

    Raises:
        UsageError: the input cannot be right, or cannot be shared.
        ServerUnreachable: there is no ComfyUI at the address.
    """
    if options.shard is not None:
        raise UsageError(f"the plan is of shard {options.shard}, and a fleet makes them all", "leave shard out of it")
    check_dealt(options.plan, shards)
    if any(choice.file == "-" for choice in options.workflows):
        raise UsageError("several processes cannot read one standard input", "give --workflow a file")
    check_sharing(options, time.time())
    preflight = options.preflight and not options.uploads
    harmless = structs.replace(options, uploads=[], preflight=preflight, start_at=None)
    async with connect(harmless) as transport:
        prepared = await prepare(harmless, transport)
    plan = structs.replace(options.plan, seed=prepared.manifest.plan.seed)
    return structs.replace(options, plan=plan), prepared.manifest.name


def begin(
    options: RunOptions,
    name: str,
    shards: int,
    start_in_s: float | None = None,
    *,
    hosts: Sequence[str] | None = None,
    ahead_s: Mapping[str, float] | None = None,
    start: Starter = start_here,
) -> ShardWatch:
    """Start the shards; `hosts`: of each, this machine where None. `ahead_s`: by how much the wall clocks of hosts are
    ahead of the first one's, where that is known.

    Raises:
        UsageError: when to start is not known.
        RunFilesError: the directory holds a run already, or a process cannot be started.
    """
    at = start_instant(options, shards, start_in_s)
    began = datetime.now(UTC)
    path = Path(options.run_dir) if options.run_dir else Path("runs") / f"{began:%Y%m%dT%H%M%SZ}-{name}"
    if (path / FLEET).exists() or (path / MANIFEST).exists():
        raise RunFilesError(f"{path} already holds a run", "name another directory; runs are never overwritten")
    hosts = [this_host()] * shards if hosts is None else hosts
    ahead = {hosts[0]: 0.0, **(ahead_s or {})}
    fleet = FleetManifest(
        format=FLEET_FORMAT,
        tool=f"comfyload {version('comfyload')}",
        run_id=f"{began:%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(3)}",
        name=name,
        start_at=at.isoformat(),
        shards=[
            ShardPlace(directory=f"shard-{number}", host=host, clock_ahead_s=ahead.get(host))
            for number, host in enumerate(hosts)
        ],
        allow_lost_shards=options.allow_lost_shards,
    )
    write_fleet(path, fleet)
    plan, _ = shareable(structs.replace(options, run_dir=None, start_at=None, shard=None))
    write_whole(path / PLAN, to_toml(plan).encode())
    found = ShardWatch(path, fleet)
    try:
        for number, host in enumerate(hosts):
            found.add(
                number, start(_words(path, number, shards, at), host, _hidden(options), found.messages_of(number))
            )
    except BaseException:  # Ctrl-C, too: those that were started would begin without a command that watches them
        found.interrupt()
        raise
    return found


def start_instant(options: RunOptions, shards: int, start_in_s: float | None) -> datetime:
    """When the counted load begins.

    Raises:
        UsageError: it is given twice, or the warm-up takes nobody knows how long.
    """
    if options.start_at is not None:
        if start_in_s is not None:
            raise UsageError("--start-at and --start-in are two instants", "give one of them")
        return datetime.fromisoformat(options.start_at)
    if start_in_s is None:
        if options.plan.warmup:
            hint = "give it time: --start-in 2m"
            raise UsageError("nobody knows how long --warmup takes, and all shards begin at one instant", hint)
        start_in_s = LOADS_S + SHARE_S * shards / (os.cpu_count() or 1)
    return datetime.fromtimestamp(time.time() + start_in_s, UTC)


def _words(path: Path, number: int, shards: int, at: datetime) -> list[str]:
    words = ["run", "--plan", str(path / PLAN), "--shard", f"{number}/{shards}", "--start-at", at.isoformat()]
    return [*words, "--run-dir", str(path / f"shard-{number}"), "--quiet"]


def _hidden(options: RunOptions) -> dict[str, str]:
    """What is secret, as variables: what a process is called with is visible to all."""
    values = (header.partition("=") for header in options.headers)
    given = {re.sub(r"\W", "_", name.strip()).upper(): value for name, _, value in values if value[:4] != "env:"}
    return {**given, "COMFYLOAD_SERVER": options.server}
