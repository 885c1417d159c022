"""Reads the environment of a run, in a thread, while the server works."""

import asyncio
import threading
from pathlib import Path

from comfyload.app.run.options import parse_notes
from comfyload.comfy.identify import describe_probe
from comfyload.comfy.wire.calls import Transport
from comfyload.record.environment.describe import environment, local_environment
from comfyload.record.model import Environment, Fact, Manifest, Server

WORKING_S = 0.5
"""After the first counted job is due: by then a GPU has something to do, so that its link and clocks are up."""

FINISH_S = 5.0
"""How long the end of a run waits for facts that are not read yet."""


class EnvironmentReader:
    """Reads once what can be known of the machine of one server of the run.

    The thread is a daemon, and not one of asyncio's pool, for which the interpreter waits when it exits: a driver that
    hangs must not keep a run from ending.
    """

    def __init__(self, manifest: Manifest, server: Server, transport: Transport) -> None:
        self._manifest = manifest
        self._server = server
        self._transport = transport
        self._local: Environment = {"host.cpu": Fact(source="this machine gave no answer in time")}
        self._probe: Environment = {}
        self._thread: threading.Thread | None = None

    async def read_soon(self) -> None:
        """Read once the server is at work."""
        await asyncio.sleep(WORKING_S)
        self._start()
        await self._read_probe()

    async def describe(self) -> Environment:
        """All facts that are known now or within a few seconds, with the server's facts in the manifest.

        A run that was cut short does not wait.
        """
        manifest = self._manifest
        waited = 0.0 if manifest.end in ("complete", "decided", "capped", "stopped") else FINISH_S
        if waited == 0.0:
            self._start()
            await self._read_probe()
        while self._thread is not None and self._thread.is_alive() and waited < FINISH_S:
            await asyncio.sleep(0.02)
            waited += 0.02
        return environment(self._server, self._local, self._probe, parse_notes(manifest.options.notes))

    async def _read_probe(self) -> None:
        if not self._probe and self._manifest.options.telemetry:
            self._probe = await describe_probe(self._transport)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="environment", daemon=True)
            self._thread.start()

    def _read(self) -> None:
        folder = self._manifest.options.comfyui_dir
        try:
            self._local = local_environment(self._server, None if folder is None else Path(folder))
        except OSError as error:  # this machine has no descriptors left, not even to load the modules that read
            why = f"this machine could not be examined: {(error.strerror or str(error)).lower()}"
            self._local = {"host.cpu": Fact(source=why)}
