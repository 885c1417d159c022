"""How long each node of a workflow ran, and which share of the execution that was."""

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from comfyload.judge.columns.fold import Fold
from comfyload.judge.statistics.means import mean
from comfyload.judge.statistics.stats import Statistic, percentiles
from comfyload.record.model import WorkflowFacts

NODE_CLOCK_S = 0.015
"""Node times are those of WebSocket messages arriving, which a busy server delays by up to this long."""


class NodeRow(Struct, frozen=True, kw_only=True):
    """Runs of one node in completed counted jobs; where it came from the cache, it did not run.

    Client's seconds, good to `NODE_CLOCK_S`. `share`: of the execution time of the workflow's jobs, 0..1, and more in
    all where nodes run side by side; None where the server reported no execution time, or where messages came so late
    that the node would have run for longer than its jobs. `class_type` None: not in the graph.
    """

    workflow: str
    node: str
    class_type: str | None
    n: int
    avg_s: Statistic
    p50_s: Statistic
    p95_s: Statistic
    share: float | None


def node_rows(fold: Fold, workflows: Iterable[WorkflowFacts]) -> list[NodeRow]:
    """A row for each node that ran, the costliest in all first."""
    classes = {(facts.name, node): known.class_type for facts in workflows for node, known in facts.nodes.items()}
    rows = []
    for (workflow, node), times in fold.nodes.items():
        seconds, whole = np.asarray(times.seconds, np.float64), fold.node_execution_s.get(workflow, 0.0)
        p50, p95 = percentiles(seconds, [0.5, 0.95], what="runs")
        parent = classes.get((workflow, node.partition(".")[0]))  # a node 2.0.0.3 was made by node 2 while it ran
        row = NodeRow(
            workflow=workflow,
            node=node,
            class_type=classes.get((workflow, node)) or (None if parent is None else f"in {parent}"),
            n=len(seconds),
            avg_s=mean(seconds, what="runs"),
            p50_s=p50,
            p95_s=p95,
            share=_share(times.of_known, whole, NODE_CLOCK_S * len(seconds)),
        )
        rows.append((float(np.sum(seconds)), row))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def _share(of_known: float, whole: float, clock_s: float) -> float | None:
    """All of it where the node ran for longer than its jobs by no more than the clock errs."""
    return min(1.0, of_known / whole) if 0 < whole >= of_known - clock_s else None
