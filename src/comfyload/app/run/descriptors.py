"""How many files this process may have open: raised as far as it may be, and looked at before a load needs them."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from comfyload.comfy.http import MAX_CONNECTIONS
from comfyload.errors import UsageError
from comfyload.record.plan import Closed

if TYPE_CHECKING:
    from comfyload.record.plan import Plan

__all__ = ["check_descriptors", "descriptors_needed", "raise_limit"]

MACOS_MOST = 10_240
"""Of macOS, which tells of no limit and refuses more."""

BESIDE = 20
"""The journals, the event stream, what is asked beside the jobs, and what a name or a manifest needs for a moment."""

FEW_OPEN = 12
"""Files that a process of ours has open before a run, where the system does not tell."""


def raise_limit() -> int | None:
    """Let this process open as many files as it may; how many that is, None for no limit that is known."""
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


def descriptors_needed(plan: Plan) -> int:
    """Of a run of this plan at its busiest, with what is open already."""
    places = plan.load.concurrency if isinstance(plan.load, Closed) else plan.load.max_in_flight
    connections = MAX_CONNECTIONS if places is None else min(MAX_CONNECTIONS, places * plan.pages)
    return _open_now() + connections + BESIDE


def check_descriptors(plan: Plan) -> None:
    """Raise the limit.

    Raises:
        UsageError: it stays below what the load needs. Nothing was sent.
    """
    limit, need = raise_limit(), descriptors_needed(plan)
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
