"""Servers as people write them down, for a gateway and for a run alike: `NAME=URL`, or tables of a TOML file."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct
from yarl import URL

from comfyload.app.run.options import nearest_key
from comfyload.comfy.address import parse_headers, parse_server, with_credentials
from comfyload.comfy.socket import tls_context
from comfyload.errors import UsageError
from comfyload.gateway.fleet import ServerConfig, free_name
from comfyload.record.gateway_options import ServersFile, ServerTable
from comfyload.text_files import read_text

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAMED = re.compile(rf"({NAME.pattern})=(.+)")

F = TypeVar("F", bound=Struct)


def read_servers(file: str) -> list[ServerTable]:
    """The servers of a TOML file.

    Raises:
        UsageError: it cannot be read, or has a key or a value that no such file has.
    """
    return read_toml(file, ServersFile, (ServerTable,)).server


def read_toml(path: str, kind: type[F], inner: Sequence[type[Struct]]) -> F:
    """A TOML file as a struct; an unknown key is refused, and the nearest known one is named. `inner`: its tables."""
    text = read_text(path)
    try:
        return msgspec.convert(msgspec.toml.decode(text), kind)
    except msgspec.ValidationError as error:
        hint = nearest_key(str(error), (kind, *inner), "see infra/gateway/gateway.toml")
        raise UsageError(f"{path}: {error}", hint) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: invalid TOML: {error}", "see infra/gateway/gateway.toml") from None


def named_table(text: str) -> ServerTable:
    """`URL` or `NAME=URL`."""
    named = _NAMED.fullmatch(text)
    return ServerTable(url=text) if named is None else ServerTable(name=named[1], url=named[2])


def configured(tables: Sequence[ServerTable], known: Mapping[URL, str]) -> list[ServerConfig]:
    """The servers, each with a name of its own. `known`: names by address, which those without a name keep.

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
        if NAME.fullmatch(name) is None:
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
