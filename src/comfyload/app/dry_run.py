"""`run --dry-run`: what would be sent, and when. The server is asked who it is; nothing is submitted."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from msgspec import structs
from rich.console import Console
from rich.table import Table

from comfyload.app.drawn import arrivals_rng
from comfyload.app.options import to_toml
from comfyload.app.run import connect, prepare
from comfyload.load.arrivals import offered_per_s, offsets
from comfyload.record.plan import Closed
from comfyload.report.medium import Screen

if TYPE_CHECKING:
    from comfyload.app.options import RunOptions
    from comfyload.app.run import Prepared

__all__ = ["show_dry_run"]

SHOWN = 8


async def show_dry_run(options: RunOptions) -> None:
    """Print the plan, the first arrivals and how the first prompts differ."""
    async with connect(options) as transport:
        prepared = await prepare(
            structs.replace(
                options, uploads=[], allow_shared=True, preflight=options.preflight and not options.uploads
            ),
            transport,
        )
    console = Screen(highlight=False, soft_wrap=True)
    console.print("Nothing is submitted. The plan:", style="bold")
    console.print(to_toml(options), markup=False)
    _schedule(prepared, console)
    _prompts(prepared, console)


def _schedule(prepared: Prepared, console: Console) -> None:
    plan = prepared.manifest.plan
    console.print("When jobs are due:", style="bold")
    if isinstance(plan.load, Closed):
        console.print(f"{plan.load.concurrency} at once, then each as soon as one before it has ended.\n")
        return
    due = itertools.islice(offsets(plan.load, arrivals_rng(plan)), plan.jobs)
    due_in_time = list(itertools.takewhile(lambda t: plan.duration_s is None or t < plan.duration_s, due))
    rate = offered_per_s(plan.load)
    console.print(
        f"{len(due_in_time)} arrivals"
        + (f", the last after {due_in_time[-1]:.3f} s" if due_in_time else "")
        + (f"; the whole load is {60 * rate:.4g} per minute on average" if rate else "")
    )
    console.print(", ".join(f"{t:.3f}" for t in due_in_time[:SHOWN]) + (" … s\n" if due_in_time else "\n"))


def _prompts(prepared: Prepared, console: Console) -> None:
    console.print("How the first prompts differ:", style="bold")
    table = Table("job", "workflow", "prompt id", "values", box=None, pad_edge=False)
    for index in range(SHOWN):
        prompt = prepared.jobs.prompt(index)
        values = ", ".join(f"{key}={value}" for key, value in prompt.values.items())
        table.add_row(str(index), prompt.workflow, prompt.id, values or "the graph as it is")
    console.print(table)
    for remark in prepared.jobs.remarks():
        console.print(f"note: {remark}", markup=False)
