"""Runs a target for so many inputs or so long, and tells what came of it."""

from __future__ import annotations

import hashlib
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from random import Random

from msgspec import Struct, field

from tests.fuzz.mutate import Mutations
from tests.fuzz.target import Target

__all__ = ["CORPUS", "Found", "Round", "corpus", "fuzz", "peak_bytes", "trouble"]

CORPUS = Path(__file__).with_name("corpus")


class Found(Struct, frozen=True, kw_only=True):
    """One kind of trouble, with the first input that made it."""

    kind: str
    text: str
    data: bytes


class Round(Struct, kw_only=True):
    """What a target did. `peak_bytes`: of the process, since it began."""

    executions: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    peak_bytes: int = 0
    found: dict[str, Found] = field(default_factory=dict)


def corpus(target: Target) -> list[Path]:
    """The inputs that once made trouble, by name."""
    return sorted(file for file in (CORPUS / target.name).glob("*") if file.is_file())


def trouble(target: Target, data: bytes) -> Found | None:
    """What is wrong with the target's behaviour on this input; None: nothing is."""
    began = time.process_time()
    try:
        target.feed(data)
    except target.errors:
        pass
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001 - any error that is not the target's own is what is looked for
        return Found(kind=_kind(error), text="".join(traceback.format_exception(error))[-3000:], data=data)
    took = time.process_time() - began
    if took > target.most_s:
        return Found(kind="slow", text=f"{took:.2f} s of processor time", data=data)
    return None


def fuzz(target: Target, random: Random, *, executions: int, seconds: float) -> Round:
    """Feed until one of both is spent, or Ctrl-C is pressed."""
    seeds = target.seeds + [file.read_bytes() for file in corpus(target)]
    for seed in target.seeds:  # what is imported at first is no time of an input's
        with suppress(*target.errors):
            target.feed(seed)
    supply = Mutations(seeds, random)
    done = Round()
    began = before = time.perf_counter()
    with suppress(KeyboardInterrupt):
        while done.executions < executions and before - began < seconds:
            found = trouble(target, supply.next())
            after = time.perf_counter()
            done.slowest_s = max(done.slowest_s, after - before)
            before = after
            done.executions += 1
            if found is not None:
                done.found.setdefault(found.kind, found)
    done.seconds = time.perf_counter() - began
    done.peak_bytes = peak_bytes()
    return done


def peak_bytes() -> int:
    """The most memory that this process has had; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def file_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _kind(error: BaseException) -> str:
    """Errors of one class from one line are one kind: the innermost line of ours tells it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/comfyload" in frame.filename]
    frames = frames or traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
