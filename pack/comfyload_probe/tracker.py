"""The prompts under way: what was queued, which node runs, how it ended; and makes rows of it.

The methods are called in the threads of ComfyUI: `queued` and `deleted` on its event loop, the others in the worker.
They share nothing but dictionaries of which each step is atomic.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .rows import long_text, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from .vram import Vram

__all__ = ["Prompt", "Tracker"]

WAITING_LIMIT = 100_000
RUNNING_LIMIT = 64


class Emit(Protocol):
    def __call__(self, event: str, *, at: float | None = None, **fields: Any) -> None: ...


@dataclass
class Node:
    """A node that has started and not ended. Seconds of the probe's clock; bytes."""

    node_id: str
    class_type: str | None
    display_node: str | None
    real_node: str
    started: float
    peak: int | None = None


@dataclass
class Prompt:
    """A prompt that runs. `started`: seconds of the probe's clock, None if nobody told."""

    prompt_id: str
    started: float | None
    graph: Any
    open: dict[Any, Node] = field(default_factory=dict)
    seen: set[Any] = field(default_factory=set)
    run: int = 0
    cached: int = 0
    peak: int | None = None


class Tracker:
    """What is under way on one server."""

    def __init__(self, emit: Emit, clock: Callable[[], float], vram: Vram) -> None:
        self._emit = emit
        self._clock = clock
        self._vram = vram
        self._waiting: dict[tuple[Any, Any], float] = {}
        self._running: dict[Any, Prompt] = {}
        self._by_id: dict[Any, Prompt] = {}
        self._current: Prompt | None = None
        self._worker: int | None = None

    def running(self) -> list[dict[str, Any]]:
        """What runs now, and the node that started last."""
        found = []
        for prompt in list(self._by_id.values()):
            node = next(reversed(list(prompt.open.values())), None)
            found.append(
                {
                    "prompt_id": prompt.prompt_id,
                    "started_mono_s": prompt.started,
                    "node": None if node is None else node.node_id,
                    "class_type": None if node is None else node.class_type,
                }
            )
        return found

    def queued(self, item: Any, depth: int, at: float) -> None:
        """A prompt was put into the queue; `depth` others wait or run."""
        number, prompt_id, graph, extra = item[0], item[1], item[2], item[3]
        if len(self._waiting) < WAITING_LIMIT:
            self._waiting[number, prompt_id] = at
        self._emit(
            "prompt.queued",
            at=at,
            prompt_id=text(prompt_id),
            number=number if isinstance(number, (int, float)) else None,
            queue_depth=depth,
            node_count=len(graph),
            **_attempt(extra),
        )

    def deleted(self, items: list[Any]) -> None:
        """Prompts that will never start."""
        for item in items:
            self._waiting.pop((item[0], item[1]), None)

    def started(self, item: Any, item_id: Any, waiting: int, at: float) -> None:
        """The worker took a prompt; `waiting` others are behind it."""
        queued_at = self._waiting.pop((item[0], item[1]), None)
        prompt = Prompt(text(item[1]), at, item[2])
        self._running[item_id] = self._by_id[item[1]] = prompt
        _keep_newest(self._running)
        _keep_newest(self._by_id)
        self._current, self._worker = prompt, threading.get_ident()
        waited = None if queued_at is None else _ms(at - queued_at)
        self._emit("prompt.started", at=at, prompt_id=prompt.prompt_id, waited_ms=waited, queue_depth=waiting)

    def ended(self, item_id: Any, status: Any, at: float) -> None:
        """The worker is done with a prompt. The messages tell how, not the status' word for it."""
        messages = [message for message in getattr(status, "messages", None) or [] if len(message) == 2]
        prompt = self._leave(item_id, messages)
        outcome, told = _outcome(status, messages, bool(prompt.open))
        for node in list(prompt.open.values()):
            how = "run" if outcome == "ok" else "interrupted"
            if outcome == "error" and str(told.get("node_id")) in (node.real_node, node.node_id):
                how = "error"
            self._node_row(prompt, node, how, at if outcome != "ok" else None, at)
        prompt.open.clear()
        self._cached_unseen(prompt, messages, at)
        failure: dict[str, Any] = {}
        if outcome == "error":
            failure = {
                "level": "error",
                "error": long_text(told.get("exception_message") or "unknown"),
                "exception_type": _text_or_none(told.get("exception_type")),
                "node": _text_or_none(told.get("node_id")),
                "class_type": _text_or_none(told.get("node_type")),
            }
        self._emit(
            "prompt.ended",
            at=at,
            prompt_id=prompt.prompt_id,
            status=outcome,
            start_mono_s=prompt.started,
            duration_ms=None if prompt.started is None else _ms(at - prompt.started),
            nodes_run=prompt.run,
            nodes_cached=prompt.cached,
            vram_peak_bytes=prompt.peak,
            **failure,
        )

    def node_started(self, graph: Any, prompt_id: Any, node_id: Any) -> None:
        """A node begins; one that waited for lazy inputs begins again, which is the same node."""
        at = self._clock()
        prompt = self._prompt(prompt_id, graph)
        if node_id in prompt.open:
            return
        if prompt.open:  # nodes that overlap: what they reached is kept before the peak counts anew
            self._note_peak(prompt)
        prompt.seen.add(node_id)
        prompt.open[node_id] = self._node(graph, node_id, at)
        self._vram.reset_peak()

    def node_finished(self, graph: Any, prompt_id: Any, node_id: Any) -> None:
        """A node is done; one that never began was served from the cache."""
        at = self._clock()
        prompt = self._prompt(prompt_id, graph)
        node = prompt.open.get(node_id)
        if node is not None:
            self._node_row(prompt, node, "run", at, at)
            del prompt.open[node_id]
        elif node_id not in prompt.seen:
            prompt.seen.add(node_id)
            self._cached_row(prompt, self._node(graph, node_id, at), at)

    def model_before(self, loaded: Any) -> tuple[float, int | None]:
        """When a model begins to be moved, and how many bytes of it are on the device."""
        return self._clock(), _loaded_bytes(loaded)

    def model_after(self, action: str, loaded: Any, before: tuple[float, int | None]) -> None:
        """A model was moved. Bytes: what is on the device after a load, what left it in an unload."""
        at = self._clock()
        began, held = before
        now = _loaded_bytes(loaded)
        size = now if action == "loaded" else None if held is None or now is None else max(0, held - now)
        prompt = self._current if threading.get_ident() == self._worker else None
        node = next(reversed(prompt.open.values()), None) if prompt is not None else None
        model = getattr(getattr(loaded, "model", None), "model", None)
        self._emit(
            "model",
            at=at,
            action=action,
            model=text(type(model).__name__) if model is not None else "unknown",
            bytes=size,
            duration_ms=_ms(at - began),
            device=_text_or_none(getattr(loaded, "device", None)),
            prompt_id=None if prompt is None else prompt.prompt_id,
            node=None if node is None else node.node_id,
        )

    def _prompt(self, prompt_id: Any, graph: Any) -> Prompt:
        prompt = self._by_id.get(prompt_id)
        if prompt is None:  # nobody told that it started
            prompt = self._by_id[prompt_id] = Prompt(text(prompt_id), None, getattr(graph, "original_prompt", None))
            _keep_newest(self._by_id)
        return prompt

    def _leave(self, item_id: Any, messages: list[Any]) -> Prompt:
        """The prompt that ends, no longer among those that run."""
        prompt = self._running.pop(item_id, None)
        key: Any = next((data["prompt_id"] for _, data in messages if "prompt_id" in data), None)
        if prompt is None:
            prompt = self._by_id.get(key) or Prompt("unknown" if key is None else text(key), None, None)
        for known in [known for known, other in self._by_id.items() if other is prompt]:
            del self._by_id[known]
        if self._current is prompt:
            self._current = None
        return prompt

    def _node(self, graph: Any, node_id: Any, at: float) -> Node:
        display = text(graph.get_display_node_id(node_id))
        node = text(node_id)
        return Node(
            node,
            _class_of(graph.get_node(node_id)),
            display if display != node else None,
            text(graph.get_real_node_id(node_id)),
            at,
        )

    def _node_row(self, prompt: Prompt, node: Node, status: str, ended: float | None, at: float) -> None:
        """Tell of a node that had started; `ended` None: when is not known."""
        allocated = self._note_peak(prompt)
        prompt.run += 1
        duration_ms = None if ended is None else _ms(ended - node.started)
        self._emit_node(prompt, node, at, status, start_mono_s=node.started, duration_ms=duration_ms, vram=allocated)

    def _cached_row(self, prompt: Prompt, node: Node, at: float) -> None:
        prompt.cached += 1
        self._emit_node(prompt, node, at, "cached", start_mono_s=None, duration_ms=None, vram=None)

    def _emit_node(self, prompt: Prompt, node: Node, at: float, status: str, *, vram: int | None, **times: Any) -> None:
        self._emit(
            "node",
            at=at,
            prompt_id=prompt.prompt_id,
            node=node.node_id,
            class_type=node.class_type,
            status=status,
            **times,
            vram_allocated_bytes=vram,
            vram_peak_bytes=node.peak,
            **({} if node.display_node is None else {"display_node": node.display_node}),
        )

    def _cached_unseen(self, prompt: Prompt, messages: list[Any], at: float) -> None:
        """Cached nodes that nobody asked for, as what needs them was cached too: only a message tells of these."""
        told = next((data.get("nodes") for name, data in messages if name == "execution_cached"), None)
        for node_id in told or []:
            if node_id not in prompt.seen:
                prompt.seen.add(node_id)
                held = prompt.graph.get(node_id) if isinstance(prompt.graph, dict) else None
                self._cached_row(prompt, Node(text(node_id), _class_of(held), None, text(node_id), at), at)

    def _note_peak(self, prompt: Prompt) -> int | None:
        """Give the peak until now to every open node, and to the prompt; what is allocated now."""
        read = self._vram.read()
        if read is None:
            return None
        allocated, peak = read
        for node in prompt.open.values():
            node.peak = max(peak, node.peak or 0)
        prompt.peak = max(peak, prompt.peak or 0)
        return allocated


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 4)


def _attempt(extra: Any) -> dict[str, Any]:
    """Which attempt of the sender this is, as far as it said so in a shape we know."""
    said = extra.get("comfyload") if isinstance(extra, dict) else None
    if not isinstance(said, dict):
        return {}
    found: dict[str, Any] = {}
    attempt, retry_of = said.get("attempt"), said.get("retry_of")
    if isinstance(attempt, int) and not isinstance(attempt, bool) and 0 <= attempt < 2**53:
        found["attempt"] = attempt
    if isinstance(retry_of, str) and retry_of:
        found["retry_of"] = text(retry_of)
    return found


def _outcome(status: Any, messages: list[Any], left_open: bool) -> tuple[str, dict[str, Any]]:
    """How a prompt ended, and what ComfyUI said of it."""
    for name, data in reversed(messages):
        if name == "execution_interrupted":
            return "interrupted", data
        if name == "execution_error":
            return "error", data
    failed = getattr(status, "status_str", None) == "error" or (status is None and left_open)
    return ("error" if failed else "ok"), {}


def _class_of(node: Any) -> str | None:
    return _text_or_none(node.get("class_type")) if isinstance(node, dict) else None


def _text_or_none(value: Any) -> str | None:
    return None if value is None else text(value)


def _loaded_bytes(loaded: Any) -> int | None:
    model = getattr(loaded, "model", None)
    size = getattr(model, "loaded_size", None)
    return int(size()) if callable(size) else None


def _keep_newest(prompts: dict[Any, Prompt]) -> None:
    """A worker that died leaves its prompt behind; more than a few of these are not kept."""
    while len(prompts) > RUNNING_LIMIT:
        prompts.pop(next(iter(prompts)), None)
