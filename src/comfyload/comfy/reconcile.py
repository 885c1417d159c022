"""Looks a prompt up until it is known whether the server has it."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Literal

from comfyload.comfy.api import Api

LookUp = Literal["there", "absent", "unknown"]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0


async def reconcile(
    api: Api,
    prompt_id: str,
    clock: Callable[[], float],
    *,
    lost_s: float,
    over: Callable[[], bool],
    silent_until: float = math.inf,
    gone: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> LookUp:
    """`there`: waiting, running or done. `absent`: by two answers `lost_s` apart, as a POST may still be on its way.

    `unknown`: `over()` came first, or the server did not answer at the instant `silent_until` or later, or when it was
    `gone()`.
    """
    absent_since, pause = math.inf, FIRST_PAUSE_S
    while not over():
        state = await api.prompt_state(prompt_id)
        now = clock()
        if state == "absent":
            absent_since = min(absent_since, now)
            if now - absent_since >= lost_s:
                return "absent"
        elif state != "unknown":
            return "there"
        elif now >= silent_until or gone():
            return "unknown"
        await sleep(pause)
        pause = min(2.0 * pause, LONGEST_PAUSE_S)
    return "unknown"
