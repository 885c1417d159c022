"""What the doctor finds on servers in every state, and that it leaves them as they were."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec import structs

from comfyload import clock
from comfyload.app.doctor import DoctorCheck, examine_server, exit_code
from comfyload.app.run.inputs import Inputs
from comfyload.app.run.options import RunOptions
from comfyload.comfy import examine
from comfyload.comfy.address import parse_server
from comfyload.comfy.http import Http
from comfyload.comfy.identify import identify
from comfyload.comfy.upload import upload_image
from comfyload.comfy.wire.calls import OnFrame, Reply, Request, Transport, TransportError
from comfyload.errors import UsageError
from comfyload.record.plan import Closed, Plan
from comfyload.sim import Faults, Server
from comfyload.sim.faults import Which
from comfyload.workflow import parse
from comfyload.workflow.preflight import PreflightFailed
from tests.support.direct import Direct
from tests.support.places import place
from tests.support.rig import SLEEPER, sleeper

T = TypeVar("T")
SAMPLES = Path(__file__).parents[2] / "infra" / "comfyui" / "samples"
NOWHERE = Path("no-such-folder")


def on(body: Callable[[Server, Transport], Awaitable[T]], **server: Any) -> T:
    async def main() -> T:
        async with Server(**server) as simulated:
            return await body(simulated, Direct(simulated, latency_s=0.001))

    return clock.run_virtual(main())


async def look(
    transport: Transport, graph: dict[str, Any] | None = SLEEPER, *, jobs: int = 12, as_is: bool = False, **more: Any
) -> dict[str, list[DoctorCheck]]:
    workflows = [] if graph is None else [parse(json.dumps(graph).encode(), "g")]
    options = RunOptions(plan=Plan(load=Closed(), jobs=jobs, as_is=as_is), **more)
    material = Inputs(workflows, [], None)
    found: dict[str, list[DoctorCheck]] = {}
    for check in await examine_server(transport, "http://server/", options, material, NOWHERE):
        found.setdefault(check.name, []).append(check)
    return found


def test_a_gateway_is_told_from_a_server() -> None:
    async def main(url: str) -> dict[str, list[DoctorCheck]]:
        async with Http.connect(parse_server(url), {}) as transport:
            return await look(transport)

    with place("gateway", speed=20) as url:
        found = asyncio.run(main(url))
    assert [check.status for check in found["gateway"]] == ["warning"] and code(found) == 0
    assert "gateway" not in on(lambda _, transport: look(transport))


def code(found: dict[str, list[DoctorCheck]]) -> int:
    return exit_code([check for checks in found.values() for check in checks])


def statuses(found: dict[str, list[DoctorCheck]]) -> dict[str, str]:
    return {name: checks[0].status for name, checks in found.items()}


def test_a_healthy_idle_server() -> None:
    async def body(server: Server, transport: Transport) -> dict[str, list[DoctorCheck]]:
        found = await look(transport)
        assert not server.posts
        return found

    found = on(body)
    assert statuses(found) == {
        "server": "ok", "version": "ok", "cache": "ok", "flags": "ok", "queue": "ok", "worker": "ok", "events": "ok",
        "clock": "unknown", "GPU memory": "ok", "memory": "ok", "disk": "unknown", "preflight": "ok",
        "variation": "ok", "outputs": "ok", "cost": "unknown",
    }  # fmt: skip
    assert found["server"][0].facts["round_trip_s"] == pytest.approx(0.002)
    assert found["variation"][0].found == "1 input varied: 2.seed"
    assert found["outputs"][0].found == "1 output node in each job: 1 SaveImage"
    assert code(found) == 0


def test_without_a_workflow_the_server_alone_is_looked_at() -> None:
    found = on(lambda _, transport: look(transport, None))
    assert "preflight" not in found
    assert code(found) == 0


@pytest.mark.parametrize(
    ("cache", "status"), [("ram", "ok"), ("classic", "ok"), ("lru", "warning"), ("none", "warning")]
)
def test_how_it_caches(cache: str, status: str) -> None:
    found = on(lambda _, transport: look(transport), cache=cache)
    assert statuses(found)["cache"] == status
    assert code(found) == 0


def test_what_an_old_server_lacks() -> None:
    found = on(lambda _, transport: look(transport), version="0.3.40")
    (check,) = found["version"]
    assert check.status == "warning"
    assert len(check.facts["lacks"]) == 5


def test_flags_that_disturb() -> None:
    flags = examine.disturbing_flags(["main.py", "--cpu", "--preview-method", "auto", "--lowvram", "--listen"])
    assert sorted(flags) == ["--cpu", "--lowvram", "--preview-method"]
    assert examine.disturbing_flags(["main.py", "--preview-method", "none"]) == {}
    assert sorted(examine.disturbing_flags(["main.py", "--preview-method=taesd"])) == ["--preview-method"]


def test_a_busy_server_that_works() -> None:
    async def body(server: Server, transport: Transport) -> dict[str, list[DoctorCheck]]:
        for number in range(8):
            server.foreign(sleeper(0.5) | {"4": {"class_type": "EmptyImage", "inputs": {}}}, f"user-{number % 2}")
        return await look(transport)

    found = on(body)
    assert found["queue"][0].facts == {"running": 1, "pending": 7, "clients": 2}
    assert statuses(found)["queue"] == "problem"
    assert (statuses(found)["worker"], statuses(found)["events"]) == ("ok", "ok")
    assert code(found) == 3


def test_a_dead_worker_and_a_long_prompt_look_the_same() -> None:
    async def dead(server: Server, transport: Transport) -> dict[str, list[DoctorCheck]]:
        server.foreign(sleeper(0.5))
        await asyncio.sleep(0.1)
        server.kill_worker()
        return await look(transport)

    async def long(server: Server, transport: Transport) -> dict[str, list[DoctorCheck]]:
        server.foreign(sleeper(600))
        await asyncio.sleep(0.1)
        return await look(transport)

    for body in (dead, long):
        found = on(body)
        (check,) = found["worker"]
        assert check.status == "problem"
        assert "both look the same" in check.found
        assert code(found) == 3


def test_held_up_events_are_told_from_a_quiet_server() -> None:
    async def body(server: Server, transport: Transport) -> dict[str, list[DoctorCheck]]:
        for _ in range(8):
            server.foreign(sleeper(1.0))
        await asyncio.sleep(0.1)
        server.stall_events(True)
        return await look(transport)

    found = on(body)
    assert statuses(found)["worker"] == "ok"
    assert "events are held up" in found["events"][0].found


class _Without:
    """A transport on which some things fail."""

    def __init__(self, inner: Transport, *, events: str = "", path: str = "?", status: int = 404) -> None:
        self._inner, self._events, self._path, self._status = inner, events, path, status
        self.download = inner.download

    async def call(self, request: Request) -> Reply:
        if request.path.startswith(self._path):
            return Reply(status=self._status, body=b"")
        return await self._inner.call(request)

    async def events(self, client_id: str, on_frame: OnFrame) -> None:
        if self._events:
            raise TransportError(self._events, sent=True)
        await self._inner.events(client_id, on_frame)


def test_a_proxy_that_passes_no_websocket() -> None:
    found = on(lambda _, transport: look(_Without(transport, events="refused with HTTP 400")))
    assert found["events"][0].status == "warning"
    assert "refused with HTTP 400" in found["events"][0].found
    assert code(found) == 0


def test_a_queue_that_cannot_be_read_is_unknown() -> None:
    found = on(lambda _, transport: look(_Without(transport, path="queue", status=403)))
    assert statuses(found)["queue"] == "unknown"
    assert "worker" not in found


def test_nothing_there() -> None:
    async def body(server: Server, transport: Transport) -> dict[str, list[DoctorCheck]]:
        await server.stop()
        return await look(transport)

    found = on(body)
    assert list(found) == ["server"]
    assert code(found) == 4


def test_a_book_that_lacks_a_checkpoint_two_images_and_a_class_is_told_all_four_at_once() -> None:
    graph = json.loads((SAMPLES / "book_large.json").read_text(encoding="utf-8"))
    graph["1"]["inputs"]["ckpt_name"] = "sd_xl_base_1.1.safetensors"
    graph["11"]["inputs"]["image"] = "canny_page_99.png"
    graph["15"]["inputs"]["image"] = "no_such_pose.png"
    graph["110"]["class_type"] = "KSamplerr"

    async def body(server: Server, transport: Transport) -> dict[str, list[DoctorCheck]]:
        found = await look(transport, graph)
        assert not server.posts
        return found

    found = on(body)
    (check,) = found["preflight"]
    problems = {(problem["kind"], problem["node"]) for problem in check.facts["problems"]}
    assert problems == {
        ("missing_model", "1"), ("missing_image", "11"), ("missing_image", "15"), ("unknown_class", "110"),
    }  # fmt: skip
    for word in ("sd_xl_base_1.1.safetensors", "canny_page_99.png", "no_such_pose.png", "KSamplerr; nearest: KSampler"):
        assert word in check.found
    assert code(found) == 2


@pytest.mark.parametrize(
    "name", ["book_small", "book_medium", "book_large", "smoke_small", "smoke_medium", "smoke_large"]
)
def test_the_samples_pass(name: str) -> None:
    graph = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    known = on(lambda _, transport: look(transport, graph))
    assert [problem["value"] for problem in known["preflight"][0].facts["problems"]] == []


async def put_a_picture(transport: Transport) -> None:
    """The server gets `sub/a.png`."""
    form = (
        b'--b\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\nsub\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nx\r\n--b--\r\n'
    )
    kind = "multipart/form-data; boundary=b"
    await transport.call(Request(method="POST", path="upload/image", body=form, content_type=kind))


def test_an_image_in_a_subfolder_exists_although_no_list_names_it() -> None:
    load = {"1": {"class_type": "LoadImage", "inputs": {"image": "sub/a.png"}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}  # fmt: skip

    async def body(server: Server, transport: Transport) -> list[str]:
        before = statuses(await look(transport, load))["preflight"]
        await put_a_picture(transport)
        after = statuses(await look(transport, load))["preflight"]
        blind = statuses(await look(_Without(transport, path="view", status=403), load))["preflight"]
        return [before, after, blind]

    assert on(body) == ["problem", "ok", "ok"]


@pytest.mark.parametrize(
    ("system", "name", "missing", "near"),
    [
        ("linux", "sub\\a.png", True, ["sub/a.png"]),
        ("posix", "sub\\b.png", True, []),
        ("darwin", "sub\\a.png", True, ["sub/a.png"]),
        ("nt", "sub\\a.png", False, []),
        ("win32", "sub\\a.png", False, []),
        ("win32", "sub\\b.png", True, []),
        (None, "sub\\a.png", False, []),
    ],
)
def test_a_backslash_parts_folders_on_windows_alone(
    system: str | None, name: str, missing: bool, near: list[str]
) -> None:
    load = {"1": {"class_type": "LoadImage", "inputs": {"image": name}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}  # fmt: skip

    async def body(server: Server, transport: Transport) -> None:
        await put_a_picture(transport)
        facts = structs.replace(await identify(transport, "s", []), system={} if system is None else {"os": system})
        described = await examine.fetch_object_info(transport, ["LoadImage", "PreviewImage"])
        answer = await examine.preflight(transport, [parse(json.dumps(load).encode(), "g")], described, facts)
        assert answer.verdict == ("refused" if missing else "accepted")
        assert [problem.near for problem in answer.problems] == ([near] if missing else [])

    on(body)


def test_broken_outputs_are_a_problem_unless_they_are_left_out() -> None:
    graph = SLEEPER | {
        "7": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
    }
    (check,) = on(lambda _, transport: look(transport, graph))["preflight"]
    assert (check.status, check.facts["verdict"], check.facts["dropped"]) == ("problem", "partly", ["8"])
    assert "--drop-broken-outputs" in check.advice
    found = on(lambda _, transport: look(transport, graph, drop_broken_outputs=True))
    (check,) = found["preflight"]
    assert (check.status, check.facts["verdict"], check.facts["dropped"]) == ("warning", "accepted", ["8"])
    assert "output 8 is left out: node 7 (LoadImage)" in check.found
    assert found["outputs"][0].facts == {"outputs": 1}
    assert code(found) == 0


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"9": {"class_type": "ImageInvert", "inputs": {"image": ["77", 0]}}}, "accepted"),
        ({"1": SLEEPER["1"] | {"inputs": SLEEPER["1"]["inputs"] | {"old": ["77", 0]}}}, "kills"),
        ({"1": SLEEPER["1"] | {"inputs": SLEEPER["1"]["inputs"] | {"old": ["1", 0]}}}, "fails"),
    ],
)
def test_a_link_to_nowhere_is_judged_by_what_follows_from_it(more: dict[str, Any], verdict: str) -> None:
    found = on(lambda _, transport: look(transport, SLEEPER | more))
    assert found["preflight"][0].facts["verdict"] == verdict
    assert code(found) == (0 if verdict == "accepted" else 2)


def test_an_upload_gets_a_name_and_a_taken_name_another(tmp_path: Path) -> None:
    picture = tmp_path / "pose.png"

    async def body(server: Server, transport: Transport) -> list[str]:
        names = []
        for content in (b"one", b"one", b"two\r\n--x"):
            picture.write_bytes(content)
            names.append(await upload_image(transport, picture))
        assert await examine.missing_images(transport, [*names, "gone.png"]) == {"gone.png"}
        reply = await transport.call(Request(method="GET", path="view?filename=pose%20(1).png&type=input"))
        assert reply.body == b"two\r\n--x"
        with pytest.raises(UsageError, match="HTTP 413"):
            await upload_image(_Without(transport, path="upload", status=413), picture)
        with pytest.raises(UsageError, match="No such file"):
            await upload_image(transport, tmp_path / "gone.png")
        return names

    assert on(body) == ["pose.png", "pose.png", "pose (1).png"]


def test_how_jobs_vary() -> None:
    fixed = {
        "1": SLEEPER["1"],
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    salted = on(lambda _, transport: look(transport, fixed))["variation"][0]
    assert (salted.status, salted.facts["salted"]) == ("warning", ["1"])
    as_is = on(lambda _, transport: look(transport, as_is=True))["variation"][0]
    assert (as_is.status, "cache" in as_is.found) == ("warning", True)


def test_a_seed_that_the_file_has_out_of_bounds_is_no_problem_as_it_is_never_sent() -> None:
    graph = sleeper(0.1)
    graph["2"]["inputs"]["seed"] = -1
    assert statuses(on(lambda _, transport: look(transport, graph)))["preflight"] == "ok"


def test_the_servers_clock_is_narrowed_down_by_its_dates() -> None:
    class Dated:
        """Answers with a date that is 100 s ahead."""

        async def call(self, _: Request) -> Reply:
            date = datetime.now(UTC) + timedelta(seconds=100)
            return Reply(status=404, body=b"", headers={"date": format_datetime(date, usegmt=True)})

    offset = asyncio.run(examine.clock_offset(Dated()))  # type: ignore[arg-type]
    assert offset is not None
    low, high = offset
    assert low <= 100 <= high
    assert high - low < 1.01


def test_a_server_that_dies_between_two_questions_ends_in_a_list() -> None:
    for every in (2, 3, 4, 5):
        assert on(lambda _, transport: look(transport), faults=Faults(refuse=Which(every=every)))


def test_every_workflow_is_named_in_one_message() -> None:
    async def body(server: Server, transport: Transport) -> str:
        lines = {}
        for name in ("a", "b"):
            workflow = parse(json.dumps({"1": {"class_type": f"Gone{name}", "inputs": {}}}).encode(), name)
            described = await examine.fetch_object_info(transport, [workflow.class_of("1")])
            lines[name] = await examine.preflight(transport, [workflow], described, await identify(transport, "s", []))
        return PreflightFailed(lines).message

    message = on(body)
    assert "Gonea" in message
    assert "Goneb" in message
