"""A workflow as a program gives it, its copy with other seeds and values, and its prompt."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfyload.errors import UsageError, WorkflowError
from comfyload.record.model import Prompt
from comfyload.text_files import read_bytes
from comfyload.workflow import Workflow, parse
from comfyload.workflow.graph import address
from comfyload.workflow.seeds import find_seeds

Graph = Mapping[str, Any]


def read(workflow: Graph | str | Path) -> Workflow:
    """A workflow however it is given.

    Raises:
        WorkflowError: it is not a workflow.
    """
    if isinstance(workflow, Mapping):
        try:
            text = json.dumps(workflow)
        except (TypeError, ValueError) as error:
            raise WorkflowError(f"the workflow cannot be written as JSON: {error}", "give plain values") from None
        return _named(text.encode())
    if isinstance(workflow, str) and workflow.lstrip().startswith("{"):
        return _named(workflow.encode("utf-8", "surrogatepass"))
    path = Path(workflow)
    return parse(read_bytes(path, WorkflowError, "give a workflow file"), path.stem, str(path))


def changed(workflow: Workflow, seed: int | None, values: Mapping[str, object]) -> Workflow:
    """A copy with other seeds and values.

    Raises:
        UsageError: it has no such input, or no seed.
    """
    graph = json.loads(json.dumps(workflow.graph))
    copy = Workflow(workflow.name, graph, workflow.extra)
    if seed is not None:
        seeds = find_seeds(copy)
        if not seeds:
            raise UsageError("the workflow has no seed to set", "leave seed out, or name an input with set")
        for found in seeds:
            copy.inputs_of(found.node)[found.key] = found.written(seed)
    for target, value in values.items():
        node, key = address(copy, target)
        try:
            copy.inputs_of(node)[key] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{target} cannot be written as JSON: {error}", "give a plain value") from None
    return copy


def prompt_of(workflow: Workflow, index: int, key: str | None) -> Prompt:
    """The same key makes the same id, in any process; None: an id of its own.

    Raises:
        UsageError: the key is not Unicode text.
    """
    if key is not None and any("\ud800" <= letter <= "\udfff" for letter in key):
        raise UsageError("the key is not UTF-8", "give the id that your queue has for the job")
    body = json.dumps(workflow.graph).encode()
    extra = workflow.extra.get("extra_data")
    return Prompt(
        id=str(uuid.uuid4() if key is None else uuid.uuid5(uuid.NAMESPACE_URL, f"comfyload:{key}")),
        index=index,
        workflow=workflow.name,
        warmup=False,
        graph_of=lambda _: body,
        extra_data=json.dumps(extra).encode() if extra else b"",
    )


def _named(text: bytes) -> Workflow:
    """A graph without a file is named after its contents, so that jobs of the same graph are known as such."""
    workflow = parse(text, "workflow", "the workflow")
    return Workflow(f"workflow-{workflow.sha256[:8]}", workflow.graph, workflow.extra)
