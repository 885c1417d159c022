"""The pictures of README and docs: a run in some trouble, and one of its jobs, of a simulated server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.dashboard.browser import browser, tab, until, watch
from bench.dashboard.processes import begun, first_line, load, page, started
from comfyload.record.policy import Backoff, Breaker, Policy, Rule

if TYPE_CHECKING:
    from playwright.async_api import Page

WATCHED_S = 62.0
RETRIED = Rule(retry=True, why="most such jobs pass when they are sent again")
POLICY = Policy(
    attempts=2,
    classes={"transient": RETRIED, "deterministic": RETRIED},
    backoff=Backoff(base_s=6.0, jitter="none"),
    breaker=Breaker(failures=100),
)


async def make(folder: Path, workflow: Path, into: Path) -> None:
    run = folder / "runs" / "picture-book"
    words = ("--rate", "1.6/s", "--jobs", "140", "--policy", str(_policy(folder)), "--name", "picture-book")
    with (
        started("-m", "bench.dashboard.trouble") as server,
        page(folder / "runs") as (base, _),
        load(first_line(server), run, workflow, *words) as process,
    ):
        await begun(run)
        async with browser() as chromium, tab(chromium) as looking:
            await looking.goto(watch(base, run.name))
            await asyncio.sleep(WATCHED_S)
            await until(looking, "document.querySelector('.badge.is-retrying') !== null")
            await _picture(looking, into / "dashboard-run.png")
            assert process.poll() is None, "the run has ended before it was looked at"
            await until(looking, "document.querySelector('h1').innerText.includes('Complete')")
            await looking.goto(f"{watch(base, run.name)}?state=attention")
            await until(looking, "document.querySelector('.card.is-attention') !== null")
            await looking.locator(".card").first.click()
            await until(looking, "document.querySelectorAll('[role=tab]').length > 1")
            await _picture(looking, into / "dashboard-job.png")


async def _picture(looking: Page, file: Path) -> None:
    await looking.evaluate("document.activeElement.blur()")
    await looking.wait_for_timeout(800)
    await looking.screenshot(path=file)
    print(file)


def _policy(folder: Path) -> Path:
    file = folder / "retry.json"
    file.write_bytes(msgspec.json.encode(POLICY))
    return file
