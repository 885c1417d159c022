"""How a gateway is configured: by a TOML file, and by flags over it.

What is secret stands in neither: a token or a header's value is `env:NAME`, or a token in a file of its own.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs
from yarl import URL

from comfyload.app.gateway_options import GatewayOptions, is_loopback
from comfyload.app.run.server_tables import NAME, configured, named_table, read_servers, read_toml
from comfyload.errors import UsageError
from comfyload.gateway.fleet import ServerConfig
from comfyload.gateway.guard import DEFAULT
from comfyload.hidden import hide
from comfyload.record.gateway_options import GatewayFile, GatewayFlags, ServerTable, TenantTable
from comfyload.retry.policy import decode, default
from comfyload.text_files import read_text

LEAST_TOKEN = 16
"""Letters of a token: a shorter one is guessed."""


def read_options(
    flags: GatewayFlags, servers: Sequence[str], config: str | None, *, known: Mapping[URL, str] | None = None
) -> GatewayOptions:
    """The options: flags that were given over the file. `servers`: `URL` or `NAME=URL`, in place of the file's.

    `known`: names of servers by their addresses, which those without a name keep.

    Raises:
        UsageError: something is not valid, or contradicts something else.
    """
    found = _settings(flags, servers, config)
    tables = [named_table(text) for text in servers] + found.server
    if found.servers is not None:
        tables += read_servers(found.servers)
    if not tables:
        raise UsageError("no server is given", "give --server URL, --servers FILE, or [[server]] in --config")
    tokens, operators = _tenants(found)
    host = found.host or "127.0.0.1"
    if tokens is None and not is_loopback(host) and not found.no_auth:
        hint = "give --token env:NAME or [[tenant]] in --config; or --no-auth, and everybody can use your GPUs"
        raise UsageError(f"--host {host} lets others in, and no token is demanded", hint)
    if tokens is None and (found.allow_host or not is_loopback(host)):
        operators = frozenset()  # a stranger who directs the servers has every prompt sent to one of his own
    if tokens is not None and found.no_auth:
        raise UsageError("--no-auth and a token contradict each other", "leave one of them out")
    return GatewayOptions(
        servers=configured(tables, known or {}),
        policy=default() if found.retry_policy is None else decode(read_text(found.retry_policy).encode()),
        ledger=Path(found.ledger or "ledger"),
        host=host,
        port=_within("port", 8189 if found.port is None else found.port, 65535),
        tokens=tokens,
        operators=operators,
        allowed_hosts=found.allow_host or [],
        tls=_tls(found),
        keep_workflow=found.keep_workflow,
        uploads_gb=_within("uploads_gb", 10.0 if found.uploads_gb is None else found.uploads_gb, 1_000_000, least=1),
        drain_s=_within("drain_s", 30.0 if found.drain_s is None else found.drain_s, 86_400),
    )


def _settings(flags: GatewayFlags, servers: Sequence[str], config: str | None) -> GatewayFile:
    """The file with the flags over it; servers that are given by flags stand for the file's."""
    file = GatewayFile() if config is None else read_toml(config, GatewayFile, (ServerTable, TenantTable))
    if servers or flags.servers:
        file = structs.replace(file, server=[], servers=None)
    given = {name: getattr(flags, name) for name in GatewayFlags.__struct_fields__}
    given = {name: value for name, value in given.items() if value is not None and value is not False and value != []}
    return structs.replace(file, **given)


N = TypeVar("N", int, float)


def _within(name: str, value: N, most: int, least: int = 0) -> N:
    if not least <= value <= most:
        raise UsageError(
            f"{name} = {value:g} is not from {least} to {most}", "a port of 0 is a free one; times are in seconds"
        )
    return value


def _tls(found: GatewayFlags) -> tuple[str, str] | None:
    if found.tls_cert is None and found.tls_key is None:
        return None
    if found.tls_cert is None or found.tls_key is None:
        raise UsageError("--tls-cert and --tls-key belong together", "give both; one PEM file may hold both")
    return found.tls_cert, found.tls_key


def servers_of(texts: Sequence[str]) -> list[ServerConfig]:
    """Servers, each `URL` or `NAME=URL`.

    Raises:
        UsageError: two have one name or one address, or one is not valid.
    """
    return configured([named_table(text) for text in texts], {})


# --- tenants


def _tenants(found: GatewayFile) -> tuple[dict[str, str] | None, frozenset[str] | None]:
    """Each tenant's token, and who may direct the servers; None: no token is demanded, and everybody may."""
    tables = list(found.tenant)
    if found.token is not None:
        source: dict[str, Any] = {"token" if found.token.startswith("env:") else "token_file": found.token}
        tables.append(TenantTable(name=DEFAULT, operator=True, **source))
    if not tables:
        return None, None
    tokens: dict[str, str] = {}
    for table in tables:
        if NAME.fullmatch(table.name) is None or table.name in tokens:
            what = "twice" if table.name in tokens else "with an invalid name"
            raise UsageError(f"there is a tenant {table.name!r} {what}", "give each tenant a name of its own")
        token = _token(table)
        if token in tokens.values():
            raise UsageError(f"the tenant {table.name} has another tenant's token", "give each a token of its own")
        tokens[table.name] = token
    return tokens, frozenset(table.name for table in tables if table.operator)


def _token(table: TenantTable) -> str:
    """The token of a tenant; it is never quoted.

    Raises:
        UsageError: there is none, or it is easily guessed.
    """
    who = f"the tenant {table.name}"
    if (table.token is None) == (table.token_file is None):
        raise UsageError(f"{who} needs a token or a token_file", 'such as token = "env:SHOP_TOKEN"')
    if table.token is not None:
        if not table.token.startswith("env:"):
            hide(table.token)
            raise UsageError(f"the token of {who} stands in the file itself", "write env:NAME, or give a token_file")
        variable = table.token.removeprefix("env:")
        if variable not in os.environ:
            raise UsageError(f"the token of {who}: the environment has no {variable}", f"export {variable} first")
        token = os.environ[variable]
    else:
        token = read_text(str(table.token_file)).strip()
    return checked_token(token, f"the token of {who}")


def checked_token(token: str, what: str) -> str:
    """The token, which is never quoted.

    Raises:
        UsageError: it is easily guessed.
    """
    hide(token)
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        hint = "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        raise UsageError(f"{what} is shorter than {LEAST_TOKEN} letters, or has odd ones", hint)
    return token
