"""Functions that a worker's process runs in tests."""

from __future__ import annotations

import os
import time
from pathlib import Path

from comfyload.errors import UsageError
from comfyload.web.worker import Answer, NotThere, as_json

HERE = "tests.support.computing"


def number(log: str, value: int, seconds: float = 0.0) -> Answer:
    """Answers with the value and the process; a line of `log` for each call."""
    with Path(log).open("a") as file:
        file.write(f"{value}\n")
    time.sleep(seconds)
    return as_json({"value": value, "pid": os.getpid()})


def large(size: int) -> Answer:
    return as_json("x" * size)


def refuse() -> Answer:
    raise UsageError("that cannot be", "do it otherwise")


def absent() -> Answer:
    raise NotThere("it is not there")


def fail() -> Answer:
    raise RuntimeError("a mistake")


def fail_oddly() -> Answer:
    """Raises what cannot be sent to another process."""

    class Odd(Exception):
        pass

    raise Odd("nobody can send it")


def chatter() -> Answer:
    print("something", flush=True)  # noqa: T201 - what it does is print
    os.write(1, b"and more\n")
    return as_json("said")


def die(log: str, times: int) -> Answer:
    """Ends its process the first few times."""
    with Path(log).open("a") as file:
        file.write("died\n")
    if len(Path(log).read_text().splitlines()) <= times:
        os._exit(1)
    return as_json({"lives": True})
