"""Jobs come in: which are taken, which are refused and why, and what their clients hear."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from comfyload.comfy.wire.calls import Reply
from comfyload.errors import WorkflowError
from comfyload.gateway import forms
from comfyload.gateway.database import LONG
from comfyload.gateway.fair import Demand
from comfyload.gateway.job import ClientJob
from comfyload.gateway.memory import give_back
from comfyload.gateway.service import Gateway
from comfyload.gateway.store import Row
from comfyload.tasks import within
from comfyload.workflow.graph import Workflow, checked
from comfyload.workflow.preflight import deadly

ASSIGNED_S, ANSWERED_S = 1.0, 10.0
"""How long a POST waits, where a server seems free, until one is chosen, and for that server's answer."""

LOOK_S = 0.01
MOST_WAITING = 100_000
LOOKS = 4
SURE = 3.0
"""Standard deviations: what is promised must hold for 99 in 100, also where jobs are unlike those before."""


class PromptRefused(Exception):
    """The answer to a prompt that is not taken."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


class Posted(Struct, kw_only=True):
    """A prompt as a client posted it. `key`: its `Idempotency-Key`. `deadline_s`: what it requested."""

    graph: dict[str, Any]
    tenant: str
    prompt_id: str | None = None
    client_id: str | None = None
    extra: dict[str, Any] = {}
    targets: list[str] | None = None
    number: float | None = None
    front: bool = False
    key: str | None = None
    deadline_s: float | None = None


class Intake:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._demand = Demand()
        self._number = gateway.store.number("number", 0)
        self.closed = False
        """Whether the gateway is being stopped, and takes no more."""

    async def submit(self, posted: Posted) -> bytes:
        """Take a prompt: it is on disk when this returns the body of the answer.

        Raises:
            PromptRefused: it is not taken.
        """
        gateway = self._gateway
        graph, targets = forms.dumps_graph(posted.graph), b"" if posted.targets is None else forms.dumps(posted.targets)
        hashed = hashlib.sha256(graph)
        hashed.update(b"\0" + targets)
        digest = hashed.digest()
        same, pinned = self._same(posted, digest), frozenset[str]()
        if same is None and not self.closed:
            pinned = await gateway.inputs.collect(posted.graph, posted.tenant)
            same = self._same(posted, digest)  # it may have been sent once more meanwhile
        if same is not None:
            return await self._answer_again(same)
        if self.closed:
            text = "The gateway is being stopped. Try again in 10 s."
            raise PromptRefused(503, forms.refusal("draining", text), {"Retry-After": "10"})
        workflow = workflow_of(posted.graph)
        lacking = self._lacking(workflow)
        self._check_links(workflow, posted.targets)
        if pinned:
            lacking |= {member.address for member in gateway.fleet.members if member.name not in pinned}
        name = "unreadable" if workflow is None else gateway.ledger.know(workflow, gateway.fleet.info)
        self._check_files(posted)
        job = self._job(posted, name, lacking)
        self._admit(job)
        row = Row(
            id=job.id,
            tenant=job.tenant,
            client_id=job.client_id,
            created_ms=job.created_ms,
            taken_ms=gateway.steady.now_ms(),
            number=job.number,
            workflow=name,
            deadline_s=posted.deadline_s,
            key=posted.key,
            digest=digest,
            graph=graph,
            extra=forms.dumps({key: posted.extra[key] for key in posted.extra if key not in forms.SECRETS}),
            targets=targets,
        )
        secrets = {key: posted.extra[key] for key in forms.SECRETS if key in posted.extra}
        del graph, posted, workflow  # they may be large
        if len(row.graph) > LONG:
            give_back()
        gateway.store.add(row)
        del row  # a server may take its time
        gateway.secrets[job.id] = secrets
        job.posting, job.sent = True, asyncio.Event()
        gateway.counts["accepted"] += 1
        gateway.add(job)
        try:
            return await self._answer(job)
        finally:
            job.posting, job.sent = False, None

    def _same(self, posted: Posted, digest: bytes) -> Row | None:
        """The job that this prompt is, if it was sent before and its client has not forgotten it.

        Raises:
            PromptRefused: its key or its id is another job's.
        """
        store = self._gateway.store
        same = store.find_key(posted.tenant, posted.key) if posted.key else None
        if same is not None and same.digest != digest:
            text = "The Idempotency-Key was used with another prompt"
            raise PromptRefused(422, forms.refusal("idempotency_key_reused", text))
        if same is None and posted.prompt_id is not None:
            same = store.find(posted.prompt_id)
        if same is not None and same.tenant != posted.tenant:
            raise PromptRefused(400, forms.refusal("invalid_prompt_id", "prompt_id is in use"))
        if same is not None and same.forgotten:
            store.drop(same.id)
            return None
        return same

    def _lacking(self, workflow: Workflow | None) -> frozenset[str]:
        """The addresses of servers that lack one of its classes.

        Raises:
            PromptRefused: all of them do.
        """
        fleet = self._gateway.fleet
        if workflow is None:
            return frozenset()
        lacking = fleet.lacking({workflow.class_of(node) for node in workflow.graph})
        if not lacking or len(lacking) < len(fleet):
            return frozenset(member.address for member in fleet.members if member.name in lacking)
        nowhere = set.intersection(*map(set, lacking.values()))
        wanted = nowhere or set.union(*map(set, lacking.values()))
        node = next(node for node in workflow.graph if workflow.class_of(node) in wanted)
        message = f"Node '{workflow.title_of(node)}' not found. The custom node may not be installed."
        details = f"Node ID '#{node}'"
        if len(fleet) > 1:
            each = "; ".join(f"{name} lacks {', '.join(classes[:5])}" for name, classes in lacking.items())
            message = message if nowhere else f"No server has all the nodes of this workflow: {each}"
            details = f"{details}; {each}"
        extra = {"node_id": node, "class_type": workflow.class_of(node), "node_title": workflow.title_of(node)}
        self._gateway.counts["refused"] += 1
        raise PromptRefused(400, forms.refusal("missing_node_type", message, details, extra))

    def _check_links(self, workflow: Workflow | None, targets: list[str] | None) -> None:
        """Refuse a graph that would end the worker of one server after another.

        Raises:
            PromptRefused: it would.
        """
        fleet = self._gateway.fleet
        problem = None if workflow is None else deadly(workflow, fleet.info, fleet.version)
        if problem is not None and (targets is None or set(targets) & set(problem.outputs)):
            self._gateway.counts["refused"] += 1
            text = f"A ComfyUI would stop working on node '#{problem.node}': {problem.message}"
            raise PromptRefused(400, forms.refusal("invalid_prompt", text, f"Node ID '#{problem.node}'"))

    def _check_files(self, posted: Posted) -> None:
        """Refuse a graph that reads what another tenant's job made.

        Raises:
            PromptRefused: it does.
        """
        files, store = self._gateway.files, self._gateway.store
        for name in files.results_in(posted.graph) if files.apart else ():
            if not store.owns(posted.tenant, name):
                file = name.rpartition("\n")[2]
                raise PromptRefused(400, forms.refusal("invalid_prompt", f"Invalid image file: {file}"))

    def _job(self, posted: Posted, name: str, lacking: frozenset[str]) -> ClientJob:
        gateway, number = self._gateway, posted.number
        if number is None:
            number = -self._number if posted.front else self._number
            self._number += 1
            gateway.store.set_fact("number", self._number)
        return ClientJob(
            id=posted.prompt_id or str(uuid.uuid4()),
            tenant=posted.tenant,
            client_id=posted.client_id,
            due=gateway.clock(),
            created_ms=int(time.time() * 1000),
            number=number,
            workflow=name,
            workflow_id=forms.workflow_id_in(posted.extra),
            limit_s=limit_s(gateway, posted.deadline_s),
            not_on=lacking,
            files=gateway.files.named_in(posted.graph, posted.tenant),
            expected_s=gateway.client.expected_s(name),
        )

    def _admit(self, job: ClientJob) -> None:
        """Refuse a job that could not be done by its deadline, by what is ahead of it.

        Raises:
            PromptRefused: it could not.
        """
        gateway = self._gateway
        waiting = sum(map(len, gateway.queues.values()))
        ahead_s, doubt_s = self._ahead_s(job)
        late_s = ahead_s + job.expected_s + doubt_s - job.limit_s if ahead_s else -math.inf
        if late_s > 0.0:
            late_s -= self._hopeless_s(job.due)
        if waiting < MOST_WAITING and late_s <= 0.0:
            self._demand.note(job.tenant, job.expected_s, job.due)
            return
        wait_s = max(1, math.ceil(late_s)) if late_s > 0.0 else 60
        gateway.counts["refused"] += 1
        message = f"The servers are busy: {ahead_s:.0f} s of work are waiting. Try again in {wait_s} s."
        raise PromptRefused(
            503, forms.refusal("queue_full", message, f"{waiting} jobs wait"), {"Retry-After": str(wait_s)}
        )

    def _ahead_s(self, job: ClientJob) -> tuple[float, float]:
        """Seconds until a job that came now would begin, by what the servers have to do before it; and by how much its
        end may be later than expected, by how wrong that was before, and how much more others may bring.
        """
        gateway = self._gateway
        on_servers = gateway.client.backlog_s()
        if not on_servers:
            return 0.0, 0.0
        rates = self._demand.rates(job.due)
        rates.pop(job.tenant, None)
        servers, found_s, waiting = len(on_servers), 0.0, 0.0
        for _ in range(LOOKS):  # the longer it waits, the more of others' work comes meanwhile, up to their shares
            coming_s = {name: rate * found_s for name, rate in rates.items()}
            waiting = self._waiting_s(job, coming_s)
            found_s = (sum(on_servers) + waiting) / servers
        coming = waiting - self._waiting_s(
            job, {}
        )  # jobs that come at random: the variance of their number is its mean
        before = gateway.client.variance(found_s * servers) + coming * job.expected_s
        return found_s, SURE * math.sqrt(before / servers**2 + gateway.client.variance(job.expected_s))

    def _hopeless_s(self, now: float) -> float:
        """By how much less there is to wait for, since some jobs will not be done: servers were away for long."""
        on_servers, queues = self._gateway.client.backlog_s(), self._gateway.queues.values()
        servers = len(on_servers)
        before_s = sum(on_servers) / servers
        return sum(queue.hopeless_s(now, before_s, servers) for queue in queues) / servers

    def _waiting_s(self, job: ClientJob, coming_s: Mapping[str, float]) -> float:
        queues = self._gateway.queues.values()
        return sum(queue.ahead_s(job.tenant, job.number, job.expected_s, coming_s) for queue in queues)

    async def _answer(self, job: ClientJob) -> bytes:
        """What the client hears: what a server says that is free; else that the job was taken.

        Raises:
            PromptRefused: the server refused it.
        """
        plain = forms.accepted(job.id, job.number, None)
        if not self._gateway.launched(job) or job.sent is None:
            return plain
        if not await within(ASSIGNED_S, job.sent.wait(), False) or job.answer is None:
            return plain
        reply = await self._first_answer(job)
        if reply is None:
            return plain
        if reply.status == 400:
            raise PromptRefused(400, reply.body)
        errors = _node_errors(reply.body) if reply.status == 200 else None
        if errors:
            self._gateway.store.noted(job.id, forms.dumps(errors))
            return forms.accepted(job.id, job.number, forms.dumps(errors))
        return plain

    async def _answer_again(self, same: Row) -> bytes:
        """What the client hears that sends the same prompt once more: as the first time, be that not known yet.

        Raises:
            PromptRefused: the server refused it.
        """
        job = self._gateway.jobs.get(same.id)
        if job is not None and job.posting:
            return await self._answer(job)
        return forms.accepted(same.id, same.number, same.node_errors)

    async def _first_answer(self, job: ClientJob) -> Reply | None:
        """The answer of a server that takes the job, or the refusal of the last; None: none answers soon."""
        time_of = asyncio.get_running_loop().time
        until = time_of() + ANSWERED_S
        while (answer := job.answer) is not None:
            await asyncio.wait([answer], timeout=max(0.0, until - time_of()))
            if not answer.done() or answer.cancelled():
                return None
            if answer.result().status != 400:
                return answer.result()
            # What one server lacks another may have: the job is sent there, or it has ended.
            while job.answer is answer and job.id in self._gateway.jobs:
                if time_of() >= until:
                    return None
                await asyncio.sleep(LOOK_S)
            if job.answer is answer:
                return answer.result()
        return None


def limit_s(gateway: Gateway, requested_s: float | None) -> float:
    """How long a job may take: what it asks for, and no longer than the policy says."""
    return min(
        math.inf if requested_s is None else requested_s,
        math.inf if gateway.policy.deadline_s is None else gateway.policy.deadline_s,
    )


def workflow_of(graph: dict[str, Any]) -> Workflow | None:
    """The graph, if we can read it; a server may still say what is wrong with it."""
    try:
        return checked(graph, {}, "workflow", "the workflow")
    except WorkflowError:
        return None


def _node_errors(body: bytes) -> Any:
    try:
        return forms.loads(body).get("node_errors")
    except (ValueError, AttributeError):
        return None
