"""The dashboard's page in a browser, against a server that makes up runs: what it weighs, shows and does."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.browser.dashboard_tab import Tab, opened
from tests.support.page_server import STATIC, Fake

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

AXE = (Path(__file__).parent / "vendor" / "axe.js").read_text(encoding="utf-8")
MANY = "20261127%2Fmany-10"
VIEWS = {
    "now": "#/now",
    "nothing yet": "#/now?run=none",
    "many": f"#/now?run={MANY}",
    "unknown": "#/now?run=gone",
    "job": "#/run/live/job/3",
    "failed job": f"#/run/{MANY}/job/316",
    "runs": "#/runs",
    "run": "#/run/one",
    "broken run": "#/run/broken",
    "compare": "#/compare?a=one&b=live",
    "baselines": "#/baselines",
    "trend": "#/trend",
    "start": "#/start",
    "advice": "#/advice?run=one",
    "servers": "#/servers",
    "gateway": "#/now?of=gateway",
    "gateway, done": "#/now?of=gateway&state=done",
    "wall": "#/now?wall=1",
}
LOOKS: dict[str, dict[str, Any]] = {
    "dark": {"color_scheme": "dark"},
    "light": {"color_scheme": "light"},
    "forced": {"color_scheme": "dark", "forced_colors": "active"},
}
MOST_WEIGHT = 150_000


@asynccontextmanager
async def dashboard(fake: Fake) -> AsyncIterator[str]:
    runner = web.AppRunner(fake.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/comfyload/"
    finally:
        for socket in list(fake.sockets):
            await socket.close()
        await runner.cleanup()


def see(look: Callable[[Tab, Fake], Awaitable[None]], *, fake: Fake | None = None, **context: Any) -> None:
    async def main() -> None:
        made = fake or Fake()
        async with dashboard(made) as base, opened(base, **context) as tab:
            await look(tab, made)

    asyncio.run(main())


def test_the_page_weighs_little_until_it_is_painted() -> None:
    """Everything that the first view asks for, packed as it is sent."""
    asked: list[str] = []

    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/now")
        asked.extend(tab.asked)
        assert tab.told == []

    see(look)
    files = {url.split("/ui/static/")[1].split("?")[0] for url in asked if "/ui/static/" in url} | {"index.html"}
    weight = sum(len(gzip.compress((STATIC / file).read_bytes())) for file in files)
    assert len(files) > 15 and weight <= MOST_WEIGHT, weight


@pytest.mark.parametrize("look_name", LOOKS)
def test_every_view_can_be_used_by_everybody(look_name: str) -> None:
    found: dict[str, list[str]] = {}

    async def look(tab: Tab, fake: Fake) -> None:
        for name, address in VIEWS.items():
            await tab.go(address)
            await tab.page.wait_for_timeout(400)
            await tab.page.evaluate(AXE)
            wrong = await tab.value("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
            words = [
                f"{one['id']}: {node['html'][:140]} {node['any'][:1]}" for one in wrong for node in one["nodes"][:3]
            ]
            if words:
                found[name] = words

    see(look, bypass_csp=True, **LOOKS[look_name])
    assert not found, json.dumps(found, indent=1)


@pytest.mark.parametrize("width", [320, 375, 768, 1440, 2560])
def test_no_view_is_wider_than_the_window(width: int) -> None:
    wide: list[str] = []

    async def look(tab: Tab, fake: Fake) -> None:
        for name, address in VIEWS.items():
            await tab.go(address)
            await tab.page.wait_for_timeout(150)
            if await tab.value("document.documentElement.scrollWidth > innerWidth"):
                wide.append(name)

    see(look, viewport={"width": width, "height": 800})
    assert wide == []


def test_the_policy_lets_every_view_be_drawn() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        for address in VIEWS.values():
            await tab.go(address)
            await tab.page.wait_for_timeout(100)
            assert await tab.value("document.querySelector('main h1') !== null")
        await tab.go("#/now")
        assert await tab.value("document.querySelectorAll('.chart canvas').length") == 6
        wrong = [text for text in tab.told if "Failed to load resource" not in text]
        assert wrong == []

    see(look)


def test_a_hundred_thousand_jobs_scroll_smoothly_in_little_memory() -> None:
    numbers: dict[str, Any] = {}

    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go(f"#/now?run={MANY}")
        await tab.page.wait_for_selector(".card[href]")
        numbers.update(
            await tab.value(
                """async () => {
                  const list = document.querySelector('.cards');
                  const frames = []; let most = 0; let last = performance.now();
                  for (let i = 0; i < 180; i += 1) {
                    list.scrollTop += i % 60 === 59 ? 400000 : 120;
                    await new Promise((r) => requestAnimationFrame(r));
                    const now = performance.now(); frames.push(now - last); last = now;
                    most = Math.max(most, list.querySelectorAll('*').length);
                  }
                  await new Promise((r) => setTimeout(r, 1000));
                  gc?.();
                  frames.sort((a, b) => a - b);
                  return { p50: frames[90], p95: frames[171], nodes: most,
                           heap: performance.memory.usedJSHeapSize / 1e6,
                           blank: list.querySelectorAll('.is-blank').length };
                }"""
            )
        )
        assert await tab.value("Number(document.querySelector('.card').dataset.offset)") > 10_000

    see(look)
    assert numbers["nodes"] <= 300 and numbers["blank"] == 0 and numbers["heap"] <= 60, numbers
    if not os.environ.get("COMFYLOAD_BUSY"):
        assert numbers["p95"] <= 50 * 4, numbers  # the machine of a test may be busy; the bench holds it to 50 ms


def test_a_chip_filters_and_stands_in_the_address() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go(f"#/now?run={MANY}")
        await tab.page.get_by_role("button", name=re.compile("^Needs attention")).click()
        await tab.until("document.querySelectorAll('.card.is-attention').length > 5")
        assert await tab.value("document.querySelectorAll('.card:not(.is-attention):not(.is-blank)').length") == 0
        assert "state=attention" in await tab.value("location.hash")
        total = await tab.value("document.querySelector('.cards li').getAttribute('aria-setsize')")
        await tab.page.reload()
        await tab.page.wait_for_selector(".card.is-attention")
        assert await tab.value("document.querySelector('.cards li').getAttribute('aria-setsize')") == total
        await tab.page.get_by_role("searchbox", name="Search jobs").fill("no such job")
        await tab.page.wait_for_selector("text=No job matches")
        await tab.page.get_by_role("button", name="Clear the filters").click()
        await tab.until("document.querySelectorAll('.card').length > 5")

    see(look)


def test_the_keyboard_does_what_the_mouse_does() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        press = tab.page.keyboard.press
        await tab.go("#/now?run=one")
        await press("?")
        await tab.page.wait_for_selector("dialog[open]")
        await press("Escape")
        await tab.page.wait_for_selector("dialog[open]", state="detached")
        await press("g")
        await press("r")
        await tab.page.wait_for_selector("h1:text-is('Runs')")
        await tab.until("document.querySelector('[data-search]') !== null")
        await press("/")
        await tab.page.keyboard.type("many")
        await tab.until("document.querySelectorAll('.run').length === 1")
        await press("Escape")
        await tab.until("document.querySelectorAll('.run').length > 10")
        await tab.go(f"#/now?run={MANY}")
        await tab.page.wait_for_selector(".card[href]")
        await tab.value("document.activeElement.blur()")
        await press("j")
        for _ in range(30):
            await press("j")
        await tab.until("document.activeElement.dataset.offset === '30'")
        await press("End")
        await tab.until("document.activeElement.dataset.offset === '99999'")
        await press("Home")
        await tab.until("document.activeElement.dataset.offset === '0'")
        await press("Enter")
        await tab.page.wait_for_selector("h1:has-text('#99')")
        await press("[")
        await tab.page.wait_for_selector("h1:has-text('998')")
        await press("Escape")
        await tab.page.wait_for_selector(".cards")

    see(look)


def test_what_a_reader_looks_at_stays_while_jobs_arrive() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/now?run=live")
        await tab.page.wait_for_selector(".card[href]")
        await tab.value("document.querySelector('.cards').scrollTop = 3000")
        await tab.page.wait_for_timeout(400)
        await tab.value("[...document.querySelectorAll('.card')].at(8).focus()")
        where = (
            "(() => { const c = document.activeElement;"
            " return [c.getAttribute('href'), Math.round(c.getBoundingClientRect().top)]; })()"
        )
        before = await tab.value(where)
        total = await tab.value("document.querySelector('.cards li').getAttribute('aria-setsize')")
        await tab.page.wait_for_timeout(2500)
        assert await tab.value("document.querySelector('.cards li').getAttribute('aria-setsize')") > total
        assert await tab.value(where) == before

    see(look)


def test_a_lost_link_is_said_and_comes_back() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/now?run=live")
        for socket in list(fake.sockets):
            await socket.close()
        await tab.page.wait_for_selector(".link-lost.is-shown")
        assert "last state" in await tab.value("document.querySelector('.link-lost').innerText")
        await tab.page.wait_for_selector(".link-lost:not(.is-shown)", state="attached")
        before = await tab.value("document.querySelector('.state.is-done b').innerText")
        await tab.until(f"document.querySelector('.state.is-done b').innerText !== {json.dumps(before)}")

    see(look)


def test_regenerate_asks_once_more_and_says_what_came_of_it() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go(f"#/run/{MANY}/job/316")
        await tab.page.get_by_role("button", name="Regenerate").click()
        assert fake.posts == []
        await tab.page.get_by_role("button", name="Run it again?").click()
        await tab.until("location.hash === '#/now?run=live'")
        assert fake.posts == [(f"runs/{MANY.replace('%2F', '/')}/again", {"jobs": [316]})]

    see(look)


def test_jobs_of_a_gateway_stand_by_their_state() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go(VIEWS["gateway"])
        heads = "[...document.querySelectorAll('.list h2')].map((head) => head.innerText)"
        assert await tab.value(heads) == ["Needs attention", "Waiting and running", "Ended"]
        last = "document.querySelector('.list:last-of-type')"
        badges = f"[...{last}.querySelectorAll('.gateway .badge')].map((badge) => badge.innerText.trim())"
        assert await tab.value(badges) == ["Done"] * 3 + ["Ended"] * 2
        numbers = await tab.value("[...document.querySelectorAll('.state b')].map((number) => number.innerText)")
        assert [number.replace("\u202f", "") for number in numbers] == ["2", "1", "2", "9000", "1000"]
        words = await tab.value(f"{last}.querySelector('.bar .muted').innerText")
        assert words.replace("\u202f", "") == "the newest 5 of 10000, counted among the last 10000"
        for name, only in (
            ("Done", ["Ended"]),
            ("Needs attention", ["Needs attention"]),
            ("Rendering", ["Waiting and running"]),
        ):
            await tab.page.get_by_role("button", name=re.compile(f"^{name}")).click()
            await tab.until(f"JSON.stringify({heads}) === {json.dumps(json.dumps(only, separators=(',', ':')))}")
            shown = set(await tab.value(badges))
            assert shown == {name}, shown
        await tab.page.get_by_role("button", name=re.compile("^Rendering")).click()
        await tab.until(f"{heads}.length === 3")

    see(look)


def test_what_is_left_out_of_the_list_is_said() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/runs")
        said = await tab.value("document.querySelector('.remark').innerText")
        assert said.startswith("2 folders could not be read, the first: old/torn: manifest.json is damaged")

    see(look)


def test_strangers_texts_are_texts() -> None:
    """A name that is markup shows as it is written."""
    evil = "<img src=x onerror=violations.push('ran')>"

    async def look(tab: Tab, fake: Fake) -> None:
        fake.jobs[evil] = fake.jobs.pop("one")
        await tab.go("#/runs")
        await tab.page.wait_for_selector(".run")
        assert evil in await tab.value("document.querySelector('.runs').innerText")
        assert await tab.value("document.querySelectorAll('.runs img').length") == 0

    see(look)


def test_what_was_chosen_above_is_looked_at_below() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go(f"#/now?run={MANY}")
        await tab.page.wait_for_selector(".card[href]")
        assert await tab.value("scrollY") == 0
        await tab.page.get_by_role("group", name="Jobs by state").get_by_role("button", name="Needs attention").click()
        await tab.until("document.querySelector('.card.is-attention')?.getBoundingClientRect().bottom < innerHeight")

    see(look, viewport={"width": 1280, "height": 700})


def test_a_wall_screen_is_entered_and_left_with_the_mouse() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/now?run=live")
        await tab.page.get_by_role("link", name="Wall screen", exact=True).click()
        await tab.until("document.documentElement.classList.contains('wall')")
        await tab.page.get_by_role("link", name="Leave the wall screen").click()
        await tab.until("!document.documentElement.classList.contains('wall')")
        assert await tab.value("location.hash") == "#/now?run=live"

    see(look)


def test_a_run_is_compared_with_the_promoted_baseline_in_one_press() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/run/one")
        await tab.page.get_by_role("link", name="Compare with the baseline").click()
        await tab.until("location.hash === '#/compare?a=baseline%3A2026-11-27-gpu&b=one'")

    see(look)


def test_the_number_of_servers_is_asked_for_by_typing() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/advice?run=one")
        await tab.page.get_by_role("spinbutton", name="Jobs", exact=True).fill("6")
        await tab.page.get_by_role("spinbutton", name="95 % of jobs within").fill("30")
        await tab.page.keyboard.press("Enter")
        await tab.until("location.hash === '#/advice?run=one&rate=6&p95=30'")
        await tab.until("document.querySelector('.beside').innerText.includes('One server keeps')")
        facts = await tab.value("document.querySelector('.beside .facts').innerText.replace(/\\s+/g, ' ')")
        assert facts == "95 % of jobs 12.0 s 9–14 Longer than 30 s 2 %"

    see(look)


def test_a_server_that_is_down_says_so_where_it_is_chosen() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/start")
        await tab.until("document.querySelectorAll('.choice')[1]?.innerText.includes('does not answer')")
        assert "does not answer" not in await tab.value("document.querySelectorAll('.choice')[0].innerText")

    see(look)


def test_what_is_not_there_leads_on() -> None:
    leads = {"#/run/broken": "All runs", "#/run/gone/watch": "All runs", "#/run/gone/job/3": "Its run"}

    async def look(tab: Tab, fake: Fake) -> None:
        for address, words in leads.items():
            await tab.go(address)
            await tab.page.get_by_role("link", name=words).wait_for()

    see(look)


def test_a_folder_without_runs_says_what_to_do() -> None:
    async def look(tab: Tab, fake: Fake) -> None:
        await tab.go("#/now")
        assert "Nothing runs" in await tab.value("document.querySelector('main').innerText")
        await tab.page.get_by_role("link", name="Start a run").click()
        await tab.page.wait_for_selector("h1:text-is('Start a run')")

    see(look, fake=Fake(empty=True))
