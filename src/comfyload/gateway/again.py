"""Jobs that have failed for good, sent again or given up: each is a new job with an id of its own."""

import uuid

from comfyload.gateway import forms
from comfyload.gateway.intake import Intake, Posted
from comfyload.gateway.service import Gateway
from comfyload.gateway.store import Row


class NotSent(Exception):
    """Why the job is not sent again; `status` as HTTP has it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Again:
    """`tenant` None: whose job it is does not matter."""

    def __init__(self, gateway: Gateway, intake: Intake) -> None:
        self._gateway = gateway
        self._intake = intake
        self._store = gateway.store

    async def send(self, job_id: str, tenant: str | None) -> str:
        """Send the job again; the id of the new one. One that was sent again already, and waits, runs or is done, is
        not sent twice: a second click gets the id that the first got.

        Raises:
            NotSent: it cannot be.
            Refused: the servers are busy, or refuse it.
        """
        row = self.newest(self._found(job_id, tenant))
        if row.id in self._gateway.jobs or (row.state == "completed" and row.id != job_id):
            if row.id == job_id:
                raise NotSent(409, "the job has not ended")
            self._store.attended(job_id)
            return row.id
        if row.state == "completed":
            raise NotSent(409, "the job is done")
        if not row.graph:
            raise NotSent(409, "its workflow was not kept")
        new = id_again(row.id, row.again + 1)
        await self._intake.submit(
            Posted(
                graph=forms.loads(row.graph),
                tenant=row.tenant,
                prompt_id=new,
                client_id=row.client_id,
                extra=forms.loads(row.extra),
                targets=forms.loads(row.targets) if row.targets else None,
                deadline_s=row.deadline_s,
            )
        )
        self._store.attended(row.id, row.again + 1)
        return new

    def give_up(self, job_id: str, tenant: str | None) -> None:
        """The job needs no attention any more.

        Raises:
            NotSent: there is no such job.
        """
        self._store.attended(self._found(job_id, tenant).id)

    def newest(self, row: Row) -> Row:
        """The job that it became the last time it was sent again; itself, if it never was."""
        while (later := self.became(row)) is not None:
            row = later
        return row

    def became(self, row: Row) -> Row | None:
        # If we were killed while it was sent, the new one is there and not counted yet.
        for number in (row.again + 1, row.again):
            found = self._store.find(id_again(row.id, number)) if number else None
            if found is not None:
                return found
        return None

    def _found(self, job_id: str, tenant: str | None) -> Row:
        row = self._store.find(job_id)
        if row is None or (tenant is not None and row.tenant != tenant):
            raise NotSent(404, "there is no such job")
        return row


def id_again(job_id: str, number: int) -> str:
    """The id of the job that another becomes when it is sent again for the so many-th time."""
    return str(uuid.uuid5(uuid.UUID(job_id), f"again {number}"))
