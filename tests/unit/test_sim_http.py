"""The simulated server's replies have the recorded form, whatever is sent to it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from comfyload.clock import run_virtual
from comfyload.sim import Faults, Server, Which
from tests.support import captures
from tests.unit.test_sim_helpers import call, get, image_graph, same_shape, sampler_graph, settled, sleep_graph, submit


def rename(graph: Any) -> Any:
    """The recorded graphs use a test node that sleeps; ours is called SimSleep."""
    text = json.dumps(graph).replace("TestSleep", "SimSleep").replace('"value"', '"image"')
    return json.loads(text.replace('"seconds"', '"seed": 0, "seconds"'))


@pytest.mark.parametrize(
    "name",
    [
        "prompt_200_with_node_errors_partial",
        "prompt_400_invalid_prompt_id",
        "prompt_400_list_body",
        "prompt_400_missing_node_class",
        "prompt_400_no_outputs",
        "prompt_400_no_prompt",
        "prompt_400_node_errors",
        "prompt_500_ui_format",
        "prompt_dangling_link",
        "prompt_link_bad_slot",
        "prompt_ok",
    ],
)
def test_posts_are_answered_as_recorded(name: str) -> None:
    recorded = captures.load(name)

    async def main() -> None:
        async with Server() as server:
            reply = await call(server, "POST", "prompt", recorded["request_json"])
            assert reply.status == recorded["status"]
            assert reply.content_type == recorded["content_type"]
            if isinstance(recorded["body"], str):
                assert reply.body.decode() == recorded["body"]
                return
            ours = json.loads(reply.body)
            for errors in (*ours.get("node_errors", {}).values(), *recorded["body"]["node_errors"].values()):
                # A real server checks the inputs in the order of a set.
                errors["errors"].sort(key=lambda error: error["type"])
            same_shape(ours, recorded["body"])
            if "error" in ours:
                assert ours["error"] == recorded["body"]["error"]
            for node_id, errors in recorded["body"]["node_errors"].items():
                ours_of_node = ours["node_errors"][node_id]
                assert ours_of_node["dependent_outputs"] == errors["dependent_outputs"]
                for mine, theirs in zip(ours_of_node["errors"], errors["errors"], strict=True):
                    assert (mine["type"], mine["message"]) == (theirs["type"], theirs["message"])
                    assert mine["details"] == theirs["details"]

    run_virtual(main())


@pytest.mark.parametrize(
    "body", [b"{", b"", b'{"prompt": {}, "number": null}', b'{"prompt": {}, "number": "abc"}', b"7", b'{"prompt": []}']
)
def test_bodies_of_another_shape_are_answered_500(body: bytes) -> None:
    async def main() -> None:
        async with Server() as server:
            reply = await call(server, "POST", "prompt", body)
            assert reply.status == 500
            assert reply.body == b"500 Internal Server Error\n\nServer got itself in trouble"

    run_virtual(main())


def test_the_same_id_and_number_twice_while_queued_is_a_500() -> None:
    recorded = captures.load("prompt_500_same_id_same_number_while_queued")

    async def main() -> None:
        async with Server() as server:
            await submit(server, sleep_graph(1.0))
            await asyncio.sleep(0)
            replies = [await call(server, "POST", "prompt", each["request_json"]) for each in recorded]
            assert [reply.status for reply in replies] == [200, 500]
            same_shape(json.loads(replies[0].body), recorded[0]["body"])

    run_virtual(main())


def test_only_the_valid_outputs_of_a_partly_valid_prompt_run() -> None:
    recorded = captures.load("prompt_200_with_node_errors_partial")

    async def main() -> None:
        async with Server() as server:
            prompt_id = await submit(server, recorded["request_json"]["prompt"])
            await settled(server, 1)
            entry = (await get(server, f"history/{prompt_id}"))[prompt_id]
            assert entry["prompt"][4] == ["2"]
            assert list(entry["outputs"]) == ["2"]

    run_virtual(main())


def test_the_queue_shows_its_heap_and_runs_by_number() -> None:
    recorded = captures.load("queue_several")

    async def main() -> None:
        async with Server() as server:
            rows = [*recorded["body"]["queue_running"], *recorded["body"]["queue_pending"]]
            running, front, third, second = rows
            for row, more in ((running, {}), (second, {}), (third, {}), (front, {"front": True})):
                await submit(server, rename(row[2]), row[3]["client_id"], prompt_id=row[1], **more)
                await asyncio.sleep(0.01)
            shown = await get(server, "queue")
            same_shape(shown, rename(recorded["body"]))
            assert [row[1] for row in shown["queue_pending"]] == [front[1], third[1], second[1]]
            assert [row[0] for row in shown["queue_pending"]] == [-3, 2, 1]
            assert await get(server, "prompt") == {"exec_info": {"queue_remaining": 4}}
            await settled(server, 4)
            order = [truth.prompt_id for truth in server.truth]
            assert order == [running[1], front[1], second[1], third[1]]

    run_virtual(main())


def test_deleting_waiting_prompts_leaves_no_trace() -> None:
    recorded = captures.load("queue_delete")

    async def main() -> None:
        async with Server() as server:
            await submit(server, sleep_graph(1.0, 1))
            gone = await submit(server, sleep_graph(1.0, 2))
            await asyncio.sleep(0.1)
            reply = await call(server, "POST", "queue", {"delete": [gone, "no-such-id"]})
            assert (reply.status, reply.body, reply.content_type) == (200, b"", "")
            assert await get(server, f"history/{gone}") == recorded[2]["body"]
            missing = await call(server, "GET", f"api/jobs/{gone}")
            assert (missing.status, json.loads(missing.body)) == (recorded[3]["status"], recorded[3]["body"])
            await submit(server, sleep_graph(1.0, 3))
            await call(server, "POST", "queue", {"clear": True})
            await settled(server, 1)
            assert await get(server, "prompt") == {"exec_info": {"queue_remaining": 0}}
            assert len(server.truth) == 1

    run_virtual(main())


def test_history_and_jobs_of_ended_prompts_are_as_recorded() -> None:
    async def main() -> None:
        async with Server(cache="classic") as server:
            for name, job in (("history_success", "job_completed"), ("history_cached", None)):
                body = captures.load(name)["body"]
                (their_id,) = body
                row = body[their_id]["prompt"]
                prompt_id = await submit(server, row[2], row[3]["client_id"], prompt_id=their_id)
                await settled(server, len(server.truth) + 1)
                assert prompt_id == their_id
                same_shape(await get(server, f"history/{prompt_id}"), body)
                if job is not None:
                    same_shape(await get(server, f"api/jobs/{prompt_id}"), captures.load(job)["body"])

    run_virtual(main())


def test_a_failed_prompt_is_told_as_recorded() -> None:
    recorded = captures.load("history_failed")["body"]
    (their_id,) = recorded
    graph = recorded[their_id]["prompt"][2]
    del graph["2"], graph["3"]  # a class the simulator does not have, in a branch that does not run

    async def main() -> None:
        faults = Faults(node_error=Which(every=1), error_class="ImageBlur")
        async with Server(faults=faults) as server:
            prompt_id = await submit(server, graph, prompt_id=their_id)
            await settled(server, 1)
            for path, name in ((f"history/{prompt_id}", "history_failed"), (f"api/jobs/{prompt_id}", "job_failed")):
                theirs = captures.load(name)["body"]
                prompt = theirs["workflow"]["prompt"] if "workflow" in theirs else theirs[their_id]["prompt"][2]
                del prompt["2"], prompt["3"]
                same_shape(await get(server, path), theirs, name)

    run_virtual(main())


def test_jobs_are_pending_then_in_progress_then_completed_or_cancelled() -> None:
    async def main() -> None:
        async with Server() as server:
            first = await submit(server, sampler_graph(1, steps=50))
            second = await submit(server, sleep_graph(1.0, 2))
            await asyncio.sleep(6.0)
            same_shape(await get(server, f"api/jobs/{first}"), captures.load("job_in_progress")["body"])
            same_shape(await get(server, f"api/jobs/{second}"), captures.load("job_pending")["body"])
            await call(server, "POST", "interrupt", {"prompt_id": first})
            await settled(server, 2)
            cancelled = await get(server, f"api/jobs/{first}")
            assert cancelled["status"] == "cancelled"
            theirs = captures.load("job_cancelled")["body"]
            theirs["workflow"]["prompt"] = cancelled["workflow"]["prompt"]
            same_shape(cancelled, theirs)
            listed = await get(server, "api/jobs?limit=1")
            assert listed["pagination"] == {"offset": 0, "limit": 1, "total": 2, "has_more": True}
            assert [job["status"] for job in (await get(server, "api/jobs?status=cancelled"))["jobs"]] == ["cancelled"]

    run_virtual(main())


def test_cancelling_is_idempotent_and_checks_its_ids() -> None:
    async def main() -> None:
        async with Server() as server:
            running = await submit(server, sampler_graph(1, steps=50))
            waiting = await submit(server, sleep_graph(1.0))
            await asyncio.sleep(6.0)
            for job_id in (waiting, running):
                assert json.loads((await call(server, "POST", f"api/jobs/{job_id}/cancel")).body) == {"cancelled": True}
            await settled(server, 1)
            assert server.truth[0].outcome == "interrupted"
            assert json.loads((await call(server, "POST", f"api/jobs/{running}/cancel")).body) == {"cancelled": False}
            wrong = await call(server, "POST", "api/jobs/cancel", {"job_ids": ["xx"]})
            recorded = captures.load("job_cancel_endpoint")[2]
            assert (wrong.status, json.loads(wrong.body)) == (recorded["status"], recorded["body"])

    run_virtual(main())


def test_an_interrupt_needs_the_right_prompt_and_a_node_that_notices() -> None:
    async def main() -> None:
        async with Server() as server:
            running = await submit(server, sleep_graph(1.0))
            await asyncio.sleep(0.5)
            await call(server, "POST", "interrupt", {"prompt_id": "another"})
            assert server.truth[0].outcome == ""
            await call(server, "POST", "interrupt", {"prompt_id": running})
            await settled(server, 1)
            assert server.truth[0].outcome == "interrupted"
            assert server.truth[0].ended == pytest.approx(1.0)  # the blocking node went on to its end
            status = (await get(server, f"history/{running}"))[running]["status"]
            assert (status["status_str"], status["completed"]) == ("error", False)
            assert status["messages"][-1][1]["node_id"] == "2"
            await submit(server, sleep_graph(0.1, 5))
            await settled(server, 2)
            assert server.truth[1].outcome == "completed"

    run_virtual(main())


def test_an_old_server_interrupts_whatever_runs_and_lacks_what_came_later() -> None:
    async def main() -> None:
        async with Server(version="0.3.50") as server:
            assert (await call(server, "POST", "prompt", {"prompt": image_graph(), "prompt_id": "own"})).status == 200
            await settled(server, 1)
            assert "create_time" not in (await get(server, "history/own"))["own"]["prompt"][3]
            assert (await call(server, "GET", "api/jobs")).status == 404
            assert (await call(server, "POST", "api/jobs/x/cancel")).status == 405
            await submit(server, sleep_graph(1.0))
            await asyncio.sleep(0.5)
            await call(server, "POST", "interrupt", {"prompt_id": "another"})
            await settled(server, 2)
            assert server.truth[1].outcome == "interrupted"

    run_virtual(main())


def test_history_pages_and_forgets() -> None:
    async def main() -> None:
        async with Server() as server:
            ids = [await submit(server, sleep_graph(0.01, seed)) for seed in range(5)]
            await settled(server, 5)
            assert list(await get(server, "history")) == ids
            assert list(await get(server, "history?max_items=2")) == ids[3:]
            assert list(await get(server, "history?max_items=2&offset=1")) == ids[1:3]
            assert (await call(server, "GET", "history?max_items=abc")).status == 500
            await call(server, "POST", "history", {"delete": [ids[0]]})
            assert await get(server, f"history/{ids[0]}") == {}
            await call(server, "POST", "history", {"clear": True})
            assert await get(server, "history") == {}

    run_virtual(main())


def test_methods_prefixes_and_unknown_routes() -> None:
    async def main() -> None:
        async with Server() as server:
            for method, path, status in (
                ("GET", "interrupt", 404),
                ("PUT", "prompt", 405),
                ("OPTIONS", "prompt", 200),
                ("HEAD", "prompt", 200),
                ("DELETE", "queue", 405),
                ("GET", "nope", 404),
                ("POST", "nope", 405),
                ("GET", "jobs", 404),
                ("GET", "api/history?max_items=1", 200),
                ("POST", "free", 500),
                ("POST", "queue", 500),
                ("POST", "interrupt", 200),
                ("GET", "models/nope", 404),
            ):
                assert (await call(server, method, path)).status == status, (method, path)
            assert await get(server, "object_info/NoSuchNode") == {}
            same_shape(await get(server, "models/checkpoints"), ["x"])

    run_virtual(main())


def test_stats_and_node_classes_are_told_as_recorded() -> None:
    async def main() -> None:
        async with Server(cache="lru", lru=7) as server:
            ours, theirs = await get(server, "system_stats"), captures.load("system_stats")["body"]
            assert set(ours["system"]) <= set(theirs["system"])
            assert set(ours["devices"][0]) == set(theirs["devices"][0])
            assert ours["system"]["argv"][-2:] == ["--cache-lru", "7"]
            ours, theirs = await get(server, "object_info/ImageScale"), captures.load("object_info_one")["body"]
            for key, value in ours["ImageScale"].items():
                if key != "description":
                    assert value == theirs["ImageScale"][key], key

    run_virtual(main())


def test_the_page_is_the_one_of_the_folder_and_nothing_outside_it_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "static"
    (folder / "extensions" / "core").mkdir(parents=True)
    (folder / "index.html").write_text("the page", encoding="utf-8")
    (folder / "extensions" / "core" / "a.js").write_text("js", encoding="utf-8")
    (tmp_path / "secret.js").write_text("secret", encoding="utf-8")

    async def main() -> None:
        async with Server(frontend=folder) as server:
            for path, status, body in (
                ("", 200, b"the page"),
                ("api/", 200, b"the page"),
                ("extensions/core/a.js", 200, b"js"),
                ("extensions/core", 403, b"403: Forbidden"),
                ("../secret.js", 404, b""),
                ("..%2Fsecret.js", 404, b""),
                ("%2Fetc%2Fpasswd", 404, b""),
                ("a%00b", 404, b""),
                ("a" * 5000, 404, b""),
            ):
                reply = await call(server, "GET", path)
                assert (reply.status, reply.body) == (status, body), path
            reply = await call(server, "GET", "extensions/core/a.js")
            assert reply.headers == {"Cache-Control": "no-store"} and reply.content_type.endswith("javascript")
            assert json.loads((await call(server, "GET", "extensions")).body) == ["/extensions/core/a.js"]
        async with Server() as server:
            assert b"A simulated ComfyUI" in (await call(server, "GET", "")).body

    run_virtual(main())


def test_the_log_is_told_to_whoever_follows_it() -> None:
    async def main() -> None:
        async with Server() as server:
            socket = server.connect("reader")
            for reader in ("reader", "gone"):
                body = {"clientId": reader, "enabled": True}
                assert (await call(server, "PATCH", "internal/logs/subscribe", body)).status == 200
            for _ in range(400):
                await submit(server, sleep_graph(0.5))
            await settled(server, 400)
            lines = [
                entry["m"] for entry in json.loads((await call(server, "GET", "internal/logs/raw")).body)["entries"]
            ]
            assert len(lines) == 300 and "Prompt executed in" in lines[-1]
            assert lines[-1] in json.loads((await call(server, "GET", "internal/logs")).body)
            server.stall_events(False)
            socket.close()
            messages = [json.loads(frame) for frame in [frame async for frame in socket] if isinstance(frame, str)]
            logs = [message["data"]["entries"][0]["m"] for message in messages if message["type"] == "logs"]
            assert len(logs) == 800 and sum("got prompt" in line for line in logs) == 400

    run_virtual(main())
