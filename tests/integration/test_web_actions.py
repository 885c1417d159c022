"""What a person does from the page: a run that goes on is watched and stopped, failed jobs are sent once more."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comfyload.app.gateway_config import servers_of
from comfyload.cli.ui import open_page
from comfyload.record.lock import alone_in
from comfyload.sim import Faults, Server, Which
from comfyload.web.answers import PAGE
from tests.integration.test_cli import graph_file
from tests.support.commands import COMMAND, call
from tests.support.dashboard import UI, Page, Tab, page
from tests.support.rig import sleeper
from tests.support.servers import in_thread

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


async def until(tab: Tab, number: int, sought: Any, within_s: float = 40.0) -> Any:
    """The first state of the watch of which that holds."""
    async with asyncio.timeout(within_s):
        while True:
            frame = await tab.next(within_s)
            if frame.get("watch") == number and "data" in frame and sought(frame["data"]):
                return frame["data"]


def test_failed_jobs_are_sent_once_more_from_the_page_and_stay_on_their_cards(tmp_path: Path) -> None:
    faults = Faults(node_error=Which(at=(2, 3, 6)))
    with in_thread(lambda: Server(speed=50, faults=faults)) as (url, _):
        (tmp_path / "runs").mkdir()
        call("run", "--server", url, "--workflow", graph_file(tmp_path), "-n", "4", "-c", "1", "--run-dir",
             "runs/book", "--quiet", cwd=tmp_path)  # fmt: skip

        async def main() -> None:
            async with page(tmp_path, servers=servers_of([url])) as found, found.tab() as tab:
                first = (await tab.watch(1, "run", run="book"))["data"]
                assert first["counts"]["attention"] == 2 and first["actions"] == ["retry_all"]
                jobs = (await tab.watch(2, "jobs", run="book", state="attention", order="due"))["data"]
                bad = [row["index"] for row in jobs["rows"]]
                assert bad == [1, 2]

                one = await found.act("runs/book/again", {"jobs": [1]})
                assert one.status == 201 and one.value == {"run": "book-again-1", "jobs": [1]}, one.body
                seen = await until(tab, 2, lambda data: _again(data, 1, "completed"))
                assert seen["rows"][0]["badge"] == "attention", "what the test measured stays as it was"
                frame = await tab.watch(3, "job", run="book", index=1)
                assert "data" in frame, frame
                job = frame["data"]
                assert job["again"][0]["run"] == "book-again-1" and job["again"][0]["job"]["badge"] == "done"
                assert job["actions"] == ["again"]

                rest = await found.act("runs/book/again", {"jobs": "failed"})
                assert rest.status == 201 and rest.value == {"run": "book-again-2", "jobs": [2]}, rest.body
                await until(tab, 2, lambda data: _again(data, 2, "failed"))
                third = await found.act("runs/book/again", {"jobs": "failed"})
                assert third.value == {"run": "book-again-3", "jobs": [2]}, third.body
                await until(tab, 2, lambda data: _again(data, 2, "completed"))
                nothing = await found.act("runs/book/again", {"jobs": "failed"})
                assert nothing.status == 409 and "needs attention" in nothing.value["error"]

                listed = (await tab.watch(4, "runs"))["data"]["runs"]
                assert {run["id"] for run in listed} == {"book", *(f"book-again-{n}" for n in (1, 2, 3))}
                again = (await tab.watch(5, "run", run="book-again-1"))["data"]
                assert again["again_of"] == {"run": "book", "jobs": 1}
                whole = (await tab.watch(1, "run", run="book", state="done"))["data"]
                assert [later["run"] for later in whole["again"]] == [f"book-again-{n}" for n in (1, 2, 3)]
                await _outputs(found, tab)
                await _refusals(found)

        asyncio.run(main())


def _again(data: Any, index: int, fine: str) -> bool:
    return any(row["index"] == index and (row["again"] or {}).get("fine") == fine for row in data["rows"])


async def _outputs(found: Page, tab: Tab) -> None:
    """A picture comes from the server that is configured, as a picture."""
    done = (await tab.watch(6, "job", run="book", index=0))["data"]
    (output,) = done["outputs"]
    answer = await found.ask(f"{UI}/runs/book/jobs/0/outputs/{output['n']}")
    assert answer.status == 200 and answer.body.startswith(b"\x89PNG") and answer.headers["content-type"] == "image/png"
    whole = await found.ask(f"{UI}/runs/book/jobs/0.json")
    assert whole.value["index"] == 0 and whole.value["attempts"]
    for path in ("jobs/0/outputs/1", "jobs/99/outputs/0", "jobs/99.json", "jobs/-1.json", "jobs/0/outputs/..%2f"):
        assert (await found.ask(f"{UI}/runs/book/{path}")).status in (400, 404), path


async def _refusals(found: Page) -> None:
    for body in ({"jobs": []}, {"jobs": ["1"]}, {"jobs": 1}, {}, [], {"jobs": "all"}, {"jobs": [1], "x": 1}, "failed",
                 {"jobs": [0] * 2000}):  # fmt: skip
        assert (await found.act("runs/book/again", body)).status == 400, body
    unknown = await found.act("runs/book/again", {"jobs": [99]})
    assert unknown.status == 409 and "no job 99" in unknown.value["error"]
    assert (await found.act("runs/nothing/again", {"jobs": "failed"})).status == 404
    ended = await found.act("runs/book/stop", {})
    assert ended.status == 409 and ended.value["error"] == "the run has ended"
    with alone_in(found.folder / "runs" / "book"):
        busy = await found.act("runs/book/again", {"jobs": [1]})
        assert busy.status == 422 and "goes on" in busy.value["error"]


def test_a_run_that_the_page_began_is_stopped_by_it_and_no_other(tmp_path: Path) -> None:
    with in_thread(lambda: Server(speed=1)) as (url, _):
        (tmp_path / "runs").mkdir()
        call("run", "--server", url, "--workflow", graph_file(tmp_path, sleeper(0.1)), "-n", "1", "--run-dir",
             "runs/short", "--quiet", cwd=tmp_path)  # fmt: skip
        theirs = subprocess.Popen(
            [*COMMAND, "run", "--server", url, "--workflow", graph_file(tmp_path, sleeper(0.3)), "-n", "500",
             "--run-dir", "runs/long", "--quiet", "--allow-shared"], cwd=tmp_path,
        )  # fmt: skip

        async def main() -> None:
            async with page(tmp_path, servers=servers_of([f"gpu={url}"])) as found, found.tab() as tab:
                await tab.say(watch=1, view="runs")
                await until(tab, 1, lambda data: any(run["id"] == "long" and run["running"] for run in data["runs"]))
                other = await found.act("runs/long/stop", {})
                assert other.status == 409 and f"process {theirs.pid} on " in other.value["hint"]
                assert (await tab.watch(2, "run", run="long"))["data"]["actions"] == []

                form = {
                    "server": "gpu",
                    "workflows": [{"name": "mine.json", "text": json.dumps(sleeper(0.3))}],
                    "options": {"jobs": 500, "allow_shared": True},
                }
                begun = await found.act("runs", form)
                assert begun.status == 201, begun.body
                mine = begun.value["id"]
                await tab.say(watch=3, view="run", params={"run": mine})
                seen = await until(tab, 3, lambda data: data["counts"]["done"] >= 1 and data["running"])
                assert seen["actions"] == ["stop"]
                assert (await found.act(f"runs/{mine}/stop", {})).value == {"stopping": mine}
                ended = await until(tab, 3, lambda data: not data["running"])
                assert ended["state"] == "stopped" and theirs.poll() is None

        try:
            asyncio.run(main())
        finally:
            theirs.send_signal(signal.SIGINT)
            theirs.wait(30)


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal's signals")
def test_the_command_serves_until_it_is_interrupted_or_nobody_looks(tmp_path: Path) -> None:
    words = [*COMMAND, "ui", "--port", "0", "--runs", str(tmp_path)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:") and url.endswith(PAGE)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0 and said == ""
    done = subprocess.run([*words, "--quit-after", "1s"], capture_output=True, text=True, timeout=30, cwd=tmp_path,
                          check=False)  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("http://")


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal's signals")
def test_another_address_demands_a_token_that_is_made_and_said_once(tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    process = subprocess.Popen([*COMMAND, "ui", "--port", "0", "--host", "0.0.0.0", "--runs", str(tmp_path)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    try:
        url = process.stdout.readline().strip().replace("0.0.0.0", "127.0.0.1")
        token = process.stderr.readline().removeprefix("token: ").strip()
        assert len(token) > 40
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}ui/session", timeout=10)
        assert refused.value.code == 401
        refused.value.close()
        asked = urllib.request.Request(f"{url}ui/session", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=10) as reply:
            assert json.load(reply)["folder"] == str(tmp_path)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    weak = call("ui", cwd=tmp_path, env={"COMFYLOAD_TOKEN": "guessed", "PATH": "/usr/bin"})
    assert weak.returncode == 2 and "shorter than 16 letters" in weak.stderr and "guessed" not in weak.stderr


def test_a_run_opens_the_page_in_a_process_of_its_own_that_ends_when_nobody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("comfyload.cli.ui.QUIT_AFTER", "2s")
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the process outlives who began it
        url = open_page(tmp_path / "runs", tmp_path / "archive", "http://user:pass@127.0.0.1:9")
    assert opened == [url]

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}ui/session") as reply:
                known = await reply.json()
            assert known["folder"] == str(tmp_path / "runs") and "pass" not in json.dumps(known)
            assert known["servers"][0]["name"] == "gpu1"
            async with session.ws_connect(f"{url}ui/ws") as socket:
                await asyncio.sleep(3.0)
                async with session.get(f"{url}ui/session") as reply:
                    assert reply.status == 200, "somebody looks"
                await socket.close()
            async with asyncio.timeout(20):
                with pytest.raises(aiohttp.ClientError):
                    while True:
                        async with session.get(f"{url}ui/session"):
                            await asyncio.sleep(0.2)

    asyncio.run(main())
