"""Submits a prompt: waits for room, posts it, and finds out what an unclear reply means."""

import math
from collections.abc import Callable

import msgspec

from comfyload.comfy.inflight import Job
from comfyload.comfy.link import Link
from comfyload.comfy.reconcile import reconcile
from comfyload.comfy.submit_error import classify_refusal, node_errors_of
from comfyload.comfy.wire.calls import Reply, TransportError
from comfyload.record.model import Failure, FailureKind, Prompt

LATE = Failure(kind="timeout", message="not done by its deadline")


class Submit:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._highest_number = -math.inf

    async def no_room(self, deadline: float, over: Callable[[], bool] = lambda: False) -> str:
        """Wait for room in the server's queue; why a prompt must not be sent, "" if it may be or is over."""
        link, room = self._link, self._link.options.room
        if room is None:
            return ""
        return await room.wait(
            link.api, link.clock, lambda: over() or link.abandoned is not None or link.clock() >= deadline
        )

    def held_s(self, since: float) -> float:
        """How long a prompt that could have been sent at `since` was held back because the server's queue was full."""
        room = self._link.options.room
        return self._link.clock() - since if room is not None and room.last_full >= since else 0.0

    async def submit(self, job: Job, prompt: Prompt, deadline: float) -> Failure | None:
        """Submit the prompt; the failure if the server does not have it afterwards, None if it does."""
        if job.sent_before and not await self._must_send(job, deadline):
            return None
        link = self._link
        timeout_s = min(link.timeouts.for_submit, deadline - link.clock())
        if timeout_s <= 0.0:
            job.finish(LATE)
            return None
        client_id = link.stream.client_id
        job.stream_id = client_id if link.stream.connected else None
        highest = self._highest_number
        job.tracker.sent = link.clock()
        try:
            reply = await link.api.submit(
                prompt.graph(), prompt.id, client_id, prompt.extra_data, timeout_s, prompt.targets
            )
        except TransportError as error:
            kind: FailureKind = "submit_unknown" if error.sent else "connect"
            failure = Failure(kind="generator" if error.ours else kind, message=str(error))
            return await self._find_out(job, failure) if error.sent else failure
        if reply.status == 200:
            unclear = self._accept(job, reply, highest)
            return None if unclear is None else await self._find_out(job, unclear)
        failure = classify_refusal(reply.status, reply.body, reply.headers)
        # A 5xx may come from a gateway, or from a server that failed after it had queued the prompt.
        return await self._find_out(job, failure) if reply.status >= 500 else failure

    async def _must_send(self, job: Job, deadline: float) -> bool:
        """Whether the server lacks a prompt that an earlier process may have sent, so that it is sent again."""
        link = self._link
        found = await reconcile(
            link.api,
            job.prompt_id,
            link.clock,
            lost_s=link.timeouts.lost_s,
            over=job.end.done,
            silent_until=link.clock() + link.timeouts.unreachable_s,
            gone=lambda: link.stream.refused_s >= link.timeouts.refused_s,
        )
        job.accepted = found == "there"
        if found == "unknown" or (found == "absent" and link.options.server_restarted):
            job.finish("lost")
        if job.accepted or job.end.done():
            return False
        await self.no_room(deadline, job.end.done)
        return True

    def _accept(self, job: Job, reply: Reply, highest: float) -> Failure | None:
        """Take in that the server accepted the prompt; why it is unclear whether it did, None if it is not."""
        link = self._link
        job.tracker.acknowledged = link.clock()
        try:
            accepted, job.tracker.partial = node_errors_of(reply.body)
        except msgspec.MsgspecError:
            link.noticed.unread("the reply to POST /prompt")
            return Failure(kind="http", message="the reply to POST /prompt is not ComfyUI's", status=200)
        if accepted.prompt_id != job.prompt_id:
            if link.inflight.get(accepted.prompt_id) is not None:
                link.noticed.unread("a reply to POST /prompt with the id of another of our jobs")
                return Failure(kind="http", message="the server gave it the id of another job", status=200)
            link.inflight.rename(job, accepted.prompt_id)
        job.accepted = True
        job.tracker.number = accepted.number
        if accepted.number is not None:
            self._look_for_restart(accepted.number, highest)
        return None

    def _look_for_restart(self, number: float, highest: float) -> None:
        """The server counts its prompts from when it was started.

        `highest`: of the numbers known when this POST left, since replies to concurrent POSTs may overtake each other.
        """
        if number < highest:
            text = "the server's prompt counter began again: it was restarted during the run"
            self._link.noticed.note("restart", text)
            self._highest_number = number
        self._highest_number = max(number, self._highest_number)

    async def _find_out(self, job: Job, failure: Failure) -> Failure | None:
        """After an unclear reply: look the id up until the server knows it, or has twice not known it."""
        link = self._link

        def is_there() -> bool:
            return job.end.done() or job.tracker.first_event is not None

        silent_until = link.clock()
        if failure.status is None:
            silent_until = (job.tracker.sent or 0.0) + link.timeouts.submit_s
        found = await reconcile(
            link.api,
            job.prompt_id,
            link.clock,
            # The POST may still be on its way; a plain 500 came from the server itself, after the fact.
            lost_s=0.0 if failure.status == 500 else link.timeouts.lost_s,
            over=is_there,
            silent_until=silent_until,
        )
        if found == "there" or is_there():
            job.accepted = True
            return None
        job.may_be_there = found == "unknown"
        return failure
