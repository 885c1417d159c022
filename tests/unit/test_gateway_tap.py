"""The gateway knows each prompt that it sends to a server, whatever its graph holds and however its events come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from comfyload import clock
from comfyload.comfy.comfyui import ComfyApi
from comfyload.comfy.wire.calls import OnFrame, Reply, Request, TransportError
from comfyload.gateway import forms
from comfyload.gateway.tap import Tap
from comfyload.record.model import Server as Facts
from tests.support.direct import Direct
from tests.support.gateway import desk, farm
from tests.support.rig import sleeper

OTHER = f',"client_id":"{uuid4()}","prompt_id":"{uuid4()}"'

ODD: dict[str, Any] = {
    "a text": OTHER,
    "a text in a text": forms.dumps(OTHER).decode(),
    "keys": {"x": 1, "client_id": str(uuid4()), "prompt_id": str(uuid4())},
    "a key": {OTHER: 1},
    "a backslash at the end": ["\\", OTHER],
}


class Wire:
    """Both ends of a tap: what it says of a prompt, and the server behind it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def before_post(self, server: str, prompt_id: str, body: bytes) -> bytes:
        self.heard.append(prompt_id)
        return body

    def on_answer(self, prompt_id: str, reply: Reply) -> None:
        self.heard.append(prompt_id)

    async def call(self, request: Request) -> Reply:
        return Reply(status=200, body=b"{}")


@pytest.mark.parametrize("name", ODD)
def test_a_prompt_is_known_by_its_own_id_alone(name: str) -> None:
    graph = {"1": {"class_type": "A", "inputs": {"text": ODD[name], "deep": {"x": ODD[name]}}}}

    async def main() -> None:
        wire, prompt_id = Wire(), str(uuid4())
        api = ComfyApi(Tap(wire, "gpu1", wire), Facts(url=""), lambda _: None)  # type: ignore[arg-type]
        for write in (forms.dumps, forms.dumps_graph):
            await api.submit(write(graph), prompt_id, str(uuid4()), forms.dumps({"extra": ODD[name]}), 1.0)
        assert wire.heard == [prompt_id] * 4

    clock.run_virtual(main())


class Deaf(Direct):
    """A way to a server on which events are cut off again and again."""

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        await asyncio.sleep(0.05)
        raise TransportError("cut off", sent=True)


def test_a_prompt_that_is_sent_while_no_events_come_is_noted_before(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm(1) as servers, desk(tmp_path, servers, transports=[Deaf(servers[0])]) as front:
            for number in range(20):
                job_id = (await front.post(sleeper(1.0 + number / 100)))["prompt_id"]
                await asyncio.sleep(0.3)
                row = front.gateway.store.find(job_id)
                assert row is not None and row.begun and row.server == "gpu1"
                await front.end_of(job_id)

    clock.run_virtual(main())
