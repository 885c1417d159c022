"""Whole stories in a browser: a run that meets trouble, and a gateway whose jobs do, from beginning to end."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from comfyload.sim import Faults, Server, Which
from tests.browser.dashboard_tab import Tab, opened
from tests.support.commands import call, serving
from tests.support.rig import SLEEPER, sleeper
from tests.support.servers import in_thread

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

SAYS = "it broke <b>here</b>"
RETRY = {"retry": True, "delay": "backoff", "why": "it may pass"}
POLICY = {
    "attempts": 3,
    "classes": dict.fromkeys(("transient", "deterministic", "lost", "connect", "submit_unknown"), RETRY),
    "backoff": {"base_s": 0.6, "jitter": "none"},
    "budget": {"ratio": 10, "cap": 100},
    "breaker": {"failures": 100, "open_s": 0.5},
}
EARLIER = 12


def broken(first: int, last: int, restart: int = 0, **more: Any) -> Faults:
    """All prompts from the first to the last to start fail; at `restart` the process is replaced."""
    return Faults(
        node_error=Which(at=tuple(range(first, last + 1))),
        error_class="SimSleep",
        error_message=SAYS,
        restart=Which(at=(restart,)),
        downtime_s=1.0,
        **more,
    )


def test_a_run_in_trouble_from_its_start_to_its_comparison(tmp_path: Path) -> None:
    (tmp_path / "book.json").write_text(json.dumps(SLEEPER), encoding="utf-8")
    (tmp_path / "retry.json").write_text(json.dumps(POLICY), encoding="utf-8")
    # Of the 33 jobs that meet these 75 failures, at least nine fail three times, as 66 are for two each.
    faults = broken(EARLIER + 10, EARLIER + 84, restart=EARLIER + 86)
    with in_thread(lambda: Server(speed=1, faults=faults)) as (server, simulated):
        earlier = tmp_path / "runs" / "earlier"
        words = ("--server", server, "--workflow", "book.json", "-n", str(EARLIER), "--warmup", "0", "--quiet")
        call("run", *words, "--run-dir", str(earlier), cwd=tmp_path)
        assert len(simulated.truth) == EARLIER

        async def story(tab: Tab) -> None:
            run = await start(tab, tmp_path)
            await watch(tab)
            job = await regenerate(tab)
            await retry_all(tab, run)
            await find_by_chip(tab, run, job)
            await keep(tab, run)
            await compare(tab, run)

        see(story, "--archive", str(tmp_path / "kept"), "--server", f"gpu={server}", runs=tmp_path / "runs")


def see(story: Callable[[Tab], Awaitable[None]], *words: str, runs: Path) -> None:
    async def main(base: str) -> None:
        async with opened(base) as tab:
            await story(tab)
            assert [text for text in tab.told if "Failed to load resource" not in text] == []

    with serving("ui", "--port", "0", "--runs", str(runs), *words) as url:
        asyncio.run(main(url.rstrip("/") + "/"))


async def number(tab: Tab, badge: str) -> int:
    """How many jobs have the badge, as the page says it."""
    return int(await tab.value(f"Number(document.querySelector('.state.is-{badge} b').innerText.replace(/\\D/g, ''))"))


async def start(tab: Tab, folder: Path) -> str:
    """Fill in the form, look first, start; the run's id."""
    page = tab.page
    await tab.go("#/start")
    await page.locator(".drop input").set_input_files([folder / "book.json"])
    await page.get_by_label("rate", exact=True).fill("6/s")
    await page.get_by_label("jobs", exact=True).fill("42")
    await page.get_by_label("policy", exact=True).evaluate("(field) => { field.closest('details').open = true; }")
    await page.get_by_label("policy", exact=True).set_input_files(folder / "retry.json")
    await page.get_by_role("button", name="Check first").click()
    await tab.until("document.querySelector('.answers')?.innerText.includes('READY')")
    await tab.until("/--policy .*--jobs 42|--jobs 42.* --policy/.test(document.querySelector('.command')?.innerText)")
    await page.get_by_role("button", name="Start", exact=True).click()
    await tab.until("location.hash.endsWith('/watch')")
    return str(await tab.value("decodeURIComponent(location.hash.split('/')[2])"))


async def watch(tab: Tab) -> None:
    """Jobs are rendered, the server breaks, they are sent again, and some need attention in the end."""
    await tab.until("Number(document.querySelector('.state.is-done b')?.innerText) > 0")
    await tab.until("document.querySelector('.chart canvas') !== null")
    await tab.until("/retrying [23]\\/3 (in \\d|now)/.test(document.querySelector('.cards')?.innerText)")
    await tab.page.get_by_role("button", name=re.compile("^retrying")).click()
    cards = "[...document.querySelectorAll('.card[href]')]"  # those of a moment: they are sent again meanwhile
    await tab.until(f"{cards}.every((card) => card.querySelector('.badge').classList.contains('is-retrying'))")
    await tab.page.get_by_role("button", name="Clear", exact=True).click()
    await tab.until(f"{cards}.some((card) => card.querySelector('i')?.innerText.includes('<b>here</b>'))")
    await tab.until("Number(document.querySelector('.state.is-attention b').innerText) > 0")
    await tab.until("document.querySelector('.errors')?.innerText.includes('<b>here</b>')")
    await tab.until("document.querySelector('h1')?.innerText.includes('Complete')")
    await tab.until("document.querySelector('.state.is-pending b').innerText === '0'")
    assert await number(tab, "attention") >= 9 and await number(tab, "done") > 9
    assert await tab.value("document.querySelector('.card i b, .errors b b, .error-text b')") is None


async def regenerate(tab: Tab) -> str:
    """Find what failed by its badge, read why, and have it run again: it stays on its card. The job's address."""
    page = tab.page
    await page.get_by_role("button", name=re.compile("^Needs attention")).click()
    await page.get_by_role("button", name=re.compile("^execution error")).click()
    await tab.until("document.querySelectorAll('.card.is-attention').length > 2")
    await page.locator(".card").first.click()
    await tab.until(f"document.querySelector('.message pre')?.innerText.includes({json.dumps(SAYS)})")
    await tab.until("document.querySelectorAll('[role=tab]').length === 3")
    await page.get_by_role("tab", name="Attempt 1").click()
    await tab.until("document.querySelector('.rule')?.innerText.includes('it may pass')")
    job = str(await tab.value("location.hash.split('?')[0]"))
    await page.get_by_role("button", name="Regenerate").click()
    await page.get_by_role("button", name="Run it again?").click()
    await tab.until("location.hash.includes('again-1')")
    await tab.until("document.querySelector('h1')?.innerText.includes('Complete')")
    assert await number(tab, "done") == 1
    await tab.go(job)
    await tab.until("document.querySelectorAll('[role=tab]').length === 4")
    assert await tab.value("document.querySelector('[role=tab][aria-selected=true]').innerText.includes('Again')")
    assert "Done" in await tab.value("document.querySelector('h1').innerText")
    return job


async def retry_all(tab: Tab, run: str) -> None:
    """What still needs attention, in one go."""
    page = tab.page
    await tab.go(f"#/run/{quote(run)}/watch")
    failed = await number(tab, "attention")
    await page.get_by_role("button", name="Retry all failed").click()
    await page.get_by_role("button", name=re.compile("again\\?$")).click()
    await tab.until("location.hash.includes('again-2')")
    await tab.until("document.querySelector('h1')?.innerText.includes('Complete')")
    assert await number(tab, "done") == failed - 1


async def find_by_chip(tab: Tab, run: str, job: str) -> None:
    """The job among those of its attempt and its failure; all that failed are done since."""
    page = tab.page
    await tab.go(f"#/run/{quote(run)}/watch")
    await page.get_by_role("group", name="Attempt").get_by_role("button").last.click()
    await page.get_by_role("button", name=re.compile("^execution error")).click()
    await tab.until("document.querySelectorAll('.card').length > 2")
    await tab.until("[...document.querySelectorAll('.card')].every((card) => card.classList.contains('is-done'))")
    await tab.until(f"document.querySelector('.card[href={json.dumps(job)}]')?.innerText.includes('again: ')")
    assert "attempt=" in await tab.value("location.hash") and "kind=" in await tab.value("location.hash")


async def keep(tab: Tab, run: str) -> None:
    page = tab.page
    await tab.go("#/runs?text=book")
    await page.locator(f".run:has(a.run-main[href='#/run/{quote(run)}']) input").check()
    await page.get_by_role("button", name="Keep 1 as a baseline").click()
    await page.get_by_label("Name of the baseline").fill("gpu")
    await page.keyboard.press("Enter")
    await tab.until("location.hash.startsWith('#/baselines/')")
    await tab.until("document.querySelector('.tiles') !== null")
    await page.get_by_role("button", name="Promote").click()
    await page.get_by_role("button", name="Compare runs with this one?").click()
    await tab.until("document.querySelector('.toast')?.innerText.includes('promoted')")


async def compare(tab: Tab, run: str) -> None:
    """With the run of before, whose load was another one: what differs is named, and accepted."""
    page = tab.page
    await tab.go("#/runs")
    for name in ("earlier", quote(run)):
        await page.locator(f".run:has(a.run-main[href='#/run/{name}']) input").check()
    await page.get_by_role("link", name="Compare these two").click()
    await tab.until("document.querySelector('.failing, .answers') !== null")
    if await tab.value("document.querySelector('.failing') !== null"):
        await tab.until("document.querySelector('main').innerText.includes('What differs')")
        await page.get_by_role("button", name="Compare them anyway").click()
    await tab.until("document.querySelector('.answers b') !== null && document.querySelector('table') !== null")


def test_an_unchanged_client_of_a_gateway_in_trouble(tmp_path: Path) -> None:
    policy = tmp_path / "retry.json"
    policy.write_text(json.dumps(POLICY), encoding="utf-8")
    faults = broken(4, 24)  # three attempts of seven jobs
    with in_thread(lambda: Server(speed=1, faults=faults)) as (server, _):
        words = ("--server", f"gpu={server}", "--ledger", str(tmp_path / "ledger"), "--retry-policy", str(policy))
        with serving("gateway", "--port", "0", *words) as url:

            async def main() -> None:
                async with opened(url.rstrip("/") + "/comfyload/") as tab:
                    await gateway_story(tab, url.rstrip("/"))

            asyncio.run(main())


async def gateway_story(tab: Tab, url: str) -> None:
    page = tab.page
    await tab.go("#/now")
    await tab.until("document.querySelector('main').innerText.includes('No job waits or runs.')")
    posted = [await asyncio.to_thread(post, url, seed) for seed in range(10)]
    await tab.until("document.querySelectorAll('.gateway li').length > 3")
    await tab.until("document.querySelector('.badge.is-retrying') !== null")
    await tab.until("/again (in \\d|now)/.test(document.querySelector('.gateway').innerText)")
    await tab.until("document.querySelector('main').innerText.includes('No job waits or runs.')")
    failed = int(await tab.value("document.querySelectorAll('.gateway .badge.is-attention').length"))
    assert failed == 7
    ended = {prompt_id: await asyncio.to_thread(get, f"{url}/history/{prompt_id}") for prompt_id in posted}
    assert sum(found[one]["status"]["status_str"] == "error" for one, found in ended.items()) == failed
    assert SAYS in await tab.value("document.querySelector('.gateway').innerText")

    await page.get_by_role("button", name="Regenerate").first.click()
    await tab.until(f"document.querySelectorAll('.gateway .badge.is-attention').length === {failed - 1}")
    await page.get_by_role("button", name="Retry all failed").click()
    await page.get_by_role("button", name="again?").click()
    await tab.until("document.querySelector('main').innerText.includes('No job needs attention.')")
    await tab.until("document.querySelector('main').innerText.includes('No job waits or runs.')")
    await tab.until(f"document.querySelector('.state.is-done b').innerText === '{len(posted)}'")
    await tab.until(f"document.querySelectorAll('.gateway .badge.is-done').length === {len(posted)}")
    assert await tab.value("document.querySelectorAll('.gateway .badge.is-ended').length") == failed

    await page.get_by_role("link", name="Charts and all jobs").click()
    await tab.until("document.querySelector('.cards .card[href]') !== null")
    await tab.until(f"document.querySelector('.state.is-done b')?.innerText === '{len(posted)}'")
    await page.get_by_role("group", name="Attempt").get_by_role("button").last.click()
    await tab.until(f"document.querySelectorAll('.card.is-attention').length >= {failed}")
    await page.locator(".card.is-attention").first.click()
    await tab.until(f"document.querySelector('.message pre')?.innerText.includes({json.dumps(SAYS)})")

    await page.go_back()
    await page.get_by_role("button", name="Clear", exact=True).click()
    await page.get_by_role("button", name=re.compile("^Done")).click()
    await page.locator(".card.is-done").first.click()
    await tab.until("document.querySelector('.outputs img')?.naturalWidth > 0")


def post(url: str, seed: int) -> str:
    """As ComfyUI's page does it; the id."""
    graph = sleeper(0.1)
    graph["2"]["inputs"]["seed"] = seed
    body = json.dumps({"prompt": graph, "client_id": "a-page"}).encode()
    request = urllib.request.Request(f"{url}/prompt", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(json.load(answer)["prompt_id"])


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)
