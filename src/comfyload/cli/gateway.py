"""`comfyload gateway`: ComfyUI's own protocol in front of one server or several."""

from typing import Annotated

import typer

from comfyload import clock
from comfyload.app.run.servers import server_url
from comfyload.cli.flags import DEFAULT_ARCHIVE
from comfyload.cli.output import echo
from comfyload.cli.signature import with_flags
from comfyload.record.flag import SERVER, Flag
from comfyload.record.gateway_options import NO_AUTH, GatewayFlags


@with_flags
def gateway(
    flags: GatewayFlags,
    config: Annotated[str | None, Flag("--config", "FILE", "Settings in TOML; flags go over them.")] = None,
    server: Annotated[
        list[str] | None, Flag("--server", "[NAME=]URL", "A ComfyUI server; repeat it for several.", SERVER, many=True)
    ] = None,
) -> None:
    """Serve ComfyUI's protocol in front of servers: retries, admission and failover for any application.

    Operators have a page under /comfyload/, as that of comfyload ui.

    SIGHUP reads the retry policy and the servers again. SIGTERM lets the jobs that run end; those that wait are taken
    up by the next process.

    [bold]Examples[/bold]

    comfyload gateway --server http://127.0.0.1:8188 --retry-policy retry.json

    comfyload gateway --config gateway.toml --port 8190
    """
    from aiohttp import web

    from comfyload.app.gateway import serve_gateway
    from comfyload.app.gateway_config import read_options
    from comfyload.gateway.http import TENANT
    from comfyload.web.on_demand import page_on_demand

    def note(text: str) -> None:
        echo(text, err=True)

    servers = [server_url(each) for each in server or []]
    options = read_options(flags, servers, config)
    if flags.no_auth and options.tokens is None:
        note(f"warning: {NO_AUTH}")

    async def serve() -> None:
        operators = options.operators

        def may(call: web.Request) -> bool:
            return operators is None or call[TENANT] in operators

        async with page_on_demand(options.ledger, DEFAULT_ARCHIVE, may) as page:
            await serve_gateway(
                options,
                lambda url: typer.echo(url),
                read=lambda known: read_options(flags, servers, config, known=known),
                note=note,
                more=page.routes,
            )

    clock.run(serve())
