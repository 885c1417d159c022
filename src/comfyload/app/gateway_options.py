"""How a gateway serves, whatever configures it: a file, flags, or a test."""

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from comfyload.gateway.fleet import Connect, ServerConfig
from comfyload.record.policy import Policy


class GatewayOptions(Struct, frozen=True, kw_only=True):
    """How a gateway serves. `tokens`: each tenant's; None: nobody needs one. `operators`: tenants who may direct
    the servers and see everybody's jobs; None: whoever is let in. `uploads_gb`: what is kept of uploads, in billions of
    bytes. `drain_s`: how long jobs that run
    may go on after the order to stop; those that wait are taken up by the next process.
    """

    servers: Sequence[ServerConfig]
    policy: Policy
    ledger: Path
    host: str = "127.0.0.1"
    port: int = 8189
    tokens: Mapping[str, str] | None = None
    operators: Collection[str] | None = None
    allowed_hosts: Sequence[str] = ()
    tls: tuple[str, str] | None = None
    keep_workflow: bool = False
    connect: Connect | None = None
    uploads_gb: float = 10.0
    drain_s: float = 30.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
