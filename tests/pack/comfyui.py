"""A stand-in for a ComfyUI, as far as the probe touches one: its modules, its queue, and a worker that the test steps.

A node does what its class says: Run, Cached, Hidden (cached, and nobody asks for it), Fail, Interrupt, Twice (starts
again after waiting for lazy inputs), Expand (into a Fail or Run inside), Overlap (async with the next), Load (a model).
"""

from __future__ import annotations

import heapq
import json
import sys
import threading
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import jsonschema
import pytest

import comfyload_probe
from comfyload_probe.probe import Probe
from comfyload_probe.settings import Settings

Graph = dict[str, dict[str, Any]]
Row = dict[str, Any]

RENAMED = "_under_another_name"


class Interrupted(Exception):
    pass


class Status(NamedTuple):
    status_str: str
    completed: bool
    messages: list[Any]


class ComfyUI:
    """`lacking`: what this version does not have, as "PromptQueue.put" or "comfy_execution.progress"."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, user_dir: Path, lacking: Collection[str] = ()) -> None:
        self._names = {
            name: name + RENAMED if f"PromptQueue.{name}" in lacking else name
            for name in ("put", "get", "task_done", "wipe_queue", "delete_queue_item")
        }
        self.queue = _queue_class(self._names)()
        self.progress = _progress_module(lacking)
        self.models = _models_module(lacking)
        self.server = SimpleNamespace(prompt_queue=self.queue, routes=Routes())
        self.ran: list[str] = []
        self.between: Callable[[], None] = lambda: None
        self._number = 0
        modules = {
            "server": SimpleNamespace(PromptServer=SimpleNamespace(instance=self.server)),
            "execution": SimpleNamespace(PromptQueue=type(self.queue)),
            "comfy_execution.progress": self.progress,
            "comfy.model_management": self.models,
            "folder_paths": SimpleNamespace(get_user_directory=lambda: str(user_dir)),
            "comfyui_version": SimpleNamespace(__version__="0.33.0"),
        }
        for name, module in modules.items():
            if name in lacking:
                monkeypatch.delitem(sys.modules, name, raising=False)
            else:
                monkeypatch.setitem(sys.modules, name, module)

    def post(self, graph: Graph, prompt_id: str | None = None, extra: dict[str, Any] | None = None) -> str:
        """Put it into the queue."""
        prompt_id = prompt_id or f"prompt-{self._number}"
        self._call("put", (self._number, prompt_id, graph, extra or {}, list(graph)))
        self._number += 1
        return prompt_id

    def delete(self, prompt_id: str) -> bool:
        return bool(self._call("delete_queue_item", lambda item: item[1] == prompt_id))

    def clear(self) -> None:
        self._call("wipe_queue")

    def work(self) -> list[Status]:
        """Run everything that waits, as the worker does."""
        done = []
        while (got := self._call("get", timeout=0)) is not None:
            item, item_id = got
            status = self._execute(item)
            self._call("task_done", item_id, {}, status=status)
            self.ran.append(item[1])
            done.append(status)
        return done

    def run(self, *classes: str, prompt_id: str | None = None, extra: dict[str, Any] | None = None) -> Status:
        """Post a chain of nodes of these classes, and run it."""
        self.post(chain(*classes), prompt_id, extra)
        return self.work()[-1]

    def model(self, size: int) -> Any:
        """A model that can be put on a device."""
        return self.models.LoadedModel(_Patcher(size))

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.queue, self._names[name])(*args, **kwargs)

    def _execute(self, item: Any) -> Status:
        _, prompt_id, graph, _, _ = item
        said = {"prompt_id": prompt_id}
        cached = [node for node, held in graph.items() if held["class_type"] in ("Cached", "Hidden")]
        messages: list[Any] = [["execution_start", said], ["execution_cached", {**said, "nodes": cached}]]
        state = self.progress.new_state(prompt_id, Dynamic(graph))
        try:
            late: list[str] = []
            for node in graph:
                self.between()
                self._node(state, node, late)
        except Interrupted:
            messages.append(["execution_interrupted", {**said, "node_id": node, "node_type": "Interrupt"}])
        except RuntimeError as error:
            where = {"node_id": node, "node_type": graph[node]["class_type"], "exception_type": "RuntimeError"}
            messages.append(["execution_error", {**said, **where, "exception_message": f"{error}\n"}])
        else:
            messages.append(["execution_success", said])
        well = messages[-1][0] == "execution_success"
        return Status("success" if well else "error", well, messages)

    def _node(self, state: Any, node: str, late: list[str]) -> None:
        kind = state.dynprompt.get_node(node)["class_type"]
        if kind == "Hidden":
            return
        if kind != "Cached":
            state.start_progress(node)
        if kind == "Overlap":
            late.append(node)
            return
        if kind == "Interrupt":
            raise Interrupted
        if kind == "Fail":
            raise RuntimeError("it cannot be done" + 1000 * "!")
        if kind == "Twice":
            state.start_progress(node)
        if kind in ("Expand", "ExpandFail"):
            inner = f"{node}.0.0.1"
            state.dynprompt.inside[inner] = (node, {"class_type": "Fail" if kind == "ExpandFail" else "Run"})
            self._node(state, inner, late)
        if kind == "Load":
            model = self.model(1000)
            model.model_load()
            model.model_unload(400)
        state.finish_progress(node)
        while late:
            state.finish_progress(late.pop())


def chain(*classes: str) -> Graph:
    """A graph of nodes "1", "2", … in the order in which they run."""
    return {str(place): {"class_type": kind, "inputs": {}} for place, kind in enumerate(classes, 1)}


class Rig:
    """A stand-in with a probe on it; `rows` checks each row against the schema."""

    def __init__(self, comfyui: ComfyUI, probe: Probe) -> None:
        self.comfyui, self.probe = comfyui, probe

    def rows(self, event: str | None = None, *, readings: bool = False) -> list[Row]:
        """What was recorded until now."""
        assert self.probe.journal.flush()
        rows = [json.loads(line) for line in self.probe.journal.rows(0, 10**6)[0]]
        for row in rows:
            assert_valid(row)
        if event is not None:
            return [row for row in rows if row["event"] == event]
        return rows if readings else [row for row in rows if row["event"] not in ("probe.started", "sample")]


def probe_on(comfyui: ComfyUI, log: Path | None, **changes: Any) -> Probe:
    """A probe that is not started, without readings unless they are asked for."""
    environ = {"COMFYLOAD_PROBE_SAMPLE_HZ": "0"}
    settings = Settings.from_environ(environ | changes.pop("environ", {}), None)
    fields = {name: getattr(settings, name) for name in Settings.__dataclass_fields__}
    return Probe(Settings(**fields | {"log": log}), comfyui.server, **changes)


def valid(row: Row) -> bool:
    return bool(_validator().is_valid(row))


def assert_valid(row: Row) -> None:
    _validator().validate(row)


@cache
def _validator() -> Any:
    schema = json.loads((Path(comfyload_probe.__file__).parent / "schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class Routes:
    """The table of routes: what aiohttp would be given."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def get(self, path: str) -> Callable[[Any], Any]:
        def keep(handler: Any) -> Any:
            self.handlers[path] = handler
            return handler

        return keep


class Dynamic:
    """A graph that may grow while it runs; `inside`: nodes that others made, with their makers."""

    def __init__(self, original_prompt: Graph) -> None:
        self.original_prompt = original_prompt
        self.inside: dict[str, tuple[str, dict[str, Any]]] = {}

    def get_node(self, node_id: str) -> dict[str, Any]:
        return self.inside[node_id][1] if node_id in self.inside else self.original_prompt[node_id]

    def get_display_node_id(self, node_id: str) -> str:
        return self.inside[node_id][0] if node_id in self.inside else node_id

    def get_real_node_id(self, node_id: str) -> str:
        return self.get_display_node_id(node_id)


def _queue_class(names: dict[str, str]) -> Any:
    def init(self: Any) -> None:
        self.mutex = threading.RLock()
        self.queue = []
        self.currently_running = {}
        self.counter = 0

    def put(self: Any, item: Any) -> None:
        with self.mutex:
            heapq.heappush(self.queue, item)

    def get(self: Any, timeout: float | None = None) -> Any:
        with self.mutex:
            if not self.queue:
                return None
            self.counter += 1
            item = heapq.heappop(self.queue)
            self.currently_running[self.counter] = item
            return item, self.counter

    def task_done(self: Any, item_id: int, history_result: Any, status: Any, process_item: Any = None) -> None:
        with self.mutex:
            del self.currently_running[item_id]

    def wipe_queue(self: Any) -> None:
        with self.mutex:
            self.queue = []

    def delete_queue_item(self: Any, function: Callable[[Any], bool]) -> bool:
        with self.mutex:
            for item in self.queue:
                if function(item):
                    self.queue.remove(item)
                    heapq.heapify(self.queue)
                    return True
        return False

    methods = {"put": put, "get": get, "task_done": task_done, "wipe_queue": wipe_queue}
    methods["delete_queue_item"] = delete_queue_item
    return type("PromptQueue", (), {"__init__": init} | {names[name]: method for name, method in methods.items()})


def _progress_module(lacking: Collection[str]) -> Any:
    module: Any = ModuleType("comfy_execution.progress")

    class ProgressHandler:
        def __init__(self, name: str) -> None:
            self.name, self.enabled = name, True

        def start_handler(self, node_id: str, state: Any, prompt_id: str) -> None:
            pass

        def finish_handler(self, node_id: str, state: Any, prompt_id: str) -> None:
            pass

        def reset(self) -> None:
            pass

    class ProgressRegistry:
        def __init__(self, prompt_id: str, dynprompt: Dynamic) -> None:
            self.prompt_id, self.dynprompt = prompt_id, dynprompt
            self.handlers: dict[str, Any] = {}

        def register_handler(self, handler: Any) -> None:
            self.handlers[handler.name] = handler

        def start_progress(self, node_id: str) -> None:
            for handler in self.handlers.values():
                if handler.enabled:
                    handler.start_handler(node_id, {}, self.prompt_id)

        def finish_progress(self, node_id: str) -> None:
            for handler in self.handlers.values():
                if handler.enabled:
                    handler.finish_handler(node_id, {}, self.prompt_id)

    if "ProgressRegistry.register_handler" in lacking:
        del ProgressRegistry.register_handler
    module.new_state = lambda prompt_id, graph: ProgressRegistry(prompt_id, graph)
    if "ProgressHandler" not in lacking:
        module.ProgressHandler = ProgressHandler
    if "ProgressRegistry" not in lacking:
        module.ProgressRegistry = ProgressRegistry
    return module


def _models_module(lacking: Collection[str]) -> Any:
    module: Any = ModuleType("comfy.model_management")

    class LoadedModel:
        def __init__(self, model: Any) -> None:
            self.model, self.device = model, "cuda:0"

        def model_load(self, lowvram_model_memory: int = 0, force_patch_weights: bool = False) -> Any:
            self.model.loaded = self.model.size
            return self.model.model

        def model_unload(self, memory_to_free: int | None = None, unpatch_weights: bool = True) -> bool:
            self.model.loaded = 0 if memory_to_free is None else max(0, self.model.loaded - memory_to_free)
            return bool(self.model.loaded == 0)

    module.LoadedModel = LoadedModel
    for name in ("model_load", "model_unload"):
        if f"LoadedModel.{name}" in lacking:
            setattr(LoadedModel, name + RENAMED, vars(LoadedModel)[name])
            delattr(LoadedModel, name)
            setattr(LoadedModel, "__getattr__", lambda self, attribute: getattr(self, attribute + RENAMED))  # noqa: B010
    module.get_torch_device = lambda: SimpleNamespace(type="cuda")
    return module


class _Patcher:
    def __init__(self, size: int) -> None:
        self.model, self.size, self.loaded = type("BaseModel", (), {})(), size, 0

    def loaded_size(self) -> int:
        return self.loaded
