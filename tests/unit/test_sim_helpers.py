"""What the simulator's tests share: small graphs, and a client that keeps all messages it receives."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from comfyload.comfy.wire.calls import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.sim import Server


def sleep_graph(seconds: float = 0.1, seed: int = 0) -> dict[str, Any]:
    """A job of exactly that length."""
    return {
        "1": {"class_type": "SimSleep", "inputs": {"seconds": seconds, "seed": seed}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


def image_graph(color: int = 0) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "run/a"}},
    }


def sampler_graph(seed: int = 0, steps: int = 5, batch: int = 1) -> dict[str, Any]:
    def text(words: str) -> dict[str, Any]:
        return {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["1", 1]}}

    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"}},
        "2": text("a fox"),
        "3": text("blurry"),
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": batch}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "seed": seed,
                "steps": steps,
                "cfg": 7,
                "sampler_name": "euler",
                "scheduler": "normal",
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "fox"}},
    }


async def call(server: Server, method: str, path: str, body: object = None) -> Reply:
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return await server.call(Request(method=method, path=path, body=sent))


async def get(server: Server, path: str) -> Any:
    return json.loads((await call(server, "GET", path)).body)


async def submit(server: Server, graph: dict[str, Any], client_id: str | None = "me", **more: object) -> str:
    """Post a prompt that must be accepted; its id."""
    body = {"prompt": graph, **more} | ({} if client_id is None else {"client_id": client_id})
    reply = await call(server, "POST", "prompt", body)
    assert reply.status == 200, reply.body
    return str(json.loads(reply.body)["prompt_id"])


class Ear:
    """Everything one socket hears: `frames` as they came, `messages` parsed, `kinds` their types."""

    def __init__(self, server: Server, client_id: str | None = "me") -> None:
        self.socket = server.connect(client_id)
        self.frames: list[str | bytes] = []
        self.task = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        async for frame in self.socket:
            self.frames.append(frame)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(frame) for frame in self.frames if isinstance(frame, str)]

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.messages]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message["data"] for message in self.messages if message["type"] == kind]

    def over(self, prompt_id: str) -> bool:
        ends = self.of("executing")
        return any(data["node"] is None and data["prompt_id"] == prompt_id for data in ends)


async def until(condition: Callable[[], bool], within: float = 600.0) -> None:
    """Wait on the loop's time until it holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


async def settled(server: Server, count: int, within: float = 600.0) -> None:
    """Wait until so many executions are over."""
    await until(lambda: sum(truth.finished is not None for truth in server.truth) >= count, within)
    await asyncio.sleep(0.001)


def same_shape(ours: Any, theirs: Any, where: str = "") -> None:
    """The same keys and kinds of values, all the way down; lists are compared item by item if equally long."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), where
        assert list(ours) == list(theirs) or set(ours) == set(theirs), f"{where}: {list(ours)} != {list(theirs)}"
        for key in theirs:
            same_shape(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(theirs, list):
        assert isinstance(ours, list), where
        pairs = zip(ours, theirs, strict=True) if len(ours) == len(theirs) else zip(ours[:1], theirs[:1], strict=False)
        for index, (one, other) in enumerate(pairs):
            same_shape(one, other, f"{where}[{index}]")
    elif isinstance(theirs, bool) or theirs is None or isinstance(theirs, str):
        assert type(ours) is type(theirs), f"{where}: {ours!r} is no {theirs!r}"
    else:
        assert isinstance(ours, int | float), f"{where}: {ours!r} is no number"
