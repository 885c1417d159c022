"""Earlier runs of a graph on a server, wherever our commands put them: below `runs/`, or in the archive."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from comfyload.errors import RunFilesError
from comfyload.record.archive import BASE
from comfyload.record.fleet import FLEET, is_fleet
from comfyload.record.metrics.files import project_log
from comfyload.record.model import Record
from comfyload.record.run import MANIFEST, RunReader
from comfyload.record.stamps import believed

_LOAD_TEST = Path("infra/comfyui/load_test")
"""Where the checklist runs the load test, so that its runs lie there."""
_DEPTH = 3
"""`runs/<run>`, `runs/<time>-saturate/c1`, `runs/<time>-ab/a/01`, `baselines/<date>/runs/<run>`."""
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class Earlier(Struct, frozen=True, kw_only=True):
    """A run and how long each of its jobs executed that did the whole work of the graph, in seconds."""

    path: Path
    seconds: list[float]


def newest_run(sha256: str, url: str, runs: Path) -> Earlier | None:
    """The last run of the graph on the server that has execution times; `runs` is searched first."""
    log = project_log()
    root = Path() if log is None else log.parent.parent.parent
    found: dict[Path, RunReader] = {}
    for place in (runs, root / "runs", root / _LOAD_TEST / "runs", BASE, root / BASE):
        for reader in runs_below(place, _DEPTH):
            manifest = reader.manifest
            ours = any(facts.sha256 == sha256 for facts in manifest.workflows) and not manifest.plan.as_is
            if ours and _server(manifest.server.url) == _server(url):
                found.setdefault(reader.path.resolve(), reader)
    for reader in sorted(found.values(), key=lambda reader: reader.manifest.started_utc, reverse=True):
        if seconds := _executions(reader, sha256):
            return Earlier(path=reader.path, seconds=seconds)
    return None


def runs_below(folder: Path, depth: int) -> Iterator[RunReader]:
    """Every run at most so many folders below; what is no run, or a damaged one, is left out."""
    for level in range(1, depth + 1):
        for name in (MANIFEST, FLEET):
            for file in folder.glob("/".join(["*"] * level + [name])):
                with suppress(RunFilesError, OSError):
                    if not is_fleet(file.parent.parent):  # or it is a part of a run
                        yield RunReader(file.parent)


def _executions(reader: RunReader, sha256: str) -> list[float]:
    """Execution times of the jobs that did the whole work of this graph."""
    names = {facts.name for facts in reader.manifest.workflows if facts.sha256 == sha256}
    try:
        records = [line for line in reader.lines() if isinstance(line, Record) and not line.warmup]
    except (RunFilesError, OSError):
        return []
    done = [r for r in records if r.workflow in names and r.execution.outcome == "completed"]
    times = [believed(record.execution, record.due).execution_ms for record in done]
    return [milliseconds / 1000 for milliseconds in times if milliseconds is not None]


def _server(url: str) -> tuple[str, str | None, int | None, str]:
    """What identifies a server; this machine has several names."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return url, None, None, ""
    return parts.scheme, "this machine" if host in _THIS_MACHINE else host, port, parts.path.rstrip("/")
