"""Finds out once what a server is and can do: version, flags, devices, and which calls it supports."""

import asyncio
import re
from collections.abc import Awaitable, Iterable
from itertools import islice, takewhile
from typing import Any

import msgspec

from comfyload.comfy.api import Api, api_of
from comfyload.comfy.gateway import NO_COMFYUI, who_answers
from comfyload.comfy.wire.calls import MAX_FACTS_BYTES, Reply, Transport, TransportError
from comfyload.comfy.wire.classes import decode_modules
from comfyload.comfy.wire.lenient import decode_json
from comfyload.errors import NotComfyUI, ServerUnreachable
from comfyload.record.codec import within_levels
from comfyload.record.model import Environment, Fact, Server
from comfyload.workflow.object_info import packs_of

MOST_FACTS, LONGEST_FACT = 1000, 2000
"""Of the probe's facts: how many are kept, and how many letters of one."""

INTERRUPT_BY_ID = (0, 3, 57)
CLIENT_PROMPT_ID = (0, 3, 45)
JOBS_CANCEL = (0, 26, 0)

ITS_TROUBLE = b"Server got itself in trouble"
"""The text of the web server inside ComfyUI for an error in a route; gateways have other texts."""

ITS_OWN = {"os", "comfyui_version", "python_version", "embedded_python", "argv", "pytorch_version", "ram_total"}
"""Facts of `/system_stats`; every version has some of them."""


class _Stats(msgspec.Struct):
    system: dict[str, Any]
    devices: list[dict[str, Any]] = []


async def identify(transport: Transport, name: str, header_names: list[str], called: str = "") -> Server:
    """Find out what the server is. `name`: its redacted address; `called`: its name among several.

    A server that fails by itself (500) is accepted with nothing known.

    Raises:
        ServerUnreachable: no connection, or a gateway or a guard in front of the server answers instead of it.
        NotComfyUI: something else answers there.
    """
    api = api_of(transport)
    reply = await _facts(api, name)
    if reply.status == 500:
        return Server(url=name, headers=header_names, name=called)
    stats = _stats(reply, name)
    version = _version(stats.system.get("comfyui_version"))
    argv = stats.system.get("argv")
    argv = [str(part)[:1000] for part in argv[:1000]] if isinstance(argv, list) else None
    features, remaining, jobs_api = await asyncio.gather(
        json_object(api.features()), api.queue_remaining(), api.has_jobs()
    )
    return Server(
        url=name,
        comfyui_version=str(stats.system["comfyui_version"])[:100] if "comfyui_version" in stats.system else None,
        version=version,
        jobs_api=jobs_api,
        jobs_cancel=jobs_api and version is not None and version >= JOBS_CANCEL,
        interrupt_by_id=version is not None and version >= INTERRUPT_BY_ID,
        client_prompt_id=version is None or version >= CLIENT_PROMPT_ID,
        argv=None if argv is None else _without_secrets(argv),
        cache_mode=None if argv is None else _cache_mode(argv, version),
        system={key: value for key, value in stats.system.items() if key not in ("argv", "comfyui_version")},
        devices=stats.devices,
        features=features if within_levels(features) else None,
        queue_at_start=remaining,
        headers=header_names,
        name=called,
    )


async def _facts(api: Api, name: str) -> Reply:
    """The reply to `/system_stats`, from a ComfyUI as far as its status and its words show.

    A ComfyUI that fails to describe itself (500) is recognized by its web server's words, or by its queue: its GPU may
    be gone while its queue is there.
    """
    try:
        reply = await api.stats()
    except TransportError as error:
        raise _no_answer(error, name) from None
    refusal = who_answers(reply, name)
    if refusal is not None:
        raise refusal
    if reply.status == 500 and ITS_TROUBLE not in reply.body and await api.queue_remaining() is None:
        raise NotComfyUI(f"{name} answers HTTP 500, and has no queue of a ComfyUI either", NO_COMFYUI)
    return reply


def _no_answer(error: TransportError, name: str) -> ServerUnreachable:
    if error.vain:
        why = f"{name}: /system_stats is not what a ComfyUI answers (larger than {MAX_FACTS_BYTES >> 20} MiB)"
        return NotComfyUI(why, NO_COMFYUI)
    if error.ours:
        unknown = "cannot resolve" in str(error)
        hint = "check the name in --server, and this machine's name service" if unknown else "fix that first"
        return ServerUnreachable(f"the server cannot be reached: {error}", hint)
    hint = "check the certificate, or give --ca-file or --insecure" if "TLS" in str(error) else "is ComfyUI running?"
    return ServerUnreachable(f"no ComfyUI at {error}", hint)


async def describe_classes(transport: Transport, classes: Iterable[str]) -> dict[str, Any]:
    """`/object_info` of these classes, one call each: the whole of it blocks the server's event loop for 0.2 s or more.

    A class that the server does not know, or a call that fails, is left out.
    """
    api, limit = api_of(transport), asyncio.Semaphore(8)

    async def one(name: str) -> dict[str, Any]:
        async with limit:
            return await json_object(api.node_class(name)) or {}

    found: dict[str, Any] = {}
    for described in await asyncio.gather(*(one(name) for name in sorted(set(classes)))):
        found |= described
    return found


async def describe_packs(transport: Transport) -> list[str] | None:
    """Custom node packs with nodes of their own, from the whole `/object_info`; None: it could not be read."""
    try:
        reply = await api_of(transport).node_classes()
        return packs_of(decode_modules(reply.body).values()) if reply.status == 200 else None
    except (TransportError, msgspec.MsgspecError):
        return None


async def describe_probe(transport: Transport) -> Environment:
    """What the instrumentation pack knows of its server, each fact with the probe as its source; {} without a pack."""
    environment = await json_object(api_of(transport).probe("environment", 15.0, MAX_FACTS_BYTES))
    facts = environment.get("facts") if environment is not None else None
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
            f"{name}: /system_stats is not what a ComfyUI answers (none of its facts is in it)", NO_COMFYUI
        )
    return stats


async def json_object(call: Awaitable[Reply]) -> dict[str, Any] | None:
    """The JSON object of a reply with status 200; None: there is no such reply."""
    try:
        reply = await call
        return decode_json(reply.body, dict[str, Any]) if reply.status == 200 else None
    except (TransportError, msgspec.MsgspecError):
        return None


def _version(text: object) -> tuple[int, int, int] | None:
    found = re.match(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", text) if isinstance(text, str) else None
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def _cache_mode(argv: list[str], version: tuple[int, int, int] | None) -> str | None:
    """How the server caches node results, by its flags; None: they do not say, and its version is not known."""
    for place, flag in enumerate(argv):
        if flag in ("--cache-none", "--cache-classic", "--high-ram"):
            return "classic" if flag == "--high-ram" else flag.removeprefix("--cache-")
        if flag in ("--cache-lru", "--cache-ram"):
            values = takewhile(lambda value: not value.startswith("-"), argv[place + 1 :])
            return " ".join([flag.removeprefix("--cache-"), *values])
    return None if version is None else "ram" if version >= (0, 23, 0) else "classic"


def _without_secrets(argv: list[str]) -> list[str]:
    """Flags may hold a custom node's token or a database password; values that look like one are not kept."""
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
