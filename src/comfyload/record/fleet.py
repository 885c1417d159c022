"""`fleet.json`: a run in shards, which lie next to it as ordinary run directories."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from comfyload.errors import RunFilesError, file_errors
from comfyload.record.atomic import replace_file
from comfyload.record.bounds import Instant, moment
from comfyload.record.codec import encode_pretty
from comfyload.record.journal import read_whole
from comfyload.record.manifest_file import decode_versioned
from comfyload.record.shard import MOST

FLEET = "fleet.json"
FLEET_FORMAT = 1
"""Version of the file; readers refuse a newer one."""
_MOST_BYTES = 16 << 20

FolderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]
ShardState = Literal["begun", "ended", "lost"]


class ShardPlace(Struct, frozen=True, kw_only=True):
    """One shard: its directory, relative to `fleet.json`, and the host that it runs on; "": not known.

    `clock_ahead_s`: how far the wall clock of its host is ahead of the first shard's; None: not known. `process`: how
    its host knows it. `state`: as the command that began it knew last; the shard's own manifest is the authority.
    """

    directory: FolderName
    host: str
    clock_ahead_s: Instant | None = None
    process: str = ""
    state: ShardState = "begun"


class FleetManifest(Struct, kw_only=True):
    """All of the file. `plan_sha256`: the digest of the shards' plan, "" until the first has begun. `start_at`: when
    the counted load begins, in ISO 8601. `allow_lost_shards`: without lost shards the run is valid all the same.
    """

    format: int
    tool: str
    run_id: str
    name: str
    start_at: str
    shards: list[ShardPlace]
    plan_sha256: str = ""
    allow_lost_shards: bool = False


def is_fleet(path: Path) -> bool:
    """Whether the folder holds a run in shards."""
    return (path / FLEET).is_file()


def read_fleet(path: Path) -> FleetManifest:
    """The file of the folder.

    Raises:
        RunFilesError: it cannot be read, or is damaged.
    """
    file = path / FLEET
    with file_errors(f"cannot read {file}"):
        content = read_whole(file, _MOST_BYTES)
    try:
        fleet = decode_versioned(content, FleetManifest, FLEET_FORMAT, file)
        moment(fleet.start_at)
        if not 1 <= len(fleet.shards) <= MOST:
            raise ValueError(f"it has {len(fleet.shards)} shards")
    except (msgspec.MsgspecError, ValueError) as error:
        raise RunFilesError(f"{file} is damaged: {error}") from None
    return fleet


def write_fleet(path: Path, fleet: FleetManifest) -> None:
    """Replace the file as a whole.

    Raises:
        RunFilesError: it cannot be written.
    """
    with file_errors(f"cannot write {path / FLEET}"):
        path.mkdir(parents=True, exist_ok=True)
        replace_file(path / FLEET, encode_pretty(fleet) + b"\n")
