"""What a job made, for the page that shows the job: fetched from the server that ran it."""

from comfyload.comfy.api import api_of
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.gateway.fleet import Member
from comfyload.gateway.service import Gateway


class NotGiven(Exception):
    """Why a file is not given out."""


class MadeFiles:
    """Where tenants are kept apart, each is given what its own jobs made; an operator, too."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def read(
        self, tenant: str, job_id: str, address: str, file: str, *, timeout_s: float, most_bytes: int
    ) -> Reply:
        """What the server at the address answers to a call for the file `kind/folder/name`.

        Raises:
            NotGiven: it is another tenant's, or no server of ours has it.
            TransportError: the server does not answer.
        """
        member = self._gateway.fleet.at(address)
        if member is None:
            raise NotGiven("its server has left the gateway")
        kind, *folders, name = file.split("/")
        folder = "/".join(folders)
        if self._gateway.files.apart and not self._is_of(tenant, job_id, member, f"{kind}\n{folder}\n{name}"):
            raise NotGiven("it is another tenant's")
        path = api_of(member.transport).view_path(name, folder, kind)
        return await member.transport.call(Request(method="GET", path=path, timeout_s=timeout_s, most_bytes=most_bytes))

    def _is_of(self, tenant: str, job_id: str, member: Member, name: str) -> bool:
        """Whether the job is the tenant's, and the file is known as one that the tenant's jobs made."""
        store = self._gateway.store
        row = store.find(job_id)
        if row is not None and row.tenant != tenant:
            return False
        names = [f"{member.name}\n{name}"]
        if row is not None or not self._gateway.files.marked:
            names.append(f"\n{name}")  # made while there was no other server
        return any(store.owns(tenant, each) for each in names)
