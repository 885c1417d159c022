"""`fleet shard`: one shard, begun by whatever starts processes; one whose process died is taken up where it was."""

import hashlib
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from msgspec import structs

from comfyload.app.run.launch import run
from comfyload.app.run.resume import resume
from comfyload.app.run.sharing import parse_instant, parse_shard
from comfyload.app.run.viewer import Viewer
from comfyload.errors import INTERRUPTED, UsageError, file_errors
from comfyload.record.codec import encode_pretty
from comfyload.record.fleet import FLEET, FLEET_FORMAT, FleetManifest, ShardPlace, is_fleet, read_fleet
from comfyload.record.manifest_file import MANIFEST, read_manifest
from comfyload.record.options import RunOptions


async def run_or_resume(options: RunOptions, directory: Path, number: int, shards: int, viewer: Viewer) -> int:
    """Bring one shard to its end, from wherever it is; returns the exit code, 0 if nothing of it is left to do.

    Raises:
        UsageError: the options cannot be right, or the directory is of another run.
        ServerUnreachable: there is no ComfyUI at the address.
    """
    shard = parse_shard(f"{number}/{shards}")
    if options.start_at is None:
        raise UsageError("shards begin at one instant", "give all the same --start-at")
    options = structs.replace(options, shard=shard, start_at=parse_instant(options.start_at))
    _publish(directory, _fleet(options, directory, shards), number)
    path = directory / f"shard-{number}"
    if (path / MANIFEST).exists():
        again = RunOptions(
            server=options.server, workflows=options.workflows, headers=options.headers, ca_file=options.ca_file
        )
        await resume(path, again, viewer)
    else:
        await run(structs.replace(options, run_dir=str(path)), viewer)
    return INTERRUPTED if read_manifest(path / MANIFEST).end in ("stopped", "cancelled") else 0


def _fleet(options: RunOptions, directory: Path, shards: int) -> FleetManifest:
    """What `fleet.json` says. Each shard says the same, so that no one has to be the first."""
    start_at = options.start_at or ""
    name = options.name or directory.name
    digest = hashlib.sha256(f"{name} {start_at} {shards}".encode()).hexdigest()
    return FleetManifest(
        format=FLEET_FORMAT,
        tool=f"comfyload {version('comfyload')}",
        run_id=f"{datetime.fromisoformat(start_at):%Y%m%dT%H%M%SZ}-{name}-{digest[:6]}",
        name=name,
        start_at=start_at,
        shards=[ShardPlace(directory=f"shard-{number}", host="") for number in range(shards)],
        allow_lost_shards=options.allow_lost_shards,
    )


def _publish(directory: Path, fleet: FleetManifest, number: int) -> None:
    """Write `fleet.json`, unless another shard has.

    Raises:
        UsageError: it is of another run.
        RunFilesError: it cannot be written.
    """
    if is_fleet(directory):
        known = read_fleet(directory)
        if (known.run_id, len(known.shards)) != (fleet.run_id, len(fleet.shards)):
            what = f"{directory} holds a run of {len(known.shards)} shards that begins at {known.start_at}"
            raise UsageError(what, "give this run a directory of its own")
        return
    # Not by this process's number, which is the same in many containers.
    aside = directory / f".{FLEET}.{number}.tmp"
    with file_errors(f"cannot write {directory / FLEET}"):
        directory.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(encode_pretty(fleet) + b"\n")
        aside.replace(directory / FLEET)
