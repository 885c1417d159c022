"""What this machine lacks is never a failure of the server: told apart, named, and in no rate of success."""

from __future__ import annotations

import asyncio
import errno
import socket
from random import Random
from typing import Any

import pytest

from comfyload import clock
from comfyload.app.run import descriptors
from comfyload.app.run.descriptors import check_descriptors, descriptors_needed
from comfyload.comfy.address import parse_server
from comfyload.comfy.http import Http
from comfyload.comfy.identify import identify
from comfyload.comfy.own_fault import OURS, own_fault
from comfyload.comfy.socket import NotConnected
from comfyload.comfy.wire.calls import Download, OnFrame, Reply, Request, TransportError
from comfyload.errors import ServerUnreachable, UsageError
from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import GateSet, parse_gate
from comfyload.judge.summary import measure
from comfyload.record.model import Execution, Failure
from comfyload.record.plan import Closed, Open, Plan, Stage
from comfyload.record.policy import Breaker
from comfyload.retry.breaker import CircuitBreaker
from comfyload.retry.classify import classify, never_sent
from comfyload.sim import Server
from tests.support.direct import Direct
from tests.support.rig import Played, play_on
from tests.unit.judge_runs import failed, manifest, one_by_one


def wrapped(error: OSError) -> NotConnected:
    """As the error reaches the transport."""
    found = NotConnected(error)
    found.__cause__ = error
    return found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
        (wrapped(OSError(errno.ENFILE, "x")), "too many open files"),
        (wrapped(OSError(errno.EADDRNOTAVAIL, "x")), "no port is left"),
        (OSError(errno.ENOBUFS, "x"), "no buffer space"),
        (OSError(10055, "x"), "no buffer space"),
        (OSError(errno.ENOSPC, "x"), "no space is left"),
        (wrapped(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")), "temporary failure"),
        (wrapped(socket.gaierror(socket.EAI_NONAME, "Name or service not known")), "cannot resolve the server's name"),
        (OSError("Multiple exceptions: [Errno 24] a, [Errno 24] b"), "too many open files"),
        (wrapped(ConnectionRefusedError(errno.ECONNREFUSED, "x")), ""),
        (OSError(errno.EHOSTUNREACH, "x"), ""),
        (OSError("Multiple exceptions: [Errno 111] a, [Errno 111] b"), ""),
        (TimeoutError(), ""),
        (ConnectionResetError(errno.ECONNRESET, "x"), ""),
    ],
)
def test_what_this_machine_lacks_is_told_from_what_a_server_does(error: BaseException, said: str) -> None:
    found = own_fault(error)
    assert said in found and bool(said) == bool(found)


def test_a_cause_is_looked_for_behind_the_error() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = OSError(errno.EMFILE, "x")
    outer.__cause__.__cause__ = outer
    assert own_fault(outer) == "too many open files"


def test_a_name_that_cannot_be_resolved_is_our_own_fault() -> None:
    async def call() -> TransportError:
        async with Http.connect(parse_server("http://no-such-host.invalid:8188"), {}) as http:
            with pytest.raises(TransportError) as caught:
                await http.call(Request(method="GET", path="prompt", timeout_s=10))
            return caught.value

    error = asyncio.run(call())
    assert error.ours and not error.sent and str(error).startswith(f"{OURS}it cannot resolve the server's name")


def test_a_server_that_we_cannot_ask_is_not_said_to_be_no_comfyui() -> None:
    async def ask() -> str:
        async with Server() as server:
            with pytest.raises(ServerUnreachable) as caught:
                await identify(Starved(Direct(server, latency_s=0.001), "system_stats", 0, 1), "u", [])
            return str(caught.value)

    assert clock.run_virtual(ask()).startswith("the server cannot be reached: this machine: too many open files")


class Starved:
    """A transport on which calls to some paths fail by a fault of this machine, from the n-th on, m times."""

    def __init__(self, inner: Direct, path: str, first: int, times: int) -> None:
        self._inner, self._path, self._left = inner, path, range(first, first + times)
        self._count = 0

    async def call(self, request: Request) -> Reply:
        self._fail(request.path)
        return await self._inner.call(request)

    async def download(self, path: str, timeout_s: float) -> Download:
        self._fail(path)
        return await self._inner.download(path, timeout_s)

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        await self._inner.events(client_id, on_frame)

    def _fail(self, path: str) -> None:
        if path.startswith(self._path):
            self._count += 1
            if self._count - 1 in self._left:
                raise TransportError(f"{OURS}too many open files", sent=False, ours=True)


def starved(path: str, first: int, times: int, **load: Any) -> Played:
    async def main() -> Played:
        async with Server() as server:
            return await play_on(Starved(Direct(server, latency_s=0.001), path, first, times), **load)

    return clock.run_virtual(main())


def test_jobs_that_could_not_be_sent_fail_by_the_generator() -> None:
    played = starved("prompt", 3, 3, jobs=10)  # the first asks how long the queue is
    assert played.kinds() == [None, None, "generator", "generator", "generator", None, None, None, None, None]
    (seen,) = {observation.text for observation in played.observations if observation.code == "generator_fault"}
    assert seen == "the generator's machine failed: too many open files"
    failure = played.records[2].execution
    assert never_sent(failure) and classify(failure) == "connect"


def test_a_download_that_we_could_not_make_is_no_bad_file() -> None:
    assert starved("view", 0, 1, jobs=2, fetch=True).kinds() == ["generator", None]


def test_a_job_of_which_we_could_not_learn_the_end_is_lost_by_us() -> None:
    played = starved("history", 0, 10_000, jobs=1)
    (record,) = played.records
    assert record.execution.outcome == "lost"
    assert record.execution.failure is not None and record.execution.failure.kind == "generator"


def test_a_fault_of_ours_is_in_no_rate_of_success_and_no_gate_fails_by_it() -> None:
    jobs = [*one_by_one([2.0] * 24), *(failed(i, 48.0, 0.01, kind="generator", node_class=None) for i in range(24, 60))]
    found = measure("r", manifest(60), jobs)
    success = found.summary.statistics["success_rate"]
    assert (success.value, success.n) == (1.0, 24)
    with_failures = found.summary.statistics["p50_latency_with_failures_s"]
    assert with_failures.value is not None and with_failures.value == pytest.approx(2.0)
    assert found.summary.workflows["book"].success_rate.value == 1.0
    assert [(row.kind, row.count) for row in found.summary.failures] == [("generator", 36)]
    texts = ("success_rate >= 95%", "p50_latency_s <= 3", "unexpected_errors == 0")
    gates = GateSet(gates=[parse_gate(text) for text in texts])
    assert all(verdict.verdict != "FAIL" for verdict in judge(gates, found))


def _limited(monkeypatch: pytest.MonkeyPatch, limit: int | None, open_now: int = 10) -> None:
    monkeypatch.setattr(descriptors, "raise_limit", lambda: limit)
    monkeypatch.setattr(descriptors, "_open_now", lambda: open_now)


@pytest.mark.parametrize(
    ("plan", "need"),
    [
        (Plan(load=Closed(concurrency=1)), 31),
        (Plan(load=Closed(concurrency=40)), 70),
        (Plan(load=Closed(concurrency=2), pages=10), 50),
        (Plan(load=Closed(concurrency=500)), 94),
        (Plan(load=Open(stages=[Stage(per_s=1.0)])), 94),
        (Plan(load=Open(stages=[Stage(per_s=1.0)], max_in_flight=3)), 33),
    ],
)
def test_a_load_that_needs_more_files_than_may_be_open_is_refused(
    plan: Plan, need: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limited(monkeypatch, need)
    check_descriptors(plan)
    assert descriptors_needed(plan) == need
    _limited(monkeypatch, need - 1)
    with pytest.raises(UsageError) as caught:
        check_descriptors(plan)
    assert f"needs up to {need}" in caught.value.message and "ulimit -n" in caught.value.hint
    _limited(monkeypatch, None)
    check_descriptors(plan)


def test_a_breaker_learns_nothing_of_a_server_by_our_fault() -> None:
    circuit = CircuitBreaker(Breaker(failures=1), Random(1).random)
    ours = Execution(outcome="failed", failure=Failure(kind="generator"))
    states = []
    for our_fault in (True, False):
        circuit.ended(classify(ours), 0.0, own_fault=our_fault)
        states.append(circuit.state(0.0))
    assert states == ["closed", "open"]
