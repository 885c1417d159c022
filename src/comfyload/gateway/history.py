"""What clients may ask about their jobs: the history, the list of jobs, the queue; from our own store alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from comfyload.comfy.wire.listed import list_jobs, named_outputs
from comfyload.gateway import forms
from comfyload.gateway.job import ClientJob
from comfyload.gateway.service import Gateway


class History:
    """Of one tenant at a time: nobody sees another's."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def entry(self, job_id: str, tenant: str) -> bytes | None:
        """The entry of a job that has ended; None: there is none, or it has not."""
        entry = self._gateway.store.entry(job_id, tenant)
        return None if entry is None else self._gateway.entries.get(job_id) or entry

    def all(self, tenant: str, limit: int | None, offset: int) -> Iterator[bytes]:
        """Oldest first: all, or `limit` from `offset`; a negative offset means the newest `limit`."""
        rows = self._gateway.store.ids(tenant)
        if limit is not None or offset > 0:
            start = len(rows) - limit if offset < 0 and limit is not None else max(0, offset)
            rows = rows[max(0, start) :]
            rows = rows if limit is None else rows[: max(1, limit)]
        kept, store, before = self._gateway.entries, self._gateway.store, b"{"
        for job_id in rows:
            entry = kept.get(job_id) or store.entry(job_id, tenant)
            if entry is not None:
                yield b"%b%b: %b" % (before, forms.dumps(job_id), entry)
                before = b", "
        yield b"}" if before == b", " else b"{}"

    def forget(self, tenant: str, ids: list[Any] | None) -> None:
        """Forget these; None: all that have ended. Those that need attention stay, for an operator."""
        store = self._gateway.store
        gone = store.ids(tenant) if ids is None else [str(each) for each in ids]
        for job_id in gone:
            row = store.find(job_id)
            if row is not None and row.tenant == tenant and row.entry is not None:
                store.forget(job_id)
                self._gateway.entries.forget(job_id)

    def queue(self, tenant: str) -> Iterator[bytes]:
        """As `/queue` shows it, graphs and all."""
        jobs = [job for job in self._gateway.jobs.values() if job.tenant == tenant]
        running = [job for job in jobs if job.began]
        waiting = sorted((job for job in jobs if not job.began), key=lambda job: job.number)
        for before, listed in ((b'{"queue_running": [', running), (b'], "queue_pending": [', waiting)):
            yield before
            for job in listed:
                row = self._row(job)
                yield row if job is listed[0] else b", " + row
        yield b"]}"

    def _row(self, job: ClientJob) -> bytes:
        graph, extra, targets = self._gateway.store.payload(job.id)
        more: forms.Entry = {"create_time": job.created_ms}
        if job.client_id is not None:
            more["client_id"] = job.client_id
        added = forms.dumps(more)
        extra = added if extra in (b"", b"{}") else extra[:-1] + b", " + added[1:]
        number, job_id = forms.dumps(job.number), forms.dumps(job.id)
        return b"[%b, %b, %b, %b, %b]" % (number, job_id, graph or b"{}", extra, targets or b"[]")

    def listed(self, tenant: str, query: dict[str, str]) -> tuple[dict[str, Any], int]:
        """The body and the status of `GET /api/jobs`."""
        jobs = [forms.unended_item(job) for job in self._gateway.jobs.values() if job.tenant == tenant]
        jobs += [forms.loads(item) for item in self._gateway.store.items(tenant)]
        return list_jobs(jobs, query)

    def job(self, job_id: str, tenant: str) -> dict[str, Any] | None:
        """One job in full."""
        job, store = self._gateway.jobs.get(job_id), self._gateway.store
        if job is not None:
            return forms.unended_item(job) if job.tenant == tenant else None
        row, entry = store.find(job_id), self.entry(job_id, tenant)
        if row is None or entry is None or row.item is None:
            return None
        found = forms.loads(entry)
        item: dict[str, Any] = forms.loads(row.item)
        return item | {
            "outputs": {node: named_outputs(output) for node, output in found["outputs"].items()},
            "execution_status": found["status"],
            "workflow": {"prompt": found["prompt"][2], "extra_data": found["prompt"][3]},
        }
