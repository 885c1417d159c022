"""Where the probe listens in a ComfyUI, and puts everything back as it was.

Public interfaces are a progress handler and the table of routes. Where ComfyUI has none, methods of the one queue, of
ProgressRegistry (each prompt makes a new one) and of LoadedModel are wrapped: the wrapper does what the method did, and
tells the listener before or after it.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

__all__ = ["HANDLER_NAME", "Hooks", "Listener"]

HANDLER_NAME = "comfyload_probe"
ON = "on"

Method = Callable[..., Any]
Undo = Callable[[], None]

_log = logging.getLogger("comfyload_probe")


class Listener(Protocol):
    """Whoever is told. `guard` calls one of the others and keeps to itself what goes wrong in it."""

    def guard(self, hook: str, function: Method, *args: Any) -> Any: ...

    def now(self) -> float: ...

    def queued(self, item: Any, depth: int, at: float) -> None: ...

    def deleted(self, items: list[Any]) -> None: ...

    def started(self, item: Any, item_id: Any, waiting: int, at: float) -> None: ...

    def ended(self, item_id: Any, status: Any, at: float) -> None: ...

    def node_started(self, graph: Any, prompt_id: Any, node_id: Any) -> None: ...

    def node_finished(self, graph: Any, prompt_id: Any, node_id: Any) -> None: ...

    def model_before(self, loaded: Any) -> Any: ...

    def model_after(self, action: str, loaded: Any, before: Any) -> None: ...


class _Missing(Exception):
    """This ComfyUI has no such place."""


class Hooks:
    """What is attached. `states`: "on" or why not, by hook; `missing`: which data are therefore unavailable."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._undos: list[Undo] = []
        self.states: dict[str, str] = {}
        self.missing: list[str] = []

    def attach(self, server: Any) -> None:
        """Listen wherever this ComfyUI lets us."""
        for name, attach, lost in _HOOKS:
            try:
                self._undos += attach(self._listener, server)
                self.states[name] = ON
            except Exception as error:  # noqa: BLE001 - each hook is for itself: a ComfyUI may lack any of them
                why = str(error) if isinstance(error, _Missing) else f"{type(error).__name__}: {error}"
                self.lack(name, why, lost)

    def lack(self, name: str, why: str, lost: str) -> None:
        """Say that something is not there."""
        self.states[name] = why[:200]
        self.missing.append(f"{lost}: {why[:200]}")

    def detach(self) -> None:
        """Put back what was there; a method that somebody else wrapped after us keeps ours inside, which passes on."""
        while self._undos:
            try:
                self._undos.pop()()
            except Exception:  # noqa: BLE001
                _log.exception("a hook could not be taken off")


def _attach_put(listener: Listener, server: Any) -> list[Undo]:
    queue = _part(server, "prompt_queue")

    def put(original: Method, *args: Any, **kwargs: Any) -> Any:
        at = listener.guard("queue.put", listener.now)
        # The queue's own lock, which may be taken twice: nobody gets the prompt before it is known as queued.
        with _mutex(queue):
            result = original(*args, **kwargs)
            if at is not None:
                listener.guard("queue.put", queued, args, kwargs, at)
        return result

    def queued(args: Any, kwargs: Any, at: float) -> None:
        listener.queued(_argument(args, kwargs, 0, "item"), max(0, _depth(queue) - 1), at)

    return _replace(queue, put=put)


def _attach_get(listener: Listener, server: Any) -> list[Undo]:
    queue = _part(server, "prompt_queue")

    def get(original: Method, *args: Any, **kwargs: Any) -> Any:
        got = original(*args, **kwargs)
        if got is not None:
            listener.guard("queue.get", started, got)
        return got

    def started(got: Any) -> None:
        item, item_id = got
        listener.started(item, item_id, len(queue.queue), listener.now())

    return _replace(queue, get=get)


def _attach_done(listener: Listener, server: Any) -> list[Undo]:
    queue = _part(server, "prompt_queue")

    def task_done(original: Method, *args: Any, **kwargs: Any) -> Any:
        listener.guard("queue.task_done", ended, args, kwargs)
        return original(*args, **kwargs)

    def ended(args: Any, kwargs: Any) -> None:
        at = listener.now()
        listener.ended(_argument(args, kwargs, 0, "item_id"), _argument(args, kwargs, 2, "status"), at)

    return _replace(queue, task_done=task_done)


def _attach_delete(listener: Listener, server: Any) -> list[Undo]:
    queue = _part(server, "prompt_queue")

    def wipe_queue(original: Method, *args: Any, **kwargs: Any) -> Any:
        with _mutex(queue):
            gone = listener.guard("queue.delete", lambda: list(queue.queue))
            result = original(*args, **kwargs)
        if gone:
            listener.guard("queue.delete", listener.deleted, gone)
        return result

    def delete_queue_item(original: Method, function: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Any:
        gone: list[Any] = []

        def watched(item: Any) -> Any:  # the first item it accepts is the one that goes
            hit = function(item)
            if hit:
                gone.append(item)
            return hit

        result = original(watched, *args, **kwargs)
        if gone:
            listener.guard("queue.delete", listener.deleted, gone)
        return result

    return _replace(queue, wipe_queue=wipe_queue, delete_queue_item=delete_queue_item)


def _attach_nodes(listener: Listener, server: Any) -> list[Undo]:
    module = _module("comfy_execution.progress")
    registry_class = _part(module, "ProgressRegistry")
    if not callable(getattr(registry_class, "register_handler", None)):
        raise _Missing("ProgressRegistry takes no handlers")
    handler_class = _handler_class(listener, getattr(module, "ProgressHandler", object))

    def init(original: Method, registry: Any, *args: Any, **kwargs: Any) -> None:
        original(registry, *args, **kwargs)
        listener.guard("progress", register, registry)

    def register(registry: Any) -> None:
        registry.register_handler(handler_class(registry.dynprompt))

    return _replace(registry_class, __init__=init)


def _handler_class(listener: Listener, base: Any) -> Any:
    """A ProgressHandler that tells of nodes; it holds a prompt's graph and lives as long as that prompt's registry."""

    def __init__(self: Any, graph: Any) -> None:  # noqa: N807
        self.name, self.enabled, self.graph = HANDLER_NAME, True, graph

    def start_handler(self: Any, node_id: Any, state: Any, prompt_id: Any) -> None:
        listener.guard("progress", listener.node_started, self.graph, prompt_id, node_id)

    def finish_handler(self: Any, node_id: Any, state: Any, prompt_id: Any) -> None:
        listener.guard("progress", listener.node_finished, self.graph, prompt_id, node_id)

    def nothing(self: Any, *args: Any, **kwargs: Any) -> None:
        pass

    unneeded = dict.fromkeys(("set_registry", "update_handler", "reset", "enable", "disable"), nothing)
    needed = {"__init__": __init__, "start_handler": start_handler, "finish_handler": finish_handler}
    return type("ComfyloadProgress", (base,), unneeded | needed)


def _attach_models(listener: Listener, server: Any) -> list[Undo]:
    loaded_class = _part(_module("comfy.model_management"), "LoadedModel")

    def moved(action: str, original: Method, loaded: Any, *args: Any, **kwargs: Any) -> Any:
        before = listener.guard("models", listener.model_before, loaded)
        result = original(loaded, *args, **kwargs)
        if before is not None:
            listener.guard("models", listener.model_after, action, loaded, before)
        return result

    loads, unloads = functools.partial(moved, "loaded"), functools.partial(moved, "unloaded")
    return _replace(loaded_class, model_load=loads, model_unload=unloads)


_HOOKS: tuple[tuple[str, Callable[[Listener, Any], list[Undo]], str], ...] = (
    ("queue.put", _attach_put, "when prompts are queued and how long they wait (prompt.queued) is unknown"),
    ("queue.get", _attach_get, "when prompts start (prompt.started, duration_ms of prompt.ended) is unknown"),
    ("queue.task_done", _attach_done, "when and how prompts end (prompt.ended), and nodes that fail, are unknown"),
    ("queue.delete", _attach_delete, "that a waiting prompt was deleted is unknown"),
    ("progress", _attach_nodes, "when nodes start and end (node) is unknown; cached ones are told at the prompt's end"),
    ("models", _attach_models, "loads and unloads of models (model) are unknown"),
)


def _replace(owner: Any, **arounds: Method) -> list[Undo]:
    """Put wrappers in the place of methods of a class or of one instance; how to undo it.

    A wrapper gets what it wraps, then the arguments.

    Raises:
        _Missing: there is no such method, and none is replaced.
    """
    for name in arounds:
        if not callable(getattr(owner, name, None)):
            raise _Missing(f"{getattr(owner, '__name__', type(owner).__name__)} has no {name}")
    return [_replace_one(owner, name, around) for name, around in arounds.items()]


def _replace_one(owner: Any, name: str, around: Method) -> Undo:
    original, had, before = getattr(owner, name), name in vars(owner), vars(owner).get(name)

    @functools.wraps(original)
    def ours(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, ours)

    def undo() -> None:
        if vars(owner).get(name) is not ours:
            return
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)

    return undo


def _part(owner: Any, name: str) -> Any:
    part = getattr(owner, name, None)
    if part is None:
        raise _Missing(f"{getattr(owner, '__name__', type(owner).__name__)} has no {name}")
    return part


def _module(name: str) -> Any:
    module = sys.modules.get(name)
    if module is None:
        raise _Missing(f"no module {name}")
    return module


def _mutex(queue: Any) -> Any:
    mutex = getattr(queue, "mutex", None)
    return mutex if mutex is not None and hasattr(mutex, "__exit__") else nullcontext()


def _depth(queue: Any) -> int:
    return len(queue.queue) + len(queue.currently_running)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)
