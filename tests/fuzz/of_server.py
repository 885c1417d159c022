"""What a server can send: answers, events, classes, readings."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import types
import zlib
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, cast
from unittest.mock import patch

import msgspec

from comfyload.comfy.api import api_of
from comfyload.comfy.connection import HttpConnection
from comfyload.comfy.examine import fetch_object_info, look_at_queue, missing_images
from comfyload.comfy.gateway import message_in, who_answers
from comfyload.comfy.identify import describe_classes, describe_packs, describe_probe, identify
from comfyload.comfy.incoming import BodiesUnderWay, Broken, Incoming
from comfyload.comfy.inflight import InFlight
from comfyload.comfy.reported import files_of, outputs_of
from comfyload.comfy.submit_error import classify_refusal, node_errors_of
from comfyload.comfy.tracker import PromptTracker
from comfyload.comfy.wire.history import decode_history
from comfyload.comfy.wire.lenient import decode_json
from comfyload.comfy.wire.messages import decode_message
from comfyload.errors import ComfyloadError, UsageError
from comfyload.judge.columns.fold import Fold
from comfyload.record.codec import decode, encode, encode_pretty
from comfyload.record.model import Record, Server
from comfyload.telemetry import exposition
from comfyload.telemetry import probe as telemetry_probe
from comfyload.telemetry.probe import Probe
from comfyload.telemetry.server import QueueLength, Stats
from comfyload.telemetry.source import NoReading, NotAvailable
from comfyload.visible import visible
from comfyload.workflow.object_info import ObjectInfo
from comfyload.workflow.preflight import check
from comfyload.workflow.seeds import find_seeds
from tests.fuzz.of_input import GRAPH, workflow
from tests.fuzz.target import Answers, Target, kept, now, plain, texts
from tests.unit.judge_runs import FACTS

__all__ = ["TARGETS"]


def _without_pauses(feed: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The same where nothing waits for a server's next rows, nor rests between two families of numbers."""

    def fed(data: bytes) -> None:
        resting = types.SimpleNamespace(sleep=lambda _: None)
        with patch.object(telemetry_probe, "WAITS_S", (0.0, 0.0)), patch.object(exposition, "time", resting):
            feed(data)

    return fed


def _record(execution: Any) -> Record:
    return Record(index=0, prompt_id="p", workflow="w", warmup=False, due=0.0, values={}, execution=execution)


def events(data: bytes) -> None:
    """Frames, one a line, into what follows a job; then its record is written, read and folded."""
    now(_events(data))


async def _events(data: bytes) -> None:
    inflight = InFlight(lambda: 1.0, lambda *_: None)
    job = inflight.add("p")
    inflight.give_up(inflight.add("q"))
    job.tracker.sent = 0.5
    for line in data.split(b"\n"):
        if line[:1] == b"\0":
            inflight.on_frame(line, False)
            continue
        inflight.on_frame(line, True)
        message = decode_message(line)
        if message is not None:
            try:
                message.data.cached_nodes()
                message.data.node_states()
            except msgspec.MsgspecError:
                pass
    record = _record(job.tracker.execution("completed", done=1.0, end_source="events", failure=job.tracker.error))
    kept(record)
    fold(record)


def fold(record: Record) -> None:
    folded = Fold([FACTS])
    folded.add([record])
    folded.finish()


def history(data: bytes) -> None:
    """The authority on how a job ended."""
    entry = decode_history(data, "p")
    if entry is None:
        return
    tracker = PromptTracker()
    outcome, failure = tracker.verdict(entry)
    for name, folder, kind in files_of(entry):
        api_of(Answers(b"")).view_path(name, folder, kind)
    outputs_of(entry)
    record = _record(tracker.execution(outcome, done=1.0, end_source="history", failure=failure, entry=entry))
    kept(record)
    fold(record)


def answers(data: bytes) -> None:
    """Where a job is, by the calls of every version."""
    for able in (True, False):
        server = Server(url="u", jobs_api=able, jobs_cancel=able, interrupt_by_id=able)
        api = api_of(Answers(data), server)
        now(api.prompt_state("p"))
        now(api.queue_remaining())
        now(api.alive())
        now(api.stop("p"))
        now(api.delete(["p"]))
    now(look_at_queue(Answers(data)))


def refusal(data: bytes) -> None:
    """What is answered to a prompt."""
    reply = Answers(data).reply
    for status in {reply.status, 400}:
        failure = classify_refusal(status, data, reply.headers)
        kept(_record(PromptTracker().execution("failed", done=1.0, end_source="client", failure=failure)))
    try:
        accepted, hidden = node_errors_of(data)
    except msgspec.MsgspecError:
        return
    tracker = PromptTracker()
    tracker.number = accepted.number
    kept(_record(tracker.execution("failed", done=1.0, end_source="client", failure=hidden)))


def gateway(data: bytes) -> None:
    """A page, or what else stands before a server."""
    for status in (200, 301, 403, 429, 502):
        body = Answers(data)
        headers = {"location": data[:80].decode("latin-1"), "retry-after": data[:9].decode("latin-1")}
        reply = msgspec.structs.replace(body.reply, status=status, headers=headers)
        found = who_answers(reply, body.name)
        assert found is None or visible(found.message)
    assert len(message_in(data)) <= 200


def identified(data: bytes) -> None:
    """Who a server is; kept in the manifest."""
    answering = Answers(data)
    now(describe_packs(answering))
    facts = now(describe_probe(answering))
    server = now(identify(answering, answering.name, []))
    assert decode(encode_pretty(server), msgspec.json.Decoder(Server)).url == server.url
    encode(facts)


def object_info(data: bytes) -> None:
    """Classes of nodes, and what follows for a graph."""
    answering = Answers(data)
    now(describe_classes(answering, ["KSampler"]))
    described = now(fetch_object_info(answering, ["KSampler", "Gone"]))
    now(missing_images(answering, ["x.png [output]", "a\\b.png"], None))
    try:
        classes = decode_json(data, dict[str, Any])
    except msgspec.MsgspecError:
        classes = described.classes
    info = ObjectInfo(classes)
    info.packs()
    graph = workflow()
    for name in [*classes, *(graph.class_of(node) for node in graph.graph)]:
        of = info[name]
        _ = of.output, of.pack, of.core, of.heavy, of.sampler, of.loads, of.plain
        for key in ("seed", "steps", "model", "ckpt_name", "images", "a"):
            spec = of.spec(key)
            if spec is not None:
                _ = spec.bounds, spec.choices
    find_seeds(graph, info)
    _ = check(graph, classes, None).verdict


def probe(data: bytes) -> None:
    """Answers of the instrumentation pack, as readings."""
    source = Probe(Answers(data), lambda: 1.0)
    now(source.open())
    for read in (source.read, source.finish):
        readings = now(read())
        kept(*readings.samples, *readings.lines)
        _all_finite(readings.values)


def rows(data: bytes) -> None:
    """Rows of the pack: a clock that answers well, and a page of rows that does not."""
    events_of = Answers(data)
    clock = Answers(b'{"boot":"b","mono_s":1.0,"seq":0}')

    class Both:
        name = "x"

        async def call(self, request: Any) -> Any:
            of = clock if request.path.endswith("clock") else events_of
            return msgspec.structs.replace(of.reply, status=200)

    source = Probe(Both(), lambda: 1.0)  # type: ignore[arg-type]
    now(source.open())
    readings = now(source.read())
    kept(*readings.samples, *readings.lines)


def stats(data: bytes) -> None:
    """Memory and queue, as ComfyUI tells them."""
    answering = Answers(data)
    for source in (Stats(answering), QueueLength(answering, lambda: False)):
        with suppress(NoReading):
            _all_finite(now(source.read()).values)


def prometheus(data: bytes) -> None:
    """A page of Prometheus text."""
    pages = exposition.Exposition()
    for text in texts(data):
        _all_finite(pages.read(text))


def _all_finite(values: dict[str, float | None]) -> None:
    assert all(value is None or math.isfinite(value) for value in values.values()), "a reading that no number is"


def _json(*values: object) -> list[bytes]:
    return [plain(json.dumps(value).encode()) for value in values]


_PROGRESS = {"1": {"state": "running", "display_node_id": "1"}, "2": {"state": "finished"}}
_MESSAGES: list[dict[str, Any]] = [
    {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}, "sid": "s"}},
    {"type": "execution_start", "data": {"prompt_id": "p", "timestamp": 1700000000000}},
    {"type": "execution_cached", "data": {"nodes": ["4"], "prompt_id": "p", "timestamp": 1700000000001}},
    {"type": "executing", "data": {"node": "1", "display_node": "1", "prompt_id": "p"}},
    {"type": "progress_state", "data": {"prompt_id": "p", "nodes": _PROGRESS}},
    {"type": "execution_error", "data": {"prompt_id": "p", "node_id": "1", "node_type": "K", "exception_message": "m",
                                         "exception_type": "E", "timestamp": 1700000000009}},
    {"type": "execution_success", "data": {"prompt_id": "p", "timestamp": 1700000000010}},
    {"type": "executing", "data": {"node": None, "prompt_id": "p"}},
    {"type": "execution_start", "data": {"prompt_id": "q", "timestamp": 1}},
]  # fmt: skip
_FILE = {"filename": "x.png", "subfolder": "a", "type": "output"}
_HISTORY = {
    "p": {
        "prompt": [3, "p", GRAPH, {"create_time": 1700000000000, "client_id": "c"}, ["3"]],
        "outputs": {"3": {"images": [_FILE], "animated": [False], "text": ["hello"]}, "4": {"result": ["3d/x.glb"]}},
        "status": {"status_str": "success", "completed": True,
                   "messages": [[one["type"], one["data"]] for one in _MESSAGES]},
        "meta": {},
    }
}  # fmt: skip
_ERRORS = {"3": {"errors": [{"type": "t", "message": "m", "details": "d"}], "dependent_outputs": ["3"],
                 "class_type": "SaveImage"}}  # fmt: skip
_DEVICE = {"name": "cuda:0", "type": "cuda", "index": 0, "vram_total": 10, "vram_free": 5, "torch_vram_total": 4,
           "torch_vram_free": 1}  # fmt: skip
_SYSTEM = {"os": "linux", "comfyui_version": "0.33.0", "ram_total": 8, "ram_free": 4, "python_version": "3.11",
           "argv": ["main.py", "--cache-lru", "5", "--api-key", "x"]}  # fmt: skip
_INFO = {"KSampler": {
    "input": {"required": {"model": ["MODEL"], "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}],
                           "ckpt_name": [["a", "b"], {}], "sampler_name": ["COMBO", {"options": ["euler"]}],
                           "steps": ["INT,FLOAT", {"min": 1}]}, "optional": {"a": ["IMAGE"]},
              "hidden": {"u": "UNIQUE_ID"}},
    "input_order": {"required": ["model", "seed"]}, "output": ["LATENT"], "output_is_list": [False],
    "output_name": ["LATENT"], "name": "KSampler", "display_name": "K", "python_module": "nodes",
    "output_node": False, "deprecated": False}, "SaveImage": {
    "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "x"}]}},
    "output": [], "name": "SaveImage", "output_node": True, "python_module": "custom_nodes.pack"}}  # fmt: skip
_ROW = {"seq": 1, "boot": "b", "event": "sample", "mono_s": 2.0, "timestamp": "2026-11-23T12:00:00+00:00",
        "queue_depth": 2, "process": {"rss_bytes": 1, "cpu_s": 0.5},
        "gpus": [{"index": 0, "utilisation_percent": 50, "vram_used_bytes": 1, "vram_total_bytes": 2,
                  "throttle": ["x"]}]}  # fmt: skip
_ENDED = {"seq": 2, "boot": "b", "event": "prompt.ended", "mono_s": 3.0, "prompt_id": "p", "vram_peak_bytes": 9}
_PAGE = {"boot": "b", "next": 2, "rows": [_ROW, _ENDED, {"event": "prompt.queued", "prompt_id": "p"}], "missed": 0,
         "mono_s": 1.0, "seq": 0}  # fmt: skip
_METRICS = (
    b'# HELP x y\n# TYPE x counter\nx_total{gpu="0"} 3\n'
    b'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="u"} 98\nDCGM_FI_DEV_CLOCK_THROTTLE_REASONS{gpu="0"} 4\n'
    b'# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\n'
    b'nvidia_smi_index{uuid="u"} 0\nnvidia_smi_power_draw_watts{uuid="u"} 12.5\ny 1 1700000000\nz NaN\n'
)
_PAGES = [
    b"<html><head><title>Just a moment...</title></head><body>error code: 1010</body></html>",
    b'{"error": {"message": "no"}, "detail": "x"}',
    b"<!DOCTYPE html><p>&#x1b;</p><script>x</script>",
    b"https://login.test/?a=b",
]


class _Wire:
    """Where a connection writes to: nobody."""

    def __init__(self) -> None:
        self.closed = False

    def writelines(self, _lines: Any) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def replies(data: bytes) -> None:
    """Bytes of a connection, in pieces that follow from them; then the server closes it."""
    now(_replies(data))


async def _replies(data: bytes) -> None:
    wire, scratch, drawn = _Wire(), memoryview(bytearray(1 << 16)), Random(zlib.crc32(data))
    connection, bodies = HttpConnection(scratch), BodiesUnderWay()
    connection.connection_made(cast(Any, wire))
    loop = asyncio.get_running_loop()
    left = data
    while connection.usable and (left or left is data):
        reply = Incoming(bodies, most=1 << 20, together=1 << 21, kept=drawn.choice((None, None, 16)))
        exchange = asyncio.ensure_future(connection.exchange([b""], reply, loop.time() + 10.0))
        await asyncio.sleep(0)
        while left and not exchange.done() and not wire.closed:
            size = drawn.choice((1, 7, 100, 1 << 16))
            scratch[: len(left[:size])] = left[:size]
            connection.buffer_updated(len(left[:size]))
            left = left[size:]
            await asyncio.sleep(0)
        if not exchange.done():
            wire.closed = True
            connection.connection_lost(None)
        (error,) = await asyncio.gather(exchange, return_exceptions=True)
        assert error is None or isinstance(error, Broken), error
        if error is None:
            assert reply.size <= 1 << 20 and len(reply.body) == (
                reply.size if reply.kept is None else min(reply.size, 16)
            )
            assert reply.content_type and reply.status
        if not left:
            break
    connection.abort()
    assert (bodies.count, bodies.total) == (0, 0)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_REPLIES = [
    _HEAD + b"Content-Length: 2\r\n\r\n{}" + _HEAD + b"Content-Length: 0\r\n\r\n",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + _HEAD + b"\r\n{}",
    _HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}" * 99, mtime=0),
    _HEAD + b"Content-Encoding: deflate\r\nContent-Length: 10\r\n\r\n" + zlib.compress(b"{}"),
    b"HTTP/1.1 302 Found\r\nLocation: http://there/\r\nConnection: close\r\n\r\n",
]

TARGETS = [
    Target(name="replies", what="HTTP, byte by byte", feed=replies, seeds=_REPLIES),
    Target(name="events", what="frames of the WebSocket, to the record of a job", feed=events,
           seeds=[b"\n".join(_json(*_MESSAGES)), b"\0\0\0\1binary", *_json(*_MESSAGES)]),
    Target(name="history", what="/history/{id}, to the record of a job", feed=history, errors=(msgspec.MsgspecError,),
           seeds=_json(_HISTORY)),
    Target(name="answers", what="/api/jobs, /queue, /prompt, and what else is asked of a job", feed=answers,
           seeds=_json({"status": "completed"}, {"exec_info": {"queue_remaining": 0}}, _HISTORY,
                       {"queue_running": [[1, "p", {}, {"client_id": "c"}]], "queue_pending": [[2, "q"]]})),
    Target(name="refusal", what="answers to POST /prompt", feed=refusal,
           seeds=_json({"prompt_id": "p", "number": 1, "node_errors": _ERRORS}, {"error": "words"}, {
               "error": {"type": "invalid_prompt", "message": "m", "details": "d",
                         "extra_info": {"node_id": "3", "class_type": "K"}}, "node_errors": _ERRORS})),
    Target(name="gateway", what="pages and refusals of gateways", feed=gateway, seeds=_PAGES),
    Target(name="identify", what="/system_stats, /features, packs, environment", feed=identified,
           errors=(ComfyloadError,), seeds=_json({"system": _SYSTEM, "devices": [_DEVICE],
                                                   "facts": {"gpu.0.model": {"value": "x", "source": "nvml"}}})),
    Target(name="object_info", what="/object_info, and what follows for a graph", feed=object_info,
           errors=(UsageError,), seeds=_json(_INFO)),
    Target(name="probe", what="answers of the instrumentation pack", feed=_without_pauses(probe),
           errors=(NotAvailable, NoReading),
           seeds=_json(_PAGE)),
    Target(name="probe_rows", what="rows of the instrumentation pack", feed=_without_pauses(rows),
           errors=(NotAvailable, NoReading),
           seeds=_json(_PAGE)),
    Target(name="stats", what="memory and queue, as readings", feed=stats,
           seeds=_json({"system": _SYSTEM, "devices": [_DEVICE], "exec_info": {"queue_remaining": 3}})),
    Target(name="prometheus", what="a page of Prometheus text", feed=_without_pauses(prometheus), errors=(ValueError,),
           seeds=[_METRICS]),
]  # fmt: skip
