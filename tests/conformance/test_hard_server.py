"""What a real ComfyUI does to naive tools, one test each, against the simulator on virtual time.

The first five are server states that must be recognised; the others are mistakes that must not be made.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from comfyload.comfy.client import ComfyClient
from comfyload.comfy.ending import MOST_READS
from comfyload.comfy.inflight import InFlight
from comfyload.comfy.poller import AT_ONCE
from comfyload.comfy.timeouts import Timeouts
from comfyload.comfy.wire.calls import Reply, Request, TransportError
from comfyload.comfy.wire.messages import Message
from comfyload.load import Stop
from comfyload.record.model import Execution, Prompt
from comfyload.record.plan import Open, Stage
from comfyload.sim import Faults, Server
from comfyload.sim.faults import Which
from comfyload.sim.sockets import Socket
from tests.support.rig import SLEEPER, play, sleeper

# --- server states


def test_a_dead_worker_is_named_and_its_jobs_time_out() -> None:
    played, _ = play(Faults(dead_worker=Which(at=(2,))), jobs=3, timeout_s=200)
    assert played.outcomes() == ["completed", "timed_out", "timed_out"]
    assert "worker_stalled" in played.codes()


def test_only_strings_are_sent_as_client_id_or_prompt_id() -> None:
    # A client id that is no string crashes the whole of a real server.
    bodies = []

    async def script(server: Server, _client: ComfyClient, _stop: Stop) -> None:
        call = server.call

        async def spy(request: Request) -> Reply:
            if request.method == "POST" and request.body is not None:
                bodies.append(json.loads(request.body))
            return await call(request)

        server.call = spy  # type: ignore[method-assign]

    play(jobs=3, script=script)
    assert bodies
    assert all(isinstance(body["client_id"], str) and isinstance(body["prompt_id"], str) for body in bodies)


def test_a_stalled_event_stream_is_named_and_the_history_asked_instead() -> None:
    played, server = play(Faults(stall_events=Which(at=(3,))), jobs=8, concurrency=2)
    assert played.outcomes() == ["completed"] * 8
    assert "stream_stalled" in played.codes()
    unseen = [r.execution for r in played.records if r.execution.end_source == "history"]
    assert unseen
    ends = {truth.prompt_id: truth.finished for truth in server.truth}
    for record in played.records:
        if record.execution.end_source == "history":
            done, finished = record.execution.done, ends[record.prompt_id]
            assert done is not None
            assert finished is not None
            # The record says how much later than the truth it may be. Instants start at the server's loop time ~0.
            assert 0 <= done - finished + 0.02 <= record.execution.done_uncertainty_s + 0.03


def test_a_restart_is_named_and_its_jobs_are_lost_not_waited_for() -> None:
    played, _ = play(Faults(restart=Which(at=(2,)), downtime_s=5), jobs=6, concurrency=3)
    assert played.outcomes().count("lost") >= 2
    assert played.outcomes().count("completed") >= 2
    assert {"restart", "stream_lost"} <= played.codes()
    assert "stream_stalled" not in played.codes()


def test_foreign_load_is_named() -> None:
    async def script(server: Server, _client: ComfyClient, _stop: Stop) -> None:
        await asyncio.sleep(0.25)
        server.foreign(sleeper(0.5))

    played, _ = play(jobs=8, concurrency=2, script=script)
    assert "foreign_load" in played.codes()
    alone, _ = play(jobs=8, concurrency=2)
    assert "foreign_load" not in alone.codes()


# --- what naive tools get wrong, in the order of the list


def test_01_a_repeated_graph_is_varied_and_a_cached_one_is_seen_to_be() -> None:
    fresh, _ = play(jobs=12)
    assert all("3" not in record.execution.cached for record in fresh.records)
    assert len({record.values["2.seed"] for record in fresh.records}) == 12
    files = [file for record in fresh.records for output in record.execution.outputs for file in output.files]
    assert len(set(files)) == 12
    as_is, _ = play(jobs=12, as_is=True)
    assert [len(record.execution.cached) == 3 for record in as_is.records] == [False] + [True] * 11


def test_02_queue_wait_and_execution_are_told_apart() -> None:
    played, _ = play(jobs=8, concurrency=4)
    server = played.records[-2].execution.server
    assert server.create_ms is not None
    assert server.start_ms is not None
    assert server.end_ms is not None
    assert server.end_ms - server.start_ms == pytest.approx(100, abs=2)
    assert server.start_ms - server.create_ms == pytest.approx(300, abs=20)


def test_03_a_history_entry_that_comes_late_is_waited_for() -> None:
    played, server = play(Faults(no_history_s=0.5), jobs=3)
    assert played.outcomes() == ["completed"] * 3
    assert server.calls["GET /history/{id}"] > 3


def test_04_status_str_is_not_believed_and_a_blockers_error_is_not_the_end() -> None:
    lying, _ = play(Faults(success_lie=Which(at=(1,))), jobs=1)
    assert lying.outcomes() == ["failed"]
    blocked, _ = play(Faults(partial=Which(at=(1,))), jobs=1)
    assert blocked.outcomes() == ["completed"]


def test_04_an_interrupt_by_somebody_else_is_named_as_such() -> None:
    async def script(server: Server, _client: ComfyClient, _stop: Stop) -> None:
        await asyncio.sleep(0.15)
        await server.call(Request(method="POST", path="interrupt", body=b"{}"))

    graph = json.loads(json.dumps(SLEEPER))
    graph["4"] = {"class_type": "SimSleep", "inputs": {"image": ["2", 0], "seconds": 0.1, "seed": 1}}
    graph["3"]["inputs"]["images"] = ["4", 0]
    played, _ = play(jobs=1, script=script, graph=graph)
    assert played.kinds() == ["interrupted"]


def test_05_a_200_with_node_errors_is_no_success() -> None:
    graph = {**SLEEPER, "9": {"class_type": "PreviewImage", "inputs": {}}}
    played, _ = play(jobs=1, graph=graph)
    assert (played.outcomes(), played.kinds()) == (["failed"], ["partial_validation"])


def test_06_the_socket_is_open_before_the_first_post_and_a_lost_one_gets_a_new_client_id() -> None:
    posted: list[tuple[str, bool]] = []

    def before(server: Server) -> None:
        call, connect, opened = server.call, server.connect, set[str | None]()

        def opening(client_id: str | None) -> Socket:
            opened.add(client_id)
            return connect(client_id)

        async def spy(request: Request) -> Reply:
            if request.path == "prompt" and request.body is not None:
                client_id = json.loads(request.body)["client_id"]
                posted.append((client_id, client_id in opened))
            return await call(request)

        server.call, server.connect = spy, opening  # type: ignore[method-assign]

    async def script(server: Server, _client: ComfyClient, _stop: Stop) -> None:
        await asyncio.sleep(0.35)
        server.drop_sockets()

    played, _ = play(jobs=8, before=before, script=script)
    assert played.outcomes() == ["completed"] * 8
    assert posted[0][1]
    assert len({client_id for client_id, _ in posted}) == 2
    assert "stream_lost" in played.codes()


def test_07_every_prompt_carries_a_client_id_so_nobody_else_hears_it() -> None:
    heard: list[str] = []

    async def script(server: Server, _client: ComfyClient, _stop: Stop) -> None:
        socket = server.connect("bystander")
        await asyncio.sleep(1.0)
        socket.close()
        while (found := await socket.next()) is not None:
            frame = found[1]
            heard.append(json.loads(frame)["type"] if isinstance(frame, str) else "binary")

    play(jobs=3, script=script)
    assert set(heard) == {"status"}


def test_08_a_prompt_deleted_by_somebody_is_lost_not_waited_for() -> None:
    async def script(server: Server, client: ComfyClient, _stop: Stop) -> None:
        await asyncio.sleep(0.15)
        waiting = [job for job in client.inflight if job.tracker.started is None]
        assert server.lose(waiting[0].prompt_id)

    played, _ = play(jobs=6, concurrency=3, script=script)
    assert sorted(played.outcomes()) == ["completed"] * 5 + ["lost"]


def test_09_lists_are_never_polled() -> None:
    _, server = play(Faults(stall_events=Which(at=(1,))), jobs=20, concurrency=4)
    assert {call for call in server.calls if call.startswith("GET")} <= {
        "GET /system_stats",
        "GET /features",
        "GET /prompt",
        "GET /object_info/{id}",
        "GET /history/{id}",
        "GET /api/jobs/{id}",
        "GET /queue",  # the rig's own, at the end
    }
    assert server.calls["GET /queue"] == 1


def test_09_while_events_flow_nothing_is_polled() -> None:
    _, server = play(jobs=20, concurrency=4)
    assert server.calls["GET /history/{id}"] == 20
    assert server.calls["GET /api/jobs/{id}"] == 1  # asked once, to see whether it is there


def test_10_previews_are_counted_and_thrown_away() -> None:
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "fox"}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "4": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["2", 0],
                "latent_image": ["3", 0],
                "seed": 1,
                "steps": 10,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
    }
    played, _ = play(jobs=2, graph=graph, server={"previews": True})
    assert played.outcomes() == ["completed"] * 2
    assert all(record.execution.previews >= 8 for record in played.records)
    assert all(record.execution.preview_bytes > 0 for record in played.records)


@pytest.mark.parametrize("version", ["0.33.0", "0.3.64"])
def test_11_a_lost_reply_is_looked_up_and_the_prompt_never_sent_twice(version: str) -> None:
    played, server = play(Faults(drop_reply=Which(every=2)), jobs=8, server={"version": version})
    assert played.outcomes() == ["completed"] * 8
    assert set(server.posts.values()) == {1}


def test_11_a_post_that_never_arrived_is_a_failure_and_not_sent_again() -> None:
    played, server = play(Faults(drop_reply=Which(at=(2,)), lost_queue=Which(at=(2,))), jobs=3)
    assert played.kinds() == [None, "submit_unknown", None]
    assert set(server.posts.values()) == {1}


def test_12_node_spans_are_those_of_the_server() -> None:
    played, server = play(jobs=3)
    for record, truth in zip(played.records, server.truth, strict=True):
        seen = {span.node: span.end - span.start for span in record.execution.nodes if span.end is not None}
        really = {node: end - start for node, (start, end) in truth.spans.items()}
        assert seen == pytest.approx(really, abs=0.005)


def test_13_warm_up_jobs_come_first_and_are_labelled() -> None:
    played, _ = play(jobs=4, warmup=2, concurrency=2)
    by_index = sorted(played.records, key=lambda record: record.index)
    assert [record.warmup for record in by_index] == [True, True, False, False, False, False]
    assert min(r.due for r in by_index[2:]) >= max(r.execution.done or 0 for r in by_index[:2])


@pytest.mark.parametrize("version", ["0.33.0", "0.24.0", "0.3.64"])
def test_14_abandoning_leaves_nothing_of_ours_and_nobody_elses_prompt_is_touched(version: str) -> None:
    theirs: list[str] = []

    async def script(server: Server, client: ComfyClient, stop: Stop) -> None:
        await asyncio.sleep(1.25)
        theirs.append(server.foreign(sleeper(3.0)))
        await asyncio.sleep(0.1)
        stop.request()
        await client.cancel_all()

    played, server = play(
        jobs=40, concurrency=10, script=script, graph=sleeper(0.5), server={"version": version}, timeout_s=100
    )
    assert set(played.outcomes()) == {"completed", "cancelled"}
    left = [item[1] for item in played.left["queue_running"] + played.left["queue_pending"]]
    assert [name for name in left if name not in theirs] == []
    assert server.calls["POST /interrupt"] + server.calls["POST /api/jobs/{id}/cancel"] >= 1
    deaths = [truth.outcome for truth in server.truth if truth.prompt_id in theirs]
    assert "interrupted" not in deaths


def test_14_a_server_that_can_only_interrupt_whoever_runs_is_never_asked_to() -> None:
    played, server = play(jobs=2, graph=sleeper(5.0), timeout_s=1.0, server={"version": "0.3.50"})
    assert played.outcomes() == ["timed_out"] * 2
    assert server.calls["POST /interrupt"] == 0
    assert "cancel_unsafe" in played.codes()


def test_15_outputs_are_fetched_after_the_end_and_checked() -> None:
    played, _ = play(jobs=2, fetch=True)
    for record in played.records:
        (fetched,) = record.execution.fetches
        assert fetched.problem == ""
        assert fetched.bytes > 0
        done = record.execution.done
        assert done is not None
        assert done - record.due < 0.13


def test_15_an_output_that_is_gone_is_a_failure() -> None:
    def before(server: Server) -> None:
        call = server.call

        async def without_files(request: Request) -> Reply:
            if request.path.startswith("view"):
                request = Request(method="GET", path="view?filename=gone.png&type=output")
            return await call(request)

        server.call = without_files  # type: ignore[method-assign]

    played, _ = play(jobs=1, fetch=True, before=before)
    assert played.kinds() == ["fetch"]


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "ram"),
        ({"cache": "lru", "lru": 7}, "lru 7"),
        ({"cache": "none"}, "none"),
        ({"cache": "classic"}, "classic"),
    ],
)
def test_16_the_cache_mode_is_read_from_the_servers_flags(options: dict[str, object], mode: str) -> None:
    played, _ = play(jobs=1, server=options)
    assert played.facts is not None
    assert played.facts.cache_mode == mode


def test_17_no_instant_of_ours_is_on_the_servers_clock() -> None:
    played, _ = play(jobs=2)
    for record in played.records:
        execution = record.execution
        ours = [record.due, execution.sent, execution.acknowledged, execution.started, execution.done]
        assert all(instant is not None and 0 <= instant < 60 for instant in ours)
        assert (execution.server.create_ms or 0) > 1_000_000_000_000


def test_19_no_more_than_the_asked_for_concurrency_is_ever_queued() -> None:
    played, _ = play(jobs=30, concurrency=5)
    assert max(played.queue) == 5


def test_20_nothing_jumps_the_queue() -> None:
    bodies: list[dict[str, object]] = []

    def before(server: Server) -> None:
        call = server.call

        async def spy(request: Request) -> Reply:
            if request.method == "POST" and request.body is not None:
                bodies.append(json.loads(request.body))
            return await call(request)

        server.call = spy  # type: ignore[method-assign]

    play(jobs=3, before=before)
    assert all(not {"front", "number"} & set(body) for body in bodies)


# --- and what else goes wrong


def test_a_job_that_times_out_is_cancelled_so_that_the_next_measures_nothing_of_it() -> None:
    played, server = play(Faults(slow=Which(at=(2,)), slow_factor=20), jobs=4, timeout_s=2.0, graph=sleeper(0.2))
    assert played.outcomes() == ["completed", "timed_out", "completed", "completed"]
    assert server.truth[1].outcome in ("interrupted", "completed")
    after = played.records[2].execution
    assert (after.server.start_ms or 0) - (after.server.create_ms or 0) < 100


def test_time_spent_waiting_for_its_turn_in_the_server_counts_towards_the_timeout() -> None:
    played, _ = play(jobs=6, concurrency=6, timeout_s=1.05, graph=sleeper(0.4))
    assert sorted(played.outcomes()) == ["completed"] * 2 + ["timed_out"] * 4
    assert played.left == {"queue_running": [], "queue_pending": []}


def test_duplicated_and_unknown_events_change_nothing() -> None:
    played, _ = play(Faults(duplicate_events=True, unknown_events=True, nan_in_error=True), jobs=4)
    assert played.outcomes() == ["completed"] * 4
    assert all(record.execution.executions == 1 for record in played.records)


def test_node_errors_and_out_of_memory_are_told_apart() -> None:
    failing, _ = play(Faults(node_error=Which(at=(1,)), oom=Which(at=(2,)), nan_in_error=True), jobs=3)
    assert failing.kinds() == ["execution_error", "oom", None]


def test_a_server_that_fails_every_post_gives_failures_and_no_latency() -> None:
    played, server = play(Faults(http_500="/prompt"), jobs=3)
    assert played.kinds() == ["server_error"] * 3
    assert not server.truth


def test_a_refused_connection_is_a_failure_of_its_own_and_nothing_is_looked_up() -> None:
    def before(server: Server) -> None:
        call = server.call

        async def refusing(request: Request) -> Reply:
            if request.method == "POST":
                raise TransportError("connection refused", sent=False)
            return await call(request)

        server.call = refusing  # type: ignore[method-assign]

    played, server = play(jobs=3, before=before)
    assert played.kinds() == ["connect"] * 3
    assert server.calls["GET /api/jobs/{id}"] == 1


@pytest.mark.parametrize("place", ["2.steps", "nope"])
def test_a_graph_the_server_refuses_fails_every_job_with_its_reason(place: str) -> None:
    graph = json.loads(json.dumps(SLEEPER))
    graph["2"]["class_type"] = "NoSuchNode" if place == "nope" else "SimSleep"
    if place == "2.steps":
        graph["1"]["inputs"]["width"] = -5
    played, _ = play(jobs=2, graph=graph)
    assert played.kinds() == (["missing_node"] * 2 if place == "nope" else ["validation"] * 2)


def test_a_server_that_names_prompts_itself_is_followed_under_its_names() -> None:
    def before(server: Server) -> None:
        call = server.call

        async def minting(request: Request) -> Reply:
            if request.path == "prompt" and request.body is not None:
                body = json.loads(request.body)
                del body["prompt_id"]
                request = Request(method="POST", path="prompt", body=json.dumps(body).encode())
                reply = await call(request)
                await asyncio.sleep(0.3)  # its events all come before the reply
                return reply
            return await call(request)

        server.call = minting  # type: ignore[method-assign]

    played, _ = play(jobs=3, before=before)
    assert played.outcomes() == ["completed"] * 3
    assert all(isinstance(r.execution, Execution) and r.execution.end_source == "events" for r in played.records)


def test_each_job_has_its_own_time_limit_though_one_timer_serves_all() -> None:
    """Of jobs that arrive every half second, each that is late ends three seconds after it was sent."""
    load = Open(stages=[Stage(per_s=2.0)], arrivals="constant")
    played, _ = play(jobs=12, load=load, graph=sleeper(1.0), timeout_s=3.0)
    late = [record.execution for record in played.records if record.execution.outcome == "timed_out"]
    assert len(late) > 3 and "completed" in played.outcomes()
    assert [(each.done or 0.0) - (each.sent or 0.0) for each in late] == pytest.approx([3.0] * len(late), abs=0.02)


def test_of_a_hundred_jobs_that_end_together_few_histories_are_read_at_a_time() -> None:
    under_way, most = 0, 0

    async def script(_server: Server, client: ComfyClient, _stop: Stop) -> None:
        transport: Any = client._link.transport
        call = transport.call

        async def counted(request: Request) -> Reply:
            nonlocal under_way, most
            is_read = request.path.startswith("history/")
            under_way += is_read
            most = max(most, under_way)
            try:
                reply: Reply = await call(request)
            finally:
                under_way -= is_read
            return reply

        transport.call = counted

    played, _ = play(jobs=100, concurrency=100, graph=sleeper(0.0), script=script, latency_s=0.5)
    assert played.outcomes() == ["completed"] * 100
    assert 4 < most <= MOST_READS + AT_ONCE


def test_patience_is_bounded_even_when_the_server_dies_for_good() -> None:
    async def script(server: Server, _client: ComfyClient, _stop: Stop) -> None:
        await asyncio.sleep(0.15)
        server.restart(downtime_s=1e6)

    timeouts = Timeouts(job_s=20, submit_s=5)
    played, _ = play(jobs=4, concurrency=2, script=script, timeouts=timeouts)
    assert set(played.outcomes()) <= {"completed", "failed", "timed_out", "lost"}
    assert len(played.records) == 4


def test_without_a_timeout_a_server_that_never_comes_back_is_given_up_all_the_same() -> None:
    async def script(server: Server, _client: ComfyClient, _stop: Stop) -> None:
        await asyncio.sleep(0.15)
        server.restart(downtime_s=1e6)

    played, _ = play(jobs=4, concurrency=2, script=script)
    assert len(played.records) == 4
    assert "server_gone" in played.codes()
    assert set(played.outcomes()) <= {"completed", "failed", "lost"}


def test_a_fault_of_ours_in_the_event_stream_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(_self: InFlight, _job: object, message: Message, _at: float) -> bool:
        if message.type == "executing":
            raise ZeroDivisionError
        return False

    monkeypatch.setattr(InFlight, "_follow", faulty)
    seconds: list[float] = []

    async def script(_server: Server, client: ComfyClient, _stop: Stop) -> None:
        began = asyncio.get_running_loop().time()
        while client._fault is None:
            await asyncio.sleep(0.1)
        with pytest.raises(ZeroDivisionError):
            await client.run(Prompt(id="x", index=9, workflow="g", warmup=False, graph_of=lambda _: b"{}"))
        seconds.append(asyncio.get_running_loop().time() - began)

    with pytest.raises(ZeroDivisionError):
        play(jobs=2, graph=sleeper(600.0), script=script)
    assert seconds and seconds[0] < 1.0
