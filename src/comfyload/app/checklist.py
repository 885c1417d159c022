"""`checklist`: from a server to a baseline in one go: look, run each workflow at each concurrency, keep, judge."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import run
from comfyload.app.run.options import WorkflowChoice
from comfyload.errors import UsageError
from comfyload.record.plan import Closed

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.app.run.options import RunOptions
    from comfyload.app.run.viewer import Viewer

__all__ = ["CONCURRENCY", "Round", "default_workflows", "rounds", "run_rounds"]

SAMPLES = Path("infra/comfyui/samples")
NAMES = ("book_small", "book_medium", "book_large")
CONCURRENCY = (1, 2, 4)
WARMUP = 1


class Round(Struct, frozen=True, kw_only=True):
    """One run of the checklist."""

    workflow: str
    concurrency: int


def default_workflows() -> list[str]:
    """The three samples of the checklist, where they lie in a project.

    Raises:
        UsageError: they are not there.
    """
    for folder in (SAMPLES, Path("../samples"), Path("samples")):
        files = [folder / f"{name}.json" for name in NAMES]
        if all(file.is_file() for file in files):
            return [str(file) for file in files]
    raise UsageError(
        f"{SAMPLES} does not hold {', '.join(f'{name}.json' for name in NAMES)}",
        "go to the project's root, or name workflows with --workflow",
    )


def rounds(workflows: list[str]) -> list[Round]:
    """Every workflow at every concurrency, a workflow at a time: its models stay loaded."""
    return [Round(workflow=file, concurrency=places) for file in workflows for places in CONCURRENCY]


async def run_rounds(options: RunOptions, asked: list[Round], viewer: Callable[[Round, int], Viewer]) -> list[Path]:
    """Make the runs one after the other, each after a job to warm up; returns their directories.

    `viewer` is given the round and its number from 1.

    Raises:
        NothingMeasured: a cap was reached before all were made.
    """
    base = Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-checklist"
    if base.exists():
        raise UsageError(f"{base} exists", "try again in a second")
    paths, caps = [], Caps(options)
    for number, one in enumerate(asked, 1):
        plan = structs.replace(options.plan, load=Closed(concurrency=one.concurrency), warmup=WARMUP)
        path = base / f"{number:02}-{Path(one.workflow).stem}-c{one.concurrency}"
        paths.append(
            await run(
                structs.replace(options, workflows=[WorkflowChoice(file=one.workflow)], plan=plan, run_dir=str(path)),
                viewer(one, number),
                caps=caps,
            )
        )
        if caps.cut or (caps.reached and number < len(asked)):
            raise caps.short(f"all {len(asked)} runs were made: no baseline is kept", base)
    return paths
