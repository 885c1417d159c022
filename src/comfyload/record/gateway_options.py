"""How a gateway is configured, as flags and the TOML file under them say it.

A setting that is both has a `Flag`; None, False and an empty list stand for one that was not given.
"""

from typing import Annotated

from msgspec import Meta, Struct

from comfyload.record.flag import SERVER, Flag

ACCESS = "Who may call"

NO_AUTH = (
    "--no-auth: everybody who reaches this address can run any workflow on your servers, see everybody's pictures and "
    "prompts, and cancel everybody's jobs"
)


class GatewayFlags(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What flags and the file can say alike. None, False and an empty list: it was not given."""

    servers: Annotated[str | None, Flag("--servers", "FILE", "A TOML file with a table for each server.", SERVER)] = (
        None
    )
    retry_policy: Annotated[
        str | None,
        Flag(
            "--retry-policy",
            "FILE",
            "The retry policy, which comfyload policy makes.",
            SERVER,
            default="a cautious policy",
        ),
    ] = None
    ledger: Annotated[
        str | None, Flag("--ledger", "DIR", "Where jobs are kept: a run directory a day and server.", default="ledger")
    ] = None
    keep_workflow: Annotated[
        bool, Flag("--keep-workflow", "", "Keep the workflows of jobs, not only times and results.")
    ] = False
    uploads_gb: Annotated[
        float | None,
        Flag(
            "--uploads-gb",
            "GB",
            "How much uploads may take; the least recently used one goes first.",
            default="10",
            least=1.0,
        ),
    ] = None
    drain_s: Annotated[
        float | None,
        Flag("--drain", "TIME", "How long jobs that run may go on after SIGTERM.", default="30s", least=0.0),
    ] = None
    host: Annotated[str | None, Flag("--host", "HOST", "The address to listen on.", ACCESS, default="127.0.0.1")] = None
    port: Annotated[
        int | None, Flag("--port", "", "Port; 0 takes a free one.", ACCESS, default="8189", least=0, most=65535)
    ] = None
    allow_host: Annotated[
        list[str] | None,
        Flag("--allow-host", "NAME", "A name by which the gateway is called. Repeatable.", ACCESS, many=True),
    ] = None
    token: Annotated[
        str | None, Flag("--token", "env:NAME|FILE", "The token that is demanded; whoever has it may do all.", ACCESS)
    ] = None
    no_auth: Annotated[
        bool,
        Flag("--no-auth", "", "Demand no token off loopback: everybody can run, see and cancel everything.", ACCESS),
    ] = False
    tls_cert: Annotated[str | None, Flag("--tls-cert", "FILE", "Serve https: the certificates, PEM.", ACCESS)] = None
    tls_key: Annotated[str | None, Flag("--tls-key", "FILE", "The key of --tls-cert, PEM.", ACCESS)] = None


class ServerTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`[[server]]`. `name`: else gpu1, gpu2, … `headers`: sent with every call; a value may be `env:NAME`.

    `weight`, `tags`: for a run over several servers; a gateway does not read them. A server of weight 2 gets twice as
    much as one of 1. A tag is a name that several servers share.
    """

    url: str
    name: str = ""
    headers: dict[str, str] = {}
    ca_file: str | None = None
    insecure: bool = False
    weight: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    tags: list[str] = []


class TenantTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[tenant]]`. `token`: `env:NAME`, or else `token_file`. `operator`: it directs the servers and sees all jobs."""

    name: str
    token: str | None = None
    token_file: str | None = None
    operator: bool = False


class ServersFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of `--servers`."""

    server: list[ServerTable] = []


class GatewayFile(GatewayFlags, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of `--config`."""

    server: list[ServerTable] = []
    tenant: list[TenantTable] = []
