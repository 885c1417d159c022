"""The probe of one server process: its parts, how it starts, and how it goes off when it misbehaves."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from importlib import import_module
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from .hooks import Hooks
from .journal import Journal
from .logfile import LogFile
from .overview import Overview
from .rows import SCHEMA, Entry, long_text
from .tally import Tally
from .tracker import Tracker
from .vram import Vram

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import Settings

__all__ = ["SENTINEL", "VERSION", "Probe"]

VERSION = "0.1.0"
SENTINEL = "_comfyload_probe"
"""The attribute of ComfyUI's server that bears the probe, so that a second one sees the first."""

ERRORS_ALLOWED = 5
ERRORS_WINDOW_S = 60.0
FACTS_PATIENCE_S = 15.0
SILENT_AFTER_S = 15.0

_log = logging.getLogger("comfyload_probe")


class Probe:
    """Listens to one server. `active`: whether it still does; nothing that it is called for raises or waits."""

    def __init__(self, settings: Settings, server: Any, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.settings = settings
        self.boot = token_hex(4)
        self.active = False
        self.errors = 0
        self._server = server
        self._clock = clock
        self._failed_at: deque[float] = deque(maxlen=ERRORS_ALLOWED)
        self._tally = Tally()
        self._overview = Overview()
        file = None
        if settings.log is not None:
            most, oldest = settings.log_max_bytes, settings.log_max_age_s
            file = LogFile(settings.log, max_bytes=most, max_age_s=oldest, keep=settings.log_keep)
        self.journal = Journal(
            self.boot,
            ring_rows=settings.ring_rows,
            buffer_rows=settings.buffer_rows,
            file=file,
            fold=self._fold,
            each_round=self._look_around,
        )
        self.hooks = Hooks(self)
        self._vram = Vram()
        self._tracker = Tracker(self.emit, clock, self._vram)
        self.queued, self.deleted = self._tracker.queued, self._tracker.deleted
        self.started, self.ended = self._tracker.started, self._tracker.ended
        self.node_started, self.node_finished = self._tracker.node_started, self._tracker.node_finished
        self.model_before, self.model_after = self._tracker.model_before, self._tracker.model_after
        self._gpus: Any = None
        self._sampler: Any = None
        self._facts: dict[str, Any] = {}
        self._facts_known = threading.Event()
        self._going_off: threading.Thread | None = None
        self._sampling_since: float | None = None
        self._silent = False
        self._journal_errors = 0

    def start(self) -> bool:
        """Listen; False where another probe does already.

        Raises:
            Exception: it could not; then nothing of it is left in the server.
        """
        if getattr(self._server, SENTINEL, None) is not None:
            _log.warning("another comfyload probe listens in this ComfyUI already; this one does nothing: remove one")
            return False
        try:
            setattr(self._server, SENTINEL, self)
            self.journal.start()
            self.active = True
            self.hooks.attach(self._server)
            self._prepare_readings()
            self._say_hello()
            self._start_readings()
            atexit.register(self.stop)
        except BaseException:
            self.stop()
            raise
        return True

    def stop(self) -> None:
        """Listen no more, put everything back, and write what is left; takes up to a few seconds."""
        self.active = False
        self._take_off()
        if self._gpus is not None:
            with suppress(Exception):
                self._gpus.close()
        self.journal.stop()
        if getattr(self._server, SENTINEL, None) is self:
            delattr(self._server, SENTINEL)
        atexit.unregister(self.stop)

    def emit(self, event: str, *, at: float | None = None, **fields: Any) -> None:
        """Accept a row of what happened at `at` of the probe's clock, or now. It takes microseconds."""
        if self.active:
            self.guard("emit", self._emit, event, at, fields)

    def guard(self, hook: str, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returns; None if it failed, or if the probe is off."""
        if not self.active:
            return None
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001 - a prompt goes on whatever is wrong in here
            with suppress(Exception):
                self._failed(hook, error)
            return None

    def now(self) -> float:
        """Seconds of the probe's clock."""
        return self._clock()

    def queue_depth(self) -> int | None:
        """Prompts that wait or run; None if the queue does not tell. No lock is taken."""
        try:
            queue = self._server.prompt_queue
            return len(queue.queue) + len(queue.currently_running)
        except (AttributeError, TypeError):
            return None

    def facts(self, patience_s: float = FACTS_PATIENCE_S) -> dict[str, Any]:
        """What is known of the server; they are gathered once at its start, in a thread of their own."""
        self._facts_known.wait(patience_s)
        return self._facts

    def environment(self) -> dict[str, Any]:
        """The facts, and the state of the probe itself."""
        return {
            **self._head(),
            "facts": {**self.facts(), **self._gpu_facts()},
            "hooks": dict(self.hooks.states),
            "missing": list(self.hooks.missing),
            "probe": {
                **self._state(),
                "dropped": self.journal.dropped,
                "errors": self._errors(),
                "log": None if self.settings.log is None else str(self.settings.log.absolute()),
            },
        }

    def _gpu_facts(self) -> dict[str, Any]:
        """Read when they are asked for: at the start a GPU rests, and its link and clocks are down."""
        return {} if self._gpus is None else self._gpus.facts()

    def overview(self) -> dict[str, Any]:
        """What the tab shows."""
        depth = self.queue_depth()
        running = self._tracker.running()
        return {
            **self._head(),
            "unix_s": time.time(),
            "mono_s": self._clock(),
            "queue": {"running": running, "waiting": None if depth is None else max(0, depth - len(running))},
            **self._overview.now(),
            "missing": list(self.hooks.missing),
            "active": self.active,
        }

    def snapshot(self) -> dict[str, Any]:
        """The counters, for a scraper."""
        return {
            **self._state(),
            "dropped": self.journal.dropped,
            "errors": self._errors(),
            "log_bytes": self.journal.log_bytes,
            "queue_depth": self.queue_depth(),
            **self._tally.numbers(),
        }

    def _head(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "boot": self.boot}

    def _state(self) -> dict[str, Any]:
        return {"version": VERSION, "active": self.active}

    def _errors(self) -> int:
        return self.errors + self.journal.errors

    def _emit(self, event: str, at: float | None, fields: dict[str, Any]) -> None:
        now, unix_s = self._clock(), time.time()
        if at is None:
            at = now
        self.journal.put(Entry(event, at, unix_s - (now - at), fields))

    def _fold(self, row: dict[str, Any], unix_s: float) -> None:
        self._tally.add(row)
        self._overview.add(row, unix_s)

    def _look_around(self) -> None:
        """What no hook would notice: rows that fail to be written, and a driver that hangs while it is read."""
        if not self.active:
            return
        while self._journal_errors < self.journal.errors:
            self._journal_errors += 1
            self._fails("journal", RuntimeError("a row was lost; the first is in ComfyUI's log"))
        if self._sampling_since is None or not self._sampler.running:
            return
        silent_s = time.perf_counter() - (self._sampler.last or self._sampling_since)
        if (silent_s > SILENT_AFTER_S) != self._silent:
            self._silent = not self._silent
            said = f"there has been no sample for {silent_s:.0f} s" if self._silent else "there are samples again"
            self.emit("probe.problem", level="warning", error=said)

    def _failed(self, hook: str, error: Exception) -> None:
        """Count an error; too many in a short time switch the probe off."""
        self.errors += 1
        if self.errors <= 3:
            _log.warning("an error inside the probe (%s), which goes on: %r", hook, error)
        self._fails(hook, error)

    def _fails(self, hook: str, error: Exception) -> None:
        at = time.perf_counter()
        self._failed_at.append(at)
        if len(self._failed_at) == ERRORS_ALLOWED and at - self._failed_at[0] <= ERRORS_WINDOW_S:
            took = at - self._failed_at[0]
            self._switch_off(f"{ERRORS_ALLOWED} errors in {took:.1f} s, the last in {hook}: {error!r}")

    def _switch_off(self, why: str) -> None:
        self.active = False
        _log.error("the comfyload probe switches itself off: %s; prompts run on, unrecorded until a restart", why)
        fields = {"level": "error", "error": long_text(why)}
        self.journal.put(Entry("probe.disabled", time.perf_counter(), time.time(), fields))
        # Taking off the hooks may take a moment, and whoever is here has a prompt to run.
        self._going_off = threading.Thread(target=self._take_off, name="comfyload probe: off", daemon=True)
        self._going_off.start()

    def _take_off(self) -> None:
        self.hooks.detach()
        if self._sampler is not None:
            with suppress(Exception):
                self._sampler.stop()

    def _prepare_readings(self) -> None:
        if self._vram.why:
            self.hooks.lack("vram", self._vram.why, "VRAM of nodes and prompts is unknown")
        else:
            self.hooks.states["vram"] = "on"
        gpus = self._guarded_import("gpus", "readings of GPUs are unavailable")
        if gpus is not None:
            self._gpus = gpus.open_gpus(os.environ)
            if self._gpus.backend == "none":
                self.hooks.lack("gpus", self._gpus.why or "no GPU", "readings of GPUs are unavailable")
            else:
                self.hooks.states["gpus"] = self._gpus.backend
            self._prepare_sampler()

    def _prepare_sampler(self) -> None:
        if self.settings.sample_hz <= 0:
            self.hooks.lack("sampler", "COMFYLOAD_PROBE_SAMPLE_HZ is 0", "there are no samples")
            return
        sampler = self._guarded_import("sampler", "there are no samples")
        if sampler is not None:
            self._sampler = sampler.Sampler(self.emit, self.queue_depth, self._gpus, self.settings.sample_hz)
            self.hooks.states["sampler"] = "on"

    def _start_readings(self) -> None:
        if self._sampler is not None:
            self._sampler.start()
            self._sampling_since = time.perf_counter()
        threading.Thread(target=self._gather_facts, name="comfyload probe: facts", daemon=True).start()

    def _guarded_import(self, name: str, lost: str) -> Any:
        try:
            return import_module(f".{name}", __package__)
        except Exception as error:  # noqa: BLE001 - a reading that cannot even be imported costs that reading alone
            self.hooks.lack(name, f"{type(error).__name__}: {error}", lost)
            return None

    def _gather_facts(self) -> None:
        try:
            environment = self._guarded_import("environment", "facts of the server are unavailable")
            if environment is not None:
                self._facts = environment.facts(self._gpus)
        except Exception as error:  # noqa: BLE001
            self.hooks.lack("environment", f"{type(error).__name__}: {error}", "facts of the server are unavailable")
        finally:
            self._facts_known.set()

    def _say_hello(self) -> None:
        version = getattr(sys.modules.get("comfyui_version"), "__version__", None)
        self.emit(
            "probe.started",
            version=VERSION,
            comfyui_version=None if version is None else str(version),
            pid=os.getpid(),
            hooks=dict(self.hooks.states),
            missing=list(self.hooks.missing),
        )
        for problem in self.settings.problems:
            _log.warning("%s", problem)
            self.emit("probe.problem", level="warning", error=problem)
        for lost in self.hooks.missing:
            _log.info("%s", lost)
