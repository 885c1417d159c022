"""A node's step says only that its job runs: it is not decoded, and nothing comes out otherwise for that."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyload.comfy import inflight as module
from comfyload.comfy.inflight import InFlight
from comfyload.record.job_events import JobEvent, Progress

IDS = ("a", "b", "a and more", 'q"', "\udc80")
KINDS = ("execution_start", "executing", "progress", "progress_state", "execution_success", "status")


def _frame(kind: str, prompt_id: str, number: int, spaces: bool) -> bytes:
    data: dict[str, Any] = {"value": number, "max": 20, "prompt_id": prompt_id, "node": f"{number % 3}"}
    if kind in ("execution_start", "execution_success"):
        data["timestamp"] = 1000 + number
    if kind == "executing" and number % 4 == 0:
        data["node"] = None
    separators = (", ", ": ") if spaces else (",", ":")
    return json.dumps({"type": kind, "data": data}, separators=separators).encode()


def _followed(frames: list[bytes]) -> list[Any]:
    """What is known of each job after these frames, one a second."""

    async def main() -> list[Any]:
        ticks = itertools.count(1.0)
        inflight = InFlight(lambda: next(ticks), lambda *_: None)
        jobs = [inflight.add(prompt_id) for prompt_id in IDS[:2]] + [inflight.add(IDS[4])]
        for frame in frames:
            inflight.on_frame(frame, True)
        states = [{name: getattr(job.tracker, name) for name in job.tracker.__slots__} for job in jobs]
        return [inflight.last_event, *states, *(job.end.done() for job in jobs)]

    return asyncio.run(main())


FRAMES = st.builds(_frame, st.sampled_from(KINDS), st.sampled_from(IDS), st.integers(0, 19), st.booleans())


@given(st.lists(FRAMES, max_size=30))
def test_a_job_is_known_as_if_each_step_were_decoded(frames: list[bytes]) -> None:
    found = _followed(frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_STEP", b"\0")
        assert _followed(frames) == found


def test_who_asked_for_a_jobs_events_gets_its_steps() -> None:
    async def main() -> list[JobEvent]:
        events: list[JobEvent] = []
        inflight = InFlight(lambda: 1.0, lambda *_: None)
        inflight.add("a").tell = events.append
        for kind in ("execution_start", "progress", "progress"):
            inflight.on_frame(_frame(kind, "a", 7, spaces=True), True)
        return events

    assert asyncio.run(main()) == [Progress(node="1", step=7, steps=20)] * 2
