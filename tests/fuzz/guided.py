"""The same targets, led by what lines of comfyload an input reaches: atheris, which is libFuzzer for Python. Linux."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.fuzz.mutate import Mutations
from tests.fuzz.round import Round, corpus, file_name, peak_bytes, trouble

__all__ = ["guided"]


def guided(name: str, seconds: float, executions: int, keep: Path) -> int:
    """Fuzz the target in a process of its own, as libFuzzer ends the one that it runs in; 1 if something was found."""
    worker = multiprocessing.get_context("spawn").Process(target=_run, args=(name, seconds, executions, keep))
    worker.start()
    worker.join()
    return 0 if worker.exitcode == 0 else 1


def _run(name: str, seconds: float, executions: int, keep: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["comfyload", "comfyload_probe"]):
        from tests.fuzz.targets import TARGETS
    target, done, began = TARGETS[name], Round(), time.perf_counter()

    def one(data: bytes) -> None:
        done.executions += 1
        found = trouble(target, data)
        if found is not None and found.kind not in done.found:
            done.found[found.kind] = found
            file = keep / name / file_name(data)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            print(f"  {found.kind}: {file}", flush=True)
        took = time.perf_counter() - began
        if took >= seconds or done.executions >= executions:
            print(
                f"{name:15} {done.executions:11,} {done.executions / took:8,.0f} {len(done.found):8} {'guided':>8} "
                f"{peak_bytes() / 2**20:8.0f}",
                flush=True,
            )
            os._exit(1 if done.found else 0)  # libFuzzer would end the process with no word, and 0

    supply = Mutations(target.seeds, Random(1))

    def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
        """Half of the time by structure, else as libFuzzer does."""
        if seed % 2:
            return supply.next()[:most_bytes]
        return atheris.Mutate(data, most_bytes) if data else b"0"  # type: ignore[no-any-return]

    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate([*target.seeds, *(file.read_bytes() for file in corpus(target))]):
            (Path(folder) / str(number)).write_bytes(content)
        flags = ["-max_len=8192", "-timeout=60", "-rss_limit_mb=2048", "-verbosity=0"]
        atheris.Setup([sys.argv[0], folder, *flags], one, custom_mutator=mutate)
        atheris.Fuzz()
