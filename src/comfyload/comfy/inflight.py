"""Our prompts on one server: the events of each, how many are left, and how many others are in the queue."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from comfyload.comfy.tracker import PromptTracker
from comfyload.comfy.wire.messages import Message, decode_message
from comfyload.record.job_events import JobEvent, Progress, Queued
from comfyload.record.model import Failure

End = Literal["events", "history", "lost", "withdrawn"] | Failure
"""What ended the wait for a job; a failure: it is given up, and why."""

UNKNOWN_KEPT = 4096
"""Events of unknown ids that are kept: the reply to a POST may name another id than ours, after its events."""

UNKNOWN_LETTERS = 4 << 20
"""Letters of such events that are kept."""

MOST_READINGS = 100
"""Readings of the queue's length that are passed on within a second: one of our events makes one or two."""

_STEP, _NEVER = b'{"type": "progress", ', b"\0"
"""How the message of a node's step begins, and what no message holds."""


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One of our prompts between its POST and its end.

    `posted_as`: the id under which it was posted. `began`: the instant from which its time is counted. `stream_id`: the
    client id whose open socket gets its events; None: none was open when it was posted. `sent_before`: an earlier
    process may have sent it. `polled`: when its history was last read in vain. `may_be_there`: it was posted without a
    reply, and the server could not be reached since. `tell`: called with each of its events. `before`: how many prompts
    the server has before it; counted only if `tell` is set. `at_end`: what is cancelled when the wait for it is over.
    """

    prompt_id: str
    posted_as: str
    order: int
    began: float
    sent_before: bool
    end: asyncio.Future[End]
    tracker: PromptTracker = field(default_factory=PromptTracker)
    stream_id: str | None = None
    accepted: bool = False
    looked_up: float = -math.inf
    polled: float | None = None
    absent_since: float | None = None
    may_be_there: bool = False
    tell: Callable[[JobEvent], None] | None = None
    before: int | None = None
    at_end: tuple[asyncio.TimerHandle | asyncio.Task[None], ...] = ()

    @property
    def may_be_known(self) -> bool:
        """Whether the server may know of it."""
        return self.tracker.sent is not None or self.accepted or self.sent_before

    def finish(self, end: End) -> None:
        """End the wait for the job, unless it has ended; one whose end an event told ended so, whatever comes after."""
        if not self.end.done():
            self.end.set_result(end if self.tracker.ended_at is None else "events")


class InFlight:
    """The prompts that we posted and that have not ended. `clock` gives instants; nothing here waits."""

    def __init__(
        self,
        clock: Callable[[], float],
        on_queue: Callable[[int, int], None],
        server: str = "",
        unread: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._server = server
        self._on_queue = on_queue
        self._unread = unread
        self._jobs: dict[str, Job] = {}
        self._given_up: dict[str, Job] = {}
        self._counted: set[Job] = set()
        self._unknown: deque[tuple[str, Message, float, int]] = deque()
        self._unknown_letters = 0
        self._readings: deque[float] = deque(maxlen=MOST_READINGS)
        self._orders = 0
        self._running: Job | None = None
        self._running_id = _NEVER
        self.on_end: Callable[[Job], None] = lambda job: job.finish("events")
        """Called when an event tells the end of a job."""
        self.last_event = clock()
        self.last_started = -1
        self.queue_remaining: int | None = None
        self.earlier_ids: set[str] = set()
        """Prompts of an earlier process that may still be in the queue, until each is registered here."""
        self.ran_on: list[str] = []
        """Ids that the server ran to their end after we gave them up."""

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def get(self, prompt_id: str) -> Job | None:
        """The job of that id, or that was posted under it: an old server assigns ids of its own."""
        return self._jobs.get(prompt_id) or next((job for job in self if job.posted_as == prompt_id), None)

    def add(self, prompt_id: str, *, sent_before: bool = False) -> Job:
        """Register a prompt before it is posted, so that no event of it can be missed."""
        end = asyncio.get_running_loop().create_future()
        job = Job(
            prompt_id=prompt_id,
            posted_as=prompt_id,
            order=self._orders,
            began=self._clock(),
            sent_before=sent_before,
            end=end,
        )
        self._jobs[prompt_id] = job
        self._orders += 1
        self.earlier_ids.discard(prompt_id)
        return job

    def rename(self, job: Job, prompt_id: str) -> None:
        """The server gave the job another id than ours: claim the events that came under it."""
        del self._jobs[job.prompt_id]
        job.prompt_id = prompt_id
        self._jobs[prompt_id] = job
        for name, message, at, _ in self._unknown:
            if name == prompt_id and self._follow(job, message, at):
                self.on_end(job)

    def remove(self, job: Job) -> None:
        """The job ended, or never reached the server."""
        self._jobs.pop(job.prompt_id, None)
        self._counted.discard(job)

    def give_up(self, job: Job) -> None:
        """We no longer wait for the job, but the server may still hold it."""
        self.remove(job)
        self._given_up[job.prompt_id] = job

    def given_up(self) -> list[Job]:
        """Jobs given up that the server may still hold."""
        return list(self._given_up.values())

    def forget(self, job: Job) -> None:
        """A job given up is known to be gone from the server."""
        self._given_up.pop(job.prompt_id, None)

    def is_behind(self, job: Job, before: int) -> None:
        """The server has `before` prompts before the job; from now on they are counted down."""
        if job.tell is not None and job.tracker.started is None and not job.end.done():
            self._counted.add(job)
            job.before = before
            job.tell(Queued(server=self._server, before=before))

    def on_frame(self, frame: bytes, is_text: bool) -> None:
        """Take one message of the event stream."""
        at = self._clock()
        if self._running is not None and frame.startswith(_STEP) and self._running_id in frame:
            self.last_event = self._running.tracker.last_event = at  # most messages: nobody needs more of them
            return
        message = decode_message(frame) if is_text else None
        if message is None:
            self._on_other(frame, is_text)
            return
        prompt_id = message.data.prompt_id
        job = self._jobs.get(prompt_id)  # type: ignore[arg-type]  # no job has the id None
        if job is None:
            if message.type == "status":
                self._on_status(message, at)
            elif prompt_id in self._given_up:
                self._on_given_up(self._given_up[prompt_id], message, at)
            elif prompt_id is not None:
                self._keep(prompt_id, message, at, len(frame))
            return
        self.last_event = at
        if message.type == "execution_start":
            self._running = job
            self._running_id = (
                b'"prompt_id": "%b"' % job.prompt_id.encode("utf-8", "surrogatepass") if job.tell is None else _NEVER
            )
            self.last_started = max(self.last_started, job.order)
            self._counted.discard(job)
        if self._follow(job, message, at):
            if self._running is job:
                self._running = None
            self.on_end(job)
        elif job.tell is not None and (progress := progress_of(message)) is not None:
            job.tell(progress)

    def _on_other(self, frame: bytes, is_text: bool) -> None:
        """Take a preview, or a text that cannot be read."""
        if is_text:
            begin = frame[:40].decode("utf-8", "surrogateescape")
            self._unread(f"a message of {len(frame)} bytes that begins with {begin!r}")
        elif self._running is not None:
            self._running.tracker.on_preview(len(frame))

    def _follow(self, job: Job, message: Message, at: float) -> bool:
        try:
            return job.tracker.on_message(message, at)
        except msgspec.MsgspecError as error:
            self._unread(f"a message {message.type[:40]} of {job.prompt_id}: {error}")
            return False

    def _keep(self, prompt_id: str, message: Message, at: float, letters: int) -> None:
        """Keep an event of an id that may turn out to be ours."""
        self._unknown.append((prompt_id, message, at, letters))
        self._unknown_letters += letters
        while len(self._unknown) > UNKNOWN_KEPT or self._unknown_letters > UNKNOWN_LETTERS:
            self._unknown_letters -= self._unknown.popleft()[3]

    def _on_given_up(self, job: Job, message: Message, at: float) -> None:
        over = self._follow(job, message, at)
        if message.type == "execution_success":
            self.ran_on.append(job.prompt_id)
        if over:
            self.forget(job)

    def _on_status(self, message: Message, at: float) -> None:
        remaining = message.data.queue_remaining
        if remaining is None:
            return
        self._count_down((self.queue_remaining or 0) - remaining, remaining)
        self.queue_remaining = remaining
        if len(self._readings) < MOST_READINGS or at - self._readings[0] >= 1.0:
            self._readings.append(at)
            # Jobs whose end is being confirmed still count as ours, so what is called foreign certainly is.
            self._on_queue(remaining, len(self._jobs) + len(self._given_up) + len(self.earlier_ids))

    def _count_down(self, ended: int, remaining: int) -> None:
        """`ended` prompts left the queue, which keeps the order of arrival: those that wait move up."""
        for job in self._counted:
            assert job.before is not None and job.tell is not None
            before = max(0, min(job.before - max(0, ended), remaining - 1))
            if before != job.before:
                job.before = before
                job.tell(Queued(server=self._server, before=before))


def progress_of(message: Message) -> Progress | None:
    """The progress that a message reports: a node began, or made a step; None: neither."""
    data = message.data
    if message.type == "executing" and data.node is not None:
        return Progress(node=data.display_node or data.node)
    if message.type == "progress" and data.node is not None:
        step, steps = _count(data.value), _count(data.max)
        return None if step is None or not steps else Progress(node=data.node, step=step, steps=steps)
    return None


def _count(value: Any) -> int | None:
    """A node's steps, which nodes send as integers, as floats, or as something that is not a number (None)."""
    usual = isinstance(value, int | float) and -1e15 < value < 1e15
    return math.floor(value) if usual else None
