"""Small rules of the client and of what it reads: one test a rule."""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
from random import Random
from typing import Any

import msgspec
import pytest
from yarl import URL

from comfyload import clock
from comfyload.comfy.address import parse_headers
from comfyload.comfy.api import Api, api_of
from comfyload.comfy.client import ComfyClient
from comfyload.comfy.examine import DATE_PAUSE_S, DATE_SAMPLES, _listen, clock_offset
from comfyload.comfy.http import Http, _target
from comfyload.comfy.identify import _without_secrets, identify
from comfyload.comfy.incoming import BodiesUnderWay, Incoming, TooLarge
from comfyload.comfy.inflight import InFlight, progress_of
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.outputs import _problem
from comfyload.comfy.poller import HistoryPoller
from comfyload.comfy.stream import EventStream
from comfyload.comfy.tracker import PromptTracker
from comfyload.comfy.wire.calls import Download, OnFrame, Reply, Request, TransportError
from comfyload.comfy.wire.history import HistoryEntry
from comfyload.comfy.wire.lenient import weigh
from comfyload.comfy.wire.messages import decode_message
from comfyload.hidden import without_hidden
from comfyload.load import Stop
from comfyload.load.arrivals import offered_per_s, scheduled_arrivals
from comfyload.load.grammar import parse_arrivals
from comfyload.load.instants import Instant, dated, numbered
from comfyload.load.log_lines import _took
from comfyload.load.requests import request_in
from comfyload.load.selfcheck import SelfWatch, Spread, frozen_gc
from comfyload.record.model import Execution
from comfyload.record.model import Server as ServerFacts
from comfyload.record.plan import Closed, Open, Plan, Replay, Stage
from comfyload.sim import Server
from tests.support.direct import Direct
from tests.support.rig import link, play, sleeper
from tests.unit.retrying import ask

IDENTITY = "00000000-0000-4000-8000-00000000000a"


def message(kind: str, **data: Any) -> Any:
    return decode_message(json.dumps({"type": kind, "data": {"prompt_id": "p", **data}}))


# --- a prompt under way


def test_a_prompt_whose_run_is_cancelled_is_taken_off_the_server() -> None:
    seen: list[list[str]] = []

    async def script(_server: Server, client: ComfyClient, _stop: Stop) -> None:
        running = asyncio.create_task(client.run(ask(200.0, prompt_id=IDENTITY, nodes=200)))
        await asyncio.sleep(1.0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        seen.append(client.left)

    played, _ = play(jobs=1, script=script)
    assert seen == [[IDENTITY]]
    assert played.left == {"queue_running": [], "queue_pending": []}


def test_a_place_in_the_queue_is_told_of_a_prompt_that_waits_and_to_who_listens() -> None:
    async def main() -> None:
        inflight = InFlight(lambda: 0.0, lambda _r, _o: None, "s", lambda _: None)
        events: list[Any] = []
        silent, started, ended, waiting = (inflight.add(name) for name in "abcd")
        for job in (started, ended, waiting):
            job.tell = events.append
        started.tracker.started = 1.0
        ended.finish("events")
        for job in (silent, started, ended, waiting):
            inflight.is_behind(job, 3)
        assert [job.before for job in (silent, started, ended, waiting)] == [None, None, None, 3]
        assert [one.before for one in events] == [3]

    asyncio.run(main())


def test_a_server_stands_still_when_neither_events_nor_answers_move_anything() -> None:
    async def main() -> None:
        notes: list[str] = []
        inflight = InFlight(lambda: 1000.0, lambda _r, _o: None, "s", lambda _: None)
        inflight.add("a")
        poller = HistoryPoller(link(inflight, clock=lambda: 1000.0, note=lambda code, _: notes.append(code)))
        for at in (1000.5, 1059.0, 1059.9):
            poller._look_for_stall(at, progressed=False)
        assert notes == []
        poller._look_for_stall(1061.0, progressed=False)
        poller._look_for_stall(1100.0, progressed=False)
        assert notes == ["worker_stalled"]
        poller._look_for_stall(1101.0, progressed=True)
        inflight.last_event = 1170.0
        poller._look_for_stall(1170.9, progressed=False)
        poller._look_for_stall(1230.0, progressed=False)
        assert notes == ["worker_stalled"]
        poller._look_for_stall(1231.0, progressed=False)
        assert notes == ["worker_stalled"] * 2

    asyncio.run(main())


def test_where_the_history_has_no_messages_the_events_say_how_it_ended() -> None:
    empty = HistoryEntry(messages=[], outputs={}, create_ms=0, number=1)
    done, broken, silent = (PromptTracker() for _ in range(3))
    done.on_message(message("execution_success", timestamp=1), 0.0)
    broken.on_message(message("execution_error", timestamp=1, exception_message="out of memory"), 0.0)
    assert done.verdict(empty) == ("completed", None)
    outcome, failure = broken.verdict(empty)
    assert outcome == "failed" and failure is not None and failure.kind == "oom"
    outcome, failure = silent.verdict(empty)
    assert outcome == "failed" and failure is not None and failure.type == "no_end"


def test_a_socket_that_is_refused_is_tried_again_ever_more_seldom() -> None:
    class Refusing:
        def __init__(self) -> None:
            self.at: list[float] = []

        async def events(self, _: str, _on_frame: OnFrame) -> None:
            self.at.append(asyncio.get_running_loop().time())
            assert len(self.at) < 50
            raise TransportError("refused", sent=True)

    async def main() -> list[float]:
        transport: Any = Refusing()
        lost: list[str] = []
        stream = EventStream(transport, lambda _frame, _is_text: None, lost.append)
        before = stream.client_id
        running = asyncio.create_task(stream.run())
        began = asyncio.get_running_loop().time()
        await stream.first_attempt()
        await asyncio.sleep(17.0)
        running.cancel()
        assert lost == ["refused"] and stream.client_id != before and stream.connections == 0
        return [at - began for at in transport.at]

    assert clock.run_virtual(main()) == pytest.approx([0.0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 11.3, 16.3], abs=0.01)


def test_a_frame_that_is_no_message_is_noted() -> None:
    noted: list[str] = []
    inflight = InFlight(lambda: 0.0, lambda _r, _o: None, "s", noted.append)
    inflight.on_frame(b"<html>", True)
    assert noted == ["a message of 6 bytes that begins with '<html>'"]


@pytest.mark.parametrize(
    ("download", "problem"),
    [
        (Download(status=404, head=b"", bytes=3, expected=3), "HTTP 404"),
        (Download(status=200, head=b"", bytes=3, expected=4), "3 of 4 bytes"),
        (Download(status=200, head=b"", bytes=0, expected=None), "empty"),
        (Download(status=200, head=b"GIF87a", bytes=9, expected=9), "does not start as a png file does"),
        (Download(status=200, head=b"\x89PNG\r\n\x1a\n", bytes=9, expected=9), ""),
        (Download(status=200, head=b"\x89PNG\r\n\x1a\n", bytes=9, expected=None), ""),
    ],
)
def test_what_is_wrong_with_a_file_is_said(download: Download, problem: str) -> None:
    assert _problem(download, "x.png") == problem


def test_nobody_knows_when_a_job_of_an_earlier_process_ended_that_was_over_when_it_was_looked_up() -> None:
    early, late = ask(1.0), ask(20.0)
    found: dict[str, Execution] = {}

    async def main() -> None:
        server = Server()
        async with server:
            transport = Direct(server, latency_s=0.001)
            facts = await identify(transport, "http://s/", [])
            for prompt in (early, late):
                body = b'{"prompt":%b,"prompt_id":"%b"}' % (prompt.graph(), prompt.id.encode())
                await transport.call(Request(method="POST", path="prompt", body=body))
            await asyncio.sleep(5.0)
            ids = frozenset([early.id, late.id])
            watch = clock.stopwatch()
            options = ClientOptions(unconfirmed_ids=ids)
            async with ComfyClient.open(transport, facts, watch, options) as client:
                for prompt in (early, late):
                    found[prompt.id] = await client.run(prompt)

    clock.run_virtual(main())
    assert [found[prompt.id].outcome for prompt in (early, late)] == ["completed"] * 2
    assert found[early.id].done is None and found[early.id].done_uncertainty_s == 0.0
    assert found[late.id].done == pytest.approx(16.0, abs=2.5)
    assert 0.0 < found[late.id].done_uncertainty_s < 2.5


@pytest.mark.parametrize("seen", [False, True])
def test_a_job_that_ended_is_news_whoever_saw_it(seen: bool) -> None:
    async def main() -> bool:
        inflight = InFlight(lambda: 0.0, lambda _r, _o: None, "s", lambda _: None)
        job = inflight.add("a")

        class Ending:
            async def history(self, _: str, _timeout_s: float = 30.0) -> HistoryEntry | None:
                if not seen:
                    job.finish("events")
                return HistoryEntry(messages=[], outputs={}, create_ms=0, number=1) if seen else None

        class Stream:
            connected = False

        poller = HistoryPoller(link(inflight, api=Ending(), stream=Stream(), clock=lambda: 0.0))
        news = await poller._look_up(job)
        assert job.end.result() == ("history" if seen else "events")
        return news

    assert asyncio.run(main()) is True


@pytest.mark.parametrize(
    ("value", "most", "step"),
    [(3, 20, (3, 20)), (2.9, 20.0, (2, 20)), (1e15, 20, None), (-1e15, 20, None), ("3", 20, None), (3, 0, None)],
)
def test_a_step_is_a_number_of_a_usual_size(value: object, most: object, step: tuple[int, int] | None) -> None:
    found = progress_of(message("progress", node="5", value=value, max=most))
    assert (None if found is None else (found.step, found.steps)) == step


# --- what a server answers


class Answers:
    """A transport that answers or fails so."""

    def __init__(self, answer: Reply | TransportError) -> None:
        self.answer = answer
        self.requests: list[Request] = []

    async def call(self, request: Request) -> Reply:
        self.requests.append(request)
        if isinstance(self.answer, TransportError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "unread"),
    [
        (TransportError("too large", sent=True, vain=True), ["GET /history/{id}: too large"]),
        (TransportError("reset", sent=True), []),
    ],
)
def test_an_answer_that_is_too_much_is_noted_and_a_broken_connection_is_not(
    answer: TransportError, unread: list[str]
) -> None:
    transport: Any = Answers(answer)
    noted: list[str] = []
    api = api_of(transport, ServerFacts(url="http://s/"), noted.append)
    with pytest.raises(TransportError):
        asyncio.run(api.history("p"))
    assert noted == unread


def test_memory_is_freed_with_models_and_cache() -> None:
    transport: Any = Answers(Reply(status=200, body=b"{}"))
    asyncio.run(api_of(transport, ServerFacts(url="http://s/")).free())
    (request,) = transport.requests
    assert (request.method, request.path) == ("POST", "free")
    assert json.loads(request.body) == {"unload_models": True, "free_memory": True}


def test_calls_that_are_made_in_passing_say_whether_they_were_taken() -> None:
    def api(status: int | None, **facts: Any) -> Api:
        transport: Any = Answers(TransportError("x", sent=True) if status is None else Reply(status=status, body=b"{}"))
        return api_of(transport, ServerFacts(url="http://s/", **facts))

    async def main() -> None:
        for status, taken in ((200, True), (500, False), (None, False)):
            assert await api(status).free() is taken
            assert await api(status).delete(["a"]) is taken
            assert await api(status).alive() is taken
            assert await api(status, jobs_cancel=True).stop("a") is taken
            assert await api(status, interrupt_by_id=True).stop("a") is taken
            assert await api(status).stop("a") is False
        assert await api(None).queue_remaining() is None
        assert await api(500).queue_remaining() is None

    asyncio.run(main())


def test_the_servers_clock_is_read_six_times_with_pauses() -> None:
    async def main() -> float:
        transport: Any = Answers(Reply(status=200, body=b"", headers={"date": "Thu, 01 Jan 2026 00:00:00 GMT"}))
        watch = clock.stopwatch()
        assert await clock_offset(transport) is not None
        assert len(transport.requests) == DATE_SAMPLES
        return watch()

    assert clock.run_virtual(main()) == pytest.approx((DATE_SAMPLES - 1) * DATE_PAUSE_S)


@pytest.mark.parametrize(
    ("frames", "heard"),
    [
        ([], (0, False)),
        (["{}"], (0, False)),
        (["{}", '{"type":"status","data":{}}', '{"type":"executing","data":{}}'], (2, False)),
        (["{}", '{"type":"status","data":{}}', '{"type":"progress_state","data":{}}', "{}"], (2, True)),
        (["{}", b"a preview"], (1, True)),
    ],
)
def test_a_node_at_work_is_heard_by_its_progress(frames: list[str | bytes], heard: tuple[int, bool]) -> None:
    class Speaking:
        async def events(self, _: str, on_frame: OnFrame) -> None:
            for frame in frames:
                on_frame(frame.encode() if isinstance(frame, str) else frame, isinstance(frame, str))
            await asyncio.sleep(1000.0)

    transport: Any = Speaking()
    assert clock.run_virtual(_listen(transport, 5.0)) == heard


@pytest.mark.parametrize(
    ("status", "location", "target"),
    [
        (302, "http://other/file", "http://other/file"),
        (302, "https://user:password@other/file", "https://other/file"),
        (307, "/elsewhere", "http://server/elsewhere"),
        (302, "ftp://other/file", None),
        (302, "", None),
        (200, "http://other/file", None),
        (302, "http://[", None),
    ],
)
def test_only_a_redirect_to_an_http_address_is_followed(status: int, location: str, target: str | None) -> None:
    reply = Incoming(BodiesUnderWay(), most=100, together=100)
    reply.begin(status, {b"location": location.encode()} if location else {})
    assert _target(URL("http://server/view"), reply) == (None if target is None else URL(target))


@pytest.mark.parametrize("insecure", [False, True])
def test_a_certificate_is_checked_unless_the_user_says_otherwise(insecure: bool) -> None:
    async def main() -> tuple[bool, ssl.VerifyMode]:
        async with Http.connect(URL("https://server/"), {}, insecure=insecure) as http:
            assert http._tls is not None
            return http._tls.check_hostname, http._tls.verify_mode

    assert asyncio.run(main()) == ((False, ssl.CERT_NONE) if insecure else (True, ssl.CERT_REQUIRED))


def test_a_token_of_a_header_is_hidden_with_its_scheme_and_without() -> None:
    parse_headers(["Authorization=Bearer a-token-of-mine"])
    assert "a-token-of-mine" not in without_hidden("it repeats a-token-of-mine")


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["--api-key", "abc", "--listen"], ["--api-key", "***", "--listen"]),
        (["--api-key", "--listen", "x"], ["--api-key", "--listen", "x"]),
        (["--api-key=abc", "y"], ["--api-key=***", "y"]),
        (["--database-url", "sqlite://me:secret@host/x"], ["--database-url", "sqlite://***@host/x"]),
        (["key", "abc"], ["key", "abc"]),
    ],
)
def test_a_secret_among_a_servers_flags_is_not_kept_and_a_flag_is(argv: list[str], kept: list[str]) -> None:
    assert _without_secrets(argv) == kept


def test_text_that_is_not_ascii_is_weighed_at_four_bytes_a_letter() -> None:
    letters = 17 << 20
    weigh("a" * letters)
    with pytest.raises(msgspec.ValidationError):
        weigh("é" + "a" * letters)
    with pytest.raises(msgspec.ValidationError):
        weigh("\\u00e9" + "a" * letters)
    with pytest.raises(msgspec.ValidationError):
        weigh("," * 600_000)
    weigh("," * 400_000 + "a" * 200_000)


async def _error_of(error: Exception) -> TransportError:
    return Http(URL("http://s/"), {})._error(error)


@pytest.mark.parametrize(("size", "whole"), [(9, True), (10, True), (11, False)])
def test_a_body_as_large_as_allowed_is_read_and_a_larger_one_is_not(size: int, whole: bool) -> None:
    reply = Incoming(BodiesUnderWay(), most=10, together=1000)
    reply.begin(200, {})
    for at in range(min(size, 10)):
        reply.feed(b"%d" % (at % 10))
    if whole:
        reply.end()
        assert reply.body == b"0123456789"[:size]
    else:
        with pytest.raises(TooLarge) as refused:
            reply.feed(b"x")
        error = asyncio.run(_error_of(refused.value))
        assert error.vain and "larger than 0 MiB" in str(error)


def test_a_reply_that_is_not_comfyuis_is_named_by_its_status() -> None:
    def before(server: Server) -> None:
        call = server.call

        async def strange(request: Request) -> Reply:
            if request.method == "POST" and request.path == "prompt":
                return Reply(status=200, body=b"<html>welcome</html>")
            return await call(request)

        server.call = strange  # type: ignore[method-assign]

    played, _ = play(jobs=1, before=before)
    failure = played.records[0].execution.failure
    assert failure is not None and (failure.kind, failure.status) == ("http", 200)


def test_a_reply_with_the_id_of_another_job_is_not_believed() -> None:
    def before(server: Server) -> None:
        call, given = server.call, list[str]()

        async def confused(request: Request) -> Reply:
            if request.method == "POST" and request.path == "prompt" and given:
                return Reply(status=200, body=json.dumps({"prompt_id": given[0], "number": 1}).encode())
            reply = await call(request)
            if request.method == "POST" and request.path == "prompt":
                given.append(json.loads(reply.body)["prompt_id"])
            return reply

        server.call = confused  # type: ignore[method-assign]

    played, _ = play(jobs=2, load=Closed(concurrency=2, ramp_up_s=2.0), before=before, graph=sleeper(9.0))
    failures = [record.execution.failure for record in played.records]
    assert sorted((one.kind, one.status) for one in failures if one is not None) == [("http", 200)]
    assert sorted(played.outcomes()) == ["completed", "failed"]


def test_the_end_of_a_closed_load_cuts_off_what_is_not_to_drain() -> None:
    played, _ = play(
        jobs=None, load=Closed(concurrency=2), duration_s=1.0, drain=False, graph=sleeper(0.5), timeout_s=None
    )
    assert set(played.outcomes()) == {"completed", "cancelled"}
    cut = [record for record in played.records if record.censored]
    assert cut and all(record.execution.outcome == "cancelled" for record in cut)


def test_an_end_that_an_event_told_is_as_exact_as_the_event() -> None:
    played, _ = play(jobs=3)
    assert [record.execution.done_uncertainty_s for record in played.records] == [0.0] * 3
    assert [record.execution.end_source for record in played.records] == ["events"] * 3


# --- the load


def test_the_rate_of_a_replay_is_that_between_its_first_and_its_last() -> None:
    assert offered_per_s(Replay(offsets_s=[10.0, 20.0, 30.0])) == pytest.approx(0.1)
    assert offered_per_s(Replay(offsets_s=[10.0])) is None
    assert offered_per_s(Replay(offsets_s=[10.0, 10.0])) is None


def test_a_unix_time_at_the_beginning_of_a_line_is_read_in_brackets_too() -> None:
    for line in ("1700000000 got prompt", "[1700000000] got prompt"):
        found = dated(line)
        assert isinstance(found, Instant) and found.s == 1_700_000_000


@pytest.mark.parametrize(("hour", "half", "of_24"), [(1, "AM", 1), (12, "AM", 0), (1, "PM", 13), (12, "PM", 12)])
def test_an_hour_of_twelve_is_one_of_24(hour: int, half: str, of_24: int) -> None:
    found = dated(f"01/Feb/2026 {hour:02}:00:00 {half}")
    usual = dated(f"2026-02-01T{of_24:02}:00:00")
    assert isinstance(found, Instant) and isinstance(usual, Instant) and found.s == usual.s


@pytest.mark.parametrize(
    ("number", "kind", "unit", "seconds"),
    [
        (99_999_999, "offset", "s", 99_999_999),
        (99_999_999_999, "absolute", "s", 99_999_999_999),
        (99_999_999_999_999.5, "absolute", "ms", 1e11),
        (1e8, "absolute", "s", 1e8),
        (1e11, "absolute", "ms", 1e8),
        (1e14, "absolute", "µs", 1e8),
        (1e17, "absolute", "ns", 1e8),
    ],
)
def test_the_unit_of_a_time_is_told_by_its_size(number: float, kind: str, unit: str, seconds: float) -> None:
    found = numbered(number)
    assert isinstance(found, Instant) and found.s == pytest.approx(seconds)
    assert (found.kind, found.unit) == (kind, unit)


def test_a_number_that_is_no_time_says_why() -> None:
    assert isinstance(numbered(1e20), str) and isinstance(numbered(-1.0), str) and numbered("x1") is None
    assert isinstance(numbered(0.0), Instant)


def test_an_arrival_at_the_very_end_of_the_duration_is_not_in_it() -> None:
    class Unused(Random):
        def random(self) -> float:
            raise AssertionError

    plan = Plan(load=Open(stages=[Stage(per_s=1.0)], arrivals="constant"), duration_s=3.0)
    assert scheduled_arrivals(plan, Unused()) == 3


@pytest.mark.parametrize(("text", "cv"), [("gamma:0.01", 0.01), ("gamma:0.5", 0.5), ("gamma:100", 100.0)])
def test_a_variation_within_its_bounds_is_read(text: str, cv: float) -> None:
    assert parse_arrivals(text) == ("gamma", cv)


def test_a_log_line_without_a_duration_is_of_the_instant_that_it_has() -> None:
    assert _took("time", {}) == 0.0
    assert _took("ts", {"logger": "http.log.access.log0", "duration": 0.25}) == 0.25
    assert _took("ts", {"logger": "http.log.access.log0", "duration": "2026-01-01T00:00:00Z"}) == 0.0


def test_a_request_of_an_address_that_cannot_be_read_is_one_of_the_root() -> None:
    found = request_in('"GET http://[x/prompt HTTP/1.1" 200')
    assert found is not None and (found.method, found.path, found.status) == ("GET", "/", 200)


# --- the self-check


def test_the_collector_is_rare_while_a_run_goes_on_and_as_before_afterwards() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with frozen_gc():
        assert gc.get_threshold() == (50_000, 20, 100)
        assert gc.get_freeze_count() > frozen
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0


def test_a_spread_has_the_middle_and_the_largest() -> None:
    found = Spread([5.0, 1.0, 3.0]).quantiles()
    assert found is not None and (found.n, found.p50, found.max) == (3, 3.0, 5.0)
    assert Spread().quantiles() is None


def test_a_self_check_knows_late_timers_pauses_and_how_busy_it_was() -> None:
    async def main() -> None:
        watch = SelfWatch()
        watching = asyncio.create_task(watch.run())
        while len(watch._timers) < 2:
            await asyncio.sleep(0.001)
        watch._on_gc("start", {})
        watch._on_gc("stop", {})
        watch.send_lateness = Spread([0.1, 0.2])
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        found = watch.result()
        assert found.timer_lateness_s is not None and found.timer_lateness_s.n >= 2
        assert 0.0 <= found.timer_lateness_s.p50 < found.wall_s
        assert found.gc_pauses_s is not None and 0.0 <= found.gc_pauses_s.max < found.wall_s
        assert found.send_lateness_s is not None and found.send_lateness_s.max == 0.2
        assert found.wall_s >= 0.04 and 0.0 <= found.busy_fraction <= 1.5
        assert watch._on_gc not in gc.callbacks

    asyncio.run(main())


def test_prompts_of_an_earlier_process_are_ours_until_they_are_taken_up() -> None:
    async def main() -> list[tuple[int, int]]:
        noted: list[tuple[int, int]] = []
        inflight = InFlight(lambda: 0.0, lambda remaining, ours: noted.append((remaining, ours)), "s", lambda _: None)
        inflight.earlier_ids.update({"a", "b"})
        status = b'{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 2}}}}'
        inflight.on_frame(status, True)
        job = inflight.add("a", sent_before=True)
        inflight.on_frame(status, True)
        inflight.remove(job)
        inflight.on_frame(status, True)
        return noted

    assert asyncio.run(main()) == [(2, 2), (2, 2), (2, 1)]
