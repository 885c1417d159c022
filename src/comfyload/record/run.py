"""The run directory: `manifest.json`, `records.ndjson`, `samples.ndjson`, written so that a crash loses no known fact.

`log.ndjson` is there too if rows came from the server's side, and `events.ndjson` if a job was sent again.

The journals are appended one whole line at a time, each handed to the kernel before the next step; one that is large
goes on in a file of its own (`records.2.ndjson`), but for the log. The manifest is replaced as a whole. A torn last
line, which a crash leaves, is not read.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec

from comfyload.errors import RunFilesError, file_errors
from comfyload.record.atomic import replace_file
from comfyload.record.bounds import instant, value
from comfyload.record.codec import check_keys, encode, encode_pretty, parsed
from comfyload.record.fleet import is_fleet, read_fleet
from comfyload.record.growing import PART_BYTES, GrowingJournal, cut_torn_line
from comfyload.record.journal import RECORDS, Damage, journal_of, parts, read_journal
from comfyload.record.manifest_file import MANIFEST as MANIFEST  # passed on
from comfyload.record.manifest_file import PARTED, content_of, read_manifest
from comfyload.record.manifest_file import decode_versioned as decode_versioned  # passed on
from comfyload.record.merged import ShardFiles, merged
from comfyload.record.model import Line, LogLine, Manifest, Record, RetryLine, Sample, Sent
from comfyload.record.on_one_clock import each_row_once, in_order, shifted
from comfyload.record.policy import FORMAT as POLICY_FORMAT

T = TypeVar("T", Line, Sample, LogLine, RetryLine)

SAMPLES = "samples.ndjson"
LOG = "log.ndjson"
EVENTS = "events.ndjson"


class RunWriter:
    """A new run directory. `write_line`, `write_sample` and `write_log` are synchronous and cost a few microseconds.

    A line that cannot be written raises RunFilesError, and no part of it is left.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Create `path` and its files.

        Raises:
            RunFilesError: the directory holds a run already, or cannot be made.
        """
        with file_errors(f"cannot write a run to {path}"):
            path.mkdir(parents=True, exist_ok=True)
            if (path / MANIFEST).exists():
                raise RunFilesError(f"{path} already holds a run", "name another directory; runs are never overwritten")
            self._open(path)
            self.write_manifest(manifest)

    @classmethod
    def reopen(cls, path: Path) -> RunWriter:
        """Go on with a run that has died: torn last lines are cut off.

        Raises:
            RunFilesError: the directory cannot be written.
        """
        writer = cls.__new__(cls)
        with file_errors(f"cannot go on with {path}"):
            for name in (RECORDS, SAMPLES, LOG, EVENTS):
                if name in (RECORDS, SAMPLES) or (path / name).exists():
                    cut_torn_line(path / name)
            writer._open(path)
        return writer

    def _open(self, path: Path) -> None:
        self.path = path
        self._parted = False
        self._journals: dict[str, GrowingJournal] = {}
        for name in (RECORDS, SAMPLES):
            self._grow(name)
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except RunFilesError:
            if kind is None:  # else the first error is raised
                raise

    def write_line(self, line: Line) -> None:
        self._append(RECORDS, line)

    def write_sample(self, sample: Sample) -> None:
        """Write a sample, unless its instant is beyond the bounds; a value beyond them is unknown."""
        if instant(sample.t) is None:
            return
        if value(sample.value) != sample.value:
            sample = msgspec.structs.replace(sample, value=None)
        self._append(SAMPLES, sample)

    def write_log(self, line: LogLine) -> None:
        """Write a row; the file is made for the first one, as most runs have none."""
        if instant(line.t) is None:
            line = msgspec.structs.replace(line, t=None)
        self._append_to_new(LOG, line)

    def write_event(self, line: RetryLine) -> None:
        """Write what happened to a job under way; the file is made for the first line."""
        self._append_to_new(EVENTS, line)

    def write_manifest(self, manifest: Manifest) -> None:
        try:
            self._replace_manifest(manifest)
        except OSError as error:
            raise self._cannot(error) from None

    def close(self) -> None:
        """Flush to the disk and close.

        Raises:
            RunFilesError: the disk did not take all of it.
        """
        failed = [error for journal in self._journals.values() if (error := journal.close()) is not None]
        if failed:
            raise self._cannot(failed[0])

    def _cannot(self, error: OSError) -> RunFilesError:
        """The error for a disk that is full, or gone."""
        return RunFilesError(
            f"cannot go on writing to {self.path}: {(error.strerror or str(error)).lower()}",
            f"the measurements so far are kept; when the disk is writable: comfyload resume {self.path}",
        )

    def _append_to_new(self, name: str, line: LogLine | RetryLine) -> None:
        if name not in self._journals:
            self._grow(name)
        self._append(name, line)

    def _grow(self, name: str) -> None:
        path = self.path / name
        self._parted |= len(parts(path)) > 1
        most = math.inf if name == LOG else PART_BYTES  # `comfyload logs` follows one file
        self._journals[name] = GrowingJournal(path, most, self._before_second)

    def _before_second(self) -> None:
        """An older comfyload, which would miss the second file of a journal, must refuse the run."""
        if not self._parted:
            self._parted = True
            self._replace_manifest(read_manifest(self.path / MANIFEST))

    def _replace_manifest(self, manifest: Manifest) -> None:
        if self._parted:
            manifest = msgspec.structs.replace(manifest, format=PARTED)
        replace_file(self.path / MANIFEST, encode_pretty(manifest) + b"\n")

    def _append(self, name: str, line: Line | Sample | LogLine | RetryLine) -> None:
        try:
            self._encoder.encode_into(line, self._buffer)
        except UnicodeEncodeError:
            self._buffer[:] = encode(line)
        self._buffer += b"\n"
        try:
            self._journals[name].append(self._buffer)
        except OSError as error:
            raise self._cannot(error) from None


def is_run(path: Path) -> bool:
    """Whether the folder holds a run, in one piece or in shards."""
    return ((path / MANIFEST).is_file() and (path / RECORDS).is_file()) or is_fleet(path)


class RunReader:
    """A run directory on disk, finished or not; one in shards is read as one run, on one clock.

    `salvage`: damaged lines are skipped. `damage`: the lines that the last whole pass skipped, by the name of the file,
    of which a journal may have several.
    """

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        self.path = path
        self.in_shards = is_fleet(path)
        if self.in_shards:
            self.manifest, self._shards = merged(path, read_fleet(path))
        else:
            self.manifest, self._shards = read_manifest(path / MANIFEST), [ShardFiles(path=path)]
        self.damage: dict[str, Damage] = {}
        self._salvage = salvage

    def lines(self) -> Iterator[Line]:
        """The journal in the order it was written; a torn last line is left out."""
        return self._read(RECORDS, msgspec.json.Decoder(Sent | Record))

    def samples(self) -> Iterator[Sample]:
        return self._read(SAMPLES, msgspec.json.Decoder(Sample))

    def log(self) -> Iterator[LogLine]:
        """Rows of the server's side, in the order in which they were read."""
        rows = self._read(LOG, msgspec.json.Decoder(LogLine))
        return each_row_once(rows) if self.in_shards else rows  # every shard reads the same log

    def lost(self, name: str) -> Damage | None:
        """What the last whole pass skipped of a journal, in all its files; None: nothing."""
        found = [damage for file, damage in self.damage.items() if journal_of(file.rpartition("/")[2]) == name]
        return None if not found else Damage(sum(one.lines for one in found), found[0].first, found[0].why)

    def events(self) -> Iterator[RetryLine]:
        """What happened to jobs under way, in the order in which it was written."""
        return self._read(EVENTS, msgspec.json.Decoder(RetryLine))

    def check(self) -> None:
        """Read all files once.

        Raises:
            RunFilesError: a line is damaged, or a file cannot be read.
        """
        for journal in (self.lines(), self.samples(), self.log(), self.events()):
            deque(journal, maxlen=0)

    def check_understood(self) -> None:
        """For a resumed run, which follows the manifest and writes it anew.

        Raises:
            RunFilesError: a newer version wrote a key into it that this one does not know.
        """
        file, manifest = self.path / MANIFEST, self.manifest
        # Other parts leave out their defaults.
        followed = [f.encode_name for f in msgspec.structs.fields(Manifest) if f.name in ("plan", "options", "retry")]
        content = parsed(content_of(file))
        try:
            check_keys({key: inner if key in followed else None for key, inner in content.items()}, manifest)
            if manifest.retry is not None and manifest.retry.format > POLICY_FORMAT:
                raise msgspec.ValidationError("the retry policy has a newer format")
        except msgspec.ValidationError as error:
            raise RunFilesError(
                f"{file} was written by another version: {error}", f"resume it with {manifest.tool}"
            ) from None

    def _read(self, name: str, decoder: msgspec.json.Decoder[T]) -> Iterator[T]:
        shards = [shard for shard in self._shards if name not in (LOG, EVENTS) or os.path.lexists(shard.path / name)]
        lines = [shifted(chain.from_iterable(self._blocks(shard, name, decoder)), shard) for shard in shards]
        return lines[0] if len(lines) == 1 else in_order(lines)

    def _blocks(self, shard: ShardFiles, name: str, decoder: msgspec.json.Decoder[T]) -> Iterator[Iterable[T]]:
        files = parts(shard.path / name)  # a file that is begun meanwhile is left out: lines may come before it
        for file in files:
            found = Damage() if self._salvage else None
            yield from read_journal(file, decoder, found, last=file is files[-1])
            if found is not None and found.why:
                self.damage[file.relative_to(self.path).as_posix()] = found
