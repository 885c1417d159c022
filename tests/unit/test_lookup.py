"""Whether a server has a prompt: what is asked, how long, and what the answers come to."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from comfyload import clock
from comfyload.comfy.reconcile import reconcile
from comfyload.comfy.wire.queue import PromptState


class Answers:
    """An `Api` that answers so, one answer after the other, the last one for ever."""

    def __init__(self, *answers: PromptState) -> None:
        self.answers = list(answers)
        self.requests: list[float] = []

    async def prompt_state(self, _: str) -> PromptState:
        self.requests.append(clock.now())
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def ask(
    server: Answers, *, lost_s: float = 2.0, over_s: float = math.inf, silent_s: float = math.inf
) -> tuple[str, float]:
    async def main() -> tuple[str, float]:
        watch = clock.stopwatch()
        api: Any = server
        over = lambda: watch() >= over_s  # noqa: E731
        return await reconcile(api, "id", watch, lost_s=lost_s, over=over, silent_until=silent_s), watch()

    return clock.run_virtual(main())


@pytest.mark.parametrize("place", ["pending", "running", "finished", "failed", "cancelled"])
def test_one_answer_that_it_is_there_is_enough(place: PromptState) -> None:
    assert ask(Answers("unknown", "absent", place))[0] == "there"


def test_one_answer_that_it_is_not_is_not() -> None:
    server = Answers("absent")
    found, after_s = ask(server)
    assert found == "absent" and server.requests[-1] - server.requests[0] >= 2.0 and after_s < 3.5
    assert ask(Answers("absent"), lost_s=0.0) == ("absent", 0.0)
    assert ask(Answers("absent", "absent", "absent", "running"))[0] == "there"


def test_silence_is_no_answer_and_ends_when_it_must() -> None:
    assert ask(Answers("unknown"), silent_s=5.0)[0] == "unknown"
    assert ask(Answers("absent", "unknown"), over_s=7.0)[0] == "unknown"
    assert ask(Answers("running"), over_s=0.0) == ("unknown", 0.0)


def test_what_ends_it_wakes_it() -> None:
    async def main() -> float:
        over, watch = asyncio.Event(), clock.stopwatch()
        asyncio.get_running_loop().call_later(1.0, over.set)

        async def sleep(seconds: float) -> None:
            await asyncio.wait([asyncio.ensure_future(over.wait())], timeout=seconds)

        api: Any = Answers("unknown")
        assert await reconcile(api, "id", watch, lost_s=2.0, over=over.is_set, sleep=sleep) == "unknown"
        return watch()

    assert clock.run_virtual(main()) == pytest.approx(1.0)
