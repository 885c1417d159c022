"""Starts `comfyload run` in a process of its own, which goes on when the dashboard ends; keeps what it says last."""

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from msgspec import Struct

from comfyload.app.run.options import shareable
from comfyload.hidden import without_hidden
from comfyload.record.lock import is_taken
from comfyload.record.run import MANIFEST
from comfyload.visible import visible
from comfyload.web.answers import Refused
from comfyload.web.form import Filled
from comfyload.web.plans import GATES, Plans
from comfyload.web.processes import last_error, spawn

MOST_OUTPUT = 256 << 10
"""Bytes that a run may say on standard error before they are thrown away."""
SHOWN = 8 << 10
"""Of them, the last that are shown."""
LOOK_S = 0.1
STARTS_S = 20.0
"""How long the answer to a start waits for the run's directory, or for its early end."""

Hold = Callable[[str, subprocess.Popen[bytes]], None]
"""Keeps the process of a run by the run's id, to stop it."""

State = Literal["starting", "running", "ended", "failed"]


class Start(Struct, frozen=True, kw_only=True):
    """A run that was started here. `failed`: it ended without a run directory. `code`: of its exit, None: not known.

    `output`: the end of what it printed; of a run that failed, why and what to do are `error` and `hint`.
    """

    id: str
    state: State
    code: int | None = None
    error: str = ""
    hint: str = ""
    output: str = ""


class Launcher:
    """`archive`: where `* baseline` in gates is looked up. `hold`: gets the process of each run that is started."""

    def __init__(self, runs: Path, plans: Plans, archive: Path | None, hold: Hold) -> None:
        self._runs = runs
        self._plans = plans
        self._archive = archive
        self._hold = hold
        self._processes: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}

    async def start(self, filled: Filled, server: str, headers: Mapping[str, str]) -> Start:
        """Start the run, and wait until it has begun or has ended early. `server`: its name, for messages.

        Raises:
            Refused: one that was started here is going on at this server.
            UsageError: a file cannot be written.
        """
        options = filled.options
        going = next((one for one, (where, _) in self._processes.items() if where == server and self._alive(one)), None)
        if going is not None and not options.allow_shared:
            raise Refused(409, f"a run is going on at {server}: {going}", "wait, stop it, or set --allow-shared")
        names = "+".join(Path(choice.file).stem for choice in options.workflows)
        run_id = self._free_id(options.name or re.sub(r"[^\w.+-]+", "_", names)[:60].strip("._") or "run")
        plan = self._plans.start(run_id, shareable(options)[0], filled.gate_set)
        words = ["run", "--plan", str(plan), "--run-dir", str(self._runs / run_id), "--quiet"]
        words += ["--gates", str(plan.with_suffix(GATES))] if filled.gate_set is not None else []
        words += ["--until-proven"] if filled.until_proven else []
        words += ["--archive", str(self._archive)] if self._archive is not None else []
        secret = {re.sub(r"\W", "_", name.strip()).upper(): value for name, value in headers.items()}
        with plan.with_suffix(".txt").open("ab", buffering=0) as output:
            process = spawn(words, output, {**secret, "COMFYLOAD_SERVER": options.server})
        self._processes[run_id] = server, process
        self._hold(run_id, process)
        return await self._begun(run_id)

    def look(self, run_id: str) -> Start | None:
        """How a start went; None: none is known by this id."""
        output_file = self._plans.started(run_id).with_suffix(".txt")
        if output_file.stem != run_id:  # no name of a run
            return None
        if run_id not in self._processes and not output_file.is_file():
            return None
        run = self._runs / run_id
        begun, alive = (run / MANIFEST).is_file(), self._alive(run_id) or is_taken(run)  # an earlier dashboard's too
        process = self._processes.get(run_id)
        code = None if process is None else process[1].returncode
        output = _tail(output_file)
        state: State = "running" if begun else "starting"
        if not alive:
            state = "ended" if begun else "failed"
        error, hint = _why(output, code) if state == "failed" else ("", "")
        return Start(id=run_id, state=state, code=code, error=error, hint=hint, output=output)

    async def _begun(self, run_id: str) -> Start:
        until = asyncio.get_running_loop().time() + STARTS_S
        while True:
            found = self.look(run_id)
            assert found is not None
            if found.state != "starting" or asyncio.get_running_loop().time() > until:
                return found
            await asyncio.sleep(LOOK_S)

    def _alive(self, run_id: str) -> bool:
        process = self._processes.get(run_id)
        return process is not None and process[1].poll() is None

    def _free_id(self, name: str) -> str:
        """A name of a run directory that nothing has, taken at once: another start may come meanwhile."""
        base = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}"
        number, found = 1, base
        while found in self._processes or (self._runs / found).exists():
            number += 1
            found = f"{base}-{number}"
        return found

    def tidy(self) -> None:
        """Throw away what runs have printed too much. Their files are open to append, so that they may be cut."""
        for run_id in self._processes:
            output = self._plans.started(run_id).with_suffix(".txt")
            with suppress(OSError):
                if output.stat().st_size > MOST_OUTPUT:
                    os.truncate(output, 0)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - SHOWN))
            text = file.read(SHOWN).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(visible(without_hidden(line)) for line in text.splitlines())


def _why(output: str, code: int | None) -> tuple[str, str]:
    """Why a run has not begun, and what to do."""
    how = "" if code is None else f" with {code}"
    nothing = f"the run ended{how} before it began", "see what it printed last" if output else ""
    return last_error(output) or nothing
