"""How a job ended: what its client can ask about it, and what the ledger holds of it, each written once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from comfyload.comfy.wire.listed import ended_item
from comfyload.gateway import forms
from comfyload.gateway.disk import Disk
from comfyload.gateway.files import Files
from comfyload.gateway.fleet import Member
from comfyload.gateway.job import ClientJob, State
from comfyload.gateway.ledger import TrafficLedger
from comfyload.gateway.memory import MOST_BYTES, Entries
from comfyload.gateway.store import Store
from comfyload.record.model import Execution, Record, Server

NOWHERE = Server(url="")


class JobEnds:
    """`keep_payloads`: what a job was to run is kept after its end, too."""

    def __init__(
        self, store: Store, ledger: TrafficLedger, files: Files, entries: Entries, disk: Disk, *, keep_payloads: bool
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._files = files
        self._entries = entries
        self._disk = disk
        self._keep_payloads = keep_payloads
        self._writing = asyncio.Lock()
        """Held from when an end is in the store until it is in the ledger, which is owed one end at a time."""

    async def entry(
        self, job: ClientJob, execution: Execution, there: forms.Entry | None, member: Member | None
    ) -> tuple[forms.Entry, State]:
        """The job's entry in the history, and its state. `there`: that of `member`, the server that had it last."""
        ended_ms = int(time.time() * 1000)
        graph, extra, _ = self._store.payload(job.id)
        if len(graph) > MOST_BYTES and not self._keep_payloads:
            graph = b""  # no entry that has it would be kept
        skew_ms = forms.skew_of(job, execution, job.due)
        if member is not None and skew_ms is not None:
            if job.started_ms is not None and len(job.attempts) < 2:  # it was told by what was known then
                job.started_ms += skew_ms - member.skew_ms
            member.skew_ms = skew_ms
        skew_ms = member.skew_ms if member is not None else 0
        entry, state = forms.entry_of(job, there, forms.loads(graph), forms.loads(extra), execution, ended_ms, skew_ms)
        if member is not None:
            entry["outputs"] = self._files.tagged(entry["outputs"], member.name)
        if self._files.apart:
            made = self._files.full_names(entry["outputs"])
            await self._disk.write(lambda: self._store.own(job.tenant, made))
        return entry, state

    async def write(
        self, job: ClientJob, execution: Execution, entry: forms.Entry, state: State, members: Sequence[Member]
    ) -> bool:
        """Keep the end, however long it takes until the disk takes it; False: to its client the job never was, since it
        was removed before it ran, as in ComfyUI.
        """
        owed = await self._disk.write(lambda: self._owed(job, execution, members))
        in_history = state != "cancelled" or job.began
        if in_history:
            self._entries.keep(job.id, forms.dumps(entry))
            on_disk = forms.dumps(entry if self._keep_payloads else forms.without_payload(entry))
            since = {} if job.started_ms is None else {"execution_start_time": job.started_ms}  # of the first attempt
            item = forms.dumps(ended_item(entry) | since | {"comfyload": forms.more_of(job)})
            end = partial(
                self._store.end,
                job.id,
                state,
                item,
                on_disk,
                attention=state == "failed",
                keep_payload=state == "failed" or self._keep_payloads,
                owed=owed,
            )
        else:
            end = partial(self._store.drop, job.id, owed)
        async with self._writing:
            await self._disk.write(end)
            await self._disk.write(lambda: self._ledger.write(owed))  # if we die before, the next process does it
        return in_history

    def _owed(self, job: ClientJob, execution: Execution, members: Sequence[Member]) -> bytes:
        """What the ledger is to hold of it, as its server's job; of one that no server had, as the first server's."""
        member = next((each for each in members if each.name == job.server), members[0] if members else None)
        record = Record(
            index=0, prompt_id=job.id, workflow=job.workflow, warmup=False, due=job.due, values={}, execution=execution
        )
        name, facts = ("none", None) if member is None else (member.name, member.facts)
        return self._ledger.prepare(record, name, facts or NOWHERE, job.retries)
