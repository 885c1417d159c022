"""`run --dry-run`: what would be sent, and when. The server is identified; nothing is submitted."""

from __future__ import annotations

import itertools

import msgspec
from msgspec import structs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfyload.app.run.launch import Prepared, connect, prepare
from comfyload.app.run.options import RunOptions, shareable, to_toml
from comfyload.app.run.schedule_seed import arrivals_rng
from comfyload.load.arrivals import expected_jobs, offered_per_s, offsets
from comfyload.record.plan import Closed, Plan, Replay
from comfyload.report.console import Screen, print_json
from comfyload.visible import visible
from comfyload.words import count

SHOWN = 8
LAST = 4


async def show_dry_run(options: RunOptions, *, as_json: bool = False) -> None:
    """Print the plan, the first arrivals and how the first prompts differ; in JSON, every arrival is there."""
    async with connect(options) as transport:
        prepared = await prepare(
            structs.replace(
                options, uploads=[], allow_shared=True, preflight=options.preflight and not options.uploads
            ),
            transport,
        )
    options, _ = shareable(options)
    console = Screen(highlight=False, soft_wrap=True)
    if as_json:
        print_json(_document(options, prepared))
        return
    console.print("Nothing is submitted. The plan:", style="bold")
    console.print(_plan(options), markup=False)
    _schedule(prepared, console)
    _prompts(prepared, console)


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


def _schedule(prepared: Prepared, console: Console) -> None:
    plan = prepared.manifest.plan
    console.print("When jobs are due:", style="bold")
    due = _due(plan)
    if due is None or isinstance(plan.load, Closed):
        console.print(f"{plan.concurrency} at once, then each as soon as one before it has ended.\n")
        return
    if isinstance(plan.load, Replay) and plan.load.read_as:
        console.print(f"Read from {plan.load.source}: {plan.load.read_as}.", markup=False)
        if plan.load.speedup != 1:
            console.print(f"Repeated {plan.load.speedup:g} times as fast.")
    rate = offered_per_s(plan.load)
    console.print(
        count(len(due), "arrival")
        + (f", the last after {due[-1]:.3f} s, at most {_busiest(due)} in a minute" if due else "")
        + (f"; the whole load is {60 * rate:.4g} per minute on average" if rate else "")
    )
    console.print(f"{_instants(due)}\n")


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


def _shown(prepared: Prepared) -> int:
    expected = expected_jobs(prepared.manifest.plan)
    return SHOWN if expected is None else min(SHOWN, expected)


def _document(options: RunOptions, prepared: Prepared) -> dict[str, object]:
    plan = prepared.manifest.plan
    shown = structs.replace(options, headers=[name.partition("=")[0] for name in options.headers])
    prompts = (prepared.jobs.prompt(index) for index in range(_shown(prepared)))
    return {
        "plan": msgspec.to_builtins(shown),
        "due_s": _due(plan),
        "prompts": [
            {"job": prompt.index, "workflow": prompt.workflow, "prompt_id": prompt.id, "values": prompt.values}
            for prompt in prompts
        ],
        "notes": prepared.jobs.remarks(),
    }


def _prompts(prepared: Prepared, console: Console) -> None:
    console.print("How the first prompts differ:", style="bold")
    table = Table("job", "workflow", "prompt id", "values", box=None, pad_edge=False)
    for index in range(_shown(prepared)):
        prompt = prepared.jobs.prompt(index)
        values = ", ".join(f"{key}={value}" for key, value in prompt.values.items())
        cells = (str(index), prompt.workflow, prompt.id, values or "the graph as it is")
        table.add_row(*(Text(visible(cell)) for cell in cells))
    console.print(table)
    for remark in prepared.jobs.remarks():
        console.print(f"note: {visible(remark)}", markup=False)
