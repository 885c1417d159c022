"""TLS before a proxy, with a certificate that can be changed while connections come."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from comfyload.sim.proxy import Proxy

__all__ = ["Front", "certificate", "tls_front"]


def certificate(folder: Path, name: str, ago: int) -> Path:
    """Key and certificate for 127.0.0.1, of an authority `ca.pem` beside it: for ten days, from `ago` days ago on."""
    authority, authority_key = folder / "ca.pem", folder / "ca.key"
    new = ("-newkey", "rsa:2048", "-nodes")
    if not authority.exists():
        _openssl("req", "-x509", *new, "-keyout", authority_key, "-out", authority, "-days", "60", "-subj", "/CN=tests")
    key, request, out, both = (folder / f"{name}.{ending}" for ending in ("key", "csr", "crt", "pem"))
    _openssl("req", *new, "-keyout", key, "-out", request, "-subj", "/CN=127.0.0.1")
    extra = folder / "san.cnf"
    extra.write_text("subjectAltName=IP:127.0.0.1\n", encoding="ascii")
    signed_by = ("-CA", authority, "-CAkey", authority_key, "-CAcreateserial")
    _openssl("x509", "-req", "-in", request, *signed_by, "-out", out, "-days", "10", "-extfile", extra, ago=ago)
    both.write_bytes(key.read_bytes() + out.read_bytes())
    return both


def _openssl(*words: object, ago: int = 0) -> None:
    then = ["faketime", f"{ago} days ago"] if ago else []
    subprocess.run([*then, "openssl", *map(str, words)], check=True, capture_output=True)


class Front:
    """Listens with TLS at `url`, and passes what it gets on to the proxy."""

    def __init__(self, proxy: Proxy, pem: Path) -> None:
        self._port = int(proxy.url.rpartition(":")[2])
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.num_tickets = 0  # each connection sees the certificate of now
        self.show(pem)
        self.url = ""

    def show(self, pem: Path) -> None:
        """From now on new connections are shown this certificate."""
        self._context.load_cert_chain(pem)

    async def listen(self) -> asyncio.Server:
        listening = await asyncio.start_server(self._pass, "127.0.0.1", 0, ssl=self._context)
        self.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        return listening

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        back.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(1 << 14):
            writer.write(piece)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def tls_front(proxy: Proxy, pem: Path) -> AsyncIterator[Front]:
    front = Front(proxy, pem)
    listening = await front.listen()
    try:
        yield front
    finally:
        listening.close()
