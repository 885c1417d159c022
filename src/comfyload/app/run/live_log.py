"""Writes a run's rows to the project's instrumentation log while it goes on, so that `tail -f` shows them."""

import os
from collections.abc import Callable
from datetime import UTC, datetime

from comfyload.record.metrics.files import project_log
from comfyload.record.metrics.own import job_row, run_row
from comfyload.record.model import LogLine, Manifest, Record
from comfyload.telemetry.live import LiveLog

OFF = "COMFYLOAD_LIVE_LOG"
"""The environment variable by which it is switched off."""


def live_log() -> LiveLog | None:
    """The log of the project that the working directory lies in; None outside of one, or where it is switched off."""
    path = project_log()
    off = os.environ.get(OFF, "").strip().lower() in ("off", "0", "no", "false")
    return None if path is None or off else LiveLog(path)


class Live:
    """A run's rows: those of the probe and of the log that is followed; without such rows, one for each job.

    `log` None: nothing is written. `has_rows`: whether rows come from the server's side.
    """

    def __init__(self, log: LiveLog | None, manifest: Manifest, has_rows: Callable[[], bool]) -> None:
        self._log = log
        self._manifest = manifest
        self._has_rows = has_rows

    def began(self) -> None:
        if self._log is not None:
            self._log.put_own(run_row(self._manifest, "began", datetime.now(UTC)))

    def row(self, line: LogLine) -> None:
        if self._log is not None:
            self._log.put(line.row)

    def job(self, record: Record) -> None:
        if self._log is not None and not self._has_rows():
            self._log.put_own(job_row(record, self._manifest.run_id, datetime.now(UTC)))

    def ended(self, after_s: float) -> None:
        """Write the last row, and wait for a moment until all are written."""
        if self._log is not None:
            self._log.put_own(run_row(self._manifest, "ended", datetime.now(UTC), after_s))
            self._log.close()
