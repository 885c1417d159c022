"""`fleet join`: lays shards that were made by hand, perhaps on several machines, together as one run."""

from importlib.metadata import version
from pathlib import Path

from comfyload.errors import RunFilesError, UsageError
from comfyload.record.fleet import FLEET, FLEET_FORMAT, FleetManifest, ShardPlace, write_fleet
from comfyload.record.manifest_file import MANIFEST, read_manifest
from comfyload.record.merged import zero_of
from comfyload.record.model import Manifest
from comfyload.record.run import RunReader


def join(path: Path, *, allow_lost_shards: bool = False) -> RunReader:
    """Write the `fleet.json` of the shards in a folder; returns a reader of the run that they make.

    Raises:
        UsageError: there is one already, no shard, or two of one number.
        RunFilesError: a shard cannot be read, or is of another plan.
    """
    if (path / FLEET).exists():
        raise UsageError(f"{path} has a {FLEET} already", f"read it: comfyload show {path}")
    found: dict[int, tuple[Path, Manifest]] = {}
    of = set[int]()
    for file in sorted(path.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(file)
        shard = manifest.part
        if not isinstance(manifest.shard, str) or len(shard.members) != 1:
            continue
        number = shard.members[0]
        if number in found:
            raise UsageError(f"{found[number][0]} and {file.parent} are both shard {manifest.shard}", "leave one out")
        found[number] = file.parent, manifest
        of.add(shard.of)
    if not found:
        raise UsageError(f"{path} holds no shard", "put the run directories of all shards into it")
    if len(of) > 1:
        raise RunFilesError(f"{path} holds shards of several runs", "put those of one run into a folder")
    (count,) = of
    first = found[min(found)][1]
    names = [found[number][0].name if number in found else f"shard-{number}" for number in range(count)]
    fleet = FleetManifest(
        format=FLEET_FORMAT,
        tool=f"comfyload {version('comfyload')}",
        run_id=f"{first.run_id}-fleet",
        name=first.name,
        start_at=zero_of(first).isoformat() if first.options.start_at is None else first.options.start_at,
        shards=[ShardPlace(directory=name, host="", state="ended") for name in names],
        plan_sha256=first.plan_sha256,
        allow_lost_shards=allow_lost_shards,
    )
    write_fleet(path, fleet)
    try:
        return RunReader(path)
    except RunFilesError:
        (path / FLEET).unlink()
        raise
