"""What ComfyUI itself tells of its machine and its queue, asked gently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from comfyload.comfy.wire import MAX_FACTS_BYTES, Request, TransportError, decode_json, decode_queue_remaining, finite
from comfyload.telemetry.source import NoReading, Readings

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.comfy.transport import Transport
    from comfyload.comfy.wire import Reply

__all__ = ["QueueLength", "Stats"]


MOST_GPUS = 64


class _SystemStats(Struct):
    system: dict[str, Any] = {}
    devices: list[dict[str, Any]] = []


class Stats:
    """`/system_stats`: memory of the machine and of its GPUs. On CUDA each call asks the driver."""

    name = "comfy"
    interval_s = 2.0
    patience_s = 20.0

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def open(self) -> None:
        """There is nothing to open: a server that was identified has it."""

    async def read(self) -> Readings:
        reply = await _get(self._transport, "system_stats")
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

    async def finish(self) -> Readings:
        return Readings(asked=False)

    def close(self) -> None:
        """There is nothing to close."""


class QueueLength:
    """How many prompts run and wait, asked only while the event stream, which tells it too, is not heard."""

    name = "comfy"
    interval_s = 1.0
    patience_s = 20.0

    def __init__(self, transport: Transport, heard: Callable[[], bool]) -> None:
        self._transport = transport
        self._heard = heard

    async def open(self) -> None:
        """There is nothing to open."""

    async def read(self) -> Readings:
        if self._heard():
            return Readings(asked=False)
        remaining = decode_queue_remaining((await _get(self._transport, "prompt")).body)
        if self._heard():  # what the stream tells since is newer
            return Readings(asked=False)
        return Readings(values={"queue_remaining": remaining})

    async def finish(self) -> Readings:
        return Readings(asked=False)

    def close(self) -> None:
        """There is nothing to close."""


def _of_device(device: dict[str, Any]) -> dict[str, float | None]:
    """`torch_active_bytes` is what tensors hold, `torch_reserved_bytes` what PyTorch has taken from the driver."""
    known = {key: finite(device.get(key)) for key in ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free")}
    total, free, reserved, idle = known.values()
    return {
        "vram_total_bytes": total,
        "vram_free_bytes": free,
        "vram_used_bytes": None if total is None or free is None else total - free,
        "torch_reserved_bytes": reserved,
        "torch_active_bytes": None if reserved is None or idle is None else reserved - idle,
    }


async def _get(transport: Transport, path: str) -> Reply:
    try:
        reply = await transport.call(Request(method="GET", path=path, timeout_s=15, most_bytes=MAX_FACTS_BYTES))
    except TransportError as error:
        raise NoReading(str(error)) from None
    if reply.status != 200:
        raise NoReading(f"/{path} answers HTTP {reply.status}")
    return reply
