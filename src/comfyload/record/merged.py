"""The manifest of a run in shards, made of theirs: one plan, one clock, and what each of them noticed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import UNSET, Struct, structs

from comfyload.errors import RunFilesError
from comfyload.record.fleet import FleetManifest, ShardPlace
from comfyload.record.journal import RECORDS
from comfyload.record.lock import is_taken
from comfyload.record.manifest_file import MANIFEST, read_manifest
from comfyload.record.model import Environment, Fact, Manifest, Observation, Quantiles, SelfCheck
from comfyload.record.plan import Closed
from comfyload.record.shard import Shard

APART_S = 0.05
"""Shards that begin further apart than this did not make the load of the plan."""

LOST = (None, "crashed")
"""Ends of a shard whose process is gone, and that is not whole."""

_ENDS = ("crashed", "cancelled", "stopped", "capped", "decided", "complete")
"""The worst first."""


class ShardFiles(Struct, frozen=True, kw_only=True):
    """The files of a run, or of one of its shards. `shift_s`: its clock's zero after that of the whole run. `mark`: is
    put behind the source of its samples, where another shard has read the same.
    """

    path: Path
    shift_s: float = 0.0
    mark: str = ""


class _Shard(Struct, frozen=True, kw_only=True):
    """One that can be read. `zero`: its clock's zero, in Unix seconds of the first shard's host; `dead`: no process
    of it is left, and it has no end.
    """

    number: int
    place: ShardPlace
    path: Path
    manifest: Manifest
    zero: float
    dead: bool

    def called(self, of: int) -> str:
        return f"shard {self.number} of {of}"


def merged(path: Path, fleet: FleetManifest) -> tuple[Manifest, list[ShardFiles]]:
    """The run in `path`, and the files of its shards. Shards that were lost are named by observations.

    Raises:
        RunFilesError: no shard can be read, or two are not of one run.
    """
    of, lost, found = len(fleet.shards), list[str](), list[_Shard]()
    for number, place in enumerate(fleet.shards):
        try:
            found.append(_read(path / place.directory, number, place))
        except RunFilesError as error:
            lost.append(f"shard {number} of {of} is missing: {error.message}")
    if not found:
        raise RunFilesError(f"none of the {of} shards of {path} can be read: {lost[0]}", "wait until they have begun")
    for shard in found:
        _check(shard, found[0], fleet)
    lost += [f"{one.called(of)} was cut short: finish it with comfyload resume {one.path}" for one in found if one.dead]
    kept = [one for one in found if not (one.dead and fleet.allow_lost_shards)] or found
    zero = min(one.zero for one in kept)
    manifest = _whole(fleet, kept, zero)
    code = "lost_shard_allowed" if fleet.allow_lost_shards else "lost_shard"
    manifest.observations += [Observation(t=0.0, code=code, text=text) for text in lost]
    manifest.observations += _of_all(kept, manifest)
    if fleet.allow_lost_shards and len(kept) < of:
        manifest.shard = str(Shard(tuple(one.number for one in kept), of))
    plain = next((one for one in kept if one.manifest.end == "complete"), kept[0])
    parts = [
        ShardFiles(path=one.path, shift_s=one.zero - zero, mark="" if one is plain else f"@{one.number}")
        for one in kept
    ]
    return manifest, parts


def _read(path: Path, number: int, place: ShardPlace) -> _Shard:
    manifest = read_manifest(path / MANIFEST)
    if not (path / RECORDS).is_file():
        raise RunFilesError(f"{path} has no {RECORDS}")
    zero = manifest.zero_utc if isinstance(manifest.zero_utc, str) else manifest.started_utc
    ahead = place.clock_ahead_s or 0.0
    return _Shard(
        number=number,
        place=place,
        path=path,
        manifest=manifest,
        zero=datetime.fromisoformat(zero).timestamp() - ahead,
        dead=manifest.end in LOST and not is_taken(path),
    )


def _check(shard: _Shard, first: _Shard, fleet: FleetManifest) -> None:
    expected, digest = f"{shard.number}/{len(fleet.shards)}", shard.manifest.plan_sha256
    if shard.manifest.shard != expected:
        what = "a whole run" if shard.manifest.shard is UNSET else f"shard {shard.manifest.shard}"
        raise RunFilesError(f"{shard.path} is {what}, not shard {expected}", "put back the directory that was there")
    if digest != first.manifest.plan_sha256 or (fleet.plan_sha256 and digest != fleet.plan_sha256):
        raise RunFilesError(f"{shard.path} is of another plan than {first.path}", "shards of one run have one plan")


def _whole(fleet: FleetManifest, shards: Sequence[_Shard], zero: float) -> Manifest:
    """The manifest of all together; what is the same in all is the first's."""
    manifests, first = [one.manifest for one in shards], shards[0].manifest
    ended = [one.ended_utc for one in manifests if one.ended_utc is not None]
    going = any(one.manifest.end is None and not one.dead for one in shards)
    ends = ["crashed" if one.end is None else one.end for one in manifests]
    return structs.replace(
        first,
        run_id=fleet.run_id,
        name=fleet.name,
        started_utc=datetime.fromtimestamp(zero, UTC).isoformat(),
        ended_utc=None if going or not ended else max(ended, key=datetime.fromisoformat),
        end=None if going else min(ends, key=_ENDS.index),
        options=structs.replace(first.options, shard=None, start_at=None, run_dir=None),
        resumed=sorted(t for one in shards for t in _later(one, zero, one.manifest.resumed)),
        looks=[],
        environment=_environment(manifests),
        counted_from=_counted(min, shards, zero, "counted_from"),
        counted_to=_counted(max, shards, zero, "counted_to"),
        self_check=_worst([one.self_check for one in manifests if one.self_check is not None]),
        clocks=[check for one in manifests for check in one.clocks],
        observations=list(_observations(shards, zero, len(fleet.shards))),
        shard=UNSET,
        zero_utc=UNSET,
        began_utc=UNSET,
        shards=len(fleet.shards),
    )


def _later(shard: _Shard, zero: float, instants: Iterable[float]) -> list[float]:
    return [instant + shard.zero - zero for instant in instants]


def _counted(choose: Any, shards: Sequence[_Shard], zero: float, name: str) -> float | None:
    instants = [(one, getattr(one.manifest, name)) for one in shards]
    known = [instant + one.zero - zero for one, instant in instants if instant is not None]
    return choose(known) if known else None


def _observations(shards: Sequence[_Shard], zero: float, of: int) -> Iterator[Observation]:
    """Those of all in the order of time. Each says which shard made it, where others did not notice the same."""
    every = [(one, noticed) for one in shards for noticed in one.manifest.observations]
    times: dict[tuple[str, str], int] = {}
    for _, noticed in every:
        key = noticed.code, noticed.text
        times[key] = times.get(key, 0) + 1
    moved = [(noticed.t + one.zero - zero, one, noticed) for one, noticed in every]
    given = set[tuple[str, str]]()
    for t, one, noticed in sorted(moved, key=lambda entry: entry[0]):
        key = noticed.code, noticed.text
        if times[key] == of > 1:
            if key not in given:
                given.add(key)
                yield structs.replace(noticed, t=t)
        else:
            yield structs.replace(noticed, t=t, text=f"{one.called(of)}: {noticed.text}")


def _of_all(shards: Sequence[_Shard], manifest: Manifest) -> Iterator[Observation]:
    """What only all together show."""
    counted = [(one, one.manifest.counted_from) for one in shards]
    begins = {one.number: one.zero + instant for one, instant in counted if instant is not None}
    if begins:
        first, last = min(begins, key=begins.__getitem__), max(begins, key=begins.__getitem__)
        apart = begins[last] - begins[first]
        if apart > APART_S:
            text = f"shard {last} began {apart:.3g} s after shard {first}"
            yield Observation(t=manifest.counted_from or 0.0, code="shards_apart", text=text)
    first_host = shards[0].place.host
    others = [one for one in shards[1:] if one.place.clock_ahead_s is None]
    unknown = [one for one in others if not one.place.host or one.place.host != first_host]
    if unknown:
        hosts = ", ".join(dict.fromkeys(one.place.host or f"shard {one.number}'s host" for one in unknown))
        text = f"it is not known how far the clock of {hosts} differs from that of {first_host or 'the first shard'}"
        yield Observation(t=0.0, code="clocks_apart", text=text)
    load = manifest.plan.load
    if not isinstance(load, Closed) and load.max_in_flight is not None and len(shards) > 1:
        text = f"--max-in-flight {load.max_in_flight} was divided among {len(shards)} shards, each with its own places"
        yield Observation(t=0.0, code="divided", text=text)


def _environment(manifests: Sequence[Manifest]) -> Environment:
    """The facts of the first, and what others know that it does not."""
    known: Environment = {}
    for manifest in manifests:
        for key, fact in manifest.environment.items():
            if known.get(key, Fact()).value is None:
                known[key] = fact
    return known


def _worst(checks: Sequence[SelfCheck]) -> SelfCheck | None:
    """Of each reading the worst of any shard."""
    if not checks:
        return None
    return SelfCheck(
        wall_s=max(one.wall_s for one in checks),
        timer_lateness_s=_latest([one.timer_lateness_s for one in checks]),
        send_lateness_s=_latest([one.send_lateness_s for one in checks]),
        busy_fraction=max(one.busy_fraction for one in checks),
        gc_pauses_s=_latest([one.gc_pauses_s for one in checks]),
        run_queue_delay_s=_most([one.run_queue_delay_s for one in checks]),
        max_rss_bytes=_most([one.max_rss_bytes for one in checks]),
    )


def _latest(readings: Sequence[Quantiles | None]) -> Quantiles | None:
    return max((one for one in readings if one is not None), key=lambda one: one.p99, default=None)


def _most(readings: Sequence[Any]) -> Any:
    return max((one for one in readings if one is not None), default=None)


def zero_of(manifest: Manifest) -> datetime:
    """Zero of the run's clock, by the wall clock."""
    return datetime.fromisoformat(manifest.zero_utc if isinstance(manifest.zero_utc, str) else manifest.started_utc)


def skew_s(path: Path, fleet: FleetManifest) -> float | None:
    """How far apart the shards really began, in seconds of one host; None: that of some is not known."""
    begins = list[float]()
    for place in fleet.shards:
        try:
            began = read_manifest(path / place.directory / MANIFEST).began_utc
        except RunFilesError:
            return None
        if not isinstance(began, str):
            return None
        begins.append((datetime.fromisoformat(began) - timedelta(seconds=place.clock_ahead_s or 0.0)).timestamp())
    return max(begins) - min(begins)
