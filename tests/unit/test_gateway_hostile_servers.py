"""Servers that mean harm: whatever one says of its own jobs, the gateway goes on, and nobody else hears it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyload import clock
from comfyload.gateway import sockets
from comfyload.gateway.forms import entry_in
from comfyload.gateway.live import MOST_END_BYTES, MOST_ENDS
from comfyload.retry.policy import default
from tests.support.gateway import Desk, desk, farm, frames_of
from tests.support.hostile_server import Hostile
from tests.support.rig import sleeper

DEEP: Any = json.loads("[" * 300 + "]" * 300)
NUMBER, TEXT = (int, float), (str,)
ITEM: dict[str, tuple[type, ...]] = {
    "id": TEXT, "status": TEXT, "priority": NUMBER, "create_time": (int,), "execution_start_time": (int,),
    "execution_end_time": (int,), "outputs_count": (int,), "previewable_outputs_count": (int,),
    "preview_output": (dict,), "workflow_id": TEXT, "comfyload": (dict,), "execution_error": (dict,),
}  # fmt: skip
ERROR: dict[str, tuple[type, ...]] = {
    "node_id": TEXT, "node_type": TEXT, "exception_message": TEXT, "exception_type": TEXT, "traceback": (list,),
    "current_inputs": (dict,),
}  # fmt: skip


def check_listed(front: Desk, tenant: str = "default") -> None:
    """The page can read the list: one malformed item would empty all of it."""
    body, status = front.history.listed(tenant, {"sort_by": "execution_duration"})
    assert status == 200
    for item in body["jobs"]:
        for name, value in item.items():
            assert isinstance(value, ITEM[name]), (name, value)
        for name, kinds in ERROR.items() if "execution_error" in item else ():
            assert isinstance(item["execution_error"][name], kinds), name
    json.loads(b"".join(front.history.all(tenant, None, -1)))


def _put(*path: str | int) -> Callable[[Any], Callable[[dict[str, Any]], Any]]:
    """Changes what lies there in an entry."""

    def of(value: Any) -> Callable[[dict[str, Any]], Any]:
        def change(entry: dict[str, Any]) -> Any:
            place: Any = entry
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            return entry

        return change

    return of


def _messages(*messages: Any) -> Callable[[dict[str, Any]], Any]:
    return _put("status", "messages")(list(messages))


FAILED = ["execution_error", {"exception_message": [5], "node_id": {}, "traceback": "x", "timestamp": "soon"}]
ODD_VALUES: list[Any] = [None, [], "x", 5, DEEP, {"a": DEEP}]
ODD_OUTPUTS: list[Any] = [
    None, 5, "x", [1], {"images": 5}, {"images": [None, 5, "x", []]}, {"": None}, {"text": ["\ud800"]},
    {"images": [{"filename": 5}]}, {"images": [{"filename": "x.png", "subfolder": {}}]},
    {"images": [{"subfolder": "/etc", "filename": "../../x", "type": []}]}, {"text": "x" * 100_000},
    {"images": [{"mediaType": {}, "filename": "x"}]}, {"x": {"y": DEEP}},
]  # fmt: skip
CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an entry that is null": lambda _: None,
    "an entry that is a list": lambda _: [1],
    **{
        f"{name} = {value!r:.20}": _put(name)(value)
        for name in ("outputs", "status", "prompt", "meta")
        for value in ODD_VALUES
    },
    **{f"an output = {value!r:.20}": _put("outputs", "3")(value) for value in ODD_OUTPUTS},
    "no messages": _messages(),
    "messages = 5": _put("status", "messages")(5),
    "odd messages": _messages([], [1, 2], [[], {}], ["execution_success"], ["\ud800", {}], ["x", None], None, {"a": 1}),
    "texts for stamps": _messages(["execution_start", {"timestamp": "x"}], ["execution_success", {"timestamp": {}}]),
    "a stamp far off": _messages(["execution_start", {"timestamp": 10**30}], ["execution_success", {"timestamp": -1}]),
    "an odd failure": _messages(FAILED),
    "a failure that is a success": _put("status")({"status_str": "success", "completed": True, "messages": [FAILED]}),
    "control characters": _messages(["execution_error", {"exception_message": "\x1b[31m\x00\u202e",
                                                              "node_id": "\r\n"}]),
    "ten thousand messages": _messages(*[["execution_cached", {}]] * 10_000),
    "another prompt's row": _put("prompt")([0, "11111111-1111-4111-8111-111111111111", {}, {}, {"a": 1}]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_an_odd_history_is_one_job_s_trouble(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with farm(2) as servers:
            ways = [Hostile(server, change=CHANGES[name]) for server in servers]
            async with desk(tmp_path, servers, transports=ways, policy=default(60.0)) as front:
                socket = front.listen("me")
                for number in range(2):
                    answer = await front.post(sleeper(0.1 + number / 100), client_id="me")
                    entry = await asyncio.wait_for(front.end_of(answer["prompt_id"]), 3000.0)
                    assert entry["status"]["status_str"] in ("success", "error")
                    assert all(isinstance(output, dict) for output in entry["outputs"].values())
                    assert front.history.job(answer["prompt_id"], "default") is not None
                check_listed(front)
                kinds = [frame["type"] for frame in frames_of(socket)]
                assert kinds.count("executing") >= 2
                assert front.gateway.fault is None

    clock.run_virtual(main())


def test_an_entry_that_is_too_large_is_none() -> None:
    for body in (b"", b"{", b"[]", b"null", b'{"p": ' + b"[" * 5000, b'{"p": [' + b"0," * 2_000_000 + b"0]}", b"\xff"):
        assert entry_in(body, "p") is None


ODD_FRAMES: list[tuple[bytes, bool]] = [
    (frame, is_text)
    for frame in (
        b"", b"\0", b"\0\0\0\1", b"\0\0\0\4\xff\xff\xff\xff", b"\0\0\0\4\0\0\0\2[]", b"\0\0\0\4\0\0\0\1{",
        b"\0\0\0\3abc",
        b'\0\0\0\4\0\0\0\x14{"image_type": [{}]}', b"\0\0\0\4\0\0\x13\x88" + b"[" * 5000, b"\xff" * 100, b"null", b"[]",
        b'{"type": "executed"}', b'{"type": "executed", "data": 5}', b'{"type": "executed", "data": {"prompt_id": "ID"',
        b'{"type": "executed", "data": {"prompt_id": "ID", "output": ' + b"[" * 5000,
        b'{"type": "executed", "data": [{"prompt_id": "ID"}]}', b'{"type": "executed", "data": {"prompt_id": "ID"}}',
        b'{"type": "executed", "data": {"output": {"images": 5}, "prompt_id": "ID"}}',
        b'{"type": "executed", "data": {"output": {"images": [{"filename": "x", "subfolder": 5}]}, "prompt_id": "ID"}}',
        b'{"type": "progress_state", "data": {"prompt_id": "ID", "nodes": null}}',
        b'{"type": "execution_start", "data": {"prompt_id": "ID", "timestamp": 99999999999999999999}}',
        b'{"type": "executing", "data": {"prompt_id": "ID", "node": {}}}',
        b'{"type": "\xff", "data": {"prompt_id": "ID"}}',
    )
    for is_text in (True, False)
]  # fmt: skip


def test_odd_frames_are_nobody_s_trouble(tmp_path: Path) -> None:
    running = [""]

    def frames(frame: bytes, is_text: bool) -> list[tuple[bytes, bool]]:
        if b"execution_start" not in frame:
            return [(frame, is_text)]
        running[0] = json.loads(frame)["data"]["prompt_id"]
        odd = [(each.replace(b"ID", running[0].encode()), text) for each, text in ODD_FRAMES]
        return [(frame, is_text), *odd]

    async def main() -> None:
        async with farm(2) as servers:
            ways = [Hostile(server, frames=frames) for server in servers]
            async with desk(tmp_path, servers, transports=ways) as front:
                socket = front.listen("me")
                entry = await front.run(sleeper(0.5), client_id="me")
                assert entry["status"]["status_str"] == "success" and front.gateway.fault is None
                assert socket.closed is None
                check_listed(front)

    clock.run_virtual(main())


def test_a_server_speaks_of_its_own_jobs_only(tmp_path: Path) -> None:
    """One server sends frames with the ids of the other's jobs: no client hears them."""
    foreign: list[str] = []

    def lies(frame: bytes, is_text: bool) -> list[tuple[bytes, bool]]:
        told = [
            json.dumps({"type": kind, "data": {"prompt_id": each, "node": "9", "lie": True, "timestamp": 5}}).encode()
            for each in foreign
            for kind in ("executing", "executed", "execution_error", "execution_success", "progress")
        ]
        if not foreign:
            return [(frame, is_text)]
        head = json.dumps({"prompt_id": foreign[0], "image_type": "image/png"}).encode()
        picture = b"\0\0\0\4" + len(head).to_bytes(4, "big") + head + b"lie"
        return [(frame, is_text), *((each, True) for each in told), (picture, False)]

    async def main() -> None:
        async with farm(2) as servers:
            ways = [Hostile(servers[0]), Hostile(servers[1], frames=lies)]
            async with desk(tmp_path, servers, transports=ways) as front:
                listeners = {name: front.listen(name, name) for name in ("anna", "bob")}
                answers: dict[str, Any] = {}
                for name in listeners:
                    answers[name] = await front.post(sleeper(2.0 + len(answers) / 10), client_id=name, tenant=name)
                await asyncio.sleep(0.3)
                by_server = {front.gateway.jobs[a["prompt_id"]].server: name for name, a in answers.items()}
                assert set(by_server) == {"gpu1", "gpu2"}
                victim = by_server["gpu1"]
                foreign.append(answers[victim]["prompt_id"])
                for name, answer in answers.items():
                    entry = await front.end_of(answer["prompt_id"], name)
                    assert entry["status"]["status_str"] == "success"
                seen = [cell.frame for socket in listeners.values() for cell in socket.waiting]
                assert seen and not any(b"lie" in frame for frame in seen)

    clock.run_virtual(main())


def test_a_client_s_output_that_names_another_s_job_is_its_own(tmp_path: Path) -> None:
    """Both run on one server, and what one shows holds the other's id."""
    other: list[str] = []

    def frames(frame: bytes, is_text: bool) -> list[tuple[bytes, bool]]:
        if other and b'"executed"' in frame and other[0].encode() not in frame:
            message = json.loads(frame)
            message["data"] = {"output": {"prompt_id": other[0], "text": ["secret"]}, **message["data"]}
            return [(json.dumps(message).encode(), is_text)]
        return [(frame, is_text)]

    async def main() -> None:
        async with (
            farm(1) as servers,
            desk(tmp_path, servers, transports=[Hostile(servers[0], frames=frames)]) as front,
        ):
            anna, bob = front.listen("anna", "anna"), front.listen("bob", "bob")
            first = await front.post(sleeper(1.0), client_id="anna", tenant="anna")
            second = await front.post(sleeper(1.1), client_id="bob", tenant="bob")
            other.append(second["prompt_id"])
            await front.end_of(first["prompt_id"], "anna")
            heard = [frame for frame in frames_of(anna) if frame["type"] == "executed"]
            assert heard and heard[0]["data"]["prompt_id"] == first["prompt_id"]
            assert not any(frame["type"] == "executed" for frame in frames_of(bob))

    clock.run_virtual(main())


def test_ends_without_end_are_not_kept(tmp_path: Path) -> None:
    def frames(frame: bytes, is_text: bool) -> list[tuple[bytes, bool]]:
        return [(frame, is_text)] * (1000 if b"execution_success" in frame else 1)

    async def main() -> None:
        async with (
            farm(1) as servers,
            desk(tmp_path, servers, transports=[Hostile(servers[0], frames=frames)]) as front,
        ):
            socket = front.listen("me")
            entry = await front.run(sleeper(0.5), client_id="me")
            assert entry["status"]["status_str"] == "success"
            assert 0 < len([frame for frame in frames_of(socket) if frame["type"] == "execution_success"]) <= MOST_ENDS
            assert MOST_END_BYTES <= 32 << 20

    clock.run_virtual(main())


def test_readers_that_do_not_read_take_a_bounded_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MOST_TOGETHER", 1000)

    async def main() -> None:
        every = sockets.Sockets()
        slow = [sockets.ClientSocket(f"slow{number}", "t") for number in range(5)]
        quick = sockets.ClientSocket("quick", "t")
        for socket in (*slow, quick):
            every.add(socket)
        for _ in range(100):
            every.send("t", None, b"x" * 10)
            assert await quick.next() == (b"x" * 10, True)
            assert sum(socket.bytes for socket in slow) <= 1000
        assert quick.closed is None and [socket.closed for socket in slow].count(sockets.TRY_AGAIN_LATER) >= 4
        for socket in (*slow, quick):
            every.remove(socket)
            socket.close(1001)
        assert every._unread.bytes == 0 and len(every) == 0

    asyncio.run(main())


def test_odd_facts_of_a_server(tmp_path: Path) -> None:
    """Its devices, its classes, its answers to prompts and uploads."""
    for odd in (b"null", b"[]", b'{"devices": 5}', b'{"devices": {"a": 1}}', b"5", b"{", b"[" * 5000):

        def body(path: str, said: bytes, odd: bytes = odd) -> bytes:
            return odd if path.startswith(("system_stats", "object_info", "features")) else said

        async def main(change: Callable[[str, bytes], bytes] = body) -> None:
            async with farm(2) as servers:
                ways = [Hostile(servers[0]), Hostile(servers[1], body=change)]
                async with desk(tmp_path, servers, transports=ways) as front:
                    assert (await front.run(sleeper(0.1)))["status"]["status_str"] == "success"
                    stats = await front.gateway.fleet.stats()
                    assert stats is not None and json.loads(stats)["system"]
                    front.gateway.fleet.described("", []), front.gateway.fleet.features()

        clock.run_virtual(main())
