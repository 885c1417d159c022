"""The prompts that wait, run and are remembered: a server's queue and history."""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_HISTORY = 10_000

Entry = dict[str, Any]


@dataclass(slots=True, eq=False)
class Item:
    """One queued prompt; `created` in loop time.

    Not orderable, on purpose: two items with the same number and id make the heap raise, as the dicts in a real
    queue do.
    """

    number: float
    prompt_id: str
    graph: Entry
    extra_data: Entry
    outputs: list[str]
    created: float

    @property
    def client_id(self) -> str | None:
        owner = self.extra_data.get("client_id")
        return None if owner is None else str(owner)

    def row(self) -> list[Any]:
        """As `/queue` and history show it."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]


class Queue:
    """An unbounded heap by (number, prompt_id), the running prompt, and the last prompts that ended.

    `changed` is called wherever a real server sends `status`.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._heap: list[tuple[float, str, Item]] = []
        self._wake = asyncio.Event()
        self._history: dict[str, tuple[float, Entry]] = {}
        self.running: Item | None = None

    @property
    def remaining(self) -> int:
        return len(self._heap) + (self.running is not None)

    @property
    def pending(self) -> list[Item]:
        """In the order of the heap's array, which is not the order they will run in."""
        return [item for _, _, item in self._heap]

    def put(self, item: Item) -> None:
        """Raises TypeError for an item whose number and id wait already; it stays queued, as on a real server."""
        heapq.heappush(self._heap, (item.number, item.prompt_id, item))
        self._changed()
        self._wake.set()

    async def get(self) -> Item | None:
        """The next prompt, which is running from here on; None when woken for something else."""
        if not self._heap:
            self._wake.clear()
            await self._wake.wait()
        if not self._heap:
            return None
        _, _, item = heapq.heappop(self._heap)
        self.running = item
        self._changed()
        return item

    def wake(self) -> None:
        """Let the worker look at its flags."""
        self._wake.set()

    def done(self, item: Item, entry: Entry, visible_at: float) -> None:
        """The running prompt ended; its history entry can be read from `visible_at` (loop time) on."""
        self.running = None
        if len(self._history) > MAX_HISTORY:
            del self._history[next(iter(self._history))]
        self._history[item.prompt_id] = (visible_at, entry)
        self._changed()

    def delete(self, prompt_id: str) -> bool:
        """Drop the first waiting prompt of that id."""
        for index, (_, found, _) in enumerate(self._heap):
            if found == prompt_id:
                self._heap.pop(index)
                heapq.heapify(self._heap)
                if not self._heap:
                    self._changed()  # a real server announces the last one twice
                self._changed()
                return True
        return False

    def lose(self, prompt_id: str) -> bool:
        """Drop a waiting prompt without an event."""
        kept = [row for row in self._heap if row[1] != prompt_id]
        lost = len(kept) < len(self._heap)
        self._heap = kept
        heapq.heapify(self._heap)
        return lost

    def clear(self) -> None:
        self._heap.clear()
        self._changed()

    def entry(self, prompt_id: str, now: float) -> Entry | None:
        visible_at, entry = self._history.get(prompt_id, (0.0, None))
        return entry if visible_at <= now else None

    def history(self, now: float, limit: int | None = None, offset: int = -1) -> dict[str, Entry]:
        """Oldest first: all, or `limit` from `offset`; a negative offset means the newest `limit`."""
        shown = {key: entry for key, (visible_at, entry) in self._history.items() if visible_at <= now}
        if limit is None and offset <= 0:
            return shown
        if offset < 0 and limit is not None:
            offset = len(shown) - limit
        keys = list(shown)[max(0, offset) :]
        # Counted after adding, so that a limit of 0 still gives one.
        return {key: shown[key] for key in (keys if limit is None else keys[: max(1, limit)])}

    def forget(self, prompt_id: str) -> None:
        self._history.pop(prompt_id, None)

    def forget_all(self) -> None:
        self._history.clear()
