"""Facts of the machine that the load comes from, which may explain a number years later."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from comfyload.record.model import Host

LIBRARIES = ("comfyload", "httptools", "picows", "uvloop", "msgspec", "numpy", "scipy")


def describe_host() -> Host:
    """This machine and the libraries that measure; unknown facts are None."""
    libc = "".join(platform.libc_ver())
    return Host(
        # `platform()` starts a process on Linux, to ask for the kind of processor.
        os="-".join([*os.uname()[::2], "with", libc]) if sys.platform == "linux" else platform.platform(),
        cpu=_cpu_model(),
        # Those this process may use, which a container or `taskset` may have made fewer.
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        ram_bytes=psutil.virtual_memory().total,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libraries={name: found for name in LIBRARIES if (found := _version(name))},
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None
