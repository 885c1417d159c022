"""What open tabs watch. A watch is a state, not a stream: a tab is sent the newest when it has painted the last one.

So a slow tab is behind by one state, and nothing queues, neither here nor in its browser: a tab that says what it has
painted is sent nothing more of a watch before that. What several tabs watch alike is computed once.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeGuard

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Struct

from comfyload import clock
from comfyload.record.codec import UNREADABLE, encode
from comfyload.tasks import end_tasks
from comfyload.web.answers import HEADERS, Refused, refused

PERIOD_S = 0.2
"""From one state of a watch to the next, but for the first: so that 95 % of events are shown within 0.3 s."""

MOST_SOCKETS = 200
MOST_WATCHES = 64
MOST_MESSAGE = 64 << 10
STALLED_S = 30.0
"""After so long without taking a frame a socket is cut."""

Params = Mapping[str, Any]


class ColumnFrame(Struct, frozen=True):
    """A state of many numbers: their names, and columns of Float32, one behind the other (NaN: none)."""

    head: dict[str, Any]
    columns: bytes


State = bytes | ColumnFrame
"""What a view shows now; bytes are JSON."""

View = Callable[[Params], Awaitable[State]]


class _NoState(Struct, frozen=True):
    """There is no state, and why."""

    error: str
    hint: str = ""


class _Topic:
    """A view with its parameters, for all who watch it."""

    def __init__(self) -> None:
        self.tabs: set[_Tab] = set()
        self.seq = 0
        self.state: State | _NoState | None = None
        self.task: asyncio.Task[None] | None = None


class _Watch:
    """`sent` and `painted`: the numbers of the last state that the tab was sent, and of the last it has painted."""

    def __init__(self, view: str, params: Params) -> None:
        self.view = view
        self.params = params
        self.key = (view, encode(params, order="sorted"))
        self.topic: _Topic | None = None
        self.sent = self.painted = 0


class _Tab:
    """A socket, and what it watches by the numbers that it gave. `tells`: it says what it has painted."""

    def __init__(self) -> None:
        self.watches: dict[int, _Watch] = {}
        self.visible, self.tells = True, False
        self.notices: list[bytes] = []
        self.ready = asyncio.Event()


class Feed:
    """The socket of the page: `views` by their names."""

    def __init__(self, views: Mapping[str, View]) -> None:
        self._views = views
        self._topics: dict[tuple[str, bytes], _Topic] = {}
        self._open: set[web.WebSocketResponse] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._seq = itertools.count(1)
        self._idle_since: float | None = None

    def idle_since(self, began: float) -> float | None:
        """Since when no tab is open; None: one is. `began`: what stands for it where none was open yet."""
        return None if self._open else began if self._idle_since is None else self._idle_since

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """Serve one tab until it goes."""
        if len(self._open) >= MOST_SOCKETS:
            raise Refused(503, f"{MOST_SOCKETS} tabs are open already", "close some")
        connection = web.WebSocketResponse(max_msg_size=MOST_MESSAGE, heartbeat=30.0, compress=False)
        connection.headers.update(HEADERS)
        if not connection.can_prepare(request):
            raise Refused(400, "this address speaks WebSocket")
        self._open.add(connection)  # before anything is awaited, so that no more are let in
        tab, sender = _Tab(), None
        try:
            await connection.prepare(request)
            sender = asyncio.create_task(_send(tab, connection, request.transport))
            async for message in connection:
                if message.type is not WSMsgType.TEXT:
                    break
                self._take(tab, message.data)
        finally:
            self._open.discard(connection)
            for watch in tab.watches.values():
                self._leave(tab, watch)
            if not self._open:
                self._idle_since = clock.now()
            if sender is not None:
                await end_tasks([sender])
        return connection

    async def close(self) -> None:
        """Close all sockets, and end what is computed for them."""
        for connection in list(self._open):
            await connection.close(code=WSCloseCode.GOING_AWAY)
        await end_tasks([*self._ending, *(topic.task for topic in self._topics.values() if topic.task is not None)])

    # --- what a tab says

    def _take(self, tab: _Tab, text: str) -> None:
        try:
            message = msgspec.json.decode(text)
        except UNREADABLE:
            message = None
        if not isinstance(message, dict):
            return _say(tab, {"error": "a message is a JSON object"})
        if isinstance(visible := message.get("visible"), bool):
            self._show(tab, visible)
        if _is_number(number := message.get("unwatch")) and number in tab.watches:
            self._leave(tab, tab.watches.pop(number))
        if isinstance(painted := message.get("painted"), list):
            _note_painted(tab, painted)
        if "watch" in message:
            self._watch(tab, message)
        return None

    def _watch(self, tab: _Tab, message: dict[str, Any]) -> None:
        number, view, params = message["watch"], message.get("view"), message.get("params", {})
        if not _is_number(number):
            return _say(tab, {"error": "the number of a watch is an integer from 0"})
        if not isinstance(view, str) or view not in self._views or not isinstance(params, dict):
            return _say(tab, {"watch": number, "error": f"there is no such view: {', '.join(sorted(self._views))}"})
        if number not in tab.watches and len(tab.watches) >= MOST_WATCHES:
            return _say(tab, {"watch": number, "error": f"a tab watches at most {MOST_WATCHES} things"})
        try:
            watch = _Watch(view, params)
        except UNREADABLE:
            return _say(tab, {"watch": number, "error": "these parameters cannot be read"})
        if (before := tab.watches.pop(number, None)) is not None:
            self._leave(tab, before)
        tab.watches[number] = watch
        if tab.visible:
            self._join(tab, watch)
        return None

    def _show(self, tab: _Tab, visible: bool) -> None:
        """A tab that nobody sees is sent nothing, and nothing is computed for it."""
        if visible == tab.visible:
            return
        tab.visible = visible
        for watch in tab.watches.values():
            self._join(tab, watch) if visible else self._leave(tab, watch)

    # --- states

    def _join(self, tab: _Tab, watch: _Watch) -> None:
        topic = self._topics.get(watch.key)
        if topic is None:
            topic = self._topics[watch.key] = _Topic()
            topic.task = asyncio.create_task(self._follow(topic, self._views[watch.view], watch.params))
        topic.tabs.add(tab)
        watch.topic = topic
        tab.ready.set()

    def _leave(self, tab: _Tab, watch: _Watch) -> None:
        """Where a tab watches one thing twice, it goes on receiving the other."""
        topic, watch.topic, watch.sent, watch.painted = watch.topic, None, 0, 0
        if topic is None or any(other.topic is topic for other in tab.watches.values()):
            return
        topic.tabs.discard(tab)
        if not topic.tabs:
            del self._topics[watch.key]
            assert topic.task is not None
            topic.task.cancel()
            self._ending.add(topic.task)
            topic.task.add_done_callback(self._ending.discard)

    async def _follow(self, topic: _Topic, view: View, params: Params) -> None:
        """Compute the state again and again; at most half of the time goes into it.

        All topics are computed at the same instants, so that what a page shows of a run is read at one, and once.
        """
        while True:
            began = clock.now()
            found: State | _NoState
            try:
                found = await view(params)
            except Exception as error:  # noqa: BLE001 - shown in place of the state; other views go on
                why = refused(error)
                found = _NoState(why.why, why.hint)
            if found != topic.state:
                topic.state, topic.seq = found, next(self._seq)
                for tab in topic.tabs:
                    tab.ready.set()
            now = clock.now()
            await asyncio.sleep(max(PERIOD_S - now % PERIOD_S, now - began))


async def _send(tab: _Tab, connection: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
    """Send what is new whenever the socket can take it; cut a socket that takes nothing."""
    try:
        while True:
            await tab.ready.wait()
            tab.ready.clear()
            while tab.notices:
                await _frame(connection, tab.notices.pop(0), True)
            for number in list(tab.watches):
                watch = tab.watches.get(number)  # it may have gone while another was sent
                topic = None if watch is None else watch.topic
                if watch is None or (tab.tells and watch.painted != watch.sent):
                    continue
                if topic is not None and topic.state is not None and topic.seq != watch.sent:
                    watch.sent = topic.seq
                    await _frame(connection, *_framed(number, topic.seq, topic.state))
    except TimeoutError:
        if transport is not None:
            transport.abort()
    except ConnectionError:
        pass


async def _frame(connection: web.WebSocketResponse, frame: bytes, is_text: bool) -> None:
    async with asyncio.timeout(STALLED_S):
        await connection.send_frame(frame, WSMsgType.TEXT if is_text else WSMsgType.BINARY)


def _framed(number: int, seq: int, state: State | _NoState) -> tuple[bytes, bool]:
    """The frame with a state, and whether it is text. In a binary one, columns begin at a multiple of four."""
    if isinstance(state, bytes):
        return b'{"watch":%d,"seq":%d,"data":%b}' % (number, seq, state), True
    if isinstance(state, _NoState):
        return encode({"watch": number, "seq": seq, "error": state.error, "hint": state.hint}), True
    head = encode({"watch": number, "seq": seq, **state.head})
    head += b" " * (-len(head) % 4)
    return struct.pack("<I", len(head)) + head + state.columns, False


def _note_painted(tab: _Tab, painted: list[Any]) -> None:
    """Pairs of a watch's number and its state's."""
    tab.tells = True
    for pair in painted[:MOST_WATCHES]:
        number, seq = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        watch = tab.watches.get(number) if _is_number(number) else None
        if watch is not None and watch.sent == seq:
            watch.painted = watch.sent
    tab.ready.set()


def _say(tab: _Tab, words: dict[str, Any]) -> None:
    """Tell the tab what was wrong with a message; of one that reads nothing, the last few are kept."""
    tab.notices = [*tab.notices[-9:], encode(words)]
    tab.ready.set()


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
