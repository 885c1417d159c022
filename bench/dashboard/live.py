"""From the instant at which a job's line is in the file to the instant at which the page has painted it."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.dashboard.browser import browser, clock_offset_s, tab, until, watch
from bench.dashboard.processes import begun, load, page, simulator
from bench.dashboard.row import Row, quantile
from comfyload.record.journal import RECORDS

RATE = 20
PAINTS = """
window.paints = { counts: [], cards: {} };
(() => {
  const number = (text) => Number(text.replace(/\\D/g, ""));
  let before = -1;
  const painted = new MessageChannel();
  const waiting = [];
  painted.port1.onmessage = () => {
    const now = (performance.timeOrigin + performance.now()) / 1000;
    for (const note of waiting.splice(0)) note(now);
  };
  const look = () => {
    const ended = [...document.querySelectorAll(".state:is(.is-done, .is-attention, .is-ended) b")];
    const count = ended.reduce((sum, at) => sum + number(at.textContent), 0);
    if (ended.length && count !== before) {
      before = count;
      waiting.push((now) => paints.counts.push([now, count]));
    }
    for (const card of document.querySelectorAll(".card:is(.is-done, .is-attention)")) {
      const index = card.getAttribute("href").split("/").at(-1);
      if (!(index in paints.cards)) {
        paints.cards[index] = 0;
        waiting.push((now) => (paints.cards[index] = now));
      }
    }
    if (waiting.length) painted.port2.postMessage(0);  // comes when this frame is painted
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""


class _Line(msgspec.Struct):
    index: int
    execution: dict[str, object] | None = None


class Ends:
    """Looks at a journal each millisecond: when each job's record was there, by its index, in order."""

    def __init__(self, journal: Path) -> None:
        self.at: dict[int, float] = {}
        self._journal = journal
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Ends:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        decoder, rest, offset = msgspec.json.Decoder(_Line), b"", 0
        while not self._over.is_set():
            time.sleep(0.001)
            if not self._journal.exists() or self._journal.stat().st_size == offset:
                continue
            now = time.time()
            with self._journal.open("rb") as file:
                file.seek(offset)
                new = file.read()
            offset += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in map(decoder.decode, lines):
                if line.execution is not None:
                    self.at[line.index] = now


async def measure(folder: Path, workflow: Path, quick: bool, say: Callable[[str], None]) -> list[Row]:
    rounds, seconds = (1, 8) if quick else (3, 30)
    counts: list[list[float]] = []
    cards: list[list[float]] = []
    updates: list[float] = []
    runs = folder / "runs"
    with simulator(150) as url, page(runs) as (base, _):
        async with browser() as chromium:
            for number in range(rounds):
                run = runs / f"live-{number}"
                words = ("--rate", f"{RATE}/s", "--duration", f"{seconds}s")
                with Ends(run / RECORDS) as ends, load(url, run, workflow, *words) as process:
                    async with tab(chromium, PAINTS) as watching:
                        await begun(run)
                        await watching.goto(watch(base, run.name))
                        await until(watching, "paints.counts.length > 2")
                        began = time.time()
                        await asyncio.to_thread(process.wait)
                        offset = await clock_offset_s(watching)
                        await asyncio.sleep(1)
                        painted = await watching.evaluate("paints")
                known = sorted(ends.at.values())
                shown = [(at - offset, count) for at, count in painted["counts"]]
                late, place = list[float](), 0
                for nth, there in enumerate(known, 1):
                    while place < len(shown) and shown[place][1] < nth:
                        place += 1
                    if place < len(shown) and there > began:
                        late.append(shown[place][0] - there)
                counts.append(late)
                cards.append(
                    [
                        at - offset - ends.at[int(index)]
                        for index, at in painted["cards"].items()
                        if at and int(index) in ends.at and ends.at[int(index)] > began
                    ]
                )
                updates.append((len(shown) - 1) / (shown[-1][0] - shown[0][0]))
                say(f"live {number + 1}: {len(late)} counts, {len(cards[-1])} cards")
                shutil.rmtree(run)
    rows = []
    for what, found in (("its count is painted", counts), ("its card is painted", cards)):
        for share, bar in ((0.5, ""), (0.95, "≤ 300 ms")):
            values = [1000 * quantile(one, share) for one in found]
            rows.append(Row("live", f"line in the file until {what}, p{100 * share:.0f}", values, "ms", bar))
    rows.append(Row("live", "updates", updates, "a second", "≥ 4"))
    return rows
