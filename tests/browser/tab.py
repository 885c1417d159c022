"""A stand-in for ComfyUI's page and server around the probe's tab, and a browser that looks at it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.browser.chromium import Page, opened

__all__ = ["EVIL", "NOTHING", "Server", "overview", "section", "see", "until"]

WEB = Path(__file__).parents[2] / "pack" / "comfyload_probe" / "web"
PAGE = Path(__file__).with_name("probe_tab.html")
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
WATCH = """
window.violations = []; window.alerts = 0; window.alert = () => { window.alerts += 1; };
document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));
"""
POLICY = "default-src 'self'; img-src data:"
CSS = "body { margin: 0 } #sidebar { height: 100vh; overflow: hidden auto }"
APP_JS = """
export const app = {
  registerExtension: (extension) => { app.ready = extension.setup(); },
  extensionManager: { registerSidebarTab: (tab) => { window.tab = tab; } },
};
"""
API_JS = 'export const api = { fetchApi: (route, options) => fetch("/api" + route, options) };'
PAGE_JS = """
import "/extensions/comfyload_probe/comfyload_probe.js";
import * as format from "/extensions/comfyload_probe/format.js";
window.format = format;
const ready = () => {
  if (!window.tab || !document.querySelector("link[href$='panel.css']")?.sheet) return setTimeout(ready, 10);
  tab.render(document.querySelector("#sidebar"));
};
ready();
"""


def overview(**changed: Any) -> dict[str, Any]:
    """A server amid its work, with one GPU, as the probe says it."""
    nodes = [
        ("3", "KSampler", 1500.0),
        ("5", "VAEDecode", 320.5),
        ("9", "SaveImage", 88.0),
        ("4", "LoadCheckpoint", None),
    ]
    jobs = [
        {
            "prompt_id": f"{number:08x}-0000-4000-8000-000000000000", "status": "ok",
            "ended_unix_s": 990.0 - number * 7, "waited_ms": 40.0, "duration_ms": 2000.0 - 50 * number,
            "error": None, "nodes_cached": 1, "attempt": None, "retry_of": None,
            "nodes": [
                {"node": node, "class_type": name, "status": "run" if ms else "cached", "duration_ms": ms}
                for node, name, ms in nodes
            ],
        }
        for number in range(3)
    ]  # fmt: skip
    samples = [
        {
            "mono_s": 380.0 + at / 2, "queue_depth": at % 4,
            "gpus": [
                {
                    "index": 0, "utilisation_percent": None if at == 100 else at % 101,
                    "vram_used_bytes": (8 + at % 5) * 2**30, "vram_total_bytes": 24 * 2**30, "power_w": 212.4,
                    "temperature_c": 61,
                }
            ],
        }
        for at in range(240)
    ]  # fmt: skip
    running = [{"prompt_id": "p", "started_mono_s": 487.6, "node": "3", "class_type": "KSampler"}]
    whole = {
        "schema": 1, "boot": "0a1b2c3d", "unix_s": 1000.0, "mono_s": 500.0, "window_s": 3600.0,
        "queue": {"running": running, "waiting": 2}, "jobs": jobs,
        "duration_ms": {"n": 42, "p50": 1710.0, "p95": 2330.0},
        "latency_ms": {"n": 42, "p50": 4200.0, "p95": 65_000.0}, "failures": [], "retries": 0, "samples": samples,
        "missing": [], "active": True,
    }  # fmt: skip
    return whole | changed


NOTHING = {
    "queue": {"running": [], "waiting": 0}, "jobs": [], "samples": [],
    "duration_ms": {"n": 0, "p50": None, "p95": None}, "latency_ms": {"n": 0, "p50": None, "p95": None},
    "window_s": 95.0,
}  # fmt: skip


@dataclass(kw_only=True)
class Server:
    """What answers the tab: an overview, or a status without one; with a token, to who knows it."""

    url: str = ""
    overview: dict[str, Any] = field(default_factory=overview)
    status: int = 200
    token: str = ""
    requests: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.token and request.headers.get("X-Comfyload-Token") != self.token:
            return web.json_response({"error": "the token is wrong or missing", "hint": ""}, status=401)
        return web.json_response(self.overview, status=self.status)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[None]:
    def text(body: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def given(_: web.Request) -> web.Response:
            return web.Response(text=body, content_type=kind, headers={"Content-Security-Policy": POLICY})

        return given

    app = web.Application()
    app.router.add_get("/", text(PAGE.read_text(encoding="utf-8"), "text/html"))
    app.router.add_get("/page.css", text(CSS, "text/css"))
    for path, body in {"/page.js": PAGE_JS, "/scripts/app.js": APP_JS, "/scripts/api.js": API_JS}.items():
        app.router.add_get(path, text(body, "text/javascript"))
    app.router.add_get("/api/comfyload/v1/overview", server.answer)
    app.router.add_static("/extensions/comfyload_probe", WEB)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()


def see(blank: Path, server: Server, look: Callable[[Page], Awaitable[None]], *, before: str = "") -> None:
    """Look at the tab in a new browser; nothing may be asked of anybody else, run, or complained of."""

    async def main() -> None:
        blank.write_text("<html data-drawn=yes>", encoding="utf-8")
        async with serving(server), opened(blank, before=WATCH + before) as page:
            await page.call("Page.navigate", url=server.url)
            await until(page, "(document.querySelector('.clp')?.dataset.state ?? 'loading') !== 'loading'")
            await look(page)
            urls = {event["request"]["url"] for event in page.events_of("Network.requestWillBeSent")} - {blank.as_uri()}
            assert all(url.startswith((server.url, "data:,")) for url in urls), urls
            assert page.events_of("Runtime.exceptionThrown") == [] and page.events_of("Runtime.consoleAPICalled") == []
            logged = [event["entry"]["text"] for event in page.events_of("Log.entryAdded")]
            assert [text for text in logged if "the server responded with a status of" not in text] == []
            assert await page.value("[violations, alerts]") == [[], 0]

    asyncio.run(main())


async def until(page: Page, condition: str) -> None:
    async with asyncio.timeout(15):
        while not await page.value(f"!!({condition})"):
            await asyncio.sleep(0.02)


async def section(page: Page, name: str) -> str:
    """The text of a section as it can be seen, a line for each part of it."""
    named = f"(s) => s.querySelector('h3 span').textContent === {json.dumps(name)}"
    return str(await page.value(f"[...document.querySelectorAll('.clp-section')].find({named}).innerText"))
