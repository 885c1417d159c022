"""Clients as they are usually written, over real sockets: a policy is compared with them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from random import Random

from msgspec import structs

from comfyload.advise.naive_client import Naive
from comfyload.comfy.api import Api
from comfyload.comfy.wire.calls import TransportError
from comfyload.record.model import Execution, Failure, Prompt


class NaiveHttpClient:
    """Retries as `naive` says, each time under a new id. It never looks a prompt up, and leaves what it gives up on.

    `attempt` sends a prompt and sees it to its end. `ids`: all under which a job was sent, by the first.
    """

    def __init__(
        self, naive: Naive, attempt: Callable[[Prompt], Awaitable[Execution]], clock: Callable[[], float], rng: Random
    ) -> None:
        self._naive = naive
        self._attempt = attempt
        self._clock = clock
        self._rng = rng
        self.ids: dict[str, list[str]] = {}

    async def run(self, prompt: Prompt) -> Execution:
        """See one job to its end, or give it up."""
        naive, began = self._naive, self._clock()
        ids = self.ids.setdefault(prompt.id, [])
        while True:
            ids.append(prompt.id)
            try:
                async with asyncio.timeout(naive.timeout_s):
                    execution = await self._attempt(prompt)
            except TimeoutError:
                execution = Execution(outcome="timed_out", failure=Failure(kind="timeout"))
            elapsed_s = self._clock() - began
            done = execution.outcome == "completed"
            wait = None if done else naive.pause_s(len(ids), elapsed_s, self._rng.random)
            if wait is None:
                return execution
            await asyncio.sleep(wait)
            prompt = structs.replace(prompt, id=str(uuid.uuid4()))


def script(api: Api, poll_s: float) -> Callable[[Prompt], Awaitable[Execution]]:
    """An attempt as scripts make it: POST, then poll the history until the prompt is in it. It has no event stream."""

    async def attempt(prompt: Prompt) -> Execution:
        try:
            reply = await api.submit(prompt.graph(), prompt.id, "script", prompt.extra_data, timeout_s=60.0)
            while reply.status == 200:
                entry = await api.history(prompt.id)
                if entry is not None:
                    kinds = {message.type for message in entry.messages}
                    return Execution(outcome="completed" if "execution_success" in kinds else "failed")
                await asyncio.sleep(poll_s)
        except TransportError:
            pass
        return Execution(outcome="failed")

    return attempt
