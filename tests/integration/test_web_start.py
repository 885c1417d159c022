"""A run started from a page, with the simulator: preflight, plan, start, saved plans, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from comfyload.gateway.fleet import ServerConfig
from comfyload.record.codec import encode
from comfyload.record.model import Record
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.run import RunReader
from comfyload.web.plans import Plans
from comfyload.web.start import Starting
from tests.integration.test_baseline_cli import RAN
from tests.support.commands import call
from tests.support.rig import SLEEPER, sleeper
from tests.support.servers import simulator
from tests.support.web_calls import Page, page_of

pytestmark = pytest.mark.timeout(240)  # what is judged is judged in a process that gives way to others

BOOK = {"name": "book.json", "text": json.dumps(SLEEPER)}
Story = Callable[[Page], Awaitable[None]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with simulator(speed=20) as url:
        yield url


def play(folder: Path, servers: dict[str, str], story: Story, headers: dict[str, str] | None = None) -> None:
    async def main() -> None:
        known = [ServerConfig(name=name, url=URL(url), headers=headers or {}) for name, url in servers.items()]
        starting = Starting(folder / "runs", known, folder / "archive")
        async with page_of(starting.routes()) as page:
            await story(page)

    asyncio.run(main())


def form(*workflows: dict[str, Any], server: str = "gpu1", **options: Any) -> dict[str, Any]:
    return {"server": server, "workflows": list(workflows or [BOOK]), "options": options}


async def ended(page: Page, run_id: str) -> dict[str, Any]:
    for _ in range(300):
        _, found = await page.get(f"starts/{run_id}")
        if found["state"] not in ("starting", "running"):
            return dict(found)
        await asyncio.sleep(0.1)
    raise AssertionError("the run did not end")


def test_preflight_says_in_words_what_doctor_finds(server: str, tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        status, found = await page.post("preflight", form())
        assert status == 200 and (found["verdict"], found["word"], found["look"]) == ("ready", "READY", "good")
        checks = {check["name"]: check for check in found["checks"]}
        assert checks["preflight"]["status"] == "ok" and "would accept it" in checks["preflight"]["found"]
        unknown = json.loads(BOOK["text"]) | {"9": {"class_type": "NoSuchNode", "inputs": {}}}
        unknown["3"]["inputs"]["images"] = ["9", 0]
        status, found = await page.post("preflight", form({"name": "odd.json", "text": json.dumps(unknown)}))
        assert status == 200 and found["verdict"] == "refused" and "NoSuchNode" in json.dumps(found["checks"])
        assert "install the node pack" in json.dumps(found["checks"])
        status, found = await page.post("preflight", {"server": "gpu1"})
        assert status == 200 and found["verdict"] == "ready"
        status, found = await page.post("preflight", form(data={"name": "t.csv", "text": "9.seed\n1\n"}))
        assert status == 422 and found["error"].startswith("t.csv: no workflow has an input '9.seed'")

    play(tmp_path, {"gpu1": server}, story)


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        status, found = await page.post("preflight", form())
        assert status == 200 and found["verdict"] == "unreachable" and found["look"] == "bad"
        status, found = await page.post("runs", form(jobs=1))
        assert status == 422 and found["state"] == "failed" and found["code"] == 4
        assert found["error"] and not found["error"].startswith("error:") and found["hint"]
        status, again = await page.get(f"starts/{found['id']}")
        assert status == 200 and again["error"] == found["error"]

    play(tmp_path, {"gpu1": "http://127.0.0.1:9/"}, story)


def test_the_plan_is_what_run_writes_for_the_command(server: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "rate": "6/min",
        "duration": "5m",
        "seed": 7,
        "no_drain": True,
        "set": ["2.seconds=0.2"],
        "gate": ["p95_latency_s <= 45"],
    }

    async def story(page: Page) -> None:
        mixed: list[dict[str, Any]] = [BOOK, {"name": "o'd d.json", "text": json.dumps(sleeper(0.3)), "weight": 3}]
        status, found = await page.post("plan", form(*mixed, **options))
        assert status == 200, found
        words = shlex.split(found["command"])
        assert words[:2] == ["comfyload", "run"] and "--seed" in words and "p95_latency_s <= 45" in words
        done = call(*words[1:], "--save-plan", "-", cwd=Path.cwd())
        assert done.returncode == 0, done.stderr
        assert done.stdout == found["toml"]
        assert found["missing"] == [] and found["words"].startswith("poisson 6/min for 5 min")

    play(tmp_path, {"gpu1": server}, story)


def test_a_run_from_the_page_is_one_from_the_command(server: str, tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        status, found = await page.post(
            "runs", form(jobs=3, concurrency=2, note=["who=page"], gate=["unexpected_errors <= 0"])
        )
        assert status == 201 and found["state"] == "running", found
        over = await ended(page, found["id"])
        assert (over["state"], over["error"]) == ("ended", "") and over["code"] in RAN, over
        reader = RunReader(tmp_path / "runs" / found["id"])
        assert reader.manifest.end == "complete" and sum(isinstance(line, Record) for line in reader.lines()) == 3
        assert reader.manifest.name == "book" and [facts.name for facts in reader.manifest.workflows] == ["book"]
        assert found["id"].endswith("-book")
        gates = Plans(tmp_path / "runs").gates_of(found["id"])
        assert gates is not None and [gate.text for gate in gates.gates] == ["unexpected_errors <= 0"]

    play(tmp_path, {"gpu1": server}, story)


@pytest.mark.long
def test_two_starts_at_once_are_one_run(server: str, tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        asked = form({"name": "slow.json", "text": json.dumps(sleeper(20.0))}, jobs=2)
        answers = await asyncio.gather(*(page.post("runs", asked) for _ in range(2)))
        assert sorted(status for status, _ in answers) == [201, 409], answers
        begun = next(found for status, found in answers if status == 201)
        refused = next(found for status, found in answers if status == 409)
        assert begun["id"] in refused["error"] and "--allow-shared" in refused["hint"]
        await ended(page, begun["id"])
        status, later = await page.post("runs", form(jobs=1))
        assert status == 201
        await ended(page, later["id"])

    play(tmp_path, {"gpu1": server}, story)


def test_runs_started_in_the_same_second_have_names_of_their_own(server: str, tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        both = await asyncio.gather(*(page.post("runs", form(jobs=1, allow_shared=True)) for _ in range(2)))
        assert [status for status, _ in both] == [201, 201], both
        assert both[0][1]["id"] != both[1][1]["id"]
        for _, found in both:
            assert (await ended(page, found["id"]))["state"] == "ended"

    play(tmp_path, {"gpu1": server}, story)


PARENT = """
import asyncio, faulthandler, json, signal, sys
from pathlib import Path
from yarl import URL
from comfyload.gateway.fleet import ServerConfig
from comfyload.web.start import Starting
from tests.support.web_calls import page_of

async def main():
    starting = Starting(Path("runs"), [ServerConfig(name="gpu1", url=URL(sys.argv[1]))])
    async with page_of(starting.routes()) as page:
        print(json.dumps(await page.post("runs", json.loads(sys.argv[2]))), flush=True)
        faulthandler.dump_traceback_later(8)
        await asyncio.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a terminal")
def test_a_run_outlives_the_dashboard(server: str, tmp_path: Path) -> None:
    asked = json.dumps(form({"name": "slow.json", "text": json.dumps(sleeper(10.0))}, jobs=4))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])}
    with (tmp_path / "stderr").open("wb") as stderr:
        dashboard = subprocess.Popen(
            [sys.executable, "-c", PARENT, server, asked],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    assert dashboard.stdout is not None
    status, found = json.loads(dashboard.stdout.readline())
    assert status == 201, found
    os.killpg(dashboard.pid, signal.SIGINT)  # as Ctrl-C in its terminal does
    try:
        dashboard.wait(10)
    except subprocess.TimeoutExpired:
        dashboard.kill()
        dashboard.wait()
        pytest.fail(f"it did not end: {(tmp_path / 'stderr').read_text(encoding='utf-8')}")
    finally:
        dashboard.stdout.close()
    run = tmp_path / "runs" / found["id"]
    assert RunReader(run).manifest.end is None, "the run ended before the dashboard"

    async def next_dashboard(page: Page) -> None:
        assert (await page.get(f"starts/{found['id']}"))[1]["state"] == "running"

    play(tmp_path, {"gpu1": server}, next_dashboard)
    until = time.monotonic() + 30
    while RunReader(run).manifest.end is None and time.monotonic() < until:
        time.sleep(0.2)
    assert RunReader(run).manifest.end == "complete"


def test_secrets_reach_the_run_and_no_file(server: str, tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        status, found = await page.post("plan", form(jobs=1))
        assert status == 200 and "s3cret-token" not in json.dumps(found)
        assert found["missing"] == ["the value of the header X-Pass: export X_PASS"]
        status, found = await page.post("runs", form(jobs=1))
        assert status == 201, found
        assert (await ended(page, found["id"]))["code"] in RAN
        await page.post("plans", form(jobs=1) | {"name": "mine"})

    play(tmp_path, {"gpu1": server}, story, {"X-Pass": "s3cret-token"})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"s3cret-token" in path.read_bytes()]


def test_saved_plans_fill_the_form_again(server: str, tmp_path: Path) -> None:
    async def story(page: Page) -> None:
        assert await page.get("plans") == (200, {"folder": str(tmp_path / "runs" / "plans"), "plans": []})
        table = {"name": "rows.csv", "text": "2.seconds\n0.1\n0.2\n"}
        asked = form(jobs="2", data=table, gate=["unexpected_errors <= 0"], independent_failures=True)
        status, found = await page.post("plans", asked | {"name": "night run"})
        assert status == 201 and (found["name"], found["server"], found["problem"]) == ("night run", "gpu1", "")
        status, refused = await page.post("plans", asked | {"name": "night run"})
        assert status == 409 and "already" in refused["error"]
        status, _ = await page.post("plans", form(jobs="5") | {"name": "night run", "replace": True})
        assert status == 201
        status, found = await page.get("plans/night%20run")
        assert found["options"] == {"jobs": "5"} and found["gates"] == []
        await page.post("plans", asked | {"name": "night run", "replace": True})
        status, found = await page.get("plans/night%20run")
        assert status == 200 and found["problem"] == ""
        assert found["workflows"] == [BOOK | {"weight": 1.0}] and found["options"] == asked["options"]
        assert [plan["name"] for plan in (await page.get("plans"))[1]["plans"]] == ["night run"]
        done = call(*shlex.split(found["command"])[1:], "--save-plan", "-", cwd=Path.cwd())
        assert done.stdout == found["toml"]
        assert "--gates" in found["command"] and "--until-proven" not in found["command"]

        proven = form(jobs="2", until_proven=True)
        assert (await page.post("plans", proven | {"name": "proven"}))[0] == 201
        status, found = await page.get("plans/proven")
        assert (found["options"], found["gates"]) == (proven["options"], []), "the default gates, until they are proven"
        assert found["command"].endswith("--until-proven")
        done = call(*shlex.split(found["command"])[1:], "--dry-run", cwd=Path.cwd())
        assert done.returncode == 0, done.stderr
        assert (await page.post("plans/proven/delete", {}))[0] == 200
        assert await page.post("plans/night run/delete", {}) == (200, {"deleted": "night run"})
        assert (await page.get("plans"))[1]["plans"] == []
        assert (await page.post("plans/night run/delete", {}))[0] == 404

    play(tmp_path, {"gpu1": server}, story)


def test_a_plan_shows_no_file_from_outside_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "plans"
    folder.mkdir(parents=True)
    (tmp_path / "secret.json").write_text("secret words")
    (folder / "mine.toml").write_text('[[workflows]]\nfile = "secret.json"\n')
    (folder / "broken.toml").write_text("speed = 9")
    (folder / "files").mkdir()
    (folder / "files" / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "linked.toml").write_text(f"[[workflows]]\nfile = {json.dumps(str(folder / 'files' / 'link.json'))}\n")

    async def story(page: Page) -> None:
        for name in ("mine", "linked"):
            status, found = await page.get(f"plans/{name}")
            assert status == 200 and "is not among the files of this page" in found["problem"]
            assert "secret words" not in json.dumps(found)
        _, listed = await page.get("plans")
        broken = next(plan for plan in listed["plans"] if plan["name"] == "broken")
        assert "unknown field" in broken["problem"] and broken["words"] == ""
        for name in ("..%2F..%2Fsecret", "nothing", "..%5Cx"):
            assert (await page.get(f"plans/{name}"))[0] == 404
        assert (await page.get("starts/..%2Fplans"))[0] == 404

    play(tmp_path, {"gpu1": "http://127.0.0.1:9/"}, story)


def test_odd_input_is_refused_in_words(tmp_path: Path) -> None:
    editor = {"nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}

    async def story(page: Page) -> None:
        async def refused(path: str, body: object, status: int, words: str) -> None:
            got, found = await page.post(path, body)
            assert got == status and words in f"{found['error']} {found['hint']}", found

        for path in ("preflight", "plan", "runs"):
            await refused(path, form({"name": "ui.json", "text": json.dumps(editor)}), 422, "Export (API)")
            await refused(path, form({"name": "x.json", "text": "{,"}), 422, "x.json is not JSON")
            await refused(path, form({"name": "x.json", "text": ""}), 422, "x.json is empty")
            await refused(path, form(server="elsewhere"), 404, "no server is called 'elsewhere'")
            await refused(path, form(speed=9), 422, "no option 'speed'")
            await refused(path, form(run_dir="/tmp/x"), 422, "is not for a page")
            await refused(path, form(BOOK, BOOK), 422, "two workflows are called 'book'")
            await refused(path, form(BOOK | {"weight": -1}), 422, "a weight is above 0")
            await refused(path, form(BOOK | {"path": "/etc/passwd"}), 400, "unknown field")
            await refused(path, [1], 400, "the form is not one")
            assert (await page.post_bytes(path, b"\xff{"))[0] == 400
            assert (await page.post_bytes(path, b'{"server": "\\ud800"}'))[0] in (400, 404)
            assert (await page.post_bytes(path, b"[" * 100_000))[0] == 400
            assert (await page.post_bytes(path, b" " * (64 << 20)))[0] == 413
        await refused("runs", {"server": "gpu1"}, 422, "no workflow is given")
        for name in ("", "../x", "a/b", ".hidden", "x.gates", "con", "a\n", "x" * 80):
            await refused("plans", form() | {"name": name}, 422, "a plan cannot be called")
        traversing = form({"name": "../../../evil.json", "text": BOOK["text"]})
        status, found = await page.post("plan", traversing)
        assert status == 200 and "/evil.json" in found["command"] and ".." not in found["command"]

    play(tmp_path, {"gpu1": "http://127.0.0.1:9/"}, story)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_files_that_nothing_names_are_removed_after_a_month(tmp_path: Path) -> None:
    plans = Plans(tmp_path / "runs")
    kept = {name: plans.keep("book.json", name.encode()) for name in ("unused", "saved", "started", "of a run", "new")}
    month, now = 31 * 86400.0, time.time()
    for name, path in kept.items():
        if name != "new":
            os.utime(path, (now - month, now - month))
            os.utime(path.parent, (now - month, now - month))
    options = {name: RunOptions(workflows=[WorkflowChoice(file=str(path))]) for name, path in kept.items()}
    plans.save("mine", options["saved"], None)
    plans.start("20260101T000000Z-book", options["started"], None)
    run = encode(options["of a run"]).decode()
    (plans.folder / "files" / "notes").mkdir()
    assert plans.remove_unused([run], now=now) == 1
    assert [name for name, path in kept.items() if not path.exists()] == ["unused"]
    assert (plans.folder / "files" / "notes").is_dir(), "it is not ours"
    plans.delete("mine")
    assert plans.remove_unused([run], now=now) == 1 and not kept["saved"].exists()
    assert plans.remove_unused([run], now=now) == 0
