"""From options to jobs: workflows read and overridden, tables loaded, every job a function of its index."""

import sys
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from comfyload.app.run.options import RunOptions
from comfyload.errors import UsageError, WorkflowError
from comfyload.record.model import AgainOf, Manifest, Prompt, WorkflowFacts
from comfyload.retry.dispatch import Dispatching
from comfyload.text_files import read_bytes, read_text
from comfyload.workflow import ObjectInfo, Variation, Workflow, override, parse
from comfyload.workflow.data import DataTable, parse_table
from comfyload.workflow.graph import address
from comfyload.workflow.mix import Mix
from comfyload.workflow.override import parse_settings
from comfyload.workflow.remarks import remarks


class Inputs:
    """The contents of the files: workflows, the values set for all jobs, and the table.

    `overrides`: for each workflow, the values that `settle` set, by `node.input`. `dropped`: outputs that are left out,
    by the workflow's name, each with the reason.
    """

    def __init__(self, workflows: list[Workflow], settings: list[str], table: DataTable | None) -> None:
        self.workflows = workflows
        self.table = table
        self.overrides: list[dict[str, Any]] = [{} for _ in workflows]
        self.dropped: dict[str, dict[str, str]] = {}
        self._settings = settings

    def classes(self) -> set[str]:
        return {workflow.class_of(node) for workflow in self.workflows for node in workflow.graph}

    def settle(self, info: ObjectInfo) -> None:
        """Put the settings into the workflows, typed as the server declares the inputs.

        Raises:
            UsageError: a value does not fit its input.
        """
        pairs = [override(workflow, self._settings, info) for workflow in self.workflows]
        self.workflows, self.overrides = [changed for changed, _ in pairs], [applied for _, applied in pairs]

    def leave_out(self, dropped: dict[str, dict[str, str]]) -> None:
        """Take these output nodes out of their workflows: the server would not run them."""
        self.dropped |= {name: outputs for name, outputs in dropped.items() if outputs}
        self.workflows = [workflow.without(dropped.get(workflow.name, ())) for workflow in self.workflows]


def load_inputs(options: RunOptions) -> Inputs:
    """Read every file the options name.

    Raises:
        UsageError: one cannot be read, is not a graph or a table, or a setting fits none of the workflows.
    """
    if not options.workflows:
        raise UsageError("no workflow is given", "give --workflow FILE")
    workflows = []
    for choice in options.workflows:
        path = Path(choice.file)
        if choice.file == "-":
            workflow = parse(sys.stdin.buffer.read(), "stdin", "-")
        else:
            workflow = parse(read_bytes(path, WorkflowError, "give a workflow file"), path.stem, choice.file)
        parse_settings(workflow, options.settings)
        workflows.append(workflow)
    names = [workflow.name for workflow in workflows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two workflows are called {twice!r}", "give their files different names")
    table = None if options.data is None else parse_table(read_text(options.data), options.data)
    return Inputs(workflows, options.settings, table)


def vary(options: RunOptions, inputs: Inputs, info: ObjectInfo, folder: str | None) -> list[Variation]:
    """How the jobs of each workflow differ; what they save goes below `folder`, unless the options keep it out.

    Raises:
        UsageError: a value of the table does not fit its input, or a column is an input of no workflow.
    """
    variations = [
        Variation(
            workflow,
            info,
            seed=options.plan.seed or 0,
            as_is=options.plan.as_is,
            output_folder=None if options.keep_prefix else folder,
            table=inputs.table,
            fixed=set(applied),
        )
        for workflow, applied in zip(inputs.workflows, inputs.overrides, strict=True)
    ]
    if inputs.table is not None:
        _check_columns(inputs.table, variations)
    return variations


class JobSource:
    """Every job of a run, by its index: which workflow, which values. `again`: they are those of another run."""

    def __init__(
        self, options: RunOptions, inputs: Inputs, info: ObjectInfo, run_id: str, again: AgainOf | None = None
    ) -> None:
        plan = options.plan
        self._plan = plan
        self._run_id = run_id
        self._inputs = inputs
        self._again = again
        self.variations = vary(options, inputs, info, f"comfyload/{run_id}")
        weights = [choice.weight for choice in options.workflows]
        self._mix = Mix(weights, order=plan.order, stickiness=plan.stickiness, seed=plan.seed or 0)

    def prompt(self, index: int) -> Prompt:
        """All pages of a book have the workflow that was drawn for the book."""
        if self._again is not None:
            return self._once_more(index, self._again)
        number = index // self._plan.pages
        variation = self.variations[self._mix.pick(number)]
        return variation.prompt(self._run_id, index, warmup=number < self._plan.warmup)

    def _once_more(self, index: int, again: AgainOf) -> Prompt:
        """The job as it was in its own run, under an id of this one."""
        then = again.indexes[index]
        variation = self.variations[self._mix.pick(then // again.pages)]
        return structs.replace(
            variation.prompt(self._run_id, index, warmup=False),
            graph_of=lambda _: variation.render(then),
            values_of=lambda _: variation.values(then),
        )

    def facts(self, *, keep_graph: bool) -> list[WorkflowFacts]:
        pairs = zip(self.variations, self._inputs.overrides, strict=True)
        dropped = self._inputs.dropped
        return [
            structs.replace(
                variation.facts(applied, keep_graph=keep_graph), dropped=dropped.get(variation.workflow.name, {})
            )
            for variation, applied in pairs
        ]

    def remarks(self) -> list[str]:
        """What a reader should know about how the jobs differ."""
        jobs = None if self._plan.jobs is None else (self._plan.jobs + self._plan.warmup) * self._plan.pages
        named = len(self.variations) > 1
        return [
            f"{variation.workflow.name}: {remark.text}" if named else remark.text
            for variation in self.variations
            for remark in remarks(variation, jobs)
        ]


class Prepared(Struct, frozen=True, kw_only=True):
    """A run about to start: nothing has been submitted or written. The manifest's own options hold no secrets.

    `dispatching`: how jobs go to several servers; None: there is one.
    """

    manifest: Manifest
    jobs: JobSource
    options: RunOptions
    dispatching: Dispatching | None = None


def _check_columns(table: DataTable, variations: list[Variation]) -> None:
    for column in table.columns:
        if any(variation.takes(column) for variation in variations):
            continue
        hint = "columns are NODE.INPUT, by id or title"
        if len(variations) == 1:
            try:
                address(variations[0].workflow, column)
            except UsageError as error:
                hint = error.hint or hint
        raise UsageError(f"{table.source}: no workflow has an input {column!r}", hint)
