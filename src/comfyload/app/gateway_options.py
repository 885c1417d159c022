"""How a gateway is configured: by flags, and by a file under them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from comfyload.app.gateway import GatewayOptions
from comfyload.comfy.address import parse_server
from comfyload.gateway.fleet import Given, named
from comfyload.retry.policy import decode, default
from comfyload.text_files import read_text


def options_of(*, servers: Sequence[str], policy: Path | None, ledger: Path, port: int) -> GatewayOptions:
    urls = [parse_server(server) for server in servers]
    given = [Given(name=name, url=url) for name, url in zip(named(urls), urls, strict=True)]
    chosen = default() if policy is None else decode(read_text(str(policy)).encode())
    return GatewayOptions(servers=given, policy=chosen, ledger=ledger, port=port)
