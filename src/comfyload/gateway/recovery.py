"""A gateway takes up what an earlier process left: its jobs, and what it owed the ledger and its clients."""

from __future__ import annotations

from typing import Any

from comfyload.gateway import forms
from comfyload.gateway.intake import limit_s, workflow_of
from comfyload.gateway.job import ClientJob
from comfyload.gateway.service import Gateway
from comfyload.gateway.store import Row, Store

MOST_UNTOLD, TELLING_MS = 200, 2_000
"""Of how many ends clients may not know when a process died, and how long it may take to report one."""

OLDEST_S = 365 * 86_400.0
"""No job that waits is older: its stamp is of a clock that stood elsewhere."""


def recover(gateway: Gateway) -> int:
    """Take up the jobs of an earlier process, and what it owed the ledger and its clients; how many jobs there are."""
    if gateway.store.owed:
        gateway.ledger.settle(gateway.store.owed)
    for row in _last_ended(gateway):
        gateway.live.owe_end(row.tenant, row.client_id or "", row.id, forms.loads(row.entry or b""))
    for row in gateway.store.unended():
        graph = graph_of(gateway.store, row)
        workflow, lacking = workflow_of(graph), frozenset[str]()
        if workflow is not None:
            gateway.ledger.know(workflow, gateway.fleet.info)
            short = gateway.fleet.lacking({workflow.class_of(node) for node in workflow.graph})
            lacking = frozenset(member.address for member in gateway.fleet.members if member.name in short)
        job = ClientJob(
            id=row.id,
            tenant=row.tenant,
            client_id=row.client_id,
            due=gateway.clock() - min(OLDEST_S, max(0.0, gateway.steady.age_s(row.taken_ms))),
            created_ms=row.created_ms,
            number=row.number,
            workflow=row.workflow,
            workflow_id=forms.workflow_id_in(forms.loads(row.extra)),
            limit_s=limit_s(gateway, row.deadline_s),
            not_on=lacking,
            files=gateway.files.named_in(graph, row.tenant),
            expected_s=gateway.client.expected_s(row.workflow),
            server=row.server,
            began=row.started_ms is not None,
            started_ms=row.started_ms,
            cancelled=row.cancelled,
        )
        if row.begun or row.cancelled:
            gateway.take_up(job)
        else:
            gateway.add(job)
    now = gateway.clock()
    gateway.ledger.take_up(min((job.due for job in gateway.jobs.values()), default=now))
    return len(gateway.jobs)


def _last_ended(gateway: Gateway) -> list[Row]:
    """The jobs of whose end an earlier process may have died before it could tell it."""
    rows = [
        row for row in gateway.store.ended(None, newest=MOST_UNTOLD) if row.item and row.client_id and not row.forgotten
    ]
    ends = [forms.loads(row.item or b"").get("execution_end_time") or 0 for row in rows]
    return [row for row, end in zip(rows, ends, strict=True) if end >= max(ends) - TELLING_MS]


def graph_of(store: Store, row: Row) -> dict[str, Any]:
    """The graph of a job that was kept.

    Raises:
        RunFilesError: it is damaged.
    """
    try:
        graph, extra = forms.loads(row.graph), forms.loads(row.extra)
        forms.loads(row.targets)
    except (ValueError, RecursionError):
        graph = extra = None
    if not isinstance(graph, dict) or not isinstance(extra, dict) or not all(map(_is_node, graph.values())):
        raise store.damaged(row.id)
    return graph


def _is_node(node: Any) -> bool:
    return isinstance(node, dict)
