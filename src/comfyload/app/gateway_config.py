"""How a gateway is configured: by a TOML file, and by flags over it.

What is secret stands in neither: a token or a header's value is `env:NAME`, or a token in a file of its own.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs
from yarl import URL

from comfyload.app.gateway_options import GatewayOptions, is_loopback
from comfyload.app.run.options import nearest_key
from comfyload.comfy.address import parse_headers, parse_server, with_credentials
from comfyload.comfy.socket import tls_context
from comfyload.errors import UsageError
from comfyload.gateway.fleet import ServerConfig, free_name
from comfyload.gateway.guard import DEFAULT
from comfyload.hidden import hide
from comfyload.record.gateway_options import GatewayFile, GatewayFlags, ServersFile, ServerTable, TenantTable
from comfyload.retry.policy import decode, default
from comfyload.text_files import read_text

LEAST_TOKEN = 16
"""Letters of a token: a shorter one is guessed."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAMED = re.compile(rf"({_NAME.pattern})=(.+)")

F = TypeVar("F", bound=Struct)


def read_options(
    flags: GatewayFlags, servers: Sequence[str], config: str | None, *, known: Mapping[URL, str] | None = None
) -> GatewayOptions:
    """The options: flags that were given over the file. `servers`: `URL` or `NAME=URL`, in place of the file's.

    `known`: names of servers by their addresses, which those without a name keep.

    Raises:
        UsageError: something is not valid, or contradicts something else.
    """
    found = _settings(flags, servers, config)
    tables = [_server(text) for text in servers] + found.server
    if found.servers is not None:
        tables += _read(found.servers, ServersFile).server
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
        servers=_given(tables, known or {}),
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
    file = GatewayFile() if config is None else _read(config, GatewayFile)
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


def _read(path: str, kind: type[F]) -> F:
    """A TOML file as a struct; an unknown key is refused, and the nearest known one is named."""
    text = read_text(path)
    try:
        return msgspec.convert(msgspec.toml.decode(text), kind)
    except msgspec.ValidationError as error:
        hint = nearest_key(str(error), (kind, ServerTable, TenantTable), "see infra/gateway/gateway.toml")
        raise UsageError(f"{path}: {error}", hint) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: invalid TOML: {error}", "see infra/gateway/gateway.toml") from None


def _tls(found: GatewayFlags) -> tuple[str, str] | None:
    if found.tls_cert is None and found.tls_key is None:
        return None
    if found.tls_cert is None or found.tls_key is None:
        raise UsageError("--tls-cert and --tls-key belong together", "give both; one PEM file may hold both")
    return found.tls_cert, found.tls_key


# --- servers


def servers_of(texts: Sequence[str]) -> list[ServerConfig]:
    """Servers, each `URL` or `NAME=URL`.

    Raises:
        UsageError: two have one name or one address, or one is not valid.
    """
    return _given([_server(text) for text in texts], {})


def _server(text: str) -> ServerTable:
    """`URL` or `NAME=URL`."""
    named = _NAMED.fullmatch(text)
    return ServerTable(url=text) if named is None else ServerTable(name=named[1], url=named[2])


def _given(tables: Sequence[ServerTable], known: Mapping[URL, str]) -> list[ServerConfig]:
    """The servers, each with a name of its own.

    Raises:
        UsageError: two have one name or one address, or one is not valid.
    """
    taken = {table.name for table in tables if table.name}
    found: dict[str, ServerConfig] = {}
    addresses: dict[URL, str] = {}
    for table in tables:
        url = parse_server(table.url)
        kept = known.get(url, "")
        name = table.name or (kept if kept not in taken else "") or free_name(taken | set(known.values()))
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"a server is called {name!r}", "use letters, digits, '-', '_' and '.', at most 64")
        if name in found or url in addresses:
            other = f"two servers are called {name!r}" if name in found else f"{name} is {addresses[url]} once more"
            raise UsageError(other, "give each server once, with a name of its own")
        taken.add(name)
        addresses[url] = name
        found[name] = _checked(name, url, table)
    return list(found.values())


def _checked(name: str, url: URL, table: ServerTable) -> ServerConfig:
    try:
        headers = parse_headers([f"{key}={value}" for key, value in table.headers.items()])
        with_credentials(url, headers)
        if table.ca_file is not None:
            tls_context(table.ca_file, table.insecure)
    except UsageError as error:
        raise UsageError(f"server {name}: {error.message}", error.hint) from None
    except OSError as error:
        raise UsageError(
            f"server {name}: ca_file {table.ca_file}: {error.strerror or error}", "give a PEM file"
        ) from None
    return ServerConfig(name=name, url=url, headers=headers, ca_file=table.ca_file, insecure=table.insecure)


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
        if _NAME.fullmatch(table.name) is None or table.name in tokens:
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
