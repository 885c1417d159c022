"""Opens a connection to a server: its name is resolved, its addresses are tried, TLS is agreed on."""

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import aiohappyeyeballs
from yarl import URL

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]

P = TypeVar("P", bound=asyncio.BaseProtocol)

NEXT_ADDRESS_S = 0.25
"""After so long the next address of a server is tried too, RFC 8305."""


class NotConnected(Exception):
    """There is no connection; the text says why, in the system's own words."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{'TLS failed: ' if isinstance(error, ssl.SSLError) else ''}{_reason(error)}")


async def open_socket(url: URL) -> socket.socket:
    """A socket that is connected to the server of an address.

    Raises:
        NotConnected: it is not.
    """
    host, port = host_of(url), url.port
    try:
        found = await _addresses(host, port)
        return await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1)
    except (OSError, UnicodeError) as error:
        raise NotConnected(error) from error


async def _addresses(host: str, port: int | None) -> Sequence[AddressInfo]:
    with suppress(socket.gaierror):  # a number needs no thread that looks a name up
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def open_connection(url: URL, tls: ssl.SSLContext | None, protocol: Callable[[], P]) -> P:
    """A connection to the server of an address, over TLS if there is a context for it.

    Raises:
        NotConnected: there is none.
    """
    connected = await open_socket(url)
    try:
        _, made = await asyncio.get_running_loop().create_connection(
            protocol, sock=connected, ssl=tls, server_hostname=host_of(url) if tls is not None else None
        )
    except OSError as error:
        raise NotConnected(error) from error
    except BaseException:
        connected.close()
        raise
    return made


def host_of(url: URL) -> str:
    """The name or number of an address, as DNS and certificates have it."""
    return (url.raw_host or "").rstrip(".")


def tls_context(ca_file: str | None, insecure: bool) -> ssl.SSLContext:
    """How TLS is spoken: certificates are checked unless `insecure`, against `ca_file` or the system's authorities.

    Raises:
        OSError: `ca_file` cannot be read.
    """
    context = ssl.create_default_context(cafile=ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError | socket.gaierror):
        # Where several addresses were tried in vain, their errors are in the text alone.
        numbers = {error.errno} if error.errno else set(map(int, re.findall(r"\[Errno (\d+)\]", str(error))))
        if len(numbers) == 1 and (number := numbers.pop()) > 0:
            return os.strerror(number).lower()
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return str(text).rstrip(".").lower() or type(error).__name__
