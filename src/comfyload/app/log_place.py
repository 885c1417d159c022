"""Where the instrumentation log lies: a file or a run by name, else the usual places, the last run and its server."""

import os
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from comfyload import clock
from comfyload.app.earlier import runs_below
from comfyload.app.probe import ask
from comfyload.errors import ComfyloadError, RunFilesError
from comfyload.record.fleet import is_fleet, read_fleet
from comfyload.record.metrics.files import DEFAULT_LOG, VARIABLE, older_files, project_log
from comfyload.record.options import RunOptions
from comfyload.record.run import LOG, MANIFEST, RunReader

NAME = DEFAULT_LOG.name


class LogPlace(Struct, frozen=True, kw_only=True):
    """A log. `began`: when the run began, where it is a run's own. `found`: how an unnamed log was found, in words."""

    path: Path
    began: datetime | None = None
    found: str = ""


def locate(target: Path, *, follow: bool = False) -> LogPlace:
    """The log of a file, a run or a baseline; with `follow` the file may be one that does not exist yet.

    Raises:
        RunFilesError: there is no log.
    """
    if target.is_dir():
        return _in_folder(target)
    if target.name == LOG and (target.parent / MANIFEST).is_file():
        return _in_folder(target.parent)
    if not (_is_there(target) or follow):
        raise RunFilesError(f"no log at {target}", "name its file, or a run directory: comfyload logs FILE")
    return LogPlace(path=target)


def search(server: str | None, *, follow: bool = False, runs: Path = Path("runs")) -> LogPlace:
    """The log where none is named: that of `server` if one is given, else $COMFYUI_METRICS_LOG, the project's, that of
    the last run below `runs` (its --metrics-log, or the log of its server's probe), or that run's own.

    Raises:
        RunFilesError: none of these exists on this machine.
        ServerUnreachable: no ComfyUI answers at `server`.
    """
    if server is not None:
        return clock.run(_of_server(server))
    if named := os.environ.get(VARIABLE, "").strip():
        place = Path(named).expanduser()
        if not (_is_there(place) or follow):
            raise RunFilesError(f"no log at {place}, which ${VARIABLE} names", "is the server that writes it running?")
        return LogPlace(path=place)
    usual = project_log() or DEFAULT_LOG
    if _is_there(usual):
        return LogPlace(path=usual)
    last = max(runs_below(runs, 2), key=lambda reader: reader.manifest.started_utc, default=None)
    if last is not None:
        options, url = last.manifest.options, last.manifest.server.url
        used = options.metrics_log
        if used is not None and _is_there(Path(used)):
            return LogPlace(path=Path(used), found=f"the log of the last run, {last.path}")
        try:
            return clock.run(_of_server(url))
        except ComfyloadError:  # no server there, no probe in it, or an address without its secret
            if (last.path / LOG).is_file() and not follow:
                found = f"what the last run kept, {last.path}"
                return LogPlace(path=last.path / LOG, began=_began(last), found=found)
    tried = f"no log at {usual}; ${VARIABLE} is not set, and no run in {runs}/ leads to one"
    raise RunFilesError(tried, "name its file (comfyload logs FILE), or the server that writes it (--server URL)")


async def _of_server(url: str) -> LogPlace:
    """The log that the probe of a server writes.

    Raises:
        RunFilesError: the server has no probe, or its log lies on another machine.
        ServerUnreachable: no ComfyUI answers there.
    """
    running = await ask(RunOptions(server=url))
    if running.why:
        raise RunFilesError(f"{url}: {running.why}", "put the probe into it: comfyload probe install COMFYUI")
    if running.log is None:
        raise RunFilesError(f"{url}: its probe does not report where its log is", "update it: comfyload probe install")
    path = Path(running.log)
    if not _is_there(path):
        hint = "read it there, or read what a run kept: comfyload logs RUN"
        raise RunFilesError(f"{url} writes its log to {path}, which is not on this machine", hint)
    return LogPlace(path=path, found=f"the log of {url}")


def _is_there(path: Path) -> bool:
    return path.exists() or bool(older_files(path))


def _in_folder(folder: Path) -> LogPlace:
    """The log of a run, or the one that a baseline keeps. All shards of a run read the same log."""
    if is_fleet(folder):
        kept = [folder / place.directory for place in read_fleet(folder).shards]
        folder = next((shard for shard in kept if (shard / LOG).is_file()), kept[0])
    if (folder / LOG).is_file():
        return LogPlace(path=folder / LOG, began=_began(RunReader(folder)))
    if (folder / NAME).is_file():
        return LogPlace(path=folder / NAME)
    if (folder / MANIFEST).is_file():
        hint = "a run has one if the server has the probe, or with --metrics-log"
        raise RunFilesError(f"{folder} has no log of its own", hint)
    raise RunFilesError(f"{folder} holds neither {NAME} nor a run", "name a log's file, or a run directory")


def _began(reader: RunReader) -> datetime:
    return datetime.fromisoformat(reader.manifest.started_utc)
