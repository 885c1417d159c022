"""From options to jobs: workflows read and overridden, tables loaded, every job a function of its index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfyload.errors import UsageError, WorkflowError
from comfyload.workflow import Variation, override, parse
from comfyload.workflow.data import parse_rows
from comfyload.workflow.mix import Mix

if TYPE_CHECKING:
    from comfyload.app.options import RunOptions
    from comfyload.record.model import Prompt, WorkflowFacts
    from comfyload.record.plan import Plan
    from comfyload.workflow import ObjectInfo, Workflow
    from comfyload.workflow.data import Rows

__all__ = ["Jobs", "Material", "load_material", "read_text"]


class Material:
    """What the files hold: workflows with their overrides, and the rows of the table."""

    def __init__(self, workflows: list[Workflow], overrides: list[dict[str, Any]], rows: Rows | None) -> None:
        self.workflows = workflows
        self.overrides = overrides
        self.rows = rows

    def classes(self) -> set[str]:
        return {workflow.class_of(node) for workflow in self.workflows for node in workflow.graph}


def load_material(options: RunOptions) -> Material:
    """Read every file the options name.

    Raises:
        UsageError: one cannot be read, is no graph or table, or an override fits none of the workflows.
    """
    if not options.workflows:
        raise UsageError("no workflow is given", "give --workflow FILE")
    workflows, overrides = [], []
    for choice in options.workflows:
        name = "stdin" if choice.file == "-" else Path(choice.file).stem
        changed, applied = override(parse(_read_bytes(choice.file), name, choice.file), options.settings)
        workflows.append(changed)
        overrides.append(applied)
    names = [workflow.name for workflow in workflows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two workflows are called {twice!r}", "give their files different names")
    rows = None if options.data is None else parse_rows(read_text(options.data), options.data)
    return Material(workflows, overrides, rows)


class Jobs:
    """Every job of a run, by its index: which workflow, which values."""

    def __init__(self, options: RunOptions, material: Material, info: ObjectInfo, run_id: str) -> None:
        plan = options.plan
        self._plan: Plan = plan
        seed = plan.seed or 0
        self._run_id = run_id
        self._material = material
        folder = None if options.keep_prefix else f"comfyload/{run_id}"
        self.variations = [
            Variation(workflow, info, seed=seed, as_is=plan.as_is, output_folder=folder, rows=material.rows)
            for workflow in material.workflows
        ]
        for column in material.rows[0] if material.rows else ():
            if not any(variation.takes(column) for variation in self.variations):
                raise UsageError(
                    f"{options.data}: no workflow has an input {column!r}", "columns are NODE.INPUT, by id or title"
                )
        weights = [choice.weight for choice in options.workflows]
        self._mix = Mix(weights, order=plan.order, stickiness=plan.stickiness, seed=seed)

    def prompt(self, index: int) -> Prompt:
        """A book's pages are all of the workflow that was drawn for the book."""
        number = index // self._plan.pages
        variation = self.variations[self._mix.pick(number)]
        return variation.prompt(self._run_id, index, warmup=number < self._plan.warmup)

    def facts(self, *, keep_graph: bool) -> list[WorkflowFacts]:
        pairs = zip(self.variations, self._material.overrides, strict=True)
        return [variation.facts(applied, keep_graph=keep_graph) for variation, applied in pairs]

    def remarks(self) -> list[str]:
        """What a reader should know of how the jobs differ."""
        said = []
        for variation in self.variations:
            name = f"{variation.workflow.name}: " if len(self.variations) > 1 else ""
            if variation.salted:
                said.append(
                    f"{name}the graph has no seed to vary, so an input that ComfyUI ignores was added to "
                    f"{_nodes(variation.salted)}: every job executes, and makes the same picture"
                )
            if variation.constant:
                said.append(f"{name}no seed reaches {_nodes(variation.constant)}: not counted as work of each job")
            jobs = None if self._plan.jobs is None else (self._plan.jobs + self._plan.warmup) * self._plan.pages
            if not variation.as_is and jobs is not None and variation.period < jobs:
                said.append(f"{name}the seeds' bounds allow {variation.period} different jobs; the rest repeat them")
        return said


def read_text(file: str) -> str:
    """The text of a file the user named.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not a text file", "give UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}", "give a file that can be read") from None


def _read_bytes(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise WorkflowError(f"cannot read {file}: {error.strerror or error}", "give a workflow file") from None


def _nodes(nodes: list[str]) -> str:
    return ("node " if len(nodes) == 1 else "nodes ") + ", ".join(nodes)
