"""Plays one kind of trouble and holds what came of it against what must hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.chaos.judged import MOST_MIB, Outcome, judge
from tests.chaos.kinds import Kind
from tests.chaos.world import World, world

__all__ = ["play"]


async def play(kind: Kind, folder: Path, jobs: int, seed: int) -> Outcome:
    """The load under this trouble, and then: the invariants, what is left on the server, what was said."""
    async with world(folder, jobs, seed) as made:
        await kind.play(made)
        made.proxy.trouble = type(made.proxy.trouble)()
        left = await made.queue()
        shown = await made.comfyload("show", str(made.run), "--output", "shown.json")
    found = judge(made.run, made.ledger, kind.expected, jobs)
    *loads, show = made.done
    document = json.loads((folder / "shown.json").read_text(encoding="utf-8"))
    codes = [finding["code"] for finding in document["findings"]]
    peak = max(done.peak_mib for done in made.done)
    broken = [
        *found.broken,
        *_said(made, kind, document, codes),
        *([f"left on the server: {left[:3]}"] if left else []),
        *([f"{peak:.0f} MiB of memory"] if peak > MOST_MIB else []),
        *([f"show ended with {show.code}, the run with {loads[-1].code}"] if shown.code != loads[-1].code else []),
    ]
    return replace(found, broken=broken, code=loads[-1].code, peak_mib=peak, findings=codes)


def _said(made: World, kind: Kind, document: dict[str, Any], codes: list[str]) -> list[str]:
    """What processes said and how they ended, against what they should have."""
    broken = []
    loads = made.done[:-1]
    if loads[-1].code not in kind.expected.codes:
        broken.append(f"exit code {loads[-1].code}: {loads[-1].said[-300:]}")
    first = kind.expected.first
    if first is not None and loads[0].code not in first:
        broken.append(f"the trouble did not strike: exit code {loads[0].code}")
    if kind.cuts and not made.proxy.resets:
        broken.append("the trouble did not strike: no connection was cut")
    broken += [f"{done.command} said {done.said[-500:]}" for done in loads if "Traceback" in done.said]
    if any(done.code == 70 for done in loads):
        broken.append("a mistake of ours")
    says = kind.expected.says
    if says and says not in codes and not any(says in done.said for done in loads):
        broken.append(f"nothing said {says!r}: {codes}")
    offered = document["summary"]["total_jobs"]
    if kind.expected.all_end and offered != made.jobs:
        broken.append(f"the summary tells of {offered} jobs")
    return broken
