"""The servers that the options of a run name: their addresses, names and headers, and a transport to each."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct, structs
from yarl import URL

from comfyload.comfy.address import parse_headers, parse_server, redacted
from comfyload.comfy.http import Http
from comfyload.errors import UsageError
from comfyload.record.gateway_options import ServerTable
from comfyload.record.options import RunOptions


class Connected(Struct, frozen=True):
    """A transport to one server. `name`: "" where there is but one. `headers`: the names of those that it is sent."""

    http: Http
    name: str
    headers: list[str]


def server_url(server: str) -> str:
    """`:8188` is this machine."""
    return f"127.0.0.1{server}" if server.startswith(":") and server[1:].isdigit() else server


def servers_given(texts: Sequence[str]) -> dict[str, object]:
    """The fields of the options for servers that are each `URL` or `NAME=URL`.

    Raises:
        UsageError: two have one name or one address, or one is not valid.
    """
    from comfyload.app.run.server_tables import named_table

    tables = [structs.replace(table, url=server_url(table.url)) for table in map(named_table, texts)]
    if len(tables) == 1:
        return {"server": tables[0].url, "servers": []}
    return {"server": tables[0].url, "servers": tables}


def servers_in(file: str) -> dict[str, object]:
    """The fields of the options for the servers of a TOML file.

    Raises:
        UsageError: it cannot be read, or names no server.
    """
    from comfyload.app.run.server_tables import read_servers

    tables = read_servers(file)
    if not tables:
        raise UsageError(f"{file} names no server", 'write a table [[server]] with url = "…" for each')
    return {"server": tables[0].url, "servers": tables}


def by_env(texts: Sequence[str]) -> bool:
    """Whether the servers are those of the environment variable, which a file of servers overrides."""
    return list(texts) == os.environ.get("COMFYLOAD_SERVER", "").split()


@asynccontextmanager
async def connect_all(options: RunOptions) -> AsyncIterator[list[Connected]]:
    """A transport to each server that the options name, in their order.

    Raises:
        UsageError: they name none, or an address or a header is invalid, or two servers are one.
    """
    tables = options.servers or [ServerTable(url=options.server)]
    for table in tables:
        if not table.url:
            raise UsageError("no server is given", "give --server http://127.0.0.1:8188")
        if "***" in table.url:
            raise UsageError("the server's address has *** in place of a secret", "give it again: --server URL")
    common = parse_headers(options.headers)
    async with AsyncExitStack() as stack:
        found = []
        for name, url, table in _named(tables, several=bool(options.servers)):
            headers = common | parse_headers([f"{key}={value}" for key, value in table.headers.items()])
            ca_file, insecure = table.ca_file or options.ca_file, table.insecure or options.insecure
            http = await stack.enter_async_context(Http.connect(url, headers, ca_file=ca_file, insecure=insecure))
            found.append(Connected(http, name, sorted(headers)))
        shown = [one.http.name for one in found]
        twice = next((name for name in shown if shown.count(name) > 1), None)
        if twice is not None:  # records name a server by this
            raise UsageError(f"two servers have the address {twice}", "give each server once")
        yield found


async def resolved(options: RunOptions) -> RunOptions:
    """The options with a server for each address that a server's name has, if they say so.

    Each gets the name in its Host header, so that a proxy there still knows which site is meant.

    Raises:
        UsageError: a name has no address, or https is spoken, whose certificate is the name's and not an address's.
    """
    if not options.resolve_all:
        return options
    tables: list[ServerTable] = []
    for table in options.servers or [ServerTable(url=options.server)]:
        tables += await _addresses(table)
    return structs.replace(options, server=tables[0].url, servers=tables, resolve_all=False)


async def _addresses(table: ServerTable) -> list[ServerTable]:
    url = parse_server(table.url)
    host = url.host or ""
    if _is_address(host):
        return [table]
    if url.scheme == "https":
        raise UsageError(
            f"--resolve-all: the certificate of {host} is the name's, not that of an address",
            "give each server by a name of its own: --server https://…",
        )
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, url.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--resolve-all: {host} has no address: {error.strerror or error}", "check the name") from None
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    host_header = {"Host": url.host_port_subcomponent or host, **table.headers}
    many = len(addresses) > 1
    return [
        structs.replace(
            table,
            url=str(url.with_host(address)),
            headers=host_header,
            name=f"{table.name}-{number}" if table.name and many else table.name,
        )
        for number, address in enumerate(addresses, 1)
    ]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _named(tables: Sequence[ServerTable], *, several: bool) -> list[tuple[str, URL, ServerTable]]:
    """Each with its name, or a free one, and its address."""
    if not several:
        return [("", parse_server(table.url), table) for table in tables]
    from comfyload.app.run.server_tables import configured

    given = configured(tables, {})
    return [(one.name, one.url, table) for one, table in zip(given, tables, strict=True)]


def without_secrets(tables: Sequence[ServerTable], connected: Sequence[Connected]) -> list[ServerTable]:
    """The tables as the manifest keeps them: with their names, and of headers only what names no secret."""
    if not tables:
        return []
    return [
        structs.replace(
            table,
            name=one.name,
            url=one.http.name,
            headers={key: value for key, value in table.headers.items() if key == "Host" or value.startswith("env:")},
        )
        for table, one in zip(tables, connected, strict=True)
    ]


def tables_again(tables: Sequence[ServerTable], again: RunOptions) -> list[ServerTable]:
    """The servers of a run with what is given again: of each, by its name, its address and its headers.

    Raises:
        UsageError: others are given, or not all, or a server's address held a secret and is not given.
    """
    given = {table.name: table for table in again.servers}
    if not tables:
        if given:
            raise UsageError("the run has one server", "give --server once")
        return []
    names = [table.name for table in tables]
    hint = " ".join(f"--server {name}=URL" for name in names)
    if again.server and sorted(given) != sorted(names):
        raise UsageError(f"the run has {len(names)} servers: {', '.join(names)}", f"give {hint}")
    found = []
    for table in tables:
        new = given.get(table.name)
        if new is None:
            if "***" in table.url:
                raise UsageError(f"the address of {table.name} held a secret, which is not kept", f"give {hint}")
            found.append(table)
            continue
        if redacted(parse_server(new.url)).rstrip("/") != table.url.rstrip("/"):
            moved = f"{table.name} was {table.url}, and records name it by that address"
            raise UsageError(moved, "give the address that it had in this run")
        found.append(structs.replace(table, url=new.url, headers=table.headers | new.headers, ca_file=new.ca_file))
    return found
