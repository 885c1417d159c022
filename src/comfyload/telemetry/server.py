"""Memory and queue length as ComfyUI itself reports them."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import Reply, Transport, TransportError
from comfyload.comfy.wire.lenient import decode_json
from comfyload.comfy.wire.queue import decode_queue_remaining
from comfyload.record.bounds import finite
from comfyload.telemetry.source import NoReading, Readings, Source

MOST_GPUS = 64


class _SystemStats(Struct):
    system: dict[str, Any] = {}
    devices: list[dict[str, Any]] = []


class Stats(Source):
    """`/system_stats`: memory of the machine and of its GPUs. On CUDA each call queries the driver."""

    name = "comfy"
    interval_s = 2.0
    timeout_s = 20.0

    def __init__(self, transport: Transport) -> None:
        self._api = api_of(transport)

    async def read(self) -> Readings:
        reply = await _received("/system_stats", self._api.stats())
        try:
            stats = decode_json(reply.body, _SystemStats)
        except msgspec.MsgspecError:
            raise NoReading("/system_stats is not what a ComfyUI answers") from None
        values: dict[str, float | None] = {}
        total, free = finite(stats.system.get("ram_total")), finite(stats.system.get("ram_free"))
        if free is not None:
            values["host.ram_available_bytes"] = free
            values |= {} if total is None else {"host.ram_used_bytes": total - free}
        devices = [device for device in stats.devices if device.get("type") != "cpu"]
        for place, device in enumerate(devices[:MOST_GPUS]):
            values |= {f"gpu.{place}.{key}": value for key, value in _of_device(device).items()}
        return Readings(values=values)


class QueueLength(Source):
    """How many prompts run and wait, read only while the event stream, which reports it too, brings no events."""

    name = "comfy"
    interval_s = 1.0
    timeout_s = 20.0

    def __init__(self, transport: Transport, streamed: Callable[[], bool]) -> None:
        self._api = api_of(transport)
        self._streamed = streamed

    async def read(self) -> Readings:
        if self._streamed():
            return Readings(read=False)
        remaining = decode_queue_remaining((await _received("/prompt", self._api.queue_info())).body)
        if self._streamed():  # what the stream has reported since is newer
            return Readings(read=False)
        return Readings(values={"queue_remaining": remaining})


def _of_device(device: dict[str, Any]) -> dict[str, float | None]:
    """`torch_active_bytes`: held by tensors; `torch_reserved_bytes`: taken from the driver by PyTorch."""
    known = {key: finite(device.get(key)) for key in ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free")}
    total, free, reserved, idle = known.values()
    return {
        "vram_total_bytes": total,
        "vram_free_bytes": free,
        "vram_used_bytes": None if total is None or free is None else total - free,
        "torch_reserved_bytes": reserved,
        "torch_active_bytes": None if reserved is None or idle is None else reserved - idle,
    }


async def _received(route: str, call: Awaitable[Reply]) -> Reply:
    try:
        reply = await call
    except TransportError as error:
        raise NoReading(str(error)) from None
    if reply.status != 200:
        raise NoReading(f"{route} answers HTTP {reply.status}")
    return reply
