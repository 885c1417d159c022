"""One prompt's execution: its events, their order and receivers, and its history entry."""

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import msgspec

from comfyload.sim.cache import Result, signatures
from comfyload.sim.catalog import CLASSES
from comfyload.sim.events import ODD_FRAMES, preview_frame
from comfyload.sim.faults import Faults, Plan
from comfyload.sim.files import SaveRefused
from comfyload.sim.frames import READS_FILE, UNKNOWN, Frame, frame_of, misfit, number, source_of
from comfyload.sim.order import CycleFound, NoSuchSource, run_order
from comfyload.sim.queue import Entry, Item
from comfyload.sim.reply import traceback
from comfyload.sim.settings import Truth
from comfyload.sim.state import State
from comfyload.sim.timing import SAMPLERS
from comfyload.sim.validation import unfit_arguments
from comfyload.workflow.graph import is_link

PREVIEWS = ("auto", "latent2rgb", "taesd")
OOM_TIPS = (
    "This error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."
)


class WorkerDied(Exception):
    """Something outside a node's own code failed: the worker ends, the prompt stays running for ever."""


class _Interrupted(Exception):
    pass


class _NodeFailed(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Execution:
    """Runs one prompt. Afterwards `truth` is complete but for `finished`.

    `restart`: ends the server, this execution with it, for so many seconds.
    """

    def __init__(
        self, state: State, item: Item, faults: Faults, plan: Plan, truth: Truth, restart: Callable[[float], None]
    ) -> None:
        self._state = state
        self._item = item
        self._faults = faults
        self._plan = plan
        self._truth = truth
        self._restart = restart
        self._id = {"prompt_id": item.prompt_id}
        self._events = 0
        self._messages: list[list[Any]] = []
        self._progress: dict[str, Entry] = {}
        self._outputs: Entry = {}
        self._keys: dict[str, bytes] = {}  # in the cache, of each node
        self._frames: dict[str, Frame] = {}  # what the nodes made, as far as known
        self._first = True  # no node ran yet
        self._last_step = -math.inf  # loop time of the last step that was sent
        self._samples = any(node.get("class_type") in SAMPLERS for node in item.graph.values())
        method = item.extra_data.get("preview_method", "default")
        self._previews = method in PREVIEWS or (method != "none" and state.settings.previews)

    async def run(self) -> Entry:
        """The history entry.

        Raises:
            WorkerDied: nothing runs after this prompt.
        """
        state, truth = self._state, self._truth
        state.client_id = self._item.client_id
        state.interrupted = False
        self._mark("execution_start", {})
        try:
            keys = signatures(self._item.graph, self._changed)
        except KeyError as error:
            raise WorkerDied(str(error)) from error
        if self._plan.dead_worker:
            raise WorkerDied(self._item.prompt_id)
        state.cache.begin(keys.values())
        truth.cached = [node_id for node_id in self._item.graph if state.cache.get(keys[node_id])]
        self._mark("execution_cached", {"nodes": truth.cached})
        self._keys = keys
        self._frames = {node_id: found.frame for node_id, key in keys.items() if (found := state.cache.get(key))}
        success = await self._nodes(keys)
        truth.ended = state.clock.now()
        state.last_node = None
        meta = {
            node_id: {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
            for node_id in self._outputs
        }
        status = {"status_str": "success" if success else "error", "completed": success, "messages": self._messages}
        return {"prompt": self._item.row(), "outputs": self._outputs, "status": status, "meta": meta}

    async def _nodes(self, keys: dict[str, bytes]) -> bool:
        """Run the nodes that must run; whether the history calls it a success."""
        graph, cache, truth = self._item.graph, self._state.cache, self._truth
        node_id = ""

        def held(node: str) -> bool:
            return cache.get(keys[node]) is not None

        try:
            for node_id in run_order(graph, self._item.outputs, held, follows_slots=self._state.settings.since(0, 29)):
                found = cache.get(keys[node_id])
                if found is None:
                    cache.put(keys[node_id], await self._node(node_id))
                    self._finish(node_id)
                    truth.executed.append(node_id)
                else:
                    self._executed(node_id, found.ui)
                    self._finish(node_id)
        except NoSuchSource as error:
            raise WorkerDied(str(error)) from error
        except CycleFound as error:
            self._fail(error.node_id, _NodeFailed("graph.DependencyCycleError", str(error)))
            return True  # a real server reports the error, and calls it a success in its history
        except _Interrupted:
            truth.outcome = "interrupted"
            self._mark("execution_interrupted", self._where(node_id), everybody=True)
            return False
        except _NodeFailed as error:
            self._fail(node_id, error)
            return self._plan.success_lie
        truth.outcome = "completed"
        self._mark("execution_success", {})
        return True

    async def _node(self, node_id: str) -> Result:
        graph, state = self._item.graph, self._state
        start = state.clock.now()
        if state.probe is not None:
            state.probe.node(graph[node_id]["class_type"])
        self._progress[node_id] = {"value": 0.0, "max": 1.0, "state": "running"} | self._names(node_id)
        self._send_progress()
        if self._item.client_id is not None:
            state.last_node = node_id
            self._send("executing", {"node": node_id, "display_node": node_id} | self._id)
        if state.interrupted:
            raise _Interrupted
        frame = self._frame(node_id)
        cost = state.timing.cost(graph, node_id, frame)
        factor = self._faults.slow_factor if self._plan.slow else 1.0
        first, self._first = self._first, False
        if first:
            await self._strike(node_id)
        await asyncio.sleep(cost.before * factor)
        self._maybe_fail(node_id, frame, first)
        for step in range(1, cost.steps + 1):
            await asyncio.sleep(cost.step * factor)
            if state.interrupted:
                raise _Interrupted
            self._step(node_id, step, cost.steps)
        ui = self._ui(node_id, frame)
        if ui is not None:
            self._executed(node_id, ui)
        self._truth.spans[node_id] = (start, state.clock.now())
        if state.probe is not None:
            state.probe.node(None)
        self._frames[node_id] = frame
        return Result(ui, frame)

    async def _strike(self, node_id: str) -> None:
        """The faults that come while the first node runs."""
        if self._plan.partial:
            blocked = self._failure(node_id, _NodeFailed("ExecutionBlocked", "Execution Blocked: simulated"))
            nothing: Entry = {"traceback": [], "current_inputs": [], "current_outputs": []}
            self._send("execution_error", self._id | self._where(node_id) | blocked | nothing)
        if self._plan.restart:
            asyncio.get_running_loop().call_soon(self._restart, self._faults.downtime_s)
            await asyncio.Event().wait()  # until the process, and this task with it, is gone
        if self._plan.hang:
            if math.isinf(self._faults.hang_s):
                await asyncio.Event().wait()
            await asyncio.sleep(self._faults.hang_s)

    def _maybe_fail(self, node_id: str, frame: Frame, first: bool) -> None:
        node, faults = self._item.graph[node_id], self._faults
        kind = node["class_type"]
        if self._plan.oom and (kind in SAMPLERS or (first and not self._samples)):
            self._state.timing.loaded.clear()
            message = "Allocation on device (simulated)\n" + OOM_TIPS
            raise _NodeFailed("torch.OutOfMemoryError", message)
        if self._plan.success_lie and first:
            raise _NodeFailed("graph.DependencyCycleError", "Dependency cycle detected")
        if self._plan.node_error and (kind == faults.error_class or (first and not faults.error_class)):
            raise _NodeFailed(faults.error_type, faults.error_message + "\n")
        unfit = unfit_arguments(node) or self._misfit(node_id, frame)
        if unfit is not None:
            raise _NodeFailed(*unfit)
        if kind == "SimFail":
            raise _NodeFailed("RuntimeError", f"{node['inputs'].get('message')}\n")

    def _misfit(self, node_id: str, frame: Frame) -> tuple[str, str] | None:
        node, state = self._item.graph[node_id], self._state
        if node["class_type"] not in READS_FILE:
            memory = int(state.settings.host_ram_gib * 2**30)
            return misfit(self._item.graph, node_id, self._frames, frame, memory)
        name = str(node["inputs"].get("image"))
        file = state.files.named(name)
        no_picture = file is not None and file.frame is None
        return ("PIL.UnidentifiedImageError", f"cannot identify image file '{name}'\n") if no_picture else None

    def _step(self, node_id: str, step: int, total: int) -> None:
        """One sampler step, as a progress bar reports it: thinned out unless there is a preview to show."""
        state, now = self._state, self._state.clock.now()
        self._progress[node_id] |= {"value": step, "max": total}
        thinned = not self._previews and state.settings.since(0, 10)
        if thinned and step not in (1, total) and now - self._last_step < 0.1:
            return
        self._last_step = now
        self._send_progress()
        socket = state.sockets.find(self._item.client_id)
        with_metadata = socket is not None and socket.previews_with_metadata
        if self._previews and with_metadata:
            self._emit(preview_frame(self._names(node_id)))
        self._send("progress", {"value": step, "max": total} | self._id | {"node": node_id})
        if self._previews and not with_metadata:
            self._emit(preview_frame(None))

    def _frame(self, node_id: str) -> Frame:
        """What a node makes."""
        node = self._item.graph[node_id]
        if node["class_type"] not in READS_FILE:
            return frame_of(self._item.graph, node_id, self._frames)
        file = self._state.files.named(str(node["inputs"].get("image")))
        return UNKNOWN if file is None or file.frame is None else file.frame

    def _ui(self, node_id: str, frame: Frame) -> Entry | None:
        """The output of an output node; files are written here, other ones for each cache key of what they show."""
        graph, files = self._item.graph, self._state.files
        node = graph[node_id]
        if not CLASSES[node["class_type"]].output:
            return None
        prefix = str(node["inputs"].get("filename_prefix", "ComfyUI"))
        seed = self._keys.get(source_of(graph, node_id) or "", b"")
        texts = (graph, self._item.extra_data.get("extra_pnginfo"))
        try:
            match node["class_type"]:
                case "SaveImage":
                    return {"images": files.save(prefix, frame, seed, texts)}
                case "PreviewImage":
                    return {"images": files.preview(frame, seed, texts)}
                case "SaveLatent":
                    return {"latents": files.save(prefix, frame, seed, texts, ".latent")}
                case "Preview3D":
                    return {"result": [node["inputs"].get("model_file"), None, None]}
                case "PreviewAny":
                    source = node["inputs"].get("source")
                    text = str(int(number(graph, source, 0.0))) if is_link(source) else str(source)
                    return {"text": [text]}
        except SaveRefused as error:
            raise _NodeFailed(error.kind, str(error)) from error
        return None

    def _changed(self, node: Entry) -> str:
        """The content of a file that a node reads, which decides with its inputs whether its result can be reused."""
        if node["class_type"] not in READS_FILE:
            return ""
        file = self._state.files.named(str(node["inputs"].get("image")))
        return "" if file is None else file.seed.hex()

    def _where(self, node_id: str) -> Entry:
        kind = self._item.graph[node_id]["class_type"]
        return {"node_id": node_id, "node_type": kind, "executed": list(self._truth.executed)}

    def _fail(self, node_id: str, error: _NodeFailed) -> None:
        self._truth.outcome = "failed"
        self._mark("execution_error", self._where(node_id) | self._failure(node_id, error))

    def _failure(self, node_id: str, error: _NodeFailed) -> Entry:
        graph = self._item.graph
        given = graph[node_id]["inputs"].items()
        inputs: Entry = {name: ["tensor([[[[0., 0., 0.]]]])" if is_link(value) else value] for name, value in given}
        if self._faults.nan_in_error:
            inputs["sigma"] = [math.nan]
        return {
            "exception_message": str(error),
            "exception_type": error.kind,
            "traceback": traceback(
                ("execution.py", 545, "execute"), ("nodes.py", 1760, graph[node_id]["class_type"].lower())
            ),
            "current_inputs": inputs,
            "current_outputs": [] if self._state.settings.cache == "none" else list(graph),
        }

    def _names(self, node_id: str) -> Entry:
        return {
            "node_id": node_id,
            **self._id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }

    def _finish(self, node_id: str) -> None:
        entry = self._progress.setdefault(node_id, {"value": 1, "max": 1} | self._names(node_id))
        entry["value"], entry["state"] = entry["max"], "finished"
        self._send_progress()

    def _executed(self, node_id: str, ui: Entry | None) -> None:
        if ui is not None:
            self._outputs[node_id] = ui
        if self._item.client_id is not None:
            self._send("executed", {"node": node_id, "display_node": node_id, "output": ui} | self._id)

    def _send_progress(self) -> None:
        if self._state.settings.since(0, 3, 45):
            self._send("progress_state", self._id | {"nodes": self._progress})

    def _mark(self, kind: str, data: Entry, everybody: bool = False) -> None:
        """A message with a time stamp: the history keeps it, and the owner gets it; `everybody`: all get it without an
        owner.
        """
        data = {**self._id, **data, "timestamp": self._state.clock.stamp()}
        if kind == "execution_cached":
            data = {"nodes": data.pop("nodes")} | data
        self._messages.append([kind, data])
        if everybody or self._item.client_id is not None:
            self._send(kind, data)

    def _send(self, kind: str, data: Entry) -> None:
        message = {"type": kind, "data": data}
        # Only Python's own encoder writes the bare NaN that a real server sends with some errors.
        plain = kind != "execution_error"
        self._emit(msgspec.json.encode(message).decode() if plain else json.dumps(message))

    def _emit(self, sent: str | bytes) -> None:
        """Send to the owner, or to everybody if the prompt has none; the faults of the event stream act here."""
        self._events += 1
        sockets, owner = self._state.sockets, self._item.client_id
        for _ in range(2 if self._faults.duplicate_events else 1):
            sockets.send(sent, owner)
        if self._faults.unknown_events:
            sockets.send(ODD_FRAMES[self._events % len(ODD_FRAMES)], None)
        if self._plan.drop_socket and self._events == self._faults.drop_socket_event:
            sockets.cut()
