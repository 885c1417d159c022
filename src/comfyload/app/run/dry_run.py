"""`run --dry-run`: what would be sent, and when. The server is identified; nothing is submitted."""

import itertools
from collections.abc import Iterator

from msgspec import structs
from rich.table import Table
from rich.text import Text

from comfyload.app.run.launch import prepare
from comfyload.app.run.options import RunOptions, shareable, to_toml
from comfyload.app.run.schedule_seed import arrivals_rng
from comfyload.app.run.servers import connect_all, resolved
from comfyload.load.arrivals import expected_jobs, offered_per_s, offsets
from comfyload.record.model import Prompt
from comfyload.record.plan import Closed, Plan, Replay
from comfyload.report.console import Screen, print_json
from comfyload.visible import visible
from comfyload.words import count

SHOWN = 8
LAST = 4


async def show_dry_run(options: RunOptions, *, as_json: bool = False) -> None:
    """Print the plan, the first arrivals and how the first prompts differ; in JSON, every arrival is there."""
    preflight = options.preflight and not options.uploads
    harmless = structs.replace(options, uploads=[], allow_shared=True, preflight=preflight)
    harmless = await resolved(harmless)
    async with connect_all(harmless) as connected:
        prepared = await prepare(harmless, connected)
    options, _ = shareable(options)
    due = _due(prepared.manifest.plan)
    expected = expected_jobs(prepared.manifest.plan)
    prompts = [prepared.jobs.prompt(index) for index in range(SHOWN if expected is None else min(SHOWN, expected))]
    remarks = prepared.jobs.remarks()
    if as_json:
        shown = structs.replace(options, headers=[name.partition("=")[0] for name in options.headers])
        rows = [
            {"job": prompt.index, "workflow": prompt.workflow, "prompt_id": prompt.id, "values": prompt.values()}
            for prompt in prompts
        ]
        print_json({"plan": shown, "due_s": due, "prompts": rows, "notes": remarks})
        return
    console = Screen(highlight=False, soft_wrap=True)
    console.print("Nothing is submitted. The plan:", style="bold")
    console.print(_plan(options), markup=False)
    console.print("When jobs are due:", style="bold")
    console.print("\n".join(_schedule(prepared.manifest.plan, due)), markup=False)
    console.print("\nHow the first prompts differ:", style="bold")
    console.print(_table(prompts))
    for remark in remarks:
        console.print(f"note: {visible(remark)}", markup=False)


def _plan(options: RunOptions) -> str:
    """The plan file, without a recording's instants, which are listed below it."""
    load = options.plan.load
    if not isinstance(load, Replay):
        return to_toml(options)
    without = structs.replace(load, offsets_s=[], read_as="")
    text = to_toml(structs.replace(options, plan=structs.replace(options.plan, load=without)))
    left_out = f"# offsets_s: {count(len(load.offsets_s), 'instant')}, which --save-plan writes out"
    return text.replace("offsets_s = []", left_out, 1).replace('read_as = ""\n', "", 1)


def _due(plan: Plan) -> list[float] | None:
    """When arrivals are due, in seconds after the start; None: after each other, as places become free."""
    if isinstance(plan.load, Closed):
        return None
    due = itertools.islice(offsets(plan.load, arrivals_rng(plan)), plan.jobs)
    return list(itertools.takewhile(lambda t: plan.duration_s is None or t < plan.duration_s, due))


def _schedule(plan: Plan, due: list[float] | None) -> Iterator[str]:
    if due is None or isinstance(plan.load, Closed):
        yield f"{plan.concurrency} at once, then each as soon as one before it has ended."
        return
    if isinstance(plan.load, Replay) and plan.load.read_as:
        yield f"Read from {plan.load.source}: {plan.load.read_as}."
        if plan.load.speedup != 1:
            yield f"Repeated {plan.load.speedup:g} times as fast."
    rate = offered_per_s(plan.load)
    last = f", the last after {due[-1]:.3f} s, at most {_busiest(due)} in a minute" if due else ""
    whole = f"; the whole load is {60 * rate:.4g} per minute on average" if rate else ""
    yield f"{count(len(due), 'arrival')}{last}{whole}"
    yield _instants(due)


def _instants(due: list[float]) -> str:
    """The first and the last."""
    if len(due) <= SHOWN + LAST:
        return ", ".join(f"{t:.3f}" for t in due) + (" s" if due else "")
    first, last = (", ".join(f"{t:.3f}" for t in part) for part in (due[:SHOWN], due[-LAST:]))
    return f"{first}, … {len(due) - SHOWN - LAST} more …, {last} s"


def _busiest(due: list[float]) -> int:
    """Arrivals in the minute that has most of them."""
    most = first = 0
    for last, t in enumerate(due):
        while t - due[first] >= 60:
            first += 1
        most = max(most, last - first + 1)
    return most


def _table(prompts: list[Prompt]) -> Table:
    table = Table("job", "workflow", "prompt id", "values", box=None, pad_edge=False)
    for prompt in prompts:
        values = ", ".join(f"{key}={value}" for key, value in prompt.values().items())
        cells = (str(prompt.index), prompt.workflow, prompt.id, values or "the graph as it is")
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table
