"""Builds and runs the null server of `nullcomfy.c`, and makes the graph that the benchmarks send to it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.process import built

SOURCE = Path(__file__).with_name("nullcomfy.c")
SAVE_NODE = 55


@contextmanager
def running(folder: Path, cpu: int | None = None) -> Iterator[str]:
    """The address of a null server, on that cpu if one is named."""
    binary = built(SOURCE, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
    process = subprocess.Popen([*pinned, str(binary), str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def configure(url: str, settings: str) -> None:
    """Set how jobs go, in the words of the head of `nullcomfy.c`; what is not named is at its default."""
    usual = "msgs=20&emit=0&dur=0&jit=0&hist=14000&img=1048576&ps=0&bc=0"
    for _ in range(300):
        if get(f"{url}/cfg?{settings}&{usual}&save={SAVE_NODE}") == b"okay":
            return
        time.sleep(0.1)  # jobs of a client that failed are still in flight
    raise SystemExit("the null server still has jobs in flight")


def stat(url: str, key: str) -> float:
    """One of the server's counters: jobs, running, peak, sockets, messages, replies, cpu_s, first_ns."""
    return float(json.loads(get(f"{url}/stat"))[key])


def ends(url: str) -> dict[str, int]:
    """When the server sent the end of each job since `configure`, in nanoseconds of CLOCK_MONOTONIC."""
    lines = (line.split() for line in get(f"{url}/stamps").decode().splitlines())
    return {prompt_id: int(ended) for prompt_id, _, ended in lines}


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as reply:
        body: bytes = reply.read()
    return body


def workflow() -> dict[str, Any]:
    """A chain of 55 core image nodes with one seed and one SaveImage: 12 KB when encoded without spaces."""
    steps: list[tuple[str, dict[str, Any]]] = [
        ("ImageBlur", {"blur_radius": 5, "sigma": 1.5}),
        ("ImageSharpen", {"sharpen_radius": 2, "sigma": 1.0, "alpha": 0.6}),
        ("ImageScale", {"upscale_method": "lanczos", "width": 768, "height": 768, "crop": "disabled"}),
    ]
    blank = {"width": 768, "height": 768, "batch_size": 1, "color": 8421504}
    graph: dict[str, Any] = {
        "1": _node("EmptyImage", "Blank page", **blank),
        "2": _node("ImageAddNoise", "Noise", seed=1, strength=0.5, image=["1", 0]),
    }
    for number in range(3, SAVE_NODE):
        kind, inputs = steps[number % len(steps)]
        title = f"{kind} {number - 2}: one small step of many, so that each can be switched off while the page is tuned"
        graph[str(number)] = _node(kind, title, **inputs, image=[str(number - 1), 0])
    graph[str(SAVE_NODE)] = _node("SaveImage", "Save", filename_prefix="bench/image", images=[str(SAVE_NODE - 1), 0])
    return graph


def _node(class_type: str, title: str, **inputs: object) -> dict[str, Any]:
    return {"inputs": inputs, "class_type": class_type, "_meta": {"title": title}}


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            get(f"{url}/stat")
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the null server does not answer")
