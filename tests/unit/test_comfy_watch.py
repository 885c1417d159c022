"""The watch by itself: what it does when there is nothing to look after."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from comfyload import clock
from comfyload.comfy.inflight import InFlight
from comfyload.comfy.poller import AT_ONCE, HistoryPoller
from tests.support.rig import link


@pytest.mark.timeout(30)
def test_it_waits_when_the_last_jobs_are_gone_at_once() -> None:
    """As many ends found as are asked for make it look for more at once; not for ever, when there are none."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        inflight = InFlight(loop.time, lambda _remaining, _ours: None)
        for number in range(AT_ONCE):
            inflight.add(str(number)).accepted = True
        requests = 0

        async def history(_: str, _timeout_s: float = 30.0) -> object:
            nonlocal requests
            requests += 1
            if requests == AT_ONCE:
                for job in list(inflight):
                    inflight.remove(job)
            return object()

        api = SimpleNamespace(history=history, lookup_interval_s=0.5)
        stream = SimpleNamespace(connected=False, client_id="")
        watch = HistoryPoller(link(inflight, api=api, stream=stream, clock=loop.time))
        running = asyncio.create_task(watch.run())
        await asyncio.sleep(60.0)  # For ever, by the clock of a loop that is never idle.
        running.cancel()
        return requests

    assert clock.run_virtual(main()) == AT_ONCE
