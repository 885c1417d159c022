"""What people give: graphs, tables, plans, gates, rates, logs, addresses, and text in any encoding."""

from __future__ import annotations

import atexit
import gzip
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from comfyload.app.run.given import parse_workflow
from comfyload.app.run.options import RunOptions, parse_notes, plan_hash, read_plan, to_toml
from comfyload.comfy.address import masked, parse_headers, parse_server, redacted, redirected, with_credentials
from comfyload.errors import UsageError
from comfyload.judge.gates.grammar import parse_gate, read_gates
from comfyload.load.arrivals import offsets
from comfyload.load.grammar import parse_arrivals, parse_duration, parse_order, parse_rate, parse_stages
from comfyload.load.recorded import read_recording
from comfyload.load.requests import match_of
from comfyload.record.codec import encode
from comfyload.record.plan import Open, Plan, Replay
from comfyload.retry import policy as policies
from comfyload.text_files import decode, decode_log
from comfyload.visible import visible, visible_lines
from comfyload.workflow.data import parse_table
from comfyload.workflow.graph import Workflow, parse
from comfyload.workflow.object_info import ObjectInfo
from comfyload.workflow.override import override
from comfyload.workflow.preflight import check
from comfyload.workflow.problems import describe
from comfyload.workflow.vary import Variation
from tests.fuzz.target import Target, texts

__all__ = ["GRAPH", "INFO", "TARGETS", "scratch", "workflow"]

GRAPH: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}, "_meta": {"title": "Load"}},
    "2": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 7, "steps": 20, "cfg": 8.0, "a": True}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}
INFO: dict[str, Any] = {
    "KSampler": {"input": {"required": {"model": ["MODEL"], "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
                                        "steps": ["INT", {"min": 1, "max": 100}], "cfg": ["FLOAT", {}],
                                        "a": ["BOOLEAN", {}]}}, "output": ["LATENT"], "python_module": "nodes"},
    "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["a", "b"]]}}, "output": ["MODEL", "CLIP", "VAE"]},
    "SaveImage": {"input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}}, "output": [],
                  "output_node": True},
}  # fmt: skip


@cache
def workflow() -> Workflow:
    return parse(json.dumps(GRAPH).encode(), "w")


@cache
def scratch() -> Path:
    """A folder of this process, for what reads files only."""
    folder = tempfile.mkdtemp(prefix="comfyload-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def graph(data: bytes) -> None:
    """A workflow: read, checked, varied, rendered."""
    found = parse(data, "w", "w.json")
    _ = found.sha256, found.sinks(), found.dangling()
    for node in found.graph:
        _ = found.class_of(node), found.title_of(node), found.parents(node)
        found.ancestors(node)
    info = ObjectInfo(INFO)
    describe(check(found, INFO, frozenset(INFO)))
    varied = Variation(found, info, seed=1, output_folder="f")
    json.loads(varied.prompt("run", 1, warmup=False).graph())
    encode(varied.values(2))


def table(data: bytes) -> None:
    """A table of values, and what its first rows ask of a graph."""
    for text in texts(data):
        try:
            read = parse_table(text, "t")
            varied = Variation(workflow(), ObjectInfo(INFO), seed=1, table=read)
            json.loads(varied.render(len(read.rows) + 1))
        except UsageError:
            pass


def settings(data: bytes) -> None:
    """`--set`, one a line."""
    for text in texts(data):
        _each(text.split("\n"), lambda one: override(workflow(), [one], ObjectInfo(INFO)))
        _each(text.split("\n"), lambda one: parse_notes([one]))
        _each(text.split("\n"), parse_workflow)


def plan(data: bytes) -> None:
    """A plan: what is written can be read, and its arrivals are instants."""
    file = scratch() / "plan.toml"
    file.write_bytes(data)
    options = read_plan(file)
    written = to_toml(options)
    assert msgspec.toml.decode(written, type=RunOptions) == options, "a plan that is another when it is read"
    plan_hash(options, [])
    _arrive(options.plan)


def _arrive(chosen: Plan) -> None:
    if isinstance(chosen.load, Open | Replay):
        before = 0.0
        for instant in islice(offsets(chosen.load, Random(1)), 50):
            assert math.isfinite(instant) and instant >= before, "arrivals out of order"
            before = instant


def rates(data: bytes) -> None:
    """Durations, rates, stages and arrivals."""
    for text in texts(data):
        for read in (parse_duration, parse_rate, parse_arrivals, parse_order, match_of):
            _each([text], read)
        try:
            stages = parse_stages(text)
        except UsageError:
            continue
        _arrive(Plan(load=Open(stages=stages)))


def gates(data: bytes) -> None:
    """One gate, and a file of them."""
    for text in texts(data):
        _each([text], parse_gate)
        _each([text], lambda one: read_gates(one, "gates.toml"))


def replay(data: bytes) -> None:
    """A log or a list of offsets as a schedule."""
    text = decode_log(data, "log")
    for match in (None, "POST /prompt", "x"):
        try:
            found = read_recording(text.split("\n"), "log", 2.0, match)
        except UsageError:
            continue
        _arrive(Plan(load=Replay(offsets_s=found.offsets_s)))
        assert visible(found.read_as) == found.read_as, "a steering sign in what a log was read as"


def policy(data: bytes) -> None:
    """A retry policy."""
    found = policies.decode(data)
    assert policies.decode(policies.encode(found)) == found, "a policy that is another when it is read"
    for class_ in found.classes:
        for attempt in (1, 2, 1000):
            policies.wait_s(found, class_, attempt, 0.0, 0.5)


def address(data: bytes) -> None:
    """Addresses and redirections."""
    base = parse_server("http://server.test/comfy/")
    for text in texts(data):
        masked(text)
        redirected(base, "system_stats", text)
        try:
            url = parse_server(text)
            redacted(url)
            with_credentials(url, {})
        except UsageError:
            pass


def headers(data: bytes) -> None:
    """`--header`, one a line."""
    for text in texts(data):
        _each(text.split("\n"), lambda one: parse_headers([one]))


def text_files(data: bytes) -> None:
    """Bytes of a file as text."""
    for read in (decode, decode_log):
        _each([data], lambda one, read=read: read(one, "file"))  # type: ignore[misc]


_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(data: bytes) -> None:
    """Text from outside, as it is shown."""
    for text in texts(data):
        one, many = visible(text), visible_lines(text)
        assert not _STEERING.search(one) and "\n" not in one and not _STEERING.search(many)
        assert visible(one) == one, "what is shown once is shown so again"
        one.encode()


def _each(inputs: list[Any], read: Callable[[Any], object]) -> None:
    for one in inputs:
        try:
            read(one)
        except UsageError as error:
            assert visible(error.message), "a refusal without a word"


_TABLE = b'2.seed,2.cfg,3.filename_prefix\n1,7.5,a\n2,8,b\n3,1E+11,"c,d"\n'
_PLAN = b"""server = "http://x"
settings = ["3.steps=2"]
[plan]
jobs = 10
timeout_s = 5.0
seed = 1
[plan.load]
kind = "open"
arrivals = "gamma"
cv = 0.5
max_in_flight = 3
[[plan.load.stages]]
per_s = 1.0
to_per_s = 2.0
seconds = 30.0
[[plan.load.stages]]
per_s = 0.0
seconds = 3.0
"""
_REPLAY = b"""[plan.load]
kind = "replay"
offsets_s = [0.0, 1.0, 2.5]
[[workflows]]
file = "a.json"
weight = 2.0
"""
_GATES = b"""gates = ["p95_latency_s <= 45", "success_rate >= 98 %"]
expected_errors = ["CUDA.*", "x+"]
independent_failures = true
"""
_LOG = (
    b'127.0.0.1 - - [23/Nov/2026:12:00:00 +0000] "POST /prompt HTTP/1.1" 200 12 "-" "x"\n'
    b'{"timestamp": "2026-11-23T12:00:00.5Z", "method": "POST", "path": "/prompt", "status": 200, "took": 3.2}\n'
    b"2026-11-23 12:00:01,250 INFO got prompt\n[2026-11-23 12:00:02.123] got prompt\n1764000000.25 POST /prompt\n"
)
_CSV = b"time,method,url,status\n2026-11-23T12:00:00Z,POST,http://x/prompt,200\n2026-11-23T12:00:04Z,POST,/prompt,500\n"

TARGETS = [
    Target(name="workflow", what="a graph, to its prompts", feed=graph, errors=(UsageError,), slow=True,
           seeds=[json.dumps(GRAPH).encode(), json.dumps({"prompt": GRAPH, "extra_data": {"a": 1}}).encode(),
                  json.dumps({"nodes": [], "links": [], "version": 0.4}).encode()]),
    Target(name="table", what="--data, to prompts", feed=table, slow=True,
           seeds=[_TABLE, _TABLE.replace(b",", b";"), b'[{"2.seed": 1, "2.cfg": 2.5}, {"2.seed": 3, "2.cfg": 1}]',
                  b'{"2.seed": 1}\n{"2.seed": 2}\n']),
    Target(name="settings", what="--set, --note, --workflow", feed=settings,
           seeds=[b"2.steps=20", b"KSampler.cfg=7,5", b'2.model=["1", 0]', b"2.a=yes", b"1.ckpt_name=b",
                  b"enclosure=Razer Core X", b"a.json@2.5"]),
    Target(name="plan", what="a plan in TOML, to its arrivals", feed=plan, errors=(UsageError,),
           seeds=[_PLAN, _REPLAY]),
    Target(name="rates", what="durations, rates, stages, arrivals", feed=rates,
           seeds=[b"1h30m", b"12/min", b"30s@2/min,5m@6/min..12/min", b"gamma:0.5", b"250ms", b"POST /prompt"]),
    Target(name="gates", what="a gate, and a file of them", feed=gates,
           seeds=[b"p95_latency_s <= 45", b"success_rate >= 98 %", b"images_per_minute >= 0.95 * baseline",
                  b"book.p50_latency_s <= 30 s", b"unexpected_errors == 0", _GATES]),
    Target(name="replay", what="a log as a schedule", feed=replay, errors=(UsageError,), slow=True,
           seeds=[_LOG, _CSV, b"0\n1.5\n3\n", b"[0, 1, 2.5]", *_LOG.splitlines()]),
    Target(name="policy", what="a retry policy", feed=policy, errors=(UsageError,),
           seeds=[policies.encode(policies.default()), policies.encode(policies.default(60.0))]),
    Target(name="address", what="--server and redirections", feed=address,
           seeds=[b"http://user:pass@host.test:8188/comfy/?token=x#f", b"127.0.0.1:8188", b"http://[::1]:8188/",
                  b"https://host/prompt", b"//other/x", b"../a"]),
    Target(name="headers", what="--header", feed=headers, seeds=[b"Authorization=Bearer x", b"X-Key=env:HOME"]),
    Target(name="text_files", what="files in any encoding", feed=text_files,
           seeds=["héllo\nwörld\n".encode(e) for e in ("utf-8", "utf-16", "utf-16-le", "latin-1", "utf-32")]
           + [gzip.compress(b"a line\n" * 3)]),
    Target(name="visible", what="text from outside as it is shown", feed=shown,
           seeds=["a\x1b[2J\x9b\u202e\u2028b\n".encode(), b"caf\xe9", b"plain"]),
]  # fmt: skip
