"""What a server can report about itself, without any prompt being submitted."""

import asyncio
import json
import posixpath
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Struct, structs

from comfyload import clock
from comfyload.comfy.api import api_of
from comfyload.comfy.identify import describe_classes, json_object
from comfyload.comfy.stream import frames_of
from comfyload.comfy.wire.calls import MAX_BODY_BYTES, MAX_FACTS_BYTES, Reply, Request, Transport, TransportError
from comfyload.comfy.wire.classes import decode_modules, decode_some
from comfyload.comfy.wire.messages import decode_message
from comfyload.comfy.wire.queue import decode_queue
from comfyload.errors import WorkflowError
from comfyload.record.model import Server
from comfyload.workflow.graph import Workflow
from comfyload.workflow.preflight import PreflightAnswer, Problem, check, describe, merged

FLAGS = {
    "--cpu": "no GPU is used, and the times do not apply to a server with one",
    "--lowvram": "models are moved in and out of the GPU in every job",
    "--novram": "nothing stays on the GPU: every job moves all weights",
    "--disable-smart-memory": "models leave the GPU after each job, and the next one loads them again",
    "--deterministic": "slower kernels are used so that results repeat exactly",
    "--preview-method": "samplers draw previews, which takes time in every step",
}
"""Flags of the server that change what is measured, and how."""

ABILITIES = (
    ("client_prompt_id", "0.3.45", "prompt ids of the client's own: when a reply is lost, so is the job"),
    ("interrupt_by_id", "0.3.57", "interrupt by id: a running job cannot be stopped without risk to others'"),
    ("jobs_api", "0.6", "/api/jobs: lost jobs are searched in queue and history, which takes longer"),
    ("jobs_cancel", "0.26", "cancel by id: jobs are deleted from the queue or interrupted instead"),
)
"""What a server may lack: field of its facts, the version that has it, and what follows without it."""

CREATE_TIME = (0, 3, 69)

DATE_ROUTE = "comfyload-doctor"
"""A route no server has: a reply of 404 comes with its headers, and costs the server nothing."""

GATEWAY_ROUTE = "comfyload/livez"
"""The gateway's own, which no server has."""

DATE_SAMPLES = 6
DATE_PAUSE_S = 0.17
"""Six replies over 0.85 s: between two of them the server's second mostly changes, which narrows its clock down."""


class Described(Struct, frozen=True):
    """`classes`: `/object_info` of the wanted classes. `known`: all that the server has; None if that is not known."""

    classes: dict[str, Any]
    known: frozenset[str] | None


class QueueContents(Struct, frozen=True):
    """Everyone's prompts: ids of the running ones, how many wait, and how many clients they are of."""

    running: list[str]
    pending: int
    clients: int

    @property
    def total(self) -> int:
        return len(self.running) + self.pending


class Watched(Struct, frozen=True):
    """A queue that is not empty, watched for `seconds`: whether the worker made progress, and how many events came.

    `moved` None: the queue could not be read.
    """

    moved: bool | None
    events: int
    seconds: float


async def fetch_object_info(transport: Transport, classes: Iterable[str]) -> Described:
    """The server's description of these classes; only if one is unknown, the names of all, which costs it a pause."""
    wanted = set(classes)
    described = await describe_classes(transport, wanted)
    if wanted <= described.keys():
        return Described(described, frozenset(described))
    replacements = Request(method="GET", path="node_replacements", timeout_s=30.0)
    whole, replaced = await asyncio.gather(_try(transport, "object_info"), json_object(transport.call(replacements)))
    try:
        names = decode_modules(whole.body) if whole is not None and whole.status == 200 else {}
        described |= decode_some(whole.body, wanted & names.keys()) if whole is not None and names else {}
    except msgspec.MsgspecError:
        names = {}
    if not names:
        return Described(described, None)
    # A class that is gone is replaced by its successor when the prompt arrives.
    return Described(described, frozenset(names) | frozenset(replaced or ()))


async def preflight(
    transport: Transport, sent: Iterable[Workflow], described: Described, server: Server, places: Sequence[str] = ()
) -> PreflightAnswer:
    """What the server would do with these graphs, which differ in their values alone; files that no list of it names
    are looked up there. `places`: which rows of a table they are of.
    """
    answers = [check(graph, described.classes, described.known, version=server.version) for graph in sent]
    windows = _is_windows(server)
    names = {str(p.value) for answer in answers for p in answer.problems if p.kind == "missing_image"}
    missing = await missing_images(transport, names, windows)
    slashed = {name: name.replace("\\", "/") for name in missing if "\\" in name}
    gone = await missing_images(transport, slashed.values(), windows) if slashed else set()

    def looked_for(problem: Problem) -> Problem | None:
        name = str(problem.value)
        if problem.kind != "missing_image":
            return problem
        there = name in slashed and slashed[name] not in gone
        return structs.replace(problem, near=[slashed[name]]) if there else problem if name in missing else None

    left = [
        structs.replace(answer, problems=[found for p in answer.problems if (found := looked_for(p)) is not None])
        for answer in answers
    ]
    return merged(left, places)


async def refuse_deadly(transport: Transport, workflow: Workflow) -> None:
    """Ask the server for the classes of a graph that has a link to no node, as some of these kill its worker.

    Raises:
        WorkflowError: this one would.
    """
    if not workflow.dangling():
        return
    described = await fetch_object_info(transport, {workflow.class_of(node) for node in workflow.graph})
    answer = check(workflow, described.classes, described.known)
    if answer.verdict == "kills":
        raise WorkflowError(describe(answer, workflow.name), "take the link out, or put the node in")


async def missing_images(transport: Transport, names: Iterable[str], windows: bool | None = None) -> set[str]:
    """Which of these input files the server does not have. One that it gives no answer about counts as there.

    `windows`: whether a backslash parts folders there; None: not known, and such a name is not checked.
    """
    api, limit = api_of(transport), asyncio.Semaphore(8)

    async def gone(name: str) -> bool:
        if "\\" in name and windows is None:
            return False
        async with limit:
            path = name.replace("\\", "/") if windows else name
            reply = await _try(transport, api.view_path(*_file(path)), method="HEAD")
        return reply is not None and reply.status == 404

    unique = sorted(set(names))
    found = await asyncio.gather(*(gone(name) for name in unique))
    return {name for name, is_gone in zip(unique, found, strict=True) if is_gone}


def _is_windows(server: Server) -> bool | None:
    """By what `/system_stats` calls its system: `nt` or `posix` once, `win32`, `linux` or `darwin` since 0.3.76."""
    name = server.system.get("os")
    return name == "nt" or name.startswith("win") if isinstance(name, str) else None


async def round_trips(transport: Transport, count: int = 10) -> list[float]:
    """Seconds that the cheapest call took, one after the other; one without a reply is the last."""
    seconds = []
    for _ in range(count):
        began = clock.now()
        reply = await _try(transport, "prompt", most_bytes=MAX_FACTS_BYTES)
        if reply is None:
            break
        if reply.status == 200:
            seconds.append(clock.now() - began)
    return seconds


async def is_gateway(transport: Transport) -> bool:
    """Whether `comfyload gateway` answers, and not a server itself."""
    reply = await _try(transport, GATEWAY_ROUTE, most_bytes=MAX_FACTS_BYTES)
    return reply is not None and reply.status == 200 and reply.body == b"ok\n"


async def clock_offset(transport: Transport) -> tuple[float, float] | None:
    """Between how many seconds the server's wall clock is ahead of ours; None if its replies carry no date.

    The date has whole seconds: a server that writes D is somewhere in [D, D + 1), at some instant between our sending
    and our receiving. Several replies narrow it down.
    """
    low, high = float("-inf"), float("inf")
    for number in range(DATE_SAMPLES):
        if number:
            await asyncio.sleep(DATE_PAUSE_S)
        sent = datetime.now(UTC).timestamp()
        reply = await _try(transport, DATE_ROUTE, most_bytes=MAX_FACTS_BYTES)
        received = datetime.now(UTC).timestamp()
        if reply is None:
            break
        try:
            date = parsedate_to_datetime(reply.headers["date"]).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        low, high = max(low, date - received), min(high, date + 1.0 - sent)
    return (low, high) if float("-inf") < low <= high else None


def disturbing_flags(argv: list[str]) -> dict[str, str]:
    """Those of the server's flags that change what is measured, and what they do; `--preview-method none` does not."""
    words = [part for word in argv for part in word.split("=", 1)]
    found = {flag: FLAGS[flag] for flag in FLAGS if flag in words}
    if "--preview-method" in found and words[words.index("--preview-method") + 1 :][:1] == ["none"]:
        del found["--preview-method"]
    return found


def missing_abilities(server: Server) -> list[str]:
    """What a server of a known version cannot do for a run, and what follows."""
    lacks = [f"{what} (since {since})" for field, since, what in ABILITIES if not getattr(server, field)]
    if server.version is not None and server.version < CREATE_TIME:
        lacks.append("the time a job was queued: queue wait is not measured (since 0.3.69)")
    return lacks


async def look_at_queue(transport: Transport) -> QueueContents | None:
    """Whose prompts are in the queue. The reply holds every waiting graph: not a call to repeat often."""
    reply = await _try(transport, "queue", timeout_s=60)
    if reply is None or reply.status != 200:
        return None
    try:
        running, pending = decode_queue(reply.body)
    except msgspec.MsgspecError:
        return None
    clients = {
        json.dumps(extra.get("client_id") if isinstance(extra, dict) else None) for _, extra in running + pending
    }
    return QueueContents([str(prompt_id) for prompt_id, _ in running], len(pending), len(clients))


async def greeting(transport: Transport, within_s: float = 2.0) -> float | str:
    """Seconds until the first event of the stream, or why there was none."""
    began = clock.now()
    try:
        async with asyncio.timeout(within_s), frames_of(transport, str(uuid.uuid4())) as frames:
            async for _ in frames:
                return clock.now() - began
    except TimeoutError:
        return f"none within {within_s:g} s"
    except TransportError as error:
        return str(error)
    return "the server closed it at once"


async def watch_worker(transport: Transport, seconds: float = 3.0) -> Watched:
    """Whether a worker with something in its queue makes progress: another prompt runs, or its nodes send events."""
    before, began = await look_at_queue(transport), clock.now()
    events, works = await _listen(transport, seconds)
    # A socket that failed must not cut the watch short.
    left = seconds - (clock.now() - began)
    if not works and left > 0:
        await asyncio.sleep(left)
    after = await look_at_queue(transport)
    moved = None if before is None or after is None else before.running != after.running
    return Watched(works or moved, events, clock.now() - began)


async def _listen(transport: Transport, seconds: float) -> tuple[int, bool]:
    """Events after the greeting, and whether a running node sent one. Every prompt sends events to everyone when it is
    queued and when it ends, but of its nodes only if it was sent without a client's name.
    """
    count = -1
    try:
        async with asyncio.timeout(seconds), frames_of(transport, str(uuid.uuid4())) as frames:
            async for frame, is_text in frames:
                count += 1
                message = decode_message(frame) if is_text else None
                if not is_text or (message is not None and message.type.startswith("progress")):
                    return count, True
    except (TimeoutError, TransportError):
        pass
    return max(0, count), False


def _file(name: str) -> tuple[str, str, str]:
    """Name, folder and kind of an input file by the name a graph has for it: `folder/name.png [output]`."""
    kind = "input"
    for folder in ("output", "input", "temp"):
        if name.endswith(f"[{folder}]"):
            kind, name = folder, name[: -len(folder) - 3]  # the server cuts one more, which should be a space
            break
    subfolder, filename = posixpath.split(name)
    return filename, subfolder, kind


async def _try(
    transport: Transport, path: str, method: str = "GET", timeout_s: float = 15.0, most_bytes: int = MAX_BODY_BYTES
) -> Reply | None:
    try:
        return await transport.call(Request(method=method, path=path, timeout_s=timeout_s, most_bytes=most_bytes))
    except TransportError:
        return None
