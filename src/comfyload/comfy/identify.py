"""What a server is and can do, found out once: version, flags, devices, and which calls it understands."""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from comfyload.comfy.gateway import NO_COMFYUI, who_answers
from comfyload.comfy.wire import (
    MAX_BODY_BYTES,
    MAX_FACTS_BYTES,
    Request,
    TransportError,
    decode_json,
    decode_modules,
    decode_queue_remaining,
)
from comfyload.errors import NotComfyUI, ServerUnreachable
from comfyload.record.codec import within_levels
from comfyload.record.model import Environment, Fact, Server
from comfyload.workflow.object_info import packs_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from comfyload.comfy.transport import Transport
    from comfyload.comfy.wire import Reply

__all__ = ["describe_classes", "describe_packs", "describe_probe", "identify"]

MOST_FACTS, LONGEST_FACT = 1000, 2000
"""Of what the probe tells: how many facts are kept, and how many letters of one."""

NO_SUCH_JOB = "00000000-0000-4000-8000-000000000000"

INTERRUPT_BY_ID = (0, 3, 57)
CLIENT_PROMPT_ID = (0, 3, 45)
JOBS_CANCEL = (0, 26, 0)

ITS_TROUBLE = b"Server got itself in trouble"
"""How the web server inside ComfyUI words an error of a route; a gateway words it otherwise."""

ITS_OWN = {"os", "comfyui_version", "python_version", "embedded_python", "argv", "pytorch_version", "ram_total"}
"""Facts of `/system_stats`, of which every version tells some."""


class _Stats(msgspec.Struct):
    system: dict[str, Any]
    devices: list[dict[str, Any]] = []


async def identify(transport: Transport, name: str, header_names: list[str]) -> Server:
    """Ask the server who it is. `name` is its redacted address.

    A server that fails on its own (500) is taken as it is, with nothing known: the run will tell.

    Raises:
        ServerUnreachable: no connection, or a gateway or a guard in front of the server answers instead of it.
        NotComfyUI: something else answers there.
    """
    reply = await _ask(transport, name)
    if reply.status == 500:
        return await _broken(transport, reply, Server(url=name, headers=header_names))
    stats = _stats(reply, name)
    version = _version(stats.system.get("comfyui_version"))
    argv = stats.system.get("argv")
    argv = [str(part)[:1000] for part in argv[:1000]] if isinstance(argv, list) else None
    features, queue, job = await asyncio.gather(
        _try(transport, "features", MAX_FACTS_BYTES),
        _try(transport, "prompt", MAX_FACTS_BYTES),
        _try(transport, f"api/jobs/{NO_SUCH_JOB}"),
    )
    told = _object(features)
    # A server without the route answers 404 in plain text; one with it says in JSON that there is no such job.
    jobs_api = job is not None and job.status == 404 and job.body.lstrip().startswith(b"{")
    return Server(
        url=name,
        comfyui_version=str(stats.system["comfyui_version"])[:100] if "comfyui_version" in stats.system else None,
        version=version,
        jobs_api=jobs_api,
        jobs_cancel=jobs_api and version is not None and version >= JOBS_CANCEL,
        interrupt_by_id=version is not None and version >= INTERRUPT_BY_ID,
        client_prompt_id=version is None or version >= CLIENT_PROMPT_ID,
        argv=_without_secrets(argv),
        cache_mode=_cache_mode(argv, version),
        system={key: value for key, value in stats.system.items() if key not in ("argv", "comfyui_version")},
        devices=stats.devices,
        features=told if within_levels(told) else None,
        queue_at_start=decode_queue_remaining(queue.body) if queue is not None and queue.status == 200 else None,
        headers=header_names,
    )


async def _ask(transport: Transport, name: str) -> Reply:
    """The answer to `/system_stats`, from a ComfyUI as far as its status and its words tell."""
    try:
        request = Request(method="GET", path="system_stats", timeout_s=15, most_bytes=MAX_FACTS_BYTES)
        reply = await transport.call(request)
    except TransportError as error:
        raise _no_answer(error, name) from None
    refusal = who_answers(reply, name)
    if refusal is not None:
        raise refusal
    return reply


def _no_answer(error: TransportError, name: str) -> ServerUnreachable:
    if error.vain:
        why = f"{name}: /system_stats is not what a ComfyUI answers (larger than {MAX_FACTS_BYTES >> 20} MiB)"
        return NotComfyUI(why, NO_COMFYUI)
    if error.ours:
        unknown = "cannot resolve" in str(error)
        mend = "check the name in --server, and this machine's name service" if unknown else "mend that first"
        return ServerUnreachable(f"the server cannot be asked: {error}", mend)
    hint = "check the certificate, or give --ca-file or --insecure" if "TLS" in str(error) else "is ComfyUI running?"
    return ServerUnreachable(f"no ComfyUI at {error}", hint)


async def describe_classes(transport: Transport, classes: Iterable[str]) -> dict[str, Any]:
    """`/object_info` of just these classes, asked one by one: the whole of it costs the server's loop 0.2 s and more.

    A class that the server does not know, or a call that fails, is left out.
    """
    limit = asyncio.Semaphore(8)

    async def one(name: str) -> dict[str, Any]:
        async with limit:
            return _object(await _try(transport, f"object_info/{quote(name, safe='', errors='surrogatepass')}")) or {}

    found: dict[str, Any] = {}
    for described in await asyncio.gather(*(one(name) for name in sorted(set(classes)))):
        found |= described
    return found


async def describe_packs(transport: Transport) -> list[str] | None:
    """Custom node packs with nodes of their own, from the whole `/object_info`; None if it could not be had."""
    reply = await _try(transport, "object_info")
    if reply is None or reply.status != 200:
        return None
    try:
        return packs_of(decode_modules(reply.body).values())
    except msgspec.MsgspecError:
        return None


async def describe_probe(transport: Transport) -> Environment:
    """What the instrumentation pack knows of its server, each fact with the probe as its source; {} without a pack."""
    told = _object(await _try(transport, "comfyload/v1/environment", MAX_FACTS_BYTES))
    facts = told.get("facts") if told is not None else None
    found: Environment = {}
    for key, fact in islice(facts.items() if isinstance(facts, dict) else (), MOST_FACTS):
        if isinstance(fact, dict):
            value, source = fact.get("value"), str(fact.get("source", ""))[:200]
            value = value[:LONGEST_FACT] if isinstance(value, str) else value
            if value is None or isinstance(value, str | int | float | bool):
                found[str(key)[:200]] = Fact(
                    value=value, source=f"probe ({source})" if source not in ("", "probe") else "probe"
                )
    return found


def _stats(reply: Reply, name: str) -> _Stats:
    """The body of `/system_stats`."""
    try:
        stats = decode_json(reply.body, _Stats)
    except msgspec.MsgspecError as error:
        raise NotComfyUI(f"{name}: /system_stats is not what a ComfyUI answers ({error})", NO_COMFYUI) from None
    if not within_levels([stats.system, stats.devices]):
        raise NotComfyUI(f"{name}: /system_stats is nested too deeply for a ComfyUI's", NO_COMFYUI)
    if not stats.devices and not stats.system.keys() & ITS_OWN:
        raise NotComfyUI(
            f"{name}: /system_stats is not what a ComfyUI answers (it tells none of its facts)", NO_COMFYUI
        )
    return stats


async def _broken(transport: Transport, reply: Reply, server: Server) -> Server:
    """The server that fails to tell about itself, if it is one: ComfyUI's GPU may be gone while its queue is there.

    Raises:
        NotComfyUI: nothing of a ComfyUI answers there.
    """
    if ITS_TROUBLE in reply.body:
        return server
    queue = await _try(transport, "prompt")
    if queue is None or queue.status != 200 or decode_queue_remaining(queue.body) is None:
        raise NotComfyUI(f"{server.url} answers HTTP 500, and has no queue of a ComfyUI either", NO_COMFYUI)
    return server


async def _try(transport: Transport, path: str, most_bytes: int = MAX_BODY_BYTES) -> Reply | None:
    try:
        return await transport.call(Request(method="GET", path=path, timeout_s=15, most_bytes=most_bytes))
    except TransportError:
        return None


def _object(reply: Reply | None) -> dict[str, Any] | None:
    if reply is None or reply.status != 200:
        return None
    try:
        return decode_json(reply.body, dict[str, Any])
    except msgspec.MsgspecError:
        return None


def _version(text: object) -> tuple[int, int, int] | None:
    found = re.match(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", text) if isinstance(text, str) else None
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def _cache_mode(argv: list[str] | None, version: tuple[int, int, int] | None) -> str | None:
    """How the server caches node results, by its flags; None if it did not show them."""
    if argv is None:
        return None
    for place, flag in enumerate(argv):
        if flag in ("--cache-none", "--cache-classic", "--high-ram"):
            return "classic" if flag == "--high-ram" else flag.removeprefix("--cache-")
        if flag in ("--cache-lru", "--cache-ram"):
            values = []
            for value in argv[place + 1 :]:
                if value.startswith("-"):
                    break
                values.append(value)
            return " ".join([flag.removeprefix("--cache-"), *values])
    return None if version is None else "ram" if version >= (0, 23, 0) else "classic"


def _without_secrets(argv: list[str] | None) -> list[str] | None:
    """Flags may carry a token of a custom node's or a database password; values that look so are not kept."""
    if argv is None:
        return None
    secret = re.compile(r"(key|token|secret|password|passwd|auth)", re.IGNORECASE)
    kept: list[str] = []
    for part in argv:
        flag, equals, _ = part.partition("=")
        if kept and kept[-1].startswith("-") and "=" not in kept[-1] and secret.search(kept[-1]) and part[:1] != "-":
            kept.append("***")
        elif equals and flag.startswith("-") and secret.search(flag):
            kept.append(f"{flag}=***")
        else:
            kept.append(re.sub(r"://[^/@\s]+:[^/@\s]+@", "://***@", part))
    return kept
