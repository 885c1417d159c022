"""Clients and servers that mean harm: each gets one answer in ComfyUI's words, and the others notice nothing."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from comfyload.app import gateway_port
from comfyload.gateway import bodies
from tests.support.gateway_port import Port, port
from tests.support.rig import sleeper

pytestmark = pytest.mark.long  # large bodies and many sockets

TROUBLE = b"500 Internal Server Error\n\nServer got itself in trouble"
DEEP = "[" * 2000 + "]" * 2000
GRAPH = sleeper(0.01)


def prompt(**more: Any) -> dict[str, Any]:
    return {"prompt": sleeper(0.01), **more}


async def end_of(gate: Port, prompt_id: str) -> dict[str, Any]:
    for _ in range(1000):
        found: dict[str, Any] = (await gate.ask(f"/history/{prompt_id}")).value
        if found:
            entry: dict[str, Any] = found[prompt_id]
            return entry
        await asyncio.sleep(0.02)
    raise AssertionError("it has not ended")


async def works(gate: Port) -> None:
    """A well-behaved client is served."""
    answer = await gate.post(prompt())
    assert answer.status == 200, answer
    assert (await end_of(gate, answer.value["prompt_id"]))["status"]["status_str"] == "success"
    for path in ("/prompt", "/queue", "/history", "/api/jobs", "/object_info", "/system_stats"):
        assert (await gate.ask(path)).status == 200, path


ODD: dict[str, tuple[Any, int]] = {
    "not JSON": (b"{", 500),
    "empty": (b"", 500),
    "not UTF-8": (b'{"prompt": "\xff\xfe"}', 500),
    "a list": ([], 400),
    "a text": ("prompt", 500),
    "null": (None, 500),
    "a thousand levels": (f'{{"prompt": {DEEP}}}'.encode(), 500),
    "two hundred levels in a graph": (
        ('{"prompt": {"1": {"class_type": "x", "inputs": {"a": ' + "[" * 200 + "]" * 200 + "}}}}").encode(),
        500,
    ),
    "levels beside the prompt": (f'{{"prompt": {json.dumps(GRAPH)}, "x": {DEEP}}}'.encode(), 500),
    "no prompt": ({"client_id": "x"}, 400),
    "a prompt that is a list": ({"prompt": []}, 500),
    "a prompt that is null": ({"prompt": None}, 500),
    "an empty prompt": ({"prompt": {}}, 400),
    "a node that is null": ({"prompt": {"1": None}}, 500),
    "a node without inputs": ({"prompt": {"1": {"class_type": "SaveImage"}}}, 400),
    "a node without a class": ({"prompt": {"1": {"inputs": {}}}}, 400),
    "inputs that are a list, and no class": ({"prompt": {"1": {"inputs": []}}}, 400),
    "a class that is a number": ({"prompt": {"1": {"class_type": 5, "inputs": {}}}}, 400),
    "a class that is an object": ({"prompt": {"1": {"class_type": {}, "inputs": {}}}}, 500),
    "a number that is NaN": (b'{"prompt": {}, "number": NaN}', 400),
    "a number that is infinite": (b'{"prompt": {}, "number": -Infinity}', 400),
    "a number too wide for a float": (b'{"prompt": {}, "number": ' + b"9" * 400 + b"}", 500),
    "a number of 5,000 digits": (b'{"prompt": {}, "number": ' + b"9" * 5000 + b"}", 500),
    "a number that is null": (prompt(number=None), 500),
    "a number that is an object": (prompt(number={}), 500),
    "an id that is none": (prompt(prompt_id="x"), 400),
    "an id that is a number": (prompt(prompt_id=5), 400),
    "an id in upper case": (prompt(prompt_id=str(uuid4()).upper()), 400),
    "extra_data that is a text": (prompt(extra_data="x"), 500),
    "extra_data that is a list": (prompt(extra_data=[1]), 500),
    "targets that are a number": (prompt(partial_execution_targets=5), 500),
    "a client id of a megabyte": (prompt(client_id="x" * (1 << 20)), 400),
    "values without end": (b'{"prompt": [' + b"0," * 2_000_000 + b"0]}", 413),
    # These are taken, and run.
    "NaN in the graph": (
        json.dumps(
            {
                "prompt": {
                    **GRAPH,
                    "9": {"class_type": "PreviewAny", "inputs": {"x": float("nan")}, "_meta": float("nan")},
                }
            }
        ).encode(),
        0,
    ),
    "a client id that is an object": (prompt(client_id={"a": []}), 200),
    "a client id that is a list": (prompt(client_id=[1]), 200),
    "a client id that is half a letter": (
        b'{"client_id": "\\ud800", "prompt": ' + json.dumps(GRAPH).encode() + b"}",
        200,
    ),
    "half a letter in extra_data": (
        b'{"extra_data": {"\\udfff": "\\ud800"}, "prompt": ' + json.dumps(GRAPH).encode() + b"}",
        200,
    ),
    "half a letter in a title": (
        json.dumps({"prompt": {k: v | {"_meta": {"title": "\ud800"}} for k, v in GRAPH.items()}}).encode(),
        200,
    ),
    "a page's workflow that is a number": (prompt(extra_data={"extra_pnginfo": 5}), 200),
    "a workflow whose id is a list": (prompt(extra_data={"extra_pnginfo": {"workflow": {"id": []}}}), 200),
    "extra_data that is null": (prompt(extra_data=None), 200),
    "a create_time of the client's": (prompt(extra_data={"create_time": "x", "client_id": [], "comfyload": 5}), 200),
    "a number that is a text": (prompt(number="5"), 200),
    "keys of every kind": (prompt(extra_data={"": "", "\x00": "\x00", "a" * 5000: 1}), 200),
}


def test_every_odd_prompt_has_one_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with port(tmp_path) as gate:
            taken = []
            for name, (body, status) in ODD.items():
                answer = await gate.post(body)
                assert answer.status == status or not status, f"{name}: {answer}"
                if answer.status == 500:
                    assert answer.body == TROUBLE, name
                elif answer.status == 400:
                    assert set(answer.value) == {"error", "node_errors"}, name
                    assert set(answer.value["error"]) == {"type", "message", "details", "extra_info"}, name
                elif answer.status == 200:
                    taken.append((name, answer.value["prompt_id"]))
            for name, prompt_id in taken:
                entry = await end_of(gate, prompt_id)
                assert entry["status"]["status_str"] == "success" or name.startswith("NaN"), (name, entry)
            jobs = (await gate.ask("/api/jobs")).value["jobs"]
            assert {job["id"] for job in jobs} == {prompt_id for _, prompt_id in taken}
            await works(gate)
            assert not gate.gateway.secrets and not gate.gateway.jobs
            assert gate.gateway.fault is None

    asyncio.run(main())
    assert "Traceback" not in caplog.text and not caplog.records


ODD_CALLS: list[tuple[str, str, bytes | None, tuple[str, ...], int]] = [
    ("POST", "/queue", b'{"delete": 5}', (), 500),
    ("POST", "/queue", b'{"delete": ["\\ud800", {}, null, 5]}', (), 200),
    ("POST", "/queue", b"[]", (), 200),
    ("POST", "/queue", DEEP.encode(), (), 500),
    ("POST", "/history", b'{"delete": ["\\ud800", {}, null, 5]}', (), 200),
    ("POST", "/history", b'{"delete": 5}', (), 500),
    ("POST", "/history", b"nope", (), 500),
    ("POST", "/interrupt", b'{"prompt_id": {"a": 1}}', (), 200),
    ("POST", "/interrupt", b"nope", (), 200),
    ("POST", "/interrupt", DEEP.encode(), (), 200),
    ("POST", "/free", b"[]", (), 500),
    ("POST", "/api/jobs/cancel", b'{"job_ids": [5, null, "\\ud800", {}]}', (), 400),
    ("POST", "/api/jobs/cancel", DEEP.encode(), (), 400),
    ("POST", "/api/jobs/%ff%fe/cancel", b"", (), 200),
    ("GET", "/history/%ff", None, (), 200),
    ("GET", "/history/%ED%A0%80", None, (), 200),
    ("GET", "/api/jobs/%ff", None, (), 404),
    ("GET", "/history?max_items=abc", None, (), 500),
    ("GET", "/history?max_items=-5&offset=99999999999999999999", None, (), 200),
    ("GET", "/api/jobs?limit=99999999999999999999&offset=-1", None, (), 200),
    ("GET", "/api/jobs?limit=" + "9" * 5000, None, (), 400),
    ("GET", "/api/jobs?status=%ff&sort_by=%00", None, (), 400),
    ("GET", "/object_info/%ff", None, (), 200),
    ("GET", "/view?filename=" + "x" * 7000, None, (), 200),
    ("POST", "/prompt", json.dumps(prompt()).encode(), ("Idempotency-Key: \udcff\udcfe",), 200),
    ("POST", "/prompt", json.dumps(prompt()).encode(), ("Idempotency-Key: " + "x" * 2000,), 400),
    ("POST", "/prompt", json.dumps(prompt()).encode(), ("X-Comfyload-Deadline: nan",), 400),
    ("POST", "/prompt", json.dumps(prompt()).encode(), ("X-Comfyload-Deadline: soon",), 400),
    ("POST", "/prompt", json.dumps(prompt()).encode(), ("X-Comfyload-Deadline: inf",), 200),
    ("POST", "/prompt", json.dumps(prompt()).encode(), ("Content-Encoding: gzip",), 400),
    ("GET", "/ws?clientId=" + "x" * 5000, None, (), 400),
]


def test_every_odd_call_has_one_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with port(tmp_path) as gate:
            for method, path, body, lines, status in ODD_CALLS:
                answer = await gate.ask(path, *lines, method=method, body=body)
                assert answer.status == status, f"{method} {path[:60]} {body!r:.60} {lines!r:.60}: {answer!r:.400}"
            await works(gate)

    asyncio.run(main())
    assert "Traceback" not in caplog.text and not caplog.records


def test_a_body_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path) as gate:
            answer = await gate.ask("/prompt", f"Content-Length: {101 << 20}", method="POST")
            assert answer.status == 413 and answer.body == b"Maximum request body size 104857600 exceeded."

            async def endless() -> Any:
                while True:
                    yield bytes(1 << 20)

            with pytest.raises((aiohttp.ClientError, AssertionError)):  # it is cut off, or told
                async with gate.session.post(gate.url / "prompt", data=endless()) as reply:
                    assert reply.status != 413
            assert gate.gateway.fault is None
            await works(gate)

    asyncio.run(main())


def test_many_large_bodies_at_one_time_are_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_TOGETHER", 4 << 20)

    async def main() -> None:
        async with port(tmp_path) as gate:
            graph = sleeper(0.01)
            graph["1"]["_meta"] = {"title": "x" * (1 << 20)}
            body = json.dumps({"prompt": graph}).encode()
            answers = await asyncio.gather(*(gate.post(body) for _ in range(12)))
            assert {answer.status for answer in answers} == {200, 503}
            (refused, *_) = (answer for answer in answers if answer.status == 503)
            assert refused.headers["retry-after"] == "5" and refused.value["error"]["type"] == "queue_full"
            assert (await gate.post(b'{"x": "' + b"x" * (5 << 20) + b'"}')).status == 400, "a large one alone is read"
            await works(gate)

    asyncio.run(main())


def test_a_client_that_sends_slowly_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_port, "HEAD_S", 0.3)
    monkeypatch.setattr(gateway_port, "LOOK_S", 0.1)
    monkeypatch.setattr(bodies, "IDLE_S", 0.3)

    async def main() -> None:
        async with port(tmp_path) as gate:
            slow = await gate.ask("/prompt", "Content-Length: 100", method="POST")
            assert slow.status == 408
            opened = [await asyncio.open_connection(gate.url.host, gate.url.port) for _ in range(20)]
            began = time.monotonic()
            for number, (_, writer) in enumerate(opened):
                writer.write(b"GET / HTTP/1.1\r\nX: " if number % 2 else b"")
            for reader, writer in opened:
                assert await asyncio.wait_for(reader.read(), 5.0) == b""
                writer.close()
            assert time.monotonic() - began < 3.0
            await works(gate)

    asyncio.run(main())


@pytest.mark.long
def test_a_graph_of_a_hundred_thousand_nodes(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path) as gate:
            graph = {str(n): {"class_type": "SimSleep", "inputs": {"a": [str(n - 1), 0]}} for n in range(100_000)}
            began = time.monotonic()
            answer = await gate.post({"prompt": graph})
            assert answer.status == 400, answer
            assert time.monotonic() - began < 30.0
            await works(gate)

    asyncio.run(main())


def test_posts_without_end(tmp_path: Path) -> None:
    """A thousand in one second, each with the same key, the same id, or none."""

    async def main() -> None:
        async with port(tmp_path) as gate:
            prompt_id, gate_of = str(uuid4()), asyncio.Semaphore(50)

            async def post(number: int) -> int:
                more = ({"prompt_id": prompt_id}, {}, {})[number % 3]
                async with gate_of:
                    answer = await gate.post(prompt(**more), *(["Idempotency-Key: k"] if number % 3 == 1 else []))
                assert answer.status in (200, 503), answer
                return answer.status

            statuses = await asyncio.gather(*map(post, range(600)))
            assert statuses.count(200) >= 400
            assert gate.gateway.fault is None
            (await gate.post(b'{"clear": true}', path="/queue"))
            await works(gate)

    asyncio.run(main())


SAID = [
    DEEP,
    "nope",
    "[]",
    "5",
    '{"type": {}}',
    '{"type": "feature_flags", "data": 5}',
    '{"type": "feature_flags", "data": {"supports_preview_metadata": []}}',
]


def test_many_sockets_and_what_they_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with port(tmp_path) as gate:
            sockets = [
                await gate.session.ws_connect(gate.url / "ws", params={"clientId": f"c{n % 7}"}) for n in range(90)
            ]
            for number, socket in enumerate(sockets):
                await socket.send_str(SAID[number % len(SAID)])
                await socket.send_bytes(b"\xff" * 100)
            await works(gate)
            for socket in sockets:
                assert (await socket.receive(5.0)).type is aiohttp.WSMsgType.TEXT
            large = sockets.pop()
            with suppress(ConnectionError):  # it is cut off while it sends
                await large.send_bytes(bytes(5 << 20))
            while (message := await large.receive(5.0)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert large.closed or message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.ERROR)
            await works(gate)
            for socket in sockets:
                await socket.close()
            await asyncio.sleep(0.2)
            assert len(gate.gateway.sockets) == 0

    asyncio.run(main())
    assert "Traceback" not in caplog.text and not caplog.records


def test_a_long_queue_is_told_in_parts(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path) as gate:
            graph = sleeper(30.0)
            graph["1"]["_meta"] = {"title": "x" * 100_000}
            ids = [(await gate.post({"prompt": graph, "client_id": "me"})).value["prompt_id"] for _ in range(20)]
            async with gate.session.get(gate.url / "queue") as reply:
                found = await reply.json()
            rows = found["queue_running"] + found["queue_pending"]
            assert [row[1] for row in rows] == ids
            assert all(row[2] == graph and row[3]["client_id"] == "me" and row[4] == [] for row in rows)
            assert (await gate.ask("/queue", method="HEAD")).status == 200

    asyncio.run(main())
