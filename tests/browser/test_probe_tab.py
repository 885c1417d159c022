"""The probe's tab as a browser sees it, beside a stand-in for ComfyUI's page: what it shows, asks, and leaves alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Page
from tests.browser.tab import EVIL, NOTHING, Server, overview, section, see, until

pytestmark = pytest.mark.long


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    return tmp_path / "blank.html"


def test_what_the_server_does_is_shown_in_numbers_and_words(blank: Path) -> None:
    async def look(page: Page) -> None:
        assert "2 waiting" in await section(page, "Queue") and "12 s" in await section(page, "Queue")
        times = await section(page, "Times")
        assert "over the last hour" in times and "p95 needs" not in times
        assert " ".join(times.split()).endswith("p50 p95 n execution 1.71 s 2.33 s 42 with wait 4.20 s 1:05 42")
        jobs = await section(page, "Last jobs")
        assert "2.00 s" in jobs and "KSampler" in jobs and "1.50 s" in jobs and "10 s ago" in jobs
        found = await page.value(
            "[...document.querySelectorAll(':is(.clp-legend, .clp-jobs) .clp-name')]"
            ".filter((n) => n.checkVisibility()).map((n) => [n.innerText, n.closest('.clp-legend') !== null])"
        )
        samplers = [in_legend for name, in_legend in found if name == "KSampler"]
        assert samplers == [True], "the legend names a node once, and not each job again"
        widths = await page.value(
            "[...document.querySelectorAll('.clp-job summary > .clp-bar')]"
            ".map((b) => Math.round(b.clientWidth / b.parentNode.clientWidth * 100))"
        )
        assert widths[0] > widths[1] > widths[2] > 80
        gpu = await section(page, "GPU")
        assert "37 %" in gpu and "12.0 / 24.0 GiB" in gpu and "212 W · 61 °C" in gpu
        labels = await page.value(
            "[...document.querySelectorAll('.clp-strip')].map((s) => s.getAttribute('aria-label'))"
        )
        assert labels == [
            "Jobs in the queue over the last two minutes: now 3, lowest 0, highest 3",
            "GPU busy over the last two minutes: now 37 %, lowest 0 %, highest 100 %",
            "GPU memory over the last two minutes, of 24.0 GiB: now 12.0 GiB, lowest 8.0 GiB, highest 12.0 GiB",
        ]
        gaps = await page.value(
            "document.querySelectorAll('.clp-reading .clp-line')[0].getAttribute('d').split('M').length - 1"
        )
        assert gaps == 2, "a reading that failed is a gap, not a zero"
        assert "None in the last hour" in await section(page, "Failures")
        assert await page.value("[...document.querySelectorAll('.clp-section h3')].every((h) => h.title.length > 20)")

    see(blank, Server(), look)


def test_nothing_measured_is_said_and_never_zero(blank: Path) -> None:
    missing = ["readings of GPUs are unavailable: ComfyUI computes on its CPU", "VRAM of nodes is unknown: the same"]
    server = Server(overview=overview(**NOTHING, missing=missing))

    async def look(page: Page) -> None:
        assert "Idle" in await section(page, "Queue")
        assert "No GPU readings: ComfyUI computes on its CPU" in await section(page, "GPU")
        assert "No job has ended well in the last 95 s." in await section(page, "Times")
        assert "No job yet" in await section(page, "Last jobs")
        assert "VRAM of nodes is unknown: the same" in await section(page, "Not measured")
        assert " 0 " not in await page.value("document.querySelector('.clp').innerText.replace('0 waiting', '')")
        few = {"n": 19, "p50": 1710.0, "p95": None}
        server.overview = overview(duration_ms=few, latency_ms=few, window_s=23 * 60 + 40.0)
        await until(page, "document.querySelector('.clp-times').checkVisibility()")
        times = await section(page, "Times")
        assert "over the last 23 min" in times and "p95 needs 20 jobs" in times and "–" in times and "19" in times

    see(blank, server, look)


def test_what_a_server_sends_is_text(blank: Path) -> None:
    failure = {
        "prompt_id": EVIL, "ended_unix_s": 900.0, "error": f"{EVIL} failed", "exception_type": EVIL, "class_type": EVIL,
        "attempt": 2, "retry_of": "0badcafe-1",
    }  # fmt: skip
    node = {"node": EVIL, "class_type": EVIL, "status": EVIL, "duration_ms": 5.0}
    jobs = [
        failure
        | {"status": "error", "waited_ms": EVIL, "duration_ms": 7.0, "nodes_cached": {}, "nodes": [node, 3, None]},
        "x",
    ]
    running = [{"prompt_id": EVIL, "started_mono_s": EVIL, "node": EVIL, "class_type": EVIL}]
    changed: dict[str, Any] = {
        "queue": {"running": running, "waiting": EVIL},
        "samples": [None, {"gpus": EVIL}],
        "boot": EVIL,
    }
    server = Server(overview=overview(failures=[failure], retries=1, jobs=jobs, missing=[EVIL, {}], **changed))

    async def look(page: Page) -> None:
        failures = await section(page, "Failures")
        assert f"{EVIL} failed" in failures and "1 · 1 retry" in failures and "attempt 2" in failures
        await page.value("document.querySelectorAll('.clp details').forEach((d) => { d.open = true; }), 0")
        assert f"{EVIL} · retry of 0badcafe" in await section(page, "Failures")
        assert await page.value("document.querySelectorAll('.clp :is(script, img)').length") == 0
        server.overview = {"schema": 1, "jobs": EVIL, "samples": {}, "queue": [], "duration_ms": 3, "missing": 5}
        await until(page, "document.querySelector('.clp').innerText.includes('No job yet')")

    see(blank, server, look)


def test_a_locked_probe_asks_for_its_token_and_keeps_it_in_the_browser_tab(blank: Path) -> None:
    server = Server(token="s3cret")
    enter = "(i => { i.value = {}; i.form.requestSubmit(); })(document.querySelector('.clp-token input'))"

    async def look(page: Page) -> None:
        assert await page.value("document.querySelector('.clp').dataset.state") == "locked"
        assert await page.value("document.querySelector('.clp-body').checkVisibility()") is False
        assert server.requests == 1
        await page.value(enter.replace("{}", "'wrong'"))
        await until(page, "document.querySelector('.clp-token').innerText.includes('not the probe')")
        assert await page.value("sessionStorage.length") == 0
        await page.value(enter.replace("{}", "' s3cret '"))
        await until(page, "document.querySelector('.clp').dataset.state === 'live'")
        assert await page.value("[{...sessionStorage}, localStorage.length, document.cookie]") == [
            {"comfyload.probe.token": "s3cret"},
            0,
            "",
        ]
        assert "s3cret" not in await page.value("document.documentElement.outerHTML")

    see(blank, server, look)


def test_trouble_is_said_over_the_last_numbers_and_passes(blank: Path) -> None:
    server = Server()

    async def look(page: Page) -> None:
        server.status = 503
        await until(page, "document.querySelector('.clp-notices').innerText.includes('ComfyUI answered 503.')")
        assert "1.71 s" in await section(page, "Times")
        server.status, server.overview = 404, {}
        await page.value("document.querySelector('.clp-notice button').click()")
        await until(page, "document.querySelector('.clp-notices').innerText.includes('does not know the probe')")
        server.status, server.overview = 200, overview(boot="ffffffff", active=False, mono_s=9.0)
        await page.value("document.querySelector('.clp-notice button').click()")
        await until(page, "document.querySelector('.clp').dataset.state === 'off'")
        said = await page.value("document.querySelector('.clp-notices').innerText")
        assert "switched itself off" in said and "ComfyUI was restarted." in said and "answered" not in said
        server.overview = overview(boot="ffffffff", mono_s=80.0)
        await until(page, "document.querySelector('.clp-notices').childElementCount === 0")
        assert await page.value("document.querySelector('.clp-state').textContent") == "live"

    see(blank, server, look)


def test_it_asks_only_while_somebody_looks(blank: Path) -> None:
    server = Server()
    pretend = (
        "Object.defineProperty(document, 'visibilityState', {get: () => window.pretended ?? 'visible'});"
        "window.turn = (to) => { window.pretended = to; document.dispatchEvent(new Event('visibilitychange')); };"
        "window.waits = []; const real = setTimeout;"
        "window.setTimeout = (f, ms) => { waits.push(ms); return real(f, ms / 20); };"
    )

    async def still(page: Page) -> None:
        await asyncio.sleep(0.1)
        before = server.requests
        await asyncio.sleep(0.4)
        assert server.requests == before

    async def until_requested(times: int) -> None:
        wanted = server.requests + times
        async with asyncio.timeout(15):
            while server.requests < wanted:
                await asyncio.sleep(0.02)

    async def look(page: Page) -> None:
        await page.value("tab.render(document.querySelector('#sidebar')), 0")
        assert await page.value("document.querySelectorAll('.clp').length") == 1
        await until_requested(3)
        assert await page.value("waits.filter((ms) => ms === 1000).length") >= 3
        await page.value("turn('hidden'), 0")
        await still(page)
        await page.value("turn('visible'), 0")
        await until_requested(1)
        server.status = 500
        await until(page, "waits.includes(30000)")
        backing_off = [2000, 4000, 16000, 30000]
        assert await page.value(f"waits.filter((ms) => {backing_off}.includes(ms)).slice(0, 4)") == backing_off
        await page.value("tab.destroy(), 0")
        assert await page.value("document.querySelectorAll('.clp').length") == 0
        server.status = 200
        await still(page)
        await page.value("tab.render(document.querySelector('#sidebar')), 0")
        await until(page, "document.querySelector('.clp').dataset.state === 'live'")
        await page.value("document.querySelector('#sidebar').append(document.createElement('p'))")
        await until(page, "document.querySelectorAll('.clp').length === 0")  # another tab drew here
        await page.value("tab.render(document.querySelector('#sidebar')), 0")
        await until(page, "document.querySelector('.clp').dataset.state === 'live'")
        assert await page.value("document.querySelector('#sidebar').childElementCount") == 1
        await page.value("document.querySelector('#sidebar').remove()")
        await still(page)

    see(blank, server, look, before=pretend)


def test_no_width_scrolls_sideways_and_both_schemes_can_be_read(blank: Path) -> None:
    long = "A" * 90
    failure = {
        "prompt_id": "f",
        "ended_unix_s": 900.0,
        "error": long * 4,
        "exception_type": long,
        "class_type": long,
        "attempt": 3,
        "retry_of": long,
    }
    busy = overview(failures=[failure], retries=1, missing=[long])
    busy["jobs"][0]["nodes"][0]["class_type"] = long
    busy["queue"]["running"][0]["class_type"] = long

    async def look(page: Page) -> None:
        await page.value("document.querySelectorAll('.clp details').forEach((d) => { d.open = true; }), 0")
        for width in (200, 280, 320, 420, 900):
            for scheme in ("light", "dark"):
                await page.call(
                    "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
                )
                await page.call(
                    "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
                )
                over = await page.value(
                    "[...document.querySelectorAll('.clp, .clp *:not(.clp-unseen)')].filter((e) => "
                    "e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.className + e.tagName)"
                )
                assert over == [], (width, over)
                assert await page.value("document.querySelector('#sidebar').scrollWidth <= innerWidth")

    see(blank, Server(overview=busy), look)


def test_a_job_unfolds_by_keyboard_and_stays_so(blank: Path) -> None:
    server = Server()

    async def press(page: Page, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            await page.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text="\r" if code == 13 else "",
            )

    async def look(page: Page) -> None:
        await press(page, "Tab", 9)
        await press(page, "Enter", 13)
        await until(page, "document.querySelector('.clp-job details').open")
        newer = overview()["jobs"][0] | {"prompt_id": "newer", "duration_ms": 4000.0}
        server.overview = overview(jobs=[newer, *overview()["jobs"]])
        await until(page, "document.querySelectorAll('.clp-job').length === 4")
        assert await page.value("[...document.querySelectorAll('.clp-job details')].map((d) => d.open)") == [
            False,
            True,
            False,
            False,
        ]
        assert await page.value("document.activeElement === document.querySelectorAll('.clp-job summary')[1]")
        rows = await page.value(
            "[...document.querySelectorAll('.clp-job details[open] .clp-node')].map((n) => n.innerText.split('\\n'))"
        )
        assert rows[0] == ["KSampler", "#3", "1.50 s"] and rows[3] == ["LoadCheckpoint", "#4", "cached"]

    see(blank, server, look)


def test_numbers_are_written_short_and_unknown_is_a_dash(blank: Path) -> None:
    cases = {
        "duration": {
            "null": "–", "NaN": "–", "'7'": "–", "0": "0 ms", "0.42": "0.4 ms", "6.04": "6.0 ms", "9.96": "10 ms",
            "999.4": "999 ms", "999.6": "1.00 s", "1724": "1.72 s", "9996": "10.0 s", "59949": "59.9 s",
            "59951": "1:00", "185400": "3:05", "3723000": "1:02:03",
        },
        "ago": {"0.3": "now", "-2": "now", "12.4": "12 s ago", "59.6": "1 min ago", "3580": "1 h ago", "null": ""},
        "covered": {"3600": "last hour", "1439": "last 23 min", "95.9": "last 95 s", "0.2": "last 1 s"},
        "counted": {"0.44": "0.4 s", "-0.1": "0.0 s", "12.4": "12 s", "61": "1:01", "null": "–"},
        "gibibytes": {"null": "–", "25769803776": "24.0"},
    }  # fmt: skip

    async def look(page: Page) -> None:
        for name, pairs in cases.items():
            for given, written in pairs.items():
                assert await page.value(f"format.{name}({given})") == written, (name, given)

    see(blank, Server(), look)
