"""Raises the limit of open files, and checks before a run that it is high enough for the load."""

import sys
from contextlib import suppress
from pathlib import Path

from comfyload.comfy.connections import MAX_CONNECTIONS
from comfyload.errors import UsageError
from comfyload.record.plan import Closed, Plan

MACOS_MOST = 10_240
"""Of macOS, which reports no limit and refuses more."""

OTHER_FILES = 20
"""The journals, the event stream, calls other than jobs, and what a name look-up or a manifest needs for a moment."""

FEW_OPEN = 12
"""Files that our process has open before a run, where the system does not report them."""


def raise_limit() -> int | None:
    """Raise this process's limit of open files as far as allowed; returns it, None: no limit is known."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, MACOS_MOST):
        if soft == resource.RLIM_INFINITY or most == soft:
            break
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
            break
    return None if soft == resource.RLIM_INFINITY else soft


def descriptors_needed(plan: Plan, servers: int = 1) -> int:
    """How many files a run of this plan on so many servers may have open at once, with those that are open already."""
    places = plan.load.concurrency if isinstance(plan.load, Closed) else plan.load.max_in_flight
    connections = MAX_CONNECTIONS if places is None else min(MAX_CONNECTIONS, places * plan.pages)
    return _open_now() + servers * (connections + OTHER_FILES)


def check_descriptors(plan: Plan, servers: int = 1) -> None:
    """Raise the limit.

    Raises:
        UsageError: it stays below what the load needs. Nothing was sent.
    """
    limit, need = raise_limit(), descriptors_needed(plan, servers)
    if limit is not None and limit < need:
        raise UsageError(
            f"this process may open {limit} files at once, and the load needs up to {need}",
            f"raise the limit (ulimit -n {max(1024, need)}), or send fewer jobs at a time",
        )


def _open_now() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(list(Path(folder).iterdir()))
    return FEW_OPEN
