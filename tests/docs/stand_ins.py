"""What the pages speak of and a reader has: workflows, runs, a baseline, logs; and two servers for their addresses."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import struct
import time
import zlib
from pathlib import Path

from tests.docs.pages import ROOT
from tests.support.commands import call, serving, start

__all__ = ["ADDRESSES", "free_port", "make_folder"]

ADDRESSES = {
    "http://gpu1:8188": "http://127.0.0.1:8188",
    "http://gpu2:8188": "http://127.0.0.1:8189",
    "http://10.0.0.11:8188": "http://127.0.0.1:8188",
    "http://10.0.0.12:8188": "http://127.0.0.1:8189",
    "http://new-gpu:8188": "http://127.0.0.1:8188",
    "http://gpu.example:8188": "http://127.0.0.1:8188",
    "https://gpu.example/comfy/": "http://127.0.0.1:8188",
}
"""Addresses of a reader's servers, and which of the two simulated ones answers for them."""

_SAMPLES = "infra/comfyui/samples"
_ONE_PICTURE = ("a", "b", "book", "book_medium", "book_small", "cover", "page", "portrait")
_GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a fox under a lamp"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "blurry"}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 1}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "seed": 7,
            "steps": 20, "cfg": 6.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        },
    },
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "page"}},
}  # fmt: skip
_RUNS = "20261123T120000Z"


def make_folder(folder: Path, server: str) -> None:
    """Fill the folder with all that the pages speak of; the runs are made on this server."""
    (folder / "infra" / "observability").mkdir(parents=True)
    shutil.copytree(ROOT / _SAMPLES, folder / _SAMPLES)
    for name in _ONE_PICTURE:
        (folder / f"{name}.json").write_text(json.dumps(_GRAPH))
    _write_inputs(folder)
    _make_runs(folder, server)
    _kill_a_run(folder, server)
    _make_ledger(folder, server)


def _write_inputs(folder: Path) -> None:
    (folder / "photo.png").write_bytes(_png())
    restyle = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "restyle"}},
    }
    (folder / "restyle.json").write_text(json.dumps(restyle))
    (folder / "prompts.csv").write_text('2.text,KSampler.steps\na fox under a lamp,20\n"a boat, at night",30\n')
    line = '127.0.0.1 - - [23/Nov/2026:12:00:{:02d} +0000] "POST /{} HTTP/1.1" 200 5 "-" "app"\n'
    access = "".join(line.format(second, "prompt") for second in range(4))
    (folder / "access.log").write_text(access)
    (folder / "access.log.2.gz").write_bytes(gzip.compress(access.encode()))
    (folder / "app.log").write_text("".join(line.format(second, "v1/generate") for second in range(4)))
    (folder / "worker.log").write_text("".join(f"2026-11-23 12:00:0{at} job accepted\n" for at in range(4)))
    (folder / "outages.txt").write_text("40\n75\n")
    (folder / "retry.json").write_text('{"deadline_s": 90}')
    (folder / "gates.toml").write_text('gates = ["success_rate >= 90 %"]\n')
    (folder / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    (folder / "ComfyUI" / "user").mkdir()
    for name in ("execution.py", "main.py", "server.py", "user/comfyui_metrics.ndjson"):
        (folder / "ComfyUI" / name).touch()
    for name in ("switch-driver.sh", "checkout.sh"):
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)


def _png() -> bytes:
    """A grey picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


def _make_runs(folder: Path, server: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "COMFYLOAD_LIVE_LOG"}

    def run(name: str, workflow: str, *words: str, jobs: int = 20) -> None:
        for _ in range(3):  # A machine that does much else makes a run invalid now and then.
            done = call(
                "run", "--server", server, "--workflow", f"{workflow}.json", "--jobs", str(jobs), "--warmup", "2",
                "--run-dir", f"runs/{name}", "--quiet", *words, cwd=folder, env=environ,
            )  # fmt: skip
            if done.returncode == 0:
                return
            shutil.rmtree(folder / "runs" / name)
        raise AssertionError(done)

    run(f"{_RUNS}-book_medium", "book_medium", "--output", "result.json")
    run(f"{_RUNS}-book_small", "book_small")
    for name in ("before-1", "before-2", "before-3", "after-1", "after-2", "after-3"):
        run(name, "book_medium", jobs=12)
    run("busy-day", "book_medium", "--concurrency", "2", jobs=12)
    shutil.copytree(folder / "runs" / f"{_RUNS}-book_small", folder / "runs" / "monday")
    shutil.copytree(folder / "runs" / f"{_RUNS}-book_medium", folder / "results" / "run")
    for side, first in (("a", "before"), ("b", "after")):
        for number in (1, 2, 3):
            target = folder / "runs" / f"{_RUNS}-ab" / side / f"0{number}"
            shutil.copytree(folder / "runs" / f"{first}-{number}", target)
    for name in ("rtx5060ti", "2026-10-01-rtx5060ti"):
        done = call("baseline", "save", f"runs/{_RUNS}-book_medium", "--name", name, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert call("baseline", "promote", "rtx5060ti", cwd=folder).returncode == 0


def _kill_a_run(folder: Path, server: str) -> None:
    """`runs/…-book` is a run whose process died when some of its jobs had ended."""
    place = folder / "runs" / f"{_RUNS}-book"
    words = ("--server", server, "--workflow", "book.json", "--jobs", "60", "--concurrency", "2")
    command = start(folder, *words, "--think", "0.05s", "--run-dir", str(place.relative_to(folder)))
    ends = time.monotonic() + 20
    while not (place / "records.ndjson").exists() or (place / "records.ndjson").read_bytes().count(b"\n") < 12:
        assert time.monotonic() < ends, "the run does not begin"
        time.sleep(0.01)
    os.kill(command.pid, signal.SIGKILL)
    command.communicate(timeout=10)


def _make_ledger(folder: Path, server: str) -> None:
    """`ledger` is what a gateway kept of two days."""
    today = "[0-9]*-gpu1"
    for day in ("2026-11-23", "2026-11-24"):
        kept = {path.name for path in (folder / "ledger").glob(today)}
        with serving("gateway", "--server", f"gpu1={server}", "--ledger", str(folder / "ledger"), "--port", "0") as url:
            done = call("run", "--server", url, "--workflow", "page.json", "--jobs", "20", "--quiet", cwd=folder)
            assert done.returncode in (0, 5), done.stderr  # the run may be invalid, the ledger is not
        (made,) = (path for path in (folder / "ledger").glob(today) if path.name not in kept)
        made.rename(folder / "ledger" / f"{day}-gpu1")


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
