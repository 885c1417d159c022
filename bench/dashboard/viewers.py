"""What viewers cost a run at 100 jobs a second, and whether anything hangs with fifty of them or twenty tabs.

Runs with and without them take turns in the order ABBA, in two layouts: the generator and the simulator on one cpu,
the page and the viewers on the other; and all of them wherever the kernel puts them, which contend for two cpus then.
Page and viewers have the low claim on the machine of `comfyload run --ui`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

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

RATE, SPEED = 100, 25.0
VIEWERS, TABS = 50, 20
LAYOUTS: dict[str, tuple[list[int], list[int]]] = {"on the other cpu": ([0], [1]), "on the same cpus": ([], [])}
"""The cpus of generator and simulator, and those of page and viewers; none: all."""

SETTLES_S = 4.0
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
    with_, without = found[True], found[False]
    part = f"{VIEWERS} viewers {layout}"

    def ratio(name: str) -> str:
        return _ratio([(getattr(a, name), getattr(b, name)) for a, b in zip(with_, without, strict=True)])

    of = f"with / without, {pairs} pairs"
    return [
        Row(part, f"generator's CPU, {of}", [], "", "< 1.01", ratio("generator")),
        Row(part, f"median latency, {of}", [], "", "1", ratio("latency_s")),
        Row(part, f"median send lateness, {of}", [], "", "1", ratio("lateness_s")),
        Row(part, "generator's CPU without", [100 * one.generator for one in without], "% of a core"),
        Row(part, "page's own CPU", [100 * one.dashboard for one in with_], "% of a core"),
        *_rows_of(part, [one.seen for one in with_]),
    ]


async def measure_tabs(folder: Path, workflow: Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Twenty tabs of one browser, all of them visible, beside the viewers; the machine has no more to give."""
    tabs, seconds = (4, 15) if quick else (TABS, 60)
    runs, fetches = folder / "runs", list[float]()
    run = runs / "run"
    graph = _graph(folder)
    with simulator(SPEED) as url, page(runs) as (base, _), load(url, run, graph, *_words(seconds)) as process:
        await begun(run)
        async with _viewers(base, run) as seen, browser() as chromium:
            view = await chromium.new_context(viewport=WINDOW)
            opened = [await view.new_page() for _ in range(tabs)]
            for each in opened:
                await each.add_init_script(PAINTS)
                await each.goto(watch(base, run.name))
            for each in opened:
                await until(each, "paints.counts.length > 1")
            say(f"{tabs} tabs open")
            before = [await each.evaluate("paints.counts.length") for each in opened]
            began = time.monotonic()
            while time.monotonic() - began < seconds / 4:
                fetches += await asyncio.gather(*(each.evaluate(FETCH) for each in opened))
                await asyncio.sleep(0.5)
            took = time.monotonic() - began
            after = [await each.evaluate("paints.counts.length") for each in opened]
            assert process.poll() is None, "the run has ended before the tabs were looked at"
            await view.close()
    part = f"{tabs} visible tabs, {VIEWERS} viewers"
    updates = [(b - a) / took for a, b in zip(before, after, strict=True)]
    return [
        Row(part, f"fetches in tabs, slowest of {len(fetches)}", [max(fetches)], "ms", "< 1 000 ms"),
        Row(part, "updates that a tab painted", updates, "a second"),
        *_rows_of(part, [seen]),
    ]


def _rows_of(part: str, seen: Sequence[dict[str, float]]) -> list[Row]:
    return [
        Row(part, "sockets lost", [max(one["lost"] for one in seen)], "", "0"),
        Row(part, "states of the run that a viewer got", [one["least"] for one in seen], "a second, the least of all"),
        Row(part, "longest time from one to the next", [one["gap"] for one in seen], "s"),
        Row(part, "fetch, the slowest", [1000 * one["fetch"] for one in seen], "ms", "< 1 000 ms"),
    ]


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
            seen = await stack.enter_async_context(_viewers(base, run, others))
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
async def _viewers(base: str, run: Path, cpus: Sequence[int] = ()) -> AsyncIterator[dict[str, float]]:
    """Fifty sockets; what they got is in the dictionary once the context has ended."""
    seen: dict[str, float] = {}
    words = ("-m", "bench.dashboard.viewer", base, run.name, str(VIEWERS))
    with started(*words, nice=PAGE_NICE, cpus=cpus) as process:
        yield seen
        out, _ = await asyncio.to_thread(process.communicate, "", 30)
        seen.update(json.loads(out))


def _words(seconds: float) -> tuple[str, ...]:
    return ("--rate", f"{RATE}/s", "--duration", f"{seconds}s", "--max-in-flight", "200", "--on-full", "drop")


def _graph(folder: Path) -> Path:
    file = folder / "graph.json"
    file.write_bytes(msgspec.json.encode(GRAPH))
    return file


def _cpu_s(pid: int) -> float:
    """User and system time of a process and its children."""
    if not pid:
        return 0.0
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """The geometric mean of the ratios, with its 95 % interval (Student's t over the pairs)."""
    logs = np.log([a / b for a, b in pairs])
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return f"{middle:.3f} (95 %: {low:.3f} to {high:.3f})"
