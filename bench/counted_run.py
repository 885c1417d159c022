"""What callgrind counts: jobs of the engine one by one, with the real client, the null server and the journal.

    valgrind --tool=callgrind --instr-atstart=no python -m bench.counted_run LIBRARY SERVER WORKFLOW FOLDER 10 10 60

Loads of each of these lengths, the first uncounted, to warm up. Whatever the time brings by itself (the self-check, the
telemetry, the reading of the environment) is left out, so that a slow machine counts what a fast one does.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from comfyload import clock
from comfyload.app.run.launch import prepare
from comfyload.app.run.options import RunOptions, WorkflowChoice
from comfyload.app.run.schedule_seed import arrivals_rng
from comfyload.app.run.servers import connect_all
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.link import ClientOptions
from comfyload.load.engine import Engine, Stop
from comfyload.load.selfcheck import frozen_gc
from comfyload.record.model import Prompt
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RunWriter


async def run(library: Path, options: RunOptions, lengths: list[int]) -> None:
    callgrind = ctypes.CDLL(str(library))
    async with connect_all(options) as connected:
        prepared, transport = await prepare(options, connected), connected[0].http
        now = clock.stopwatch()
        async with ComfyClient.open(transport, prepared.manifest.server, now, ClientOptions()) as client:
            with RunWriter(Path(options.run_dir or ""), prepared.manifest) as writer, frozen_gc():
                first = 0
                for number, jobs in enumerate(lengths):
                    plan = Plan(load=Closed(concurrency=1), jobs=jobs)

                    def prompt(index: int, first: int = first) -> Prompt:
                        return prepared.jobs.prompt(first + index)

                    engine = Engine(
                        plan, prompt, client, writer.write_line, clock=now, rng=arrivals_rng(plan), stop=Stop()
                    )
                    if number:
                        callgrind.begin_count()
                    await engine.run()
                    if number:
                        callgrind.end_count()
                    first += jobs


def main() -> None:
    library, server, workflow, folder, *lengths = sys.argv[1:]
    plan = Plan(load=Closed(concurrency=1), jobs=sum(map(int, lengths)), seed=1)
    choice, run_dir = WorkflowChoice(file=workflow), str(Path(folder, "run"))
    options = RunOptions(server=server, workflows=[choice], plan=plan, run_dir=run_dir, telemetry=False)
    clock.run(run(Path(library), options, list(map(int, lengths))))


if __name__ == "__main__":
    main()
