"""One prompt from its POST to its end: messages in, an Execution out. No I/O, no clock: instants are handed in.

WebSocket events are good for *when*; the server's history is the authority for *what*. Both are judged by their
messages, because `status_str` is `success` for some prompts that failed.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from comfyload.comfy.reported import outputs_of
from comfyload.comfy.wire.history import HistoryEntry
from comfyload.comfy.wire.messages import Message
from comfyload.record.bounds import whole_ms
from comfyload.record.model import Execution, Failure, FailureKind, Fetch, Outcome, ServerTimes, Span

MOST_NODES = 10_000
"""Nodes of one prompt that are kept. A graph has hundreds; loops make more as they run."""

LONGEST_NAME = 1000
LONGEST_TEXT = 20_000
"""Letters of a node's id, and of the text of an error, that are kept."""

ENDS = ("execution_success", "execution_error", "execution_interrupted")
MEMORY_SIGNS = ("outofmemory", "out of memory", "memoryerror", "can't allocate memory", "not enough memory: you tried")
"""Out of a GPU's memory, or of the host's; the last two are from torch's CPU allocator on Linux and on Windows."""
CUDA_SIGNS = ("cuda error", "device-side assert", "illegal memory access", "acceleratorerror")


_NO_SPANS: dict[str, Span] = {}
"""Of each job that waits: one for all, as each of its own takes memory."""


@dataclass(slots=True, eq=False)
class PromptTracker:
    """What is known of one prompt so far. `last_event`: when the last message of this prompt arrived."""

    sent: float | None = None
    acknowledged: float | None = None
    number: float | None = None
    first_event: float | None = None
    last_event: float | None = None
    started: float | None = None
    ended: str | None = None
    ended_at: float | None = None
    executions: int = 0
    held_s: float = 0.0
    start_ms: int | None = None
    end_ms: int | None = None
    cached: Sequence[str] = ()
    spans: dict[str, Span] = field(default_factory=lambda: _NO_SPANS)
    error: Failure | None = None
    partial: Failure | None = None
    previews: int = 0
    preview_bytes: int = 0

    def on_message(self, message: Message, at: float) -> bool:
        """Take one WebSocket message of this prompt that arrived at `at`; True once the prompt is over.

        Raises:
            msgspec.MsgspecError: its nodes cannot be read; that the message came is noted all the same.
        """
        if self.first_event is None:
            self.first_event = at
        self.last_event = at
        take = _TAKES.get(message.type)
        return take is not None and take(self, message, at)

    def on_preview(self, size: int) -> None:
        self.previews += 1
        self.preview_bytes += size

    def execution(
        self,
        outcome: Outcome,
        *,
        done: float | None,
        end_source: Literal["events", "history", "client"] = "client",
        done_uncertainty_s: float = 0.0,
        failure: Failure | None = None,
        entry: HistoryEntry | None = None,
        fetches: list[Fetch] | None = None,
        server_state_after: Any = None,
    ) -> Execution:
        """The execution, with the facts of the history where there is an entry."""
        start_ms, end_ms, cached, nodes = self.start_ms, self.end_ms, self.cached, list(self.spans.values())
        if entry is not None:
            for message in entry.messages:
                if message.type == "execution_start":
                    start_ms = whole_ms(message.data.timestamp) or start_ms
                elif message.type in ENDS:
                    end_ms = whole_ms(message.data.timestamp) or end_ms
                elif message.type == "execution_cached":
                    with suppress(msgspec.MsgspecError):
                        cached = _cached(message)
        if cached:
            hits = set(cached)
            nodes = [span for span in nodes if span.node not in hits]
        return Execution(
            outcome=outcome,
            sent=self.sent,
            acknowledged=self.acknowledged,
            first_event=self.first_event,
            started=self.started,
            done=done,
            end_source=end_source,
            done_uncertainty_s=done_uncertainty_s,
            server=ServerTimes(create_ms=None if entry is None else entry.create_ms, start_ms=start_ms, end_ms=end_ms),
            number=self.number if self.number is not None or entry is None else entry.number,
            nodes=nodes,
            cached=list(cached),
            outputs=outputs_of(entry) if entry is not None else [],
            failure=failure,
            previews=self.previews,
            preview_bytes=self.preview_bytes,
            fetches=fetches or [],
            executions=self.executions,
            held_s=self.held_s,
            server_state_after=server_state_after,
        )

    def verdict(self, entry: HistoryEntry) -> tuple[Outcome, Failure | None]:
        """How the prompt ended, by the messages in its history entry; by events where it holds none."""
        ends = [message for message in entry.messages if message.type in ENDS]
        errors = [message for message in ends if message.type != "execution_success"]
        if errors:
            return "failed", failure_of(errors[-1])
        if self.partial is not None:
            return "failed", self.partial
        if ends or self.ended == "execution_success":
            return "completed", None
        if self.error is not None:
            return "failed", self.error
        return "failed", Failure(
            kind="execution_error", type="no_end", message="the server's history has no end of this prompt"
        )

    def _on_start(self, message: Message, at: float) -> bool:
        # An event that comes twice has the same stamp; a second execution has a stamp of its own.
        before, self.start_ms = self.start_ms, whole_ms(message.data.timestamp) or self.start_ms
        if before is None or before != self.start_ms:
            self.executions += 1
        if self.started is None:
            self.started = at
        return False

    def _on_cached(self, message: Message, _: float) -> bool:
        self.cached = _cached(message)
        return False

    def _on_executing(self, message: Message, at: float) -> bool:
        node = message.data.node
        if node is None:
            self.ended_at = self.ended_at or at
            return True
        self._begins(node, at)
        return False

    def _on_progress(self, message: Message, at: float) -> bool:
        for node, state in message.data.node_states().items():
            if state.state == "running":
                self._begins(node, at)
            elif state.state == "finished":
                span = self.spans.get(node[:LONGEST_NAME])
                if span is not None and span.end is None:
                    self.spans[span.node] = Span(span.node, span.start, at)
        return False

    def _on_end(self, message: Message, _: float) -> bool:
        # An `execution_error` without a timestamp is an ExecutionBlocker's: the prompt goes on.
        if message.data.timestamp is not None:
            self.ended = message.type
            self.end_ms = whole_ms(message.data.timestamp) or self.end_ms
            self.error = failure_of(message) if message.type != "execution_success" else None
        return False

    def _begins(self, node: str, at: float) -> None:
        if self.spans is _NO_SPANS:
            self.spans = {}
        if len(self.spans) < MOST_NODES:
            node = sys.intern(node[:LONGEST_NAME])  # the same in all jobs of a workflow
            self.spans.setdefault(node, Span(node, at, None))


_TAKES: dict[str, Callable[[PromptTracker, Message, float], bool]] = {
    "execution_start": PromptTracker._on_start,
    "execution_cached": PromptTracker._on_cached,
    "executing": PromptTracker._on_executing,
    "progress_state": PromptTracker._on_progress,
    **dict.fromkeys(ENDS, PromptTracker._on_end),
}
"""What each kind of message does to a tracker; whether the prompt is over then. Other kinds only show that it lives."""


def failure_of(message: Message) -> Failure:
    """The failure in an `execution_error` or `execution_interrupted` message."""
    data = message.data
    kind: FailureKind = "execution_error"
    type_, text = data.exception_type or "", (data.exception_message or "").strip()
    signs = f"{type_} {text[:LONGEST_TEXT]}".lower()
    if message.type == "execution_interrupted":
        kind, type_, text = "interrupted", message.type, "interrupted on the server, not by this run"
    elif any(sign in signs for sign in MEMORY_SIGNS):
        kind = "oom"
    elif any(sign in signs for sign in CUDA_SIGNS):
        kind = "cuda"
    return Failure(
        kind=kind,
        type=_cut(type_, LONGEST_NAME),
        message=_cut(text, LONGEST_TEXT),
        node=data.node_id and data.node_id[:LONGEST_NAME],
        node_class=data.node_type and data.node_type[:LONGEST_NAME],
    )


def _cached(message: Message) -> list[str]:
    return [node[:LONGEST_NAME] for node in message.data.cached_nodes()[:MOST_NODES]]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} letters)"
