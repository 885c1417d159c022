"""Where a conformance test runs: on a simulator, on a gateway before one or two, and by hand on real servers.

`COMFYLOAD_LIVE_URL` names the real ones, apart by spaces: the first is tested itself and behind a gateway, and with a
second both are behind one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.servers import fronted, simulator

LIVE = os.environ.get("COMFYLOAD_LIVE_URL", "").split()
KINDS = ("simulator", "gateway", "gateways", "live", "live gateway", "live gateways")


@contextmanager
def place(kind: str, speed: float) -> Iterator[str]:
    """The URL of such a place; the test is skipped if that takes a real server more than there are. `speed`: of
    simulators.
    """
    count = 2 if kind.endswith("gateways") else 1
    if kind.startswith("live") and len(LIVE) < count:
        pytest.skip(f"COMFYLOAD_LIVE_URL names {len(LIVE)} of {count}")
    with ExitStack() as stack:
        urls = (
            LIVE[:count] if kind.startswith("live") else [stack.enter_context(simulator(speed)) for _ in range(count)]
        )
        yield stack.enter_context(fronted(urls)) if "gateway" in kind else urls[0]
