"""The ledger of a gateway with every command that judges a run: two servers, several workflows, failures, retries."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec import structs

from comfyload import clock
from comfyload.app.locate import find
from comfyload.record.lock import alone_in
from comfyload.retry.policy import default
from comfyload.sim import Faults, Server
from comfyload.sim.faults import Which
from comfyload.sim.settings import Truth
from tests.docs.pages import ROOT
from tests.docs.shell import blocks
from tests.support.commands import call
from tests.support.gateway import desk
from tests.support.rig import sleeper
from tests.support.servers import simulator

pytestmark = pytest.mark.long  # days of traffic, and every command on them

PAGE = ROOT / "docs/how-to/gateway.md"
JOBS, OFTEN_S = 120, 1.6


def graph(number: int, rng: Random) -> dict[str, Any]:
    """Two workflows that work, and now and then one that always fails."""
    made = sleeper(rng.choice([1.0, 1.2, 1.5]))
    made["2"]["inputs"]["seed"] = rng.randrange(2**31)
    if number % 4 == 0:
        made["2"]["inputs"]["seconds"] = 3.0
        made["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
    if number % 40 == 7:
        fails = {"image": ["1", 0], "message": "no such thing", "seed": number}
        made["2"] = {"class_type": "SimFail", "inputs": fails}
    return made


async def traffic(folder: Path) -> list[list[Truth]]:
    """What each of two servers really did; one of them is restarted in the middle."""
    async with AsyncExitStack() as stack:
        faults = Faults(node_error=Which(share=0.03), oom=Which(share=0.02))
        servers = [await stack.enter_async_context(Server(faults=faults, seed=seed)) for seed in (1, 2)]
        policy = structs.replace(default(90.0), liveness_s=60.0)
        front = await stack.enter_async_context(desk(folder, servers, policy=policy))
        rng, jobs = Random(1), []
        for number in range(JOBS):
            jobs.append(asyncio.create_task(front.run(graph(number, rng))))
            if number == JOBS // 2:
                while not any(each.outcome == "" for each in servers[0].truth):
                    await asyncio.sleep(0.05)  # until something runs there
                servers[0].restart(downtime_s=20.0)
            await asyncio.sleep(rng.expovariate(1 / OFTEN_S))
        await asyncio.gather(*jobs)
        return [list(server.truth) for server in servers]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[list[Truth]]]]:
    folder = tmp_path_factory.mktemp("ledger")
    yield folder, clock.run_virtual(traffic(folder))


def days(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/manifest.json"))


def told(folder: Path, *words: str, code: int = 0) -> str:
    done = call(*words, cwd=folder, timeout=200)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_ledger_says_what_the_servers_did(ledger: tuple[Path, list[list[Truth]]]) -> None:
    folder, truths = ledger
    jobs, attempts = 0, Counter[str]()
    for day, truth in zip(days(folder), truths, strict=True):
        ran = {each.prompt_id: each for each in truth}
        for line in (day / "records.ndjson").read_text().splitlines():
            record = json.loads(line)
            execution = record["execution"]
            jobs += 1
            for attempt in execution["attempts"]:
                sent = attempt.get("failure", {}).get("kind") != "connect"
                attempts[attempt["outcome"] if sent else "never sent"] += 1
            if execution["outcome"] != "completed":
                continue
            last = ran[execution["attempts"][-1]["prompt_id"]]
            assert last.outcome == "completed", "it is the record of the server that completed it"
            took_s = (execution["server"]["end_ms"] - execution["server"]["start_ms"]) / 1000
            assert took_s == pytest.approx(last.finished - last.started, abs=0.02), "of 1 to 3 s"
    assert jobs == JOBS
    really = Counter(each.outcome for truth in truths for each in truth)
    assert attempts["completed"] == really["completed"]
    assert attempts["failed"] == really["failed"]
    assert attempts["lost"] >= really["died"] == 1, "one ran when its server went down, and one may have waited there"


def test_the_folder_has_a_row_for_each_day_and_server(ledger: tuple[Path, list[list[Truth]]]) -> None:
    folder, truths = ledger
    said = told(folder, "show", ".")
    assert f"{JOBS} jobs" in said
    assert all(day.name in said for day in days(folder))
    rows = json.loads(told(folder, "show", ".", "--json"))
    completed = [sum(each.outcome == "completed" for each in truth) for truth in truths]
    assert [row["completed"] for row in rows] == completed
    assert [row["state"] for row in rows] == ["", ""]


def test_a_day_is_shown_as_traffic_and_valid(ledger: tuple[Path, list[list[Truth]]]) -> None:
    folder, _ = ledger
    day = days(folder)[0].name
    said = told(folder, "show", day)
    assert "as it came" in said and "VALID." in said
    (result,) = find(str(folder / day), folder).results
    codes = {finding.code for finding in result.measured.summary.findings if finding.level != "info"}
    assert codes <= {"polled_ends"}, "that of a job which ended before its server's socket was open again"
    assert "replay" not in said and "unchanged" not in said and "generator" not in said
    assert "FAIL" in told(folder, "check", day, code=1), "it failed by its gates"
    assert "report.html" in told(folder, "report", day)
    assert "jobs" in told(folder, "export", day, "--csv", "jobs.csv")


@pytest.mark.timeout(240)
def test_the_commands_of_the_page_work_on_it(ledger: tuple[Path, list[list[Truth]]], tmp_path: Path) -> None:
    folder, _ = ledger
    shutil.copytree(folder, tmp_path / "ledger")
    (tmp_path / "page.json").write_text(json.dumps(sleeper(0.1)))
    (block,) = [each.code for each in blocks(PAGE, "bash") if "comfyload trend ledger" in each.code]
    day, commands, said = days(folder)[0].name, block.splitlines(), dict[str, str]()
    with simulator(speed=100) as url:
        for command in commands:
            line = command.partition("#")[0].replace("2026-11-24-gpu1", day).replace("http://new-gpu:8188", url)
            tool, verb, *words = line.split()
            assert tool == "comfyload"
            more = ["--speedup", "50", "--quiet"] if verb == "run" else []
            said[verb] = told(tmp_path, verb, *words, *more, code={"check": 1, "run": 5}.get(verb, 0))
    assert list(said) == ["show", "trend", "check", "report", "export", "capacity", "policy", "run"]
    assert day in said["check"] and "server" in said["capacity"] and said["export"].startswith("CSV: jobs.csv")
    assert json.loads((tmp_path / "retry.json").read_bytes())["deadline_s"] == 90.0
    assert (tmp_path / "ledger.html").stat().st_size > 10_000


def test_a_trend_goes_through_the_days_of_each_server(ledger: tuple[Path, list[list[Truth]]], tmp_path: Path) -> None:
    folder, _ = ledger
    for number in (21, 22, 23):
        for day in days(folder):
            there = tmp_path / "ledger" / f"2026-11-{number}-{day.name[11:]}"
            shutil.copytree(day, there)
            manifest = json.loads((there / "manifest.json").read_bytes())
            manifest["started_utc"] = f"2026-11-{number}T00:00:00+00:00"
            manifest["retry"]["deadline_s"] = 90.0 + number  # a policy that was read anew splits no trend
            (there / "manifest.json").write_text(json.dumps(manifest))
    series = json.loads(told(tmp_path, "trend", "ledger", "--metric", "p50_latency_s", "--json"))
    assert [each["load"] for each in series] == ["traffic of gpu1", "traffic of gpu2"]
    names = [[point["name"] for point in each["points"]] for each in series]
    assert names == [[f"2026-11-{number}-{name}" for number in (21, 22, 23)] for name in ("gpu1", "gpu2")]
    assert "traffic of gpu2" in told(tmp_path, "trend", "ledger")
    one = told(tmp_path, "trend", "ledger/2026-11-21-gpu1")
    assert "A trend needs two runs" in one


def test_an_export_says_which_days_there_are(ledger: tuple[Path, list[list[Truth]]]) -> None:
    folder, _ = ledger
    done = call("export", ".", "--csv", "x.csv", cwd=folder)
    assert done.returncode == 2 and f"holds 2 runs — name one, such as {days(folder)[1].name}" in done.stderr
    (folder / "page.json").write_text(json.dumps(sleeper(0.1)))
    done = call("run", "--replay", ".", "--workflow", "page.json", "--server", "http://127.0.0.1:9", cwd=folder)
    assert done.returncode == 2 and "the folder of one run" in done.stderr, done.stderr


def test_a_day_that_goes_on_is_shown_as_such(ledger: tuple[Path, list[list[Truth]]], tmp_path: Path) -> None:
    folder, _ = ledger
    day = days(folder)[1]
    there = tmp_path / day.name
    there.mkdir()
    for name in ("records.ndjson", "samples.ndjson"):
        (there / name).write_bytes((day / name).read_bytes())
    manifest = json.loads((day / "manifest.json").read_bytes()) | {"end": None, "ended_utc": None, "counted_to": None}
    (there / "manifest.json").write_text(json.dumps(manifest))
    with alone_in(tmp_path):
        assert json.loads(told(tmp_path, "show", str(there), "--json"))["valid"] is True
        assert json.loads(told(tmp_path, "show", ".", "--json"))[0]["state"] == "goes on"
    assert json.loads(told(tmp_path, "show", str(there), "--json"))["valid"] is True
    assert json.loads(told(tmp_path, "show", ".", "--json"))[0]["state"] == "cut short"


def test_its_arrivals_are_replayed(ledger: tuple[Path, list[list[Truth]]], tmp_path: Path) -> None:
    folder, _ = ledger
    day = days(folder)[0]
    (tmp_path / "page.json").write_text(json.dumps(sleeper(0.1)))
    with simulator(speed=100) as url:
        done = call(
            "run", "--server", url, "--workflow", "page.json", "--replay", str(day), "--speedup", "50", "--json",
            cwd=tmp_path,
        )  # fmt: skip
    summary = json.loads(done.stdout)
    assert summary["total_jobs"] == len((day / "records.ndjson").read_text().splitlines())
