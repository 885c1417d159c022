"""`comfyload gateway`: ComfyUI's own protocol in front of one server or several."""

from pathlib import Path
from typing import Annotated

import typer

from comfyload import clock
from comfyload.cli.signature import with_flags
from comfyload.record.flag import Flag


@with_flags
def gateway(
    server: Annotated[
        list[str],
        Flag("--server", "URL", "A ComfyUI server; repeat it for several.", env="COMFYLOAD_SERVER", many=True),
    ],
    policy: Annotated[
        Path | None, Flag("--retry-policy", "FILE", "The retry policy, which comfyload policy makes.")
    ] = None,
    ledger: Annotated[Path, Flag("--ledger", "DIR", "Where jobs are kept: a run directory a day and server.")] = Path(
        "ledger"
    ),
    port: Annotated[int, Flag("--port", "", "Port; 0 takes a free one.", least=0, most=65535)] = 8189,
) -> None:
    """Serve ComfyUI's protocol in front of servers: retries, admission and failover for any application.

    [bold]Example[/bold]: comfyload gateway --server http://127.0.0.1:8188 --retry-policy retry.json
    """
    from comfyload.app.gateway import serve_gateway
    from comfyload.app.gateway_options import options_of

    options = options_of(servers=server, policy=policy, ledger=ledger, port=port)
    clock.run(serve_gateway(options, lambda url: typer.echo(url)))
