"""A ComfyUI in process: one worker, one queue, its sockets and its HTTP calls, all on the event loop's time."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.sim.execution import Execution, WorkerDied
from comfyload.sim.faults import Faults, plan
from comfyload.sim.queue import Item
from comfyload.sim.reply import SERVER_ERROR
from comfyload.sim.routes import answer
from comfyload.sim.settings import Settings, Truth
from comfyload.sim.sockets import Socket
from comfyload.sim.state import State


@dataclass(kw_only=True, eq=False)
class Server(Settings):
    """One simulated server, set up as `Settings` say. Use it as an async context manager, or `start()` and `stop()` it.

    Args:
        faults: what goes wrong.

    Attributes:
        truth: what really happened, one per execution, in order.
        posts: how often each prompt id was accepted.
        calls: how often each route was called, as `"GET /history/{id}"`.
        up: whether the process runs; not in the pause of a restart.
        listeners: called with True when the process comes up again and False when it goes down.
    """

    faults: Faults | None = None

    def __post_init__(self) -> None:
        self._faults = self.faults or Faults()
        self._state = State(self)
        self._worker: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # of the next restart, or of the end of this one
        self.up = False
        self._started = self._accepted = self._called = self._failed = 0  # over the whole life
        self.truth: list[Truth] = []
        self.posts: Counter[str] = self._state.posts
        self.calls: Counter[str] = self._state.calls
        self.listeners: list[Callable[[bool], None]] = []

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to work, on the running loop."""
        self._run()
        faults = self._faults
        if faults.restart_at_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(faults.restart_at_s, self.restart, faults.downtime_s)

    async def stop(self) -> None:
        """End the worker and every socket; an error of the simulator itself is raised here."""
        if self._timer is not None:
            self._timer.cancel()
        worker = self._worker
        self._halt()
        if worker is not None:
            await asyncio.wait([worker])
            if not worker.cancelled():
                worker.result()

    async def call(self, request: Request) -> Reply:
        """Answer one HTTP call.

        Raises:
            TransportError: the server is down, or a fault ate the call.
        """
        faults = self._faults
        self._called += 1
        if not self.up or faults.refuse.hits(self._called, self._state.rng):
            raise TransportError("connection refused", sent=False, refused=True)
        if self._worker is not None and self._worker.done() and not self._worker.cancelled():
            self._worker.result()
        path = "/" + request.path.lstrip("/")
        if faults.http_500 and faults.http_500 in path:
            self._failed += 1
            if not faults.http_500_first or self._failed <= faults.http_500_first:
                return SERVER_ERROR
        reply = answer(self._state, request)
        posted = request.method == "POST" and path.partition("?")[0] in ("/prompt", "/api/prompt")
        if posted and reply.status == 200:
            self._on_accept(msgspec.json.decode(reply.body)["prompt_id"])
        await asyncio.sleep(0)  # the worker looks at what was posted before the reply is on its way
        return reply

    def connect(self, client_id: str | None) -> Socket:
        """Open a WebSocket.

        Raises:
            TransportError: the server is down.
        """
        if not self.up:
            raise TransportError("connection refused", sent=False, refused=True)
        state = self._state
        socket = state.sockets.open(client_id)
        first = {"type": "status", "data": {"status": state.status(), "sid": socket.client_id}}
        socket.push(json.dumps(first))
        if state.client_id == socket.client_id and state.last_node is not None:
            socket.push(json.dumps({"type": "executing", "data": {"node": state.last_node}}))
        return socket

    def foreign(self, graph: dict[str, Any], client_id: str = "somebody-else") -> str:
        """Somebody else submits `graph`; returns its prompt id."""
        body = json.dumps({"prompt": graph, "client_id": client_id}).encode()
        reply = answer(self._state, Request(method="POST", path="prompt", body=body))
        return str(msgspec.json.decode(reply.body)["prompt_id"])

    def restart(self, downtime_s: float = 0.0) -> None:
        """The process dies and comes back: queue, history, counters, cache, models and sockets are gone."""
        self._halt()
        if downtime_s > 0.0:
            self._timer = asyncio.get_running_loop().call_later(downtime_s, self._come_back)
        else:
            self._come_back()

    def drop_sockets(self) -> None:
        """Cut every WebSocket, as a proxy's restart does."""
        self._state.sockets.cut()

    def stall_events(self, on: bool) -> None:
        """Send nothing to anybody while on; then all of it."""
        self._state.sockets.stall(on)

    def kill_worker(self) -> None:
        """Nothing runs any more; posts are still accepted."""
        if self._worker is not None:
            self._worker.cancel()
            self._lose_running()

    def lose(self, prompt_id: str) -> bool:
        """Forget a waiting prompt without a word; False if it does not wait."""
        return self._state.queue.lose(prompt_id)

    def _run(self) -> None:
        self.up = True
        self._worker = asyncio.get_running_loop().create_task(self._work(self._state))

    def _halt(self) -> None:
        self.up = False
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None
        self._lose_running()
        self._state.sockets.cut()
        for listener in self.listeners:
            listener(False)

    def _come_back(self) -> None:
        self._timer = None
        self._state.boot()
        self._run()
        for listener in self.listeners:
            listener(True)

    def _lose_running(self) -> None:
        if self.truth and not self.truth[-1].outcome:
            self.truth[-1].outcome = "died"

    def _on_accept(self, prompt_id: str) -> None:
        """The faults between accepting a prompt and the reply."""
        self._accepted += 1
        rng = self._state.rng
        if self._faults.lost_queue.hits(self._accepted, rng):
            self._state.queue.lose(prompt_id)
        if self._faults.drop_reply.hits(self._accepted, rng):
            raise TransportError("connection closed before the reply", sent=True)

    async def _work(self, state: State) -> None:
        while True:
            item = await state.queue.get()
            if item is not None:
                try:
                    await self._execute(state, item)
                except WorkerDied:
                    self._lose_running()
                    return
            state.handle_flags()

    async def _execute(self, state: State, item: Item) -> None:
        self._started += 1
        clock = state.clock
        struck = plan(self._faults, self._started, state.rng)
        # Always a pause, so that a queue of cached prompts does not keep everybody else from running.
        await asyncio.sleep(self.overhead_s / self.speed)
        truth = Truth(
            prompt_id=item.prompt_id,
            number=item.number,
            client_id=item.client_id,
            created=item.created,
            started=clock.now(),
        )
        self.truth.append(truth)
        if state.probe is not None:
            state.probe.started(item, truth)
        if struck.stall_events:
            self.stall_events(True)
            if not math.isinf(self._faults.stalled_s):
                asyncio.get_running_loop().call_later(self._faults.stalled_s, self.stall_events, False)
        entry = await Execution(state, item, self._faults, struck, truth, self.restart).run()
        lag = self.race_s / self.speed * state.rng.random() if state.rng.random() < 0.5 else 0.0
        if lag:
            await asyncio.sleep(lag)
        if state.probe is not None:
            state.probe.ended(item, truth, entry["status"]["messages"])
        truth.finished = clock.now()
        state.say(f"Prompt executed in {truth.finished - truth.started:.2f} seconds")
        truth.posts = self.posts[item.prompt_id]
        state.queue.done(item, entry, truth.finished + self._faults.no_history_s)
        if item.client_id is not None:
            data = {"node": None, "prompt_id": item.prompt_id}
            state.sockets.send(json.dumps({"type": "executing", "data": data}), item.client_id)
