"""What a tab watches: the newest state, at most five times a second, once for all who watch it."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from comfyload.web import feed
from comfyload.web.answers import Refused
from comfyload.web.feed import ColumnFrame, Params, State, View
from tests.support.dashboard import WS, Page, Tab, page


class Views:
    """A view whose state a test sets, and which counts how often it is computed."""

    def __init__(self) -> None:
        self.state: State | Exception = b'{"n":0}'
        self.computed: list[Params] = []

    async def view(self, params: Params) -> State:
        self.computed.append(params)
        if isinstance(self.state, Exception):
            raise self.state
        return self.state

    def set(self, n: Any) -> None:
        self.state = json.dumps({"n": n}).encode()


def on_feed(tmp_path: Path, play: Callable[[Page, Views], Awaitable[None]]) -> None:
    async def main() -> None:
        views = Views()
        table: dict[str, View] = {"x": views.view, "y": views.view}
        async with page(tmp_path) as found:
            found.dashboard.feed._views = table
            await play(found, views)

    asyncio.run(main())


async def silent(tab: Tab, seconds: float = 0.6) -> bool:
    with suppress(TimeoutError):
        await tab.next(seconds)
        return False
    return True


def test_a_watch_is_told_what_changes_and_nothing_else(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            first = await tab.watch(7, "x", run="r")
            assert first == {"watch": 7, "seq": first["seq"], "data": {"n": 0}} and views.computed[0] == {"run": "r"}
            assert await silent(tab)
            views.set(1)
            second = await tab.next()
            assert second["data"] == {"n": 1} and second["seq"] > first["seq"]
            await tab.say(unwatch=7)
            views.set(2)
            assert await silent(tab)
            computed = len(views.computed)
            await asyncio.sleep(0.4)
            assert len(views.computed) == computed, "nobody watches it"

    on_feed(tmp_path, play)


def test_what_many_watch_is_computed_once_and_each_gets_it_under_its_own_number(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as one, found.tab() as two, found.tab() as other:
            await one.watch(1, "x", a=1, b=2)
            assert (await two.watch(9, "x", b=2, a=1))["watch"] == 9
            await other.watch(1, "x", a=2, b=2)
            assert len(found.dashboard.feed._topics) == 2
            views.set("new")
            assert (await one.next())["watch"] == 1
            assert (await two.next())["data"] == {"n": "new"}
            before = len(views.computed)
            await asyncio.sleep(1.0)
            assert len(views.computed) - before <= 2 * 6, "five times a second, for each of the two"

    on_feed(tmp_path, play)


def test_a_tab_that_says_what_it_has_painted_is_sent_one_state_at_a_time(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            await tab.say(painted=[])
            first = await tab.watch(1, "x")
            other = await tab.watch(2, "y")
            views.set(1)
            assert await silent(tab), "it has painted neither"
            odd: Any
            for odd in ([[1]], [[1, first["seq"] + 1]], [[7, first["seq"]]], [[None, {}]], ["x"], [5], [[[], []]], 5):
                await tab.say(painted=odd)
            assert await silent(tab, 0.4)
            await tab.say(painted=[[2, other["seq"]]])
            second = await tab.next()
            assert (second["watch"], second["data"]) == (2, {"n": 1}) and await silent(tab, 0.4)
            views.set(2)
            await tab.say(painted=[[1, first["seq"]], [2, second["seq"]]])
            seen = [await tab.next(), await tab.next()]
            assert {one["watch"] for one in seen} == {1, 2} and await silent(tab, 0.4)
            await tab.say(visible=False)
            await tab.say(visible=True)
            seen = [await tab.next(), await tab.next()]
            assert [one["data"] for one in seen] == [{"n": 2}] * 2, "shown anew, it begins anew"

    on_feed(tmp_path, play)


def test_states_that_follow_each_other_fast_are_not_all_sent(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            seqs = [(await tab.watch(1, "x"))["seq"]]
            loop = asyncio.get_running_loop()
            began = loop.time()
            while loop.time() - began < 1.5:
                views.set(loop.time())
                with suppress(TimeoutError):
                    seqs.append((await tab.next(0.02))["seq"])
            assert 4 <= len(seqs) <= 1.5 * 5 + 2 and seqs == sorted(set(seqs))
            views.set("last")
            while (await tab.next())["data"] != {"n": "last"}:
                pass

    on_feed(tmp_path, play)


def test_a_tab_that_nobody_sees_is_sent_nothing_and_costs_nothing(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            first = await tab.watch(1, "x")
            await tab.say(visible=False)
            await asyncio.sleep(0.1)
            computed = len(views.computed)
            views.set(5)
            assert await silent(tab) and len(views.computed) == computed
            await tab.say(watch=2, view="y", params={})
            assert await silent(tab)
            await tab.say(visible=True)
            seen = {(await tab.next())["watch"], (await tab.next())["watch"]}
            assert seen == {1, 2} and first["data"] == {"n": 0}

    on_feed(tmp_path, play)


def test_a_watch_that_begins_anew_shows_something_else(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            first = await tab.watch(1, "x", offset=0)
            for offset in range(1, 50):
                await tab.say(watch=1, view="x", params={"offset": offset})
            while (frame := await tab.next())["seq"] <= first["seq"]:
                pass
            await asyncio.sleep(0.1)
            assert views.computed[-1] == {"offset": 49} and len(found.dashboard.feed._topics) == 1
            assert frame["watch"] == 1

    on_feed(tmp_path, play)


def test_columns_come_in_one_binary_frame_at_a_multiple_of_four(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            for size in range(4):
                columns = np.array([1.5, np.nan, -2.0], "<f4")
                views.state = ColumnFrame({"names": ["a" * (size + 1)], "n": 3}, columns.tobytes())
                frame = await tab.watch(size, "x", size=size)
                assert frame["offset"] % 4 == 0 and frame["n"] == 3 and frame["watch"] == size
                np.testing.assert_array_equal(np.frombuffer(frame["columns"], "<f4"), columns)
            assert struct.calcsize("<I") == 4

    on_feed(tmp_path, play)


def test_what_goes_wrong_is_said_once_and_then_that_it_goes_well(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            views.state = Refused(404, "there is no run", "look elsewhere")
            wrong = await tab.watch(1, "x")
            assert wrong["error"] == "there is no run" and wrong["hint"] == "look elsewhere" and "data" not in wrong
            assert await silent(tab)
            views.state = KeyError("secret words")
            fault = await tab.next()
            assert "an error in comfyload: KeyError" in fault["error"] and "secret" not in json.dumps(fault)
            views.set(1)
            assert (await tab.next())["data"] == {"n": 1}

    on_feed(tmp_path, play)


def test_odd_messages_are_answered_and_the_socket_goes_on(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            for text in ("", "x", "[]", "5", '"watch"', "null", "\ud83d", "[" * 5000, '{"watch":'):
                await tab.socket.send_str(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
                assert "JSON" in (await tab.next())["error"]
            for message in (
                {"watch": "1", "view": "x"}, {"watch": -1, "view": "x"}, {"watch": True, "view": "x"},
                {"watch": 1.5, "view": "x"}, {"watch": None}, {"watch": 2**40, "view": "x"}, {"watch": {}, "view": "x"},
            ):  # fmt: skip
                await tab.say(**message)
                assert "number of a watch" in (await tab.next())["error"], message
            for view in (
                {},
                {"view": "z"},
                {"view": ["x"]},
                {"view": "x", "params": [1]},
                {"view": "x", "params": None},
            ):
                await tab.say(watch=1, **view)
                assert "no such view" in (await tab.next())["error"], view
            for ignored in ({"unwatch": 99}, {"unwatch": "x"}, {"visible": "no"}, {"visible": 0}, {}, {"other": 1}):
                await tab.say(**ignored)
            assert (await tab.watch(1, "x"))["data"] == {"n": 0}

    on_feed(tmp_path, play)


def test_a_tab_that_reads_nothing_holds_up_no_other_and_is_cut(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(feed, "STALLED_S", 0.5)

    async def play(found: Page, views: Views) -> None:
        reader, writer = await asyncio.open_connection(found.url.host, found.url.port, limit=1 << 10)
        opening = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Host: {found.url.authority}", "", "")  # fmt: skip
        writer.write("\r\n".join([f"GET {WS} HTTP/1.1", *opening]).encode())
        await reader.readuntil(b"\r\n\r\n")
        said = json.dumps({"watch": 1, "view": "x", "params": {}}).encode()
        writer.write(b"\x81" + bytes([0x80 | len(said)]) + b"\0\0\0\0" + said)
        async with found.tab() as tab:
            await tab.watch(1, "x")
            for n in range(40):
                views.state = json.dumps({"n": n, "much": "x" * (1 << 20)}).encode()
                assert (await tab.next(2.0))["data"]["n"] <= n
                if len(found.dashboard.feed._open) == 1:
                    break
            assert len(found.dashboard.feed._open) == 1, "it was cut"
        writer.close()

    on_feed(tmp_path, play)


def test_when_nobody_looks_any_more_is_known(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        assert found.dashboard.feed.idle_since(5.0) == 5.0
        async with found.tab() as tab:
            await tab.watch(1, "x")
            assert found.dashboard.feed.idle_since(5.0) is None
        await asyncio.sleep(0.1)
        since = found.dashboard.feed.idle_since(-1.0)
        assert since is not None and since > 0.0

    on_feed(tmp_path, play)


def test_the_end_of_the_dashboard_closes_its_sockets(tmp_path: Path) -> None:
    async def play(found: Page, views: Views) -> None:
        async with found.tab() as tab:
            await tab.watch(1, "x")
            await asyncio.gather(found.dashboard.feed.close(), _closed(tab))
            assert tab.socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
        assert not found.dashboard.feed._topics

    on_feed(tmp_path, play)


async def _closed(tab: Tab) -> None:
    while (await tab.socket.receive(10)).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
        pass
