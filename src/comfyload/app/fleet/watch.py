"""Shards under way: which go on, which have ended, which were lost, and what their journals say meanwhile."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import structs

from comfyload.app.fleet.host import ShardProcess, found_again
from comfyload.errors import RunFilesError
from comfyload.hidden import without_hidden
from comfyload.record.fleet import FleetManifest, read_fleet, write_fleet
from comfyload.record.journal import RECORDS
from comfyload.record.manifest_file import MANIFEST, read_manifest
from comfyload.record.merged import LOST, skew_s
from comfyload.record.model import Line, Manifest, Record, Sent
from comfyload.visible import visible
from comfyload.words import count, duration

_SHOWN = 8 << 10
"""Bytes of what a shard printed last that are read."""
_BLOCK = 1 << 20


class ShardWatch:
    """The shards of the run in `path`; `fleet` is kept up to date on disk."""

    def __init__(self, path: Path, fleet: FleetManifest) -> None:
        self.path = path
        self.fleet = fleet
        self._processes: dict[int, ShardProcess] = {}
        self._journals = [_Journal(path / place.directory / RECORDS) for place in fleet.shards]
        self._lines = msgspec.json.Decoder(Sent | Record)

    @classmethod
    def again(cls, path: Path) -> "ShardWatch":
        """Those that an earlier command started.

        Raises:
            RunFilesError: the directory holds no run in shards.
        """
        found = cls(path, read_fleet(path))
        begins = datetime.fromisoformat(found.fleet.start_at).timestamp()
        for number, place in enumerate(found.fleet.shards):
            found._processes[number] = found_again(place.process, place.host, path / place.directory, begins)
        return found

    def add(self, number: int, process: ShardProcess) -> None:
        """A shard was started."""
        self._processes[number] = process
        self._set(number, process=process.name)

    def messages_of(self, number: int) -> Path:
        """The file of what it says on standard error."""
        return self.path / f"{self.fleet.shards[number].directory}.txt"

    def interrupt(self) -> None:
        """As Ctrl-C does with a run."""
        for process in self._processes.values():
            process.interrupt()

    def look(self) -> list[str]:
        """Look after each shard once; what is new, in words for people."""
        news = []
        for number, place in enumerate(self.fleet.shards):
            if place.state != "ended" and not self._processes[number].alive():
                manifest = self.manifest(number)  # read once its process is known to be gone
                state = "lost" if manifest is None or manifest.end in LOST else "ended"
                if state != place.state:  # a lost one may have been resumed
                    self._set(number, state=state)
                if (state, place.state) == ("lost", "begun"):
                    news.append(f"shard {number} of {len(self.fleet.shards)} is lost{self._why(number)}")
        return news

    def going(self) -> bool:
        """Whether any shard goes on."""
        return any(place.state == "begun" for place in self.fleet.shards)

    def manifest(self, number: int) -> Manifest | None:
        """The manifest of a shard; None: there is none that can be read."""
        try:
            found = read_manifest(self.path / self.fleet.shards[number].directory / MANIFEST)
        except RunFilesError:
            return None
        if not self.fleet.plan_sha256 and found.plan_sha256:
            self.fleet.plan_sha256 = found.plan_sha256
            write_fleet(self.path, self.fleet)
        return found

    def manifests(self) -> list[Manifest]:
        """Those that can be read."""
        found = [self.manifest(number) for number in range(len(self.fleet.shards))]
        return [one for one in found if one is not None]

    def lines(self) -> Iterator[Line]:
        """What was journalled since the last call, shard after shard."""
        for journal in self._journals:
            if new := journal.new():
                try:
                    yield from self._lines.decode_lines(new)
                except (msgspec.MsgspecError, UnicodeDecodeError):  # reading the whole run will name the line
                    continue

    def skew_words(self) -> str:
        """How far apart the shards began; "" where that is not known."""
        skew = skew_s(self.path, self.fleet)
        many = count(len(self.fleet.shards), "shard")
        return "" if skew is None else f"{many} began within {duration(max(skew, 1e-6))}"

    def _why(self, number: int) -> str:
        """What it printed last."""
        try:
            text = self.messages_of(number).read_bytes()[-_SHOWN:].decode("utf-8", "replace").strip()
        except OSError:
            return ""
        last = visible(without_hidden(text.rpartition("\n")[2]))
        return f": {last.removeprefix('error: ')}" if last else ""

    def _set(self, number: int, **changes: str) -> None:
        self.fleet.shards[number] = structs.replace(self.fleet.shards[number], **changes)
        write_fleet(self.path, self.fleet)


class _Journal:
    """A growing journal, of which only whole lines that were appended are read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                block = file.read(_BLOCK)
        except OSError:
            return b""
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.rstrip(b"\n")
