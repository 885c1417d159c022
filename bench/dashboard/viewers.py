"""What viewers cost a run at 100 jobs a second, and whether anything hangs with fifty of them or twenty tabs.

Runs with and without them take turns in the order ABBA, in two layouts: the generator and the simulator on one cpu,
the page and the viewers on the other; and all of them wherever the kernel puts them, which contend for two cpus then.
Page and viewers have the low claim on the machine of `comfyload run --ui`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import psutil
from scipy import stats

from bench.dashboard.browser import WINDOW, browser, until, watch
from bench.dashboard.live import PAINTS
from bench.dashboard.processes import PAGE_NICE, begun, load, page, simulator, started
from bench.dashboard.row import Row
from bench.soak import GRAPH
from comfyload.record.model import Record
from comfyload.record.run import RunReader

if TYPE_CHECKING:
    from playwright.async_api import Page

RATE, SPEED = 100, 25.0
VIEWERS, TABS = 50, 20
LAYOUTS: dict[str, tuple[list[int], list[int]]] = {"on the other cpu": ([0], [1]), "on the same cpus": ([], [])}
"""The cpus of generator and simulator, and those of page and viewers; none: all."""

SETTLES_S = 4.0
WINDOW_S, REST_S = 3.5, 0.5
LOOKS_S = 20.0
HIDE = """
let hidden = false;
Object.defineProperty(document, "hidden", { get: () => hidden });
window.show = (shown) => { hidden = !shown; document.dispatchEvent(new Event("visibilitychange")); };
"""
"""As a browser does with all tabs of a window but one; Playwright shows them all."""

SHOW = """async () => {
  const [began, before] = [performance.now(), paints.counts.length];
  show(true);
  while (paints.counts.length === before) await new Promise((r) => requestAnimationFrame(r));
  return performance.now() - began;
}"""
FETCH = """async () => {
  const began = performance.now();
  await (await fetch("ui/session", { cache: "no-store" })).text();
  return performance.now() - began;
}"""


class Taken(NamedTuple):
    """Of one run: CPU of the generator and of the page, as shares of a core; medians of its jobs."""

    generator: float
    dashboard: float
    latency_s: float
    lateness_s: float
    seen: dict[str, float]


class Viewers:
    """Fifty sockets in a process of their own; `seen`: what they got."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.seen: dict[str, float] = {}

    def say(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()


async def measure(folder: Path, workflow: Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    return [row for layout in LAYOUTS for row in await _pairs(folder, layout, quick, say)]


async def _pairs(folder: Path, layout: str, quick: bool, say: Callable[[str], None]) -> list[Row]:
    pairs, seconds = (2, 8) if quick else (6, 18)
    graph = _graph(folder)
    found: dict[bool, list[Taken]] = {True: [], False: []}
    with simulator(SPEED, cpus=LAYOUTS[layout][0]) as url:
        await _one(folder, url, graph, 6, layout, watched=True)  # what is compiled and read the first time
        for number in range(pairs):
            for watched in (number % 2 == 0, number % 2 == 1):
                taken = await _one(folder, url, graph, seconds, layout, watched=watched)
                found[watched].append(taken)
                say(f"viewers {layout}, {number + 1}, {'watched' if watched else 'alone'}: {taken}")
    return _rows_of_pairs(f"{VIEWERS} viewers {layout}", found[True], found[False])


def _rows_of_pairs(part: str, with_: Sequence[Taken], without: Sequence[Taken]) -> list[Row]:

    def ratio(name: str) -> str:
        return _ratio([(getattr(a, name), getattr(b, name)) for a, b in zip(with_, without, strict=True)])

    of = f"with / without, {len(with_)} pairs"
    return [
        Row(part, f"generator's CPU, {of}", [], "", "< 1.01", ratio("generator")),
        Row(part, f"median latency, {of}", [], "", "1", ratio("latency_s")),
        Row(part, f"median send lateness, {of}", [], "", "1", ratio("lateness_s")),
        Row(part, "generator's CPU without", [100 * one.generator for one in without], "% of a core"),
        Row(part, "page's own CPU", [100 * one.dashboard for one in with_], "% of a core"),
        *_rows_of(part, [one.seen for one in with_]),
    ]


async def measure_tabs(folder: Path, workflow: Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Twenty tabs of one browser, of which one is visible, then all of them, beside the viewers."""
    tabs, seconds = (4, 60) if quick else (TABS, 240)
    runs = folder / "runs"
    run = runs / "run"
    graph = _graph(folder)
    with simulator(SPEED) as url, page(runs) as (base, _), load(url, run, graph, *_words(seconds)) as process:
        await begun(run)
        async with _viewers(base, run) as viewers, browser() as chromium:
            view = await chromium.new_context(viewport=WINDOW)
            opened = [await view.new_page() for _ in range(tabs)]
            for each in opened:
                await each.add_init_script(HIDE + PAINTS)
                await each.goto(watch(base, run.name))
                await until(each, "paints.counts.length > 1")
                if each is not opened[-1]:
                    await each.evaluate("show(false)")
            say(f"{tabs} tabs open")
            fetches, (updates,) = await _used(opened, opened[-1:], LOOKS_S)
            shown = []
            for each in opened[:-1]:
                await each.bring_to_front()
                shown.append(await each.evaluate(SHOW))
                await each.evaluate("show(false)")
            for each in opened:
                await each.evaluate("show(true)")
            say("all of them visible")
            fetches_of_all, updates_of_all = await _used(opened, opened, LOOKS_S)
            assert process.poll() is None, "the run has ended before the tabs were looked at"
            await view.close()
    part = f"{tabs} tabs, {VIEWERS} viewers"
    return [
        Row(part, f"fetches in tabs, slowest of {len(fetches)}", [max(fetches)], "ms", "< 1 000 ms"),
        Row(part, "updates that the visible tab painted", [updates], "a second"),
        Row(part, "a hidden tab that is shown, until it paints the newest", shown, "ms"),
        Row(part, f"all visible: fetches, slowest of {len(fetches_of_all)}", [max(fetches_of_all)], "ms", "< 1 000 ms"),
        Row(part, "all visible: updates that each tab painted", updates_of_all, "a second"),
        *_rows_of(part, [viewers.seen]),
    ]


async def _used(opened: Sequence[Page], seen: Sequence[Page], seconds: float) -> tuple[list[float], list[float]]:
    """How long fetches took in all tabs, ms, and how often a second each that is seen painted a new state."""

    async def painted() -> list[int]:
        return list(await asyncio.gather(*(each.evaluate("paints.counts.length") for each in seen)))

    fetches, before, began = list[float](), await painted(), time.monotonic()
    while not fetches or time.monotonic() - began < seconds:
        fetches += await asyncio.gather(*(each.evaluate(FETCH) for each in opened))
        await asyncio.sleep(0.5)
    after, took = await painted(), time.monotonic() - began
    return fetches, [(b - a) / took for a, b in zip(before, after, strict=True)]


def _rows_of(part: str, seen: Sequence[dict[str, float]]) -> list[Row]:
    return [
        Row(part, "sockets lost", [max(one["lost"] for one in seen)], "", "0"),
        Row(part, "states of the run that a viewer got", [one["least"] for one in seen], "a second, the least of all"),
        Row(part, "longest time from one to the next", [one["gap"] for one in seen], "s"),
        Row(part, "fetch, the slowest", [1000 * one["fetch"] for one in seen], "ms", "< 1 000 ms"),
    ]


async def measure_cost(folder: Path, workflow: Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """The generator's CPU while fifty viewers look and while they do not, in turn within one run."""
    windows, run = 4 if quick else 60, folder / "runs" / "run"
    used: list[float] = []
    graph = _graph(folder)
    with (
        simulator(SPEED) as url,
        page(folder / "runs") as (base, _),
        load(url, run, graph, *_words(windows * (WINDOW_S + REST_S) + 20)) as process,
    ):
        await begun(run)
        async with _viewers(base, run) as viewers:
            await asyncio.sleep(SETTLES_S)
            for number in range(windows):
                viewers.say("show" if number % 4 in (0, 3) else "hide")
                await asyncio.sleep(REST_S)
                before, began = _cpu_s(process.pid), time.monotonic()
                await asyncio.sleep(WINDOW_S)
                used.append((_cpu_s(process.pid) - before) / (time.monotonic() - began))
            assert process.poll() is None, "the run has ended too early"
    pairs = [(a, b) if number % 2 == 0 else (b, a) for number, (a, b) in enumerate(zip(*[iter(used)] * 2, strict=True))]
    part = f"{VIEWERS} viewers in turn"
    what = f"generator's CPU, looking / not looking, {len(pairs)} pairs of {WINDOW_S:g} s"
    return [Row(part, what, [], "", "< 1.01", _ratio(pairs))]


async def _one(folder: Path, url: str, graph: Path, seconds: float, layout: str, *, watched: bool) -> Taken:
    runs, (ours, others) = folder / "runs", LAYOUTS[layout]
    run = runs / "run"
    shutil.rmtree(run, ignore_errors=True)
    seen: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        base, pid = stack.enter_context(page(runs, cpus=others)) if watched else ("", 0)
        process = stack.enter_context(load(url, run, graph, *_words(seconds), cpus=ours))
        await begun(run)
        if watched:
            seen = (await stack.enter_async_context(_viewers(base, run, others))).seen
        await asyncio.sleep(SETTLES_S)
        before, began = (_cpu_s(process.pid), _cpu_s(pid)), time.monotonic()
        await asyncio.sleep(max(1.0, seconds - SETTLES_S - 4.0))
        after, took = (_cpu_s(process.pid), _cpu_s(pid)), time.monotonic() - began
        assert process.poll() is None, "the run has ended too early"
        await asyncio.to_thread(process.wait)
    records = [line for line in RunReader(run).lines() if isinstance(line, Record)]
    assert records and all(one.execution.outcome == "completed" for one in records)
    times = np.array([(one.due, one.execution.sent, one.execution.done) for one in records], float)
    times = times[times[:, 0] > SETTLES_S]
    return Taken(
        generator=(after[0] - before[0]) / took,
        dashboard=(after[1] - before[1]) / took,
        latency_s=float(np.median(times[:, 2] - times[:, 0])),
        lateness_s=float(np.median(times[:, 1] - times[:, 0])),
        seen=seen,
    )


@asynccontextmanager
async def _viewers(base: str, run: Path, cpus: Sequence[int] = ()) -> AsyncIterator[Viewers]:
    """Fifty sockets; what they got is known once the context has ended."""
    words = ("-m", "bench.dashboard.viewer", base, run.name, str(VIEWERS))
    with started(*words, nice=PAGE_NICE, cpus=cpus) as process:
        viewers = Viewers(process)
        yield viewers
        out, _ = await asyncio.to_thread(process.communicate, "", 30)
        viewers.seen.update(json.loads(out))


def _words(seconds: float) -> tuple[str, ...]:
    return ("--rate", f"{RATE}/s", "--duration", f"{seconds}s", "--max-in-flight", "200", "--on-full", "drop")


def _graph(folder: Path) -> Path:
    file = folder / "graph.json"
    file.write_bytes(msgspec.json.encode(GRAPH))
    return file


def _cpu_s(pid: int) -> float:
    """What a process and its children have had of the cpus, to the nanosecond."""
    if not pid:
        return 0.0
    pids = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    files = [file for each in pids for file in Path(f"/proc/{each}/task").glob("*/schedstat")]
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def _ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """The geometric mean of the ratios, with its 95 % interval (Student's t over the pairs)."""
    logs = np.log([a / b for a, b in pairs])
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return f"{middle:.3f} (95 %: {low:.3f} to {high:.3f})"
