"""Values that somebody sets for all jobs: `NODE.INPUT=VALUE`, typed as the server declares the input."""

from collections.abc import Sequence
from typing import Any

from comfyload.errors import UsageError
from comfyload.workflow.graph import Workflow, address
from comfyload.workflow.object_info import ObjectInfo
from comfyload.workflow.values import Unfit, typed


def parse_settings(workflow: Workflow, settings: Sequence[str]) -> list[tuple[str, str, str]]:
    """Node, input and text of each `NODE.INPUT=VALUE`; NODE is an id or a title.

    Raises:
        UsageError: a setting has no `=`, or names no input of the graph, or a title that several nodes have.
    """
    found = []
    for setting in settings:
        target, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} has no '='", "write --set NODE.INPUT=VALUE, as in --set 3.steps=20")
        found.append((*address(workflow, target.strip(), "--set "), text))
    return found


def override(
    workflow: Workflow, settings: Sequence[str], info: ObjectInfo | None = None
) -> tuple[Workflow, dict[str, Any]]:
    """A copy with the settings applied, and what was set by `node.input`.

    Raises:
        UsageError: as `parse_settings`, or a value does not fit its input.
    """
    info = info or ObjectInfo()
    applied: dict[tuple[str, str], Any] = {}
    for node, key, text in parse_settings(workflow, settings):
        spec, present = info[workflow.class_of(node)].spec(key), workflow.inputs_of(node)[key]
        try:
            applied[node, key] = typed(text, spec, present, workflow.graph)
        except Unfit as unfit:
            raise unfit.of(f"--set {node}.{key}") from None
    return workflow.with_inputs(applied), {f"{node}.{key}": value for (node, key), value in applied.items()}
